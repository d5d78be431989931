"""A connection: how it writes, closes, lingers and is bounded, whatever it speaks."""

import gc

import pytest
from raw_peer import JSON, NATIVE

from longwire.limits import Limits
from longwire.net.connection import Flavour, encode
from longwire.reasons import CloseCode
from longwire.wire.packets import FLAG_RECEIPT, Close, Ping, Pong, Push


@pytest.fixture
def limits() -> Limits:
    return Limits(high_water_bytes=20_000, max_unsent_bytes=200_000)


PUSH = Push(bytes(16), "k", "device:d", b'"x"', 1)


async def test_a_packet_is_written_in_the_connections_own_flavour(shore, flavour) -> None:
    peer, connection = await shore.proved(flavour)
    connection.send(PUSH, 7, FLAG_RECEIPT, b"t" * 24)
    connection.write(encode(connection.flavour, Pong(), 8))
    frame = await peer.push()
    assert (frame.packet, frame.correlation, frame.wants_receipt, frame.trace) == (PUSH, 7, True, b"t" * 24)
    await peer.get(Pong, 8)


async def test_bytes_are_counted_both_ways(shore) -> None:
    peer, connection = await shore.proved()
    connection.send(Pong(), 1)
    await peer.get(Pong)
    assert (shore.port.bytes_in, shore.port.bytes_out) == (12, 12)


@pytest.mark.parametrize("code", list(CloseCode))
async def test_a_close_is_told_with_its_code_and_ends_the_stream(shore, flavour, code) -> None:
    peer, connection = await shore.proved(flavour)
    connection.close(code, "because")
    assert connection.is_closing
    assert connection.session is None
    assert shore.owner.closes == [code]
    close = await peer.ended()
    assert (close.code, close.reason, close.may_reconnect) == (code, "because", code < 4100)
    if code >= 4100:
        assert close.retry_after_ms == 0
    elif 4009 <= code <= 4011:
        assert close.retry_after_ms >= 60_000
    else:
        assert 100 <= close.retry_after_ms <= 100 + shore.port.limits.retry_jitter_ms
    await shore.until(lambda: not shore.port.open)
    assert shore.owner.closes == [code]


async def test_a_close_without_a_reason_says_the_codes_name(shore) -> None:
    peer, connection = await shore.proved()
    connection.close(CloseCode.KICKED)
    assert (await peer.ended()).reason == "kicked"


async def test_a_wait_that_was_named_goes_out_but_never_below_the_codes_own(shore) -> None:
    peer, connection = await shore.proved()
    connection.close(CloseCode.OVERLOADED, "", 1234)
    assert (await peer.ended()).retry_after_ms == 1234
    peer, connection = await shore.proved()
    connection.close(CloseCode.TOO_LARGE, "", 1234)
    assert (await peer.ended()).retry_after_ms == 60_000


async def test_a_reason_of_any_length_and_script_fits(shore, flavour) -> None:
    peer, connection = await shore.proved(flavour)
    connection.close(CloseCode.KICKED, "é" * 500)
    assert (await peer.ended()).reason == "é" * 500


async def test_nothing_is_written_after_the_close_and_closing_twice_is_no_error(shore, flavour) -> None:
    peer, connection = await shore.proved(flavour)
    connection.close(CloseCode.KICKED)
    connection.send(Pong(), 1)
    connection.write(b"raw")
    connection.close(CloseCode.DISABLED)
    connection.dismiss(CloseCode.DRAINING)
    assert (await peer.ended()).code == CloseCode.KICKED
    assert shore.owner.closes == [CloseCode.KICKED]


async def test_what_comes_after_the_close_is_not_heard(shore) -> None:
    peer, connection = await shore.proved()
    connection.close(CloseCode.KICKED)
    peer.send(Ping(), 2)
    await peer.ended()
    assert len(shore.owner.received_frames) == 1


async def test_a_peer_that_does_not_close_is_aborted_within_a_second(shore, flavour) -> None:
    peer, connection = await shore.proved(flavour)
    connection.close(CloseCode.KICKED)
    while True:  # it reads, and never closes its own half
        if (await peer.next()).packet.command == Close.command:
            break
    assert shore.port.open
    shore.pass_time(1)
    await shore.until(lambda: not shore.port.open)


async def test_a_peer_that_does_not_read_is_aborted_within_a_second(shore, flavour) -> None:
    peer, connection = await shore.proved(flavour)
    peer.writer.transport.pause_reading()
    while not connection.is_clogged:
        connection.send(Push(bytes(16), "k", "", b'"' + b"x" * 10_000 + b'"', 0))
    connection.close(CloseCode.DRAINING)
    shore.pass_time(1)
    await shore.until(lambda: not shore.port.open)
    assert shore.owner.closes == [CloseCode.DRAINING]


