"""``/metrics`` of a real node: what it counts, in formats that Prometheus takes, and nothing from outside in it."""

import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open

from longwire.ids import new_message_id
from longwire.testing.process import NodeProcess, RawClient
from longwire.wire.packets import FLAG_RECEIPT, Ack, Push, Send, Sent

PageOf = Callable[[], dict[str, Metric]]
WITHIN_S = 30.0


def value(page: dict[str, Metric], name: str, **labels: str) -> float:
    for family in page.values():
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    raise AssertionError(f"{name} {labels} is not on the page")


def until(page: PageOf, is_so: Callable[[dict[str, Metric]], bool]) -> dict[str, Metric]:
    """The page, once it is so; it is made anew twice a second."""
    deadline = time.monotonic() + WITHIN_S
    while not is_so(found := page()):
        assert time.monotonic() < deadline, "the page does not say so"
        time.sleep(0.1)
    return found


def packets(client: RawClient, kind: type) -> Iterable[object]:
    while True:
        packet = client.next().packet
        if isinstance(packet, kind):
            yield packet


def test_promtool_finds_nothing_to_say_about_names_and_units(text: Callable[[], str]) -> None:
    found = text()
    assert found.count("\n") > 200
    done = subprocess.run(["promtool", "check", "metrics"], input=found, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_devices_do_is_counted(node: NodeProcess, page: PageOf) -> None:
    before = page()
    tokens = node.register(["metrics-a", "metrics-b"])
    with RawClient(node.port) as one, RawClient(node.port) as other:
        one.connect("metrics-a", tokens["metrics-a"])
        other.connect("metrics-b", tokens["metrics-b"])
        one.send(Send(new_message_id(), "device:metrics-b", "k", b"x" * 128), 7, FLAG_RECEIPT)
        next(iter(packets(one, Sent)))
        frame = other.next()
        assert isinstance(frame.packet, Push)
        other.send(Ack(), frame.correlation)
        now = until(page, lambda found: value(found, "longwire_acks_total", kind="message") >= 1)

    def grew(name: str, **labels: str) -> float:
        return value(now, name, **labels) - value(before, name, **labels)

    assert value(now, "longwire_connections", transport="native") == 2
    assert value(now, "longwire_connections_open") >= 2
    assert grew("longwire_connects_total") == 2
    assert grew("longwire_handshake_seconds_count") == 2
    assert grew("longwire_uplink_messages_total") == 1
    assert grew("longwire_downlink_messages_total", kind="reliable") == 1
    assert grew("longwire_receipt_latency_seconds_count") == 1
    assert grew("longwire_received_bytes_total") > 128
    assert grew("longwire_written_bytes_total") > 128
    assert grew("longwire_engine_request_seconds_count", engine="sql_commit") >= 1
    assert grew("longwire_loop_lag_seconds_count") > 0
    gone = until(page, lambda found: value(found, "longwire_connections", transport="native") == 0)
    assert (
        value(gone, "longwire_closes_total", reason="peer") - value(before, "longwire_closes_total", reason="peer") == 2
    )


def test_no_label_has_what_comes_from_outside_and_nothing_secret_is_told(
    node: NodeProcess, text: Callable[[], str], page: PageOf
) -> None:
    token = node.register(["planted-device"])["planted-device"]
    with RawClient(node.port) as client:
        client.connect("planted-device", token)
        client.send(
            Send(new_message_id(), "device:planted-nobody", "planted-kind", b"planted-payload"), 5, FLAG_RECEIPT
        )
        next(iter(packets(client, Sent)))
        found = text()
    assert "planted" not in found
    assert "127.0.0.1" not in found
    for secret in (token, *node.credentials().values()):
        assert str(secret) not in found
    series = [sample for family in page().values() for sample in family.samples]
    assert {name for sample in series for name in sample.labels} <= {
        *("door", "engine", "generation", "kind", "le", "level", "outcome", "reason", "roles", "status", "store"),
        *("transport", "version"),
    }
    assert len(series) < 1_000


def test_openmetrics_is_given_to_who_asks_for_it_and_only_as_we_write_it(node: NodeProcess, metrics_url: str) -> None:
    wanted = urllib.request.Request(metrics_url, headers={"Accept": "application/openmetrics-text;version=9.9.9"})
    with urllib.request.urlopen(wanted, timeout=10) as answer:
        assert answer.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
        assert len(list(parse_open(answer.read().decode()))) > 50


@pytest.mark.parametrize(("method", "path", "status"), [("POST", "", 405), ("GET", "/further", 404)])
def test_there_is_nothing_else(node: NodeProcess, metrics_url: str, method: str, path: str, status: int) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(metrics_url + path, method=method), timeout=10)
    assert refused.value.code == status
    refused.value.close()


def test_the_public_port_has_no_metrics(node: NodeProcess) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{node.http_url}/metrics", timeout=10)
    assert refused.value.code == 404
    refused.value.close()
