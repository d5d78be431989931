"""Peers that drip their bytes or never close: they are cut off, and the process ends in order whatever they do."""

import socket
import time

import pytest

from longwire.ids import new_message_id
from longwire.reasons import CloseCode
from longwire.testing.process import RawClient
from longwire.wire.native import encode
from longwire.wire.packets import FLAG_RECEIPT, Connect, Send

HANG_GUARD_S = 60.0


@pytest.mark.parametrize(
    "data", [encode(Connect("t" * 2_000, "d-1"), 1), b"GET /ws HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 2_000]
)
def test_handshakes_that_drip_are_cut_off_and_others_get_in(new_node, data) -> None:
    node = new_node(limits=["handshake_timeout_s=1"])
    token = node.register(["witness"])["witness"]
    drips = [socket.create_connection(("127.0.0.1", node.port), timeout=30) for _ in range(100)]
    ended: set[int] = set()
    hang_guard = time.monotonic() + HANG_GUARD_S
    for at in range(len(data) - 1):
        for n, peer in enumerate(drips):
            if n in ended:
                continue
            try:
                peer.send(data[at : at + 1])
                peer.setblocking(False)
                if peer.recv(4_096):
                    ended.add(n)  # the CLOSE, or the refusal of the upgrade
            except BlockingIOError:
                pass
            except ConnectionError:
                ended.add(n)
            finally:
                peer.setblocking(True)
        if len(ended) == len(drips):
            break
        if at == 3:
            with RawClient(node.port) as client:
                client.connect("witness", token)
        assert time.monotonic() < hang_guard
        time.sleep(0.02)
    assert len(ended) == len(drips)
    for peer in drips:
        peer.close()


def test_the_process_ends_in_order_with_status_0_although_no_peer_reads_or_closes(node) -> None:
    names = [f"d-{n}" for n in range(30)]
    tokens = node.register([*names, "away"])
    clients = [RawClient(node.port, receive_buffer=4_096) for _ in names]
    for client, name in zip(clients, names, strict=True):
        client.connect(name, tokens[name])
        client.send(Send(new_message_id(), "device:away", "k", b"x"), 1, FLAG_RECEIPT)
    half_open = socket.create_connection(("127.0.0.1", node.port), timeout=30)
    tls_like = socket.create_connection(("127.0.0.1", node.port), timeout=30)
    tls_like.sendall(b"\xa7\x10\x01")
    assert node.stop() == 0
    waits = set()
    for client in clients:
        close = client.read_close()
        assert close is not None
        assert close.code == CloseCode.DRAINING
        waits.add(close.retry_after_ms)
        client.socket.close()
    assert len(waits) > 5
    half_open.close()
    tls_like.close()
    node.start()
    with RawClient(node.port) as client:
        client.connect("away", tokens["away"])
        got = {client.next().correlation for _ in names}
    assert len(got) == len(names)
