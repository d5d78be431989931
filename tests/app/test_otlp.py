"""Hops as spans, at a real collector in this process, and at one that is away."""

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from longwire import __version__
from longwire.app import otlp
from longwire.app.engines import StartFailed
from longwire.app.otlp import OtlpTell
from longwire.app.run import Process
from longwire.app.settings import load
from longwire.application import Longwire
from longwire.testing.engines import free_ports
from longwire.testing.spans import SpanCollector
from longwire.traces import Traces

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
GIVEN = bytes.fromhex(TRACE_ID + "00f067aa0ba902b7")
CLIENT, PRODUCER = 3, 4  # OpenTelemetry's numbers in a span
WITHIN_S = 30.0


@pytest.fixture
def collector() -> Iterator[SpanCollector]:
    with SpanCollector() as collector:
        yield collector


def until(is_so) -> None:
    over = time.monotonic() + WITHIN_S
    while not is_so():
        assert time.monotonic() < over
        time.sleep(0.01)


def telling(tell: OtlpTell) -> tuple[Traces, bytes]:
    traces = Traces(tells=[tell], most_per_s=1_000_000)
    return traces, traces.enter(GIVEN, is_trusted=True, says_sampled=True)


def test_hops_come_as_spans_of_one_trace(collector) -> None:
    tell = OtlpTell(collector.url, {"x-tenant": "a b"}, {"service.name": "longwire", "service.instance.id": "n1~1"})
    traces, trace = telling(tell)
    tell.start()
    traces.hop("message.accepted", trace, parent=GIVEN[16:], seq=7)
    traces.hop("link.forward", trace, is_error=True, to_node="n2~1")
    tell.stop()
    entry, forward = collector.of(TRACE_ID)
    assert (entry.name, entry.span_id, entry.parent_id) == ("message.accepted", trace[16:].hex(), "00f067aa0ba902b7")
    assert (entry.facts, entry.is_error) == ({"longwire.seq": 7}, False)
    assert (forward.parent_id, forward.kind, forward.is_error) == (entry.span_id, CLIENT, True)
    assert forward.facts == {"longwire.to_node": "n2~1"}
    assert entry.resource["service.instance.id"] == "n1~1"
    assert collector.headers["x-tenant"] == "a b"
    assert abs(entry.began_ns - time.time_ns()) < 60e9
    assert (tell.sent, tell.dropped) == (2, 0)


def test_a_url_with_a_path_is_asked_there(collector) -> None:
    tell = OtlpTell(f"{collector.url}/elsewhere", {}, {})
    traces, trace = telling(tell)
    tell.start()
    traces.hop("message.acked", trace)
    tell.stop()
    assert (tell.sent, tell.dropped, collector.spans) == (0, 1, [])


def test_a_collector_that_is_away_holds_nobody_up_and_what_it_misses_is_counted_and_said_once(
    monkeypatch, caplog
) -> None:
    monkeypatch.setattr(otlp, "_EXPORT_WITHIN_S", 0.2)
    monkeypatch.setattr(otlp, "_EVERY_S", 0.01)
    (port,) = free_ports(1)
    tell = OtlpTell(f"http://127.0.0.1:{port}", {}, {})
    traces, trace = telling(tell)
    tell.start()
    with caplog.at_level(logging.WARNING):
        for count in (1, 2):
            traces.hop("message.written", trace)
            until(lambda count=count: tell.dropped == count)
        tell.stop()
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert lines == ["the collector of traces (setting otlp_url) does not take spans; 1 are dropped"]


def test_a_full_queue_drops_and_counts(collector) -> None:
    tell = OtlpTell(collector.url, {}, {})  # not started: nobody takes anything out
    traces, trace = telling(tell)
    for _ in range(5_000):
        traces.hop("message.written", trace)
    assert tell.dropped == 5_000 - 4_096
    tell.start()
    until(lambda: tell.sent == 4_096)
    traces.hop("message.written", trace)
    until(lambda: tell.sent == 4_097)
    tell.stop()
    assert len(collector.of(TRACE_ID)) == 4_097


