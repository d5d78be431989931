"""A request's head is bounded in time and in bytes, whatever a stranger sends."""

import asyncio
import socket

import pytest
from fastapi import FastAPI

from longwire.app.http_server import BoundedHeadProtocol, HttpServer

HEAD = b"GET /hello HTTP/1.1\r\nhost: x\r\n"


@pytest.fixture
async def port():
    api = FastAPI()

    @api.get("/hello")
    async def hello() -> str:
        return "hello"

    @api.post("/hello")
    async def take(body: dict[str, str]) -> int:
        return len(body)

    server = HttpServer(api, "127.0.0.1", 0)
    await server.start()
    yield server.port
    await server.stop()


async def answer_to(port: int, *parts: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        return await asyncio.wait_for(reader.read(), 5)
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_a_request_in_pieces_is_answered(port: int) -> None:
    pieces = [bytes((byte,)) for byte in HEAD + b"connection: close\r\n\r\n"]
    assert (await answer_to(port, *pieces)).startswith(b"HTTP/1.1 200")


async def test_a_head_that_does_not_end_is_turned_away(port: int) -> None:
    endless = [b"x-%d: " % n + b"y" * 4_000 + b"\r\n" for n in range(200)]
    # Closing with bytes unread resets the connection: the answer may be lost on its way.
    assert b"200 OK" not in await answer_to(port, HEAD, *endless, b"connection: close\r\n\r\n")
    assert (await answer_to(port, HEAD + b"connection: close\r\n\r\n")).startswith(b"HTTP/1.1 200")


async def test_a_head_that_does_not_come_in_time_is_answered_408(port: int, monkeypatch) -> None:
    monkeypatch.setattr(BoundedHeadProtocol, "head_within_s", 0.05)
    assert (await answer_to(port)).startswith(b"HTTP/1.1 408")
    assert (await answer_to(port, HEAD)).startswith(b"HTTP/1.1 408")


async def test_the_next_request_of_a_connection_has_a_deadline_of_its_own(port: int, monkeypatch) -> None:
    monkeypatch.setattr(BoundedHeadProtocol, "head_within_s", 0.05)
    answers = await answer_to(port, HEAD + b"\r\n", b"GET /hello")
    assert answers.startswith(b"HTTP/1.1 200")
    assert b"HTTP/1.1 408" in answers


async def test_a_body_larger_than_a_head_may_be_is_no_head(port: int) -> None:
    body = b'{"a": "' + b"b" * 100_000 + b'"}'
    head = b"POST /hello HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nconnection: close\r\n"
    request = head + b"content-length: %d\r\n\r\n" % len(body) + body
    assert (await answer_to(port, request)).startswith(b"HTTP/1.1 200")


async def test_an_answer_in_two_writes_does_not_wait_for_the_clients_acknowledgement() -> None:
    server = HttpServer(FastAPI(), "127.0.0.1", 0)
    with socket.create_connection(("127.0.0.1", server.port)):
        accepted, _ = server._socket.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    await server.stop()
