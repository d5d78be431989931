"""What travels between devices, applications and operators when each is on another node."""

import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from cluster_house import a_cluster, handled

from longwire.client import Message, Offline
from longwire.ids import message_id_text
from longwire.reasons import Status
from longwire.testing.cluster import Mesh


def on_each(number: int) -> int:
    """Member n is on gateway n, and the fourth on the first again."""
    return number % 3


@pytest.fixture
def spread(cluster, prefix):
    """Six devices, two on each of three gateways."""
    with Mesh(cluster, 6, prefix=prefix, via=on_each) as mesh:
        yield mesh


def test_messages_between_nodes_arrive_once_and_in_order_beside_uplink_and_pushes(cluster, spread) -> None:
    with spread.talking(300):
        spread.wait_talked(500)
        spread.push()
        spread.wait_talked(500)
        spread.push(number=1)
        spread.wait_talked(1_000)
    spread.check()
    cluster.routes_equal_nodes()
    assert {device.node_id for device in spread.devices} == {node["node_id"] for node in cluster.nodes()}


def test_users_and_groups_have_devices_on_every_node(cluster, spread, prefix) -> None:
    for number in (1, 2, 4):
        cluster.call("PUT", f"/v1/devices/{spread.name(number)}/user", json={"user": f"{prefix}-ann"})
    group = f"{prefix}-group"
    members = [{"device": spread.name(number)} for number in range(4)]
    cluster.call("POST", "/v1/groups", json={"group_id": group})
    cluster.call("POST", f"/v1/groups/{group}/members", json={"add": members})
    sender = spread.devices[0]
    for number in range(50):
        spread.run(sender.send(f"user:{prefix}-ann", str(number), "to-user"))
        spread.run(sender.send(f"group:{group}", str(number), "to-group"))
    for kind, receivers in {"to-user": (1, 2, 4), "to-group": (1, 2, 3)}.items():
        for receiver in receivers:
            given = spread.wait_given(receiver, kind, 50)
            assert [message.text() for message in given] == [str(number) for number in range(50)]


def test_without_a_receipt_and_for_now_only_reaches_who_is_online_elsewhere(cluster, spread, prefix) -> None:
    sender = spread.devices[0]
    cluster.register([f"{prefix}-away"])
    spread.run(sender.send(f"device:{spread.name(1)}", "1", "once", receipt=False))
    spread.wait_given(1, "once")
    sent = spread.run(sender.send(f"device:{spread.name(2)}", "2", "now", ttl_s=0))
    assert sent.status is Status.OK
    spread.wait_given(2, "now")
    with pytest.raises(Offline):
        spread.run(sender.send(f"device:{prefix}-away", "3", "now", ttl_s=0))


def test_the_api_waits_for_acknowledgements_given_on_other_nodes(cluster, spread) -> None:
    for number, member in enumerate((0, 1, 2)):
        body = {"to": {"device": spread.name(member)}, "kind": "told", "payload": 7, "wait_ack_ms": 20_000}
        answer = cluster.call("POST", "/v1/messages", number=number % 2, json=body)
        assert (answer["acked"], answer["delivered_to"]) == (True, [spread.name(member)])


def test_a_command_finds_its_device_and_says_at_once_that_there_is_none(cluster, spread, prefix) -> None:
    @spread.devices[2].method("double")
    async def double(number: int) -> bytes:
        return str(2 * number).encode()

    body = {"method": "double", "payload": 21, "timeout_ms": 20_000, "mode": "sync"}
    assert cluster.call("POST", f"/v1/devices/{spread.name(2)}/commands", json=body)["payload"] == 42
    cluster.register([f"{prefix}-away"])
    answer = cluster.api(1).post(f"/v1/devices/{prefix}-away/commands", json=body)
    assert (answer.status_code, answer.json()["code"]) == (409, "device-offline")


def test_presence_names_the_node_whichever_api_is_asked(cluster, spread) -> None:
    wanted = {device.device_id: device.node_id for device in spread.devices}
    for number in range(2):
        told = cluster.call("POST", "/v1/presence/query", number=number, json={"devices": list(wanted)})["items"]
        assert {one["device_id"]: one["node_id"] for one in told} == wanted
        assert all(one["online"] for one in told)


def test_a_withdrawn_push_is_told_on_every_node(cluster, spread) -> None:
    notices: list[tuple[int, Message]] = []
    for number, device in enumerate(spread.devices):
        device.on("longwire.withdrawn")(lambda notice, number=number: notices.append((number, notice)))
    push = spread.push()
    spread.check_pushes()
    (name,) = {message_id_text(spread.wait_given(number, spread.pushes[push])[0].message_id) for number in range(6)}
    cluster.call("POST", f"/v1/pushes/{push}/withdraw", number=1)
    cluster.wait_until(lambda: len(notices) >= 6, "each device is told")
    assert sorted(number for number, _ in notices) == list(range(6))
    assert all((notice.sender, notice.json()) == ("", {"message_id": name}) for _, notice in notices)
    assert cluster.call("GET", f"/v1/pushes/{push}")["status"] == "withdrawn"


def test_uplink_reaches_handlers_and_what_they_refuse_is_replayed(cluster, spread) -> None:
    refuses = Path(f"{cluster.folder / 'handled'}.refuses")
    refuses.touch()
    sender = spread.devices[0]
    spread.run(sender.send("", "dead", "refused"))
    letters = []

    def buried() -> bool:
        letters[:] = [
            letter
            for letter in cluster.call("GET", "/v1/dead-letters")["items"]
            if letter["device_id"] == sender.device_id
        ]
        return bool(letters)

    cluster.wait_until(buried, "there is a dead letter")
    refuses.unlink()
    cluster.call("POST", f"/v1/dead-letters/{letters[0]['letter_id']}/replay", number=1)
    call = ["refused", sender.device_id, "dead"]
    cluster.wait_until(lambda: call in handled(cluster, "uplink"), "the replayed message is handled")


@pytest.mark.chaos
def test_two_sinks_deliver_a_webhooks_batch_once(tmp_path, standing) -> None:
    got: list[dict[str, object]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.extend(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["events"])
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    settings = {"LONGWIRE_WEBHOOK_PRIVATE_ADDRESSES": "true"}
    try:
        with (
            a_cluster(tmp_path, standing.engines(), gateways=2, sinks=2, settings=settings) as cluster,
            Mesh(cluster, 6) as mesh,
        ):
            body = {"url": f"http://127.0.0.1:{server.server_port}/", "kinds": ["uplink"]}
            cluster.call("POST", "/v1/webhooks", json=body)

            def is_told() -> bool:
                mesh.write(0)
                return bool(got)

            cluster.wait_until(is_told, "events come")
            with mesh.talking(100, uplink=1.0):
                mesh.wait_talked(500)
            mesh.check()
            cluster.wait_until(lambda: len(got) >= 500, "the events have come")
            assert not [event for event, count in Counter(one["id"] for one in got).items() if count > 1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
