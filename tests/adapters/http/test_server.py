"""Calls between nodes on real sockets: who is let in, what is refused, and what the caller is told."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator

import msgspec
import pytest
from couriers import SECRET, RecordingNode, info, message
from pyroaring import BitMap

from longwire.adapters.http import LinkClient, LinkFailed, LinkServer, wire
from longwire.app.http_server import HttpServer
from longwire.model import NodeInfo
from longwire.ports.link import Called, Forward, Taken
from longwire.reasons import Status


@contextlib.asynccontextmanager
async def served(node: RecordingNode, secret: str = SECRET) -> AsyncIterator[tuple[NodeInfo, LinkServer]]:
    link = LinkServer(node, secret)
    server = HttpServer(link, "127.0.0.1", 0)
    await server.start()
    try:
        yield info(node.node_id, f"http://127.0.0.1:{server.port}"), link
    finally:
        await link.stop()
        await server.stop()


@pytest.fixture
async def client() -> AsyncIterator[LinkClient]:
    made = LinkClient(SECRET)
    yield made
    await made.stop()


def forwards(*receivers: int) -> bytes:
    return wire.encode([Forward(message(1), receivers, 1)])


async def raw(node: NodeInfo, request: bytes) -> bytes:
    """What the server says to these bytes, until it closes or has answered."""
    host, _, port = node.internal_url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    async with asyncio.timeout(5):
        answer = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return answer


def request(name: str, body: bytes, *, node_id: str = "a", signature: str | None = None, version: int = 1) -> bytes:
    signature = wire.sign(SECRET.encode(), name, node_id, body) if signature is None else signature
    return (
        f"POST /link/{version}/{name} HTTP/1.1\r\nhost: x\r\nauthorization: Longwire {signature}\r\n"
        f"longwire-node: {node_id}\r\nlongwire-within-ms: 1000\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode() + body


async def test_one_connection_serves_call_after_call(client: LinkClient) -> None:
    node = RecordingNode("a", {1})
    async with served(node) as (there, _):
        for _ in range(50):
            answer = await client.post(there, "forward", forwards(1, 2), 2.0)
            assert wire.decoder(list[Taken]).decode(answer) == [Taken((2,))]
        assert len(client._peers[there.internal_url]._idle) == 1
    assert len(node.arrived) == 50


async def test_calls_at_once_take_no_more_connections_than_they_may() -> None:
    client = LinkClient(SECRET, max_connections_per_node=4)
    node = RecordingNode("a", {1}, answer_after_s=0.01)
    call = wire.encode(wire.Call(1, b"c", "read", b"", 500))
    async with served(node) as (there, _):
        await asyncio.gather(*(client.post(there, "call", call, 5.0) for _ in range(40)))
        assert len(client._peers[there.internal_url]._idle) == 4
    await client.stop()


async def test_another_secret_is_refused_before_the_body_is_read_as_anything(
    client: LinkClient, caplog: pytest.LogCaptureFixture
) -> None:
    node = RecordingNode("a", {1})
    async with served(node, "another secret of another cluster") as (there, _):
        for _ in range(3):
            with pytest.raises(LinkFailed) as caught:
                await client.post(there, "forward", forwards(1), 2.0)
            assert not caught.value.was_sent
    assert node.arrived == []
    refusals = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.getMessage() for record in refusals] == [
        "node a refuses our cluster_secret; all processes need the same (setting cluster_secret)"
    ]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /link/1/forward HTTP/1.1\r\nhost: x\r\n\r\n", 405),
        (b"POST /link/1/forward HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n", 401),
        (request("forward", forwards(1), signature="0" * 64), 401),
        (request("forward", forwards(1), signature="é" * 32), 401),
        (request("forward", forwards(1), node_id="b"), 421),
        (request("forward", forwards(1), version=9), 404),
        (request("sing", b"\x90"), 404),
        (request("forward", b"\xc1"), 400),
        (request("nudge", wire.encode([b"no bitmap"])), 400),
        (request("forward", b"").replace(b"content-length: 0", b"content-length: 99999999"), 413),
        (request("forward", b"").replace(b"within-ms: 1000", b"within-ms: never"), 400),
    ],
)
async def test_what_is_not_a_call_of_this_cluster_is_refused(sent: bytes, status: int) -> None:
    node = RecordingNode("a", {1})
    async with served(node) as (there, _):
        assert (await raw(there, sent)).startswith(f"HTTP/1.1 {status} ".encode())
    assert node.arrived == node.batches == []


async def test_a_process_that_came_back_as_another_node_takes_nothing(client: LinkClient) -> None:
    node = RecordingNode("a-2", {1})
    async with served(node) as (there, _):
        with pytest.raises(LinkFailed, match="421: this is node a-2") as caught:
            await client.post(info("a", there.internal_url), "forward", forwards(1), 2.0)
    assert not caught.value.was_sent
    assert node.arrived == []


async def test_a_newer_caller_s_further_arguments_are_passed_over(client: LinkClient) -> None:
    node = RecordingNode("a", {1})
    told = msgspec.to_builtins(message(1), builtin_types=(bytes,))
    newer = msgspec.msgpack.encode([[{**told, "colour": "red"}, [1], 5, "later", 1.5]])
    async with served(node) as (there, _):
        await client.post(msgspec.structs.replace(there, link_version=2), "forward", newer, 2.0)
        asked = msgspec.msgpack.encode([b"", "later"])
        assert wire.decoder(BitMap).decode(await client.post(there, "nudge", asked, 2.0)) == BitMap()
    assert node.arrived == [(1, 5, 1)]


async def test_a_node_that_does_not_answer_is_given_up_in_time(client: LinkClient) -> None:
    node = RecordingNode("a", {1}, answer_after_s=30.0)
    call = wire.encode(wire.Call(1, b"c", "read", b"", 60_000))
    async with served(node) as (there, _):
        began = time.monotonic()
        with pytest.raises(LinkFailed) as caught:
            await client.post(there, "call", call, 0.2)
        assert caught.value.was_sent
        assert time.monotonic() - began < 2


async def test_the_deadline_is_handed_on() -> None:
    node = RecordingNode("a", {1}, answer_after_s=30.0)
    call = request("call", wire.encode(wire.Call(1, b"c", "read", b"", 60_000))).replace(b"ms: 1000", b"ms: 100")
    async with served(node) as (there, _):
        assert (await raw(there, call)).startswith(b"HTTP/1.1 504 ")


async def test_a_node_that_is_not_there_has_got_nothing(client: LinkClient) -> None:
    for url in ("http://127.0.0.1:1", "", "gopher://x", "http://[::"):
        with pytest.raises(LinkFailed) as caught:
            await client.post(info("a", url), "forward", b"", 2.0)
        assert not caught.value.was_sent


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", b"\x00\x01 what\r\n\r\n"])
async def test_a_node_that_dies_in_the_midst_of_an_answer_may_have_got_it(client: LinkClient, said: bytes) -> None:
    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(die, "127.0.0.1", 0)
    async with server:
        there = info("a", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        with pytest.raises(LinkFailed) as caught:
            await client.post(there, "forward", forwards(1), 2.0)
    assert caught.value.was_sent


async def test_a_connection_that_the_node_closed_meanwhile_is_not_used_again(client: LinkClient) -> None:
    node = RecordingNode("a", {1})
    async with served(node) as (there, _):
        await client.post(there, "forward", forwards(1), 2.0)
        [kept] = client._peers[there.internal_url]._idle
        kept.close()
        await client.post(there, "forward", forwards(1), 2.0)
    assert len(node.arrived) == 2


async def test_a_server_that_stops_answers_503_and_lets_calls_end(client: LinkClient) -> None:
    node = RecordingNode("a", {1}, answer_after_s=0.1)
    call = wire.encode(wire.Call(1, b"c", "read", b"", 5_000))
    async with served(node) as (there, link):
        running = asyncio.create_task(client.post(there, "call", call, 5.0))
        while not link._running:
            await asyncio.sleep(0.005)
        await link.stop()
        assert wire.decoder(Called).decode(await running).status is Status.OK
        with pytest.raises(LinkFailed, match="503: this node stops"):
            await client.post(there, "forward", forwards(1), 2.0)


async def test_a_failure_inside_is_told_and_logged(
    client: LinkClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = RecordingNode("a", {1})

    async def fail(_devices: BitMap) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(node, "catch_up", fail)
    async with served(node) as (there, _):
        with pytest.raises(LinkFailed) as caught:
            await client.post(there, "catch_up", wire.encode(wire.Devices(BitMap([1]))), 2.0)
    assert caught.value.was_sent
    assert "catch_up" in caplog.text
