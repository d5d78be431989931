"""The first byte: which protocol it is, and silence towards what is none."""

import asyncio

import pytest

from longwire.reasons import CloseCode


async def open_raw(shore):
    reader, writer = await asyncio.open_connection("127.0.0.1", shore.listeners[-1].port)
    return reader, writer


async def end_of(reader) -> bytes:
    try:
        return await asyncio.wait_for(reader.read(-1), 20)
    except ConnectionError:
        return b""


@pytest.mark.parametrize("first", sorted(set(range(256)) - {0xA7} - set(b"GHPDOCT")))
async def test_a_first_byte_of_no_known_protocol_is_dropped_without_a_word(shore, first) -> None:
    reader, writer = await open_raw(shore)
    writer.write(bytes([first]) + b"and more")
    assert await end_of(reader) == b""
    writer.close()
    assert not shore.port.open
    assert shore.owner.closes == []


async def test_nothing_sent_within_the_deadline_is_dropped_without_a_word(shore) -> None:
    reader, writer = await open_raw(shore)
    await shore.until(lambda: shore.port.open)
    shore.pass_time(4)
    await asyncio.sleep(0.01)
    assert shore.port.open
    shore.pass_time(1)
    assert await end_of(reader) == b""
    writer.close()
    await shore.until(lambda: not shore.port.open)
    assert shore.owner.closes == []


async def test_the_deadline_is_one_for_the_first_byte_and_what_follows(shore) -> None:
    peer = await shore.peer()
    await shore.until(lambda: shore.port.open)
    shore.pass_time(4)
    peer.raw(b"\xa7")
    await shore.until(lambda: shore.port.bytes_in == 1)
    shore.pass_time(1)
    assert (await peer.ended()).code == CloseCode.HANDSHAKE_TIMEOUT


async def test_a_peer_that_goes_before_its_first_byte_leaves_nothing(shore) -> None:
    peer = await shore.peer()
    await shore.until(lambda: shore.port.open)
    await peer.drop()
    await shore.until(lambda: not shore.port.open)
    shore.pass_time(10)
    assert all(not slot for slot in shore.wheel._slots)


@pytest.mark.parametrize("code", [CloseCode.OVERLOADED, CloseCode.DRAINING])
async def test_who_is_turned_away_is_told_in_its_own_protocol(shore, flavour, code) -> None:
    shore.port.admit = lambda connection, transport: (code, "not now")
    if flavour == "native":
        peer = await shore.peer()
        peer.raw(b"\xa7")
        close = await peer.ended()
        assert (close.code, close.reason) == (code, "not now")
        assert close.retry_after_ms >= 100
    else:
        reader, writer = await open_raw(shore)
        writer.write(b"GET /ws HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = (await end_of(reader)).decode()
        assert answer.startswith("HTTP/1.1 503 ")
        assert "not now" in answer
        assert "Retry-After: " in answer
        writer.close()
    assert shore.owner.closes == [code]
    assert shore.owner.received_frames == []


async def test_the_bytes_that_came_with_the_first_are_not_lost(shore, flavour) -> None:
    await shore.proved(flavour)
    assert len(shore.owner.received_frames) == 1