async def test_past_the_limit_of_unsent_bytes_it_is_a_slow_consumer(shore, flavour) -> None:
    peer, connection = await shore.proved(flavour)
    peer.writer.transport.pause_reading()
    written = 0
    while not connection.is_closing:
        connection.send(Push(bytes(16), "k", "", b'"' + b"x" * 10_000 + b'"', 0))
        written += 10_000
        assert connection._transport.get_write_buffer_size() < 230_000
        assert written < 100_000_000
    assert shore.owner.closes == [CloseCode.SLOW_CONSUMER]
    peer.writer.transport.resume_reading()
    close = await peer.ended()
    assert close.code == CloseCode.SLOW_CONSUMER
    assert close.may_reconnect
    assert "200000" in close.reason


async def test_the_water_marks_are_told_once_each_way(shore) -> None:
    peer, connection = await shore.proved()
    peer.writer.transport.pause_reading()
    written = 0
    while not connection.is_clogged:
        connection.send(PUSH, 1)
        written += 1
    assert shore.owner.drained_count == 0
    connection.send(PUSH, 1)
    peer.writer.transport.resume_reading()
    await peer.pushes(written + 1)
    await shore.until(lambda: not connection.is_clogged)
    assert shore.owner.drained_count == 1


async def test_a_connection_that_closes_is_not_told_to_be_drained(shore) -> None:
    peer, connection = await shore.proved()
    peer.writer.transport.pause_reading()
    while not connection.is_clogged:
        connection.send(PUSH, 1)
    connection.close(CloseCode.KICKED)
    peer.writer.transport.resume_reading()
    await peer.ended()
    assert shore.owner.drained_count == 0


async def test_a_peer_that_goes_away_ends_its_connection_without_a_code(shore, flavour) -> None:
    peer, _ = await shore.proved(flavour)
    await peer.drop()
    await shore.until(lambda: shore.owner.closes)
    assert shore.owner.closes == [None]
    assert not shore.port.open
    assert not shore.port.unauthenticated_bytes


async def test_a_peer_that_shuts_its_half_ends_its_connection(shore) -> None:
    peer, _ = await shore.proved()
    peer.writer.write_eof()
    await shore.until(lambda: not shore.port.open)
    assert shore.owner.closes == [None]


async def test_an_owners_bug_ends_one_connection_with_internal_error(shore, flavour, caplog) -> None:
    _, other = await shore.proved(flavour)
    peer, _ = await shore.proved(flavour)
    shore.owner.breaks = True
    peer.send(Ping(), 1)
    assert (await peer.ended()).code == CloseCode.INTERNAL_ERROR
    assert not other.is_closing
    assert "a bug" in caplog.text


async def test_an_owner_that_fails_at_the_end_leaves_the_connection_ended(shore, caplog) -> None:
    def broken(connection, code) -> None:
        raise RuntimeError("a bug")

    peer, connection = await shore.proved()
    shore.owner.closed = broken
    connection.close(CloseCode.KICKED)
    assert connection.session is None
    await peer.ended()
    await shore.until(lambda: not shore.port.open)
    assert "a bug" in caplog.text


async def test_its_address_is_the_peers(shore) -> None:
    _, connection = await shore.proved()
    assert connection.peer_address == "127.0.0.1"
    assert not connection.is_tls


@pytest.mark.parametrize("flavour", list(Flavour))
def test_encoding_is_a_frame_of_its_flavour(flavour) -> None:
    first = encode(flavour, Pong(), 1)[0]
    assert first == {Flavour.NATIVE: 0xA7, Flavour.WEBSOCKET_BINARY: 0x82, Flavour.WEBSOCKET_JSON: 0x81}[flavour]


async def test_connections_hold_no_dict_and_form_no_cycle(shore) -> None:
    gc.collect()
    gc.disable()

    def connections() -> int:
        return sum(1 for one in gc.get_objects() if type(one).__name__ in ("NativeConnection", "WebSocketConnection"))

    of_others = connections()  # the failed tests before this one keep theirs
    try:
        for kind in (NATIVE, JSON):
            peer, connection = await shore.proved(kind)
            assert not hasattr(connection, "__dict__") or not vars(connection)
            connection.close(CloseCode.KICKED)
            await peer.ended()
            await shore.until(lambda: not shore.port.open)
        held = connections() - of_others
        shore.owner.connections.clear()
        del connection
        left = connections() - of_others
    finally:
        gc.enable()
    assert held >= 1
    assert left == 0
