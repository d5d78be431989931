"""Bytes that no device sends: none of them may stop the node or lock a device out."""

import random
import socket
import threading

import pytest

from longwire.ids import new_message_id
from longwire.reasons import CloseCode, Status
from longwire.testing.process import NodeProcess, RawClient
from longwire.wire.native import encode
from longwire.wire.packets import FLAG_RECEIPT, Close, Connect, Ping, Pong, Push, Send, Sent

_GROWTH = 64 << 20


def serves(node: NodeProcess) -> bool:
    """Whether a device can still connect and be answered."""
    token = node.register(["witness"])["witness"]
    with RawClient(node.port) as client:
        client.connect("witness", token)
        client.send(Ping(), 9)
        frame = client.next()
        return isinstance(frame.packet, Pong) and frame.correlation == 9


def throw(node: NodeProcess, data: bytes) -> None:
    with socket.create_connection(("127.0.0.1", node.port), timeout=30) as peer:
        try:
            peer.sendall(data)
            peer.shutdown(socket.SHUT_WR)
            while peer.recv(65_536):
                pass
        except ConnectionError:
            pass


def test_random_truncated_and_mutated_bytes_leave_the_node_serving(node) -> None:
    rng = random.Random(20_261)
    whole = encode(Connect("t", "d-1"), 1) + encode(Send(new_message_id(), "device:d-2", "k", b"x" * 300), 2, 2)
    for n in range(300):
        match n % 4:
            case 0:
                data = rng.randbytes(rng.randrange(1, 2_000))
            case 1:
                data = whole[: rng.randrange(1, len(whole))]
            case 2:
                at = rng.randrange(len(whole))
                data = whole[:at] + bytes([rng.randrange(256)]) + whole[at + 1 :]
            case _:
                data = b"GET /ws HTTP/1.1\r\n" + rng.randbytes(rng.randrange(1, 9_000))
        throw(node, data)
    assert serves(node)
    assert "Traceback" not in node.log.read_text(errors="replace")


def test_an_endless_frame_and_an_endless_header_take_no_memory(node) -> None:
    before = node.resident_bytes()
    throw(node, b"\xa7\x10\x01\x00\xff\xff\xff\xff\x00\x00\x00\x01" + b"x" * (4 << 20))
    throw(node, b"GET /ws HTTP/1.1\r\nX: " + b"x" * (4 << 20))
    assert node.resident_bytes() - before < _GROWTH
    assert serves(node)


@pytest.mark.parametrize("count", [1_000, pytest.param(10_000, marks=pytest.mark.chaos)])
def test_half_open_connections_are_ended_and_others_get_in_meanwhile(new_node, count) -> None:
    node = new_node(limits=["handshake_timeout_s=2"])
    before = node.resident_bytes()
    opened = [socket.create_connection(("127.0.0.1", node.port), timeout=30) for _ in range(count)]
    try:
        for n, peer in enumerate(opened):
            if n % 3:
                peer.sendall((b"", b"\xa7\x10\x01", b"GET /ws HT")[n % 3])
        assert serves(node)
        assert node.resident_bytes() - before < _GROWTH
        for peer in opened:
            while peer.recv(4_096):
                pass
    finally:
        for peer in opened:
            peer.close()
    assert serves(node)


def test_a_peer_that_never_reads_is_closed_as_a_slow_consumer_and_costs_little(node) -> None:
    tokens = node.register(["deaf", "loud"])
    with RawClient(node.port, receive_buffer=4_096) as deaf, RawClient(node.port) as loud:
        deaf.connect("deaf", tokens["deaf"])
        loud.connect("loud", tokens["loud"])
        before = node.resident_bytes()
        # What it is sent is dropped; what it asks for and does not read is what closes it.
        request = Send(new_message_id(), "device:nobody-knows", "k", b"")
        flood = b"".join(encode(Ping(), n) for n in range(5_000))
        ended = threading.Event()

        def ask() -> None:
            try:
                while True:
                    deaf.socket.sendall(flood)
            except OSError:
                ended.set()

        asker = threading.Thread(target=ask, daemon=True)
        asker.start()
        for n in range(2_000):
            loud.send(Send(new_message_id(), "device:deaf", "k", b"x" * 4_000), n)
        assert ended.wait(60)
        asker.join(10)
        assert node.resident_bytes() - before < _GROWTH
        loud.send(request, 77, FLAG_RECEIPT)
        while not isinstance((frame := loud.next()).packet, Sent):
            pass
        assert frame.correlation == 77
    assert serves(node)


def test_a_client_that_pipelines_a_hundred_thousand_sends_gets_an_answer_to_each(node) -> None:
    tokens = node.register(["hasty", "target"])
    count = 100_000
    before = node.resident_bytes()
    with RawClient(node.port) as hasty:
        hasty.connect("hasty", tokens["hasty"])

        def pour() -> None:
            for at in range(0, count, 1_000):
                frames = (
                    encode(Send(new_message_id(), "device:target", "k", b"x" * 64), n, FLAG_RECEIPT)
                    for n in range(at, at + 1_000)
                )
                hasty.socket.sendall(b"".join(frames))

        pourer = threading.Thread(target=pour, daemon=True)
        pourer.start()
        answered: dict[int, int] = {}
        while len(answered) < count:
            frame = hasty.next()
            if isinstance(frame.packet, Sent):
                assert frame.correlation not in answered
                answered[frame.correlation] = frame.packet.status
        pourer.join(10)
    assert set(answered.values()) <= {Status.OK, Status.RATE_LIMITED, Status.OVERLOADED}
    assert Status.OK in answered.values()
    assert node.resident_bytes() - before < 2 * _GROWTH
    assert serves(node)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\xa7\x10\x10\x00\x00\x00\x00\x02\x00\x00\x00\x01\xc1\xc1", CloseCode.PROTOCOL_ERROR),
        (b"\xa7\x10\x10\x00\x00\x10\x00\x00\x00\x00\x00\x01", CloseCode.TOO_LARGE),
        (b"\xa7\x20\x10\x00\x00\x00\x00\x00\x00\x00\x00\x01", CloseCode.UNSUPPORTED),
    ],
)
def test_a_fault_closes_with_its_code_and_locks_nobody_out(node, data, code) -> None:
    token = node.register(["clumsy"])["clumsy"]
    with RawClient(node.port) as client:
        client.connect("clumsy", token)
        client.socket.sendall(data)
        close = client.read_close()
        assert isinstance(close, Close)
        assert close.code == code
        assert close.retry_after_ms >= 60_000
    with RawClient(node.port) as client:
        client.connect("clumsy", token)
        client.send(Send(new_message_id(), "device:clumsy", "k", b"to myself"), 5)
        assert isinstance(client.next().packet, Push)
