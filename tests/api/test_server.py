"""The API behind the server it runs in: what arrives in pieces, without a length, or not at all."""

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator

import pytest
import uvicorn


@pytest.fixture
async def port(site) -> AsyncIterator[int]:
    site.settings = dataclasses.replace(site.settings, body_timeout_s=0.05)
    config = uvicorn.Config(site.build(), port=0, http="httptools", ws="none", lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0.001)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await task


async def exchange(port: int, *parts: bytes, finish: bool = True) -> tuple[int, dict[str, str], dict]:
    """Sends the parts one by one; status, headers and problem of the answer, once the server has closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for part in parts:
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(0.005)
    text = await asyncio.wait_for(reader.read() if finish else reader.readuntil(b"}"), 5)
    writer.close()
    head, _, body = text.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    return int(lines[0].split()[1]), headers, json.loads(body)


HEAD = b"POST /device/v1/register HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


async def test_a_length_above_the_limit_is_refused_before_the_body_comes(port) -> None:
    status, headers, problem = await exchange(port, HEAD + b"Content-Length: 99999999999\r\n\r\n")
    assert (status, problem["code"], headers["connection"]) == (413, "payload-too-large", "close")


async def test_chunks_above_the_limit_are_refused_while_they_come(port) -> None:
    chunk = b"8000\r\n" + b" " * 32_768 + b"\r\n"
    # The last one is small: what a server has not read when it closes becomes a reset, which may overtake the answer.
    parts = [*[chunk] * 4, b"1\r\n \r\n"]
    status, _, problem = await exchange(port, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *parts)
    assert (status, problem["code"]) == (413, "payload-too-large")


async def test_a_body_in_small_pieces_is_read_whole(port, site) -> None:
    body = json.dumps(site.registration()).encode()
    head = HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    status, headers, answer = await exchange(port, head, body[:7], body[7:50], body[50:])
    assert (status, answer["device_id"]) == (201, "d-1")
    assert headers["x-request-id"].startswith("req_")


async def test_a_body_that_stops_half_way_is_given_up(port) -> None:
    status, headers, problem = await exchange(port, HEAD + b"Content-Length: 50\r\n\r\n", b'{"app_key')
    assert (status, problem["code"], headers["connection"]) == (400, "malformed-json", "close")


async def test_a_client_that_goes_away_half_way_is_no_error_of_ours(port, site, caplog) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(HEAD + b"Content-Length: 50\r\n\r\n{")
    await writer.drain()
    await asyncio.sleep(0.02)
    writer.close()
    await asyncio.sleep(0.1)
    assert caplog.records == []