def test_a_stop_sends_what_waits(collector) -> None:
    tell = OtlpTell(collector.url, {}, {})
    traces, trace = telling(tell)
    tell.start()
    for _ in range(600):
        traces.hop("message.written", trace)
    tell.stop()
    assert len(collector.spans) == 600
    assert not any(thread.name == "longwire-otlp" for thread in threading.enumerate())


def a_process(folder: Path, **flags: object) -> Process:
    own = {"data_dir": folder / "data", "port": 0, "http_port": 0, "internal_port": 0}
    return Process(load(own | flags, {}).settings, Longwire())


@pytest.mark.parametrize("headers", ["nothing", "=x", "a=b,c"])
def test_headers_that_are_none_are_told_at_the_start(tmp_path, collector, headers) -> None:
    with pytest.raises(StartFailed, match="otlp_headers is not of the form"):
        a_process(tmp_path, otlp_url=collector.url, otlp_headers=headers)


async def test_a_call_of_the_api_is_one_trace_with_what_it_makes(tmp_path, collector) -> None:
    process = a_process(tmp_path, otlp_url=collector.url, otlp_headers="x-tenant = one")
    addresses = await process.start()
    _, key = await process.system.api_keys.create("test", ["admin"])
    headers = {"authorization": f"Bearer {key}", "traceparent": f"00-{TRACE_ID}-00f067aa0ba902b7-01"}
    async with httpx.AsyncClient(base_url=addresses.http_url, headers=headers) as api:
        made = await api.post("/v1/devices/batch", json={"items": [{"device_id": "d-1"}]})
        assert made.status_code < 300, made.text
        sent = await api.post("/v1/messages", json={"to": "device:d-1", "kind": "news"})
        assert sent.status_code == 202, sent.text
        untold = await api.post(
            "/v1/messages",
            json={"to": "device:d-1", "kind": "news"},
            headers={"traceparent": f"00-{TRACE_ID}-00f067aa0ba902b7-00"},
        )
    assert sent.headers["traceparent"].endswith("-01")
    assert untold.headers["traceparent"].endswith("-00")
    assert sent.headers["traceparent"][:35] == f"00-{TRACE_ID}"
    await process.stop()
    spans = {span.name: span for span in collector.of(TRACE_ID)}
    assert set(spans) == {"api.call", "message.accepted", "message.waiting"}
    call = spans["api.call"]
    assert call.span_id == sent.headers["traceparent"][36:52]
    assert call.parent_id == "00f067aa0ba902b7"
    assert {spans[name].parent_id for name in ("message.accepted", "message.waiting")} == {call.span_id}
    assert call.facts["longwire.route"] == "/v1/messages"
    assert call.resource["service.version"] == __version__
    assert call.resource["service.instance.id"] == process.system.node.node_id
    assert collector.headers["x-tenant"] == "one"


async def test_a_mark_set_by_the_api_is_told_in_the_log_without_a_restart(tmp_path, caplog) -> None:
    process = a_process(tmp_path)
    addresses = await process.start()
    _, key = await process.system.api_keys.create("test", ["admin"])
    async with httpx.AsyncClient(base_url=addresses.http_url, headers={"authorization": f"Bearer {key}"}) as api:
        await api.post("/v1/devices/batch", json={"items": [{"device_id": "d-1"}]})
        assert (await api.post("/v1/marks", json={"device_id": "d-1"})).status_code == 201
        async with asyncio.timeout(WITHIN_S):
            while not process.system.traces.has_marks:
                await asyncio.sleep(0.01)
        with caplog.at_level(logging.INFO):
            sent = await api.post("/v1/messages", json={"to": "device:d-1", "kind": "news"})
            pushed = await api.post("/v1/pushes", json={"audience": {"all": True}, "message": {"kind": "news"}})
    await process.stop()
    told = [record for record in caplog.records if record.name == "longwire.hops"]
    assert [record.getMessage().partition(" ")[0] for record in told] == [
        "message.accepted",
        "message.waiting",
        "api.call",
        "push.accepted",
        "api.call",
    ]
    ids = [answer.headers["x-request-id"].removeprefix("req_") for answer in (sent, pushed)]
    assert [record.__dict__["trace.id"] for record in told] == [ids[0]] * 3 + [ids[1]] * 2, "the requests' ids"
