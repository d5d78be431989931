"""The window: the cursor moves over what is done without a gap, and every bound closes it."""

import asyncio

import pytest

from longwire.model import UplinkRecord
from longwire.sink import SinkSettings
from longwire.sink.window import Window


def record(offset: int, payload: bytes = b"") -> UplinkRecord:
    return UplinkRecord(1, "d-1", bytes(16), "k", payload, 0, b"", offset)


def test_the_cursor_moves_only_over_the_prefix_that_is_done() -> None:
    window = Window(SinkSettings())
    first, second, third = (window.admit(record(n)) for n in (5, 8, 9))
    window.finish(second)
    assert window.cursor == -1
    window.finish(first)
    assert window.cursor == 8
    window.finish(third)
    assert (window.cursor, window.unfinished, window.span) == (9, 0, 0)


def test_a_log_may_begin_at_offset_zero() -> None:
    window = Window(SinkSettings())
    window.finish(window.admit(record(0)))
    assert not window.is_flushed
    window.flushed(0)
    assert window.is_flushed


@pytest.mark.parametrize(
    ("settings", "payload"),
    [
        (SinkSettings(window_records=2), b""),
        (SinkSettings(window_bytes=20), b"x" * 10),
        (SinkSettings(max_span=2), b""),
    ],
)
async def test_each_bound_closes_the_window_until_its_oldest_is_done(settings: SinkSettings, payload: bytes) -> None:
    window = Window(settings)
    first, _ = (window.admit(record(n, payload)) for n in (1, 2))
    assert window.is_full
    waiting = asyncio.create_task(window.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    window.finish(first)
    assert await waiting >= 1


def test_what_is_done_holds_no_payload() -> None:
    window = Window(SinkSettings())
    window.admit(record(1))
    entry = window.admit(record(2, b"x" * 100))
    window.finish(entry)
    window.finish(entry)  # once more changes nothing
    assert entry.record is None
    assert (window.held_bytes, window.unfinished, window.span) == (0, 1, 2)


@pytest.mark.parametrize("name", ["max_calls", "attempts", "retry_base_s", "flush_every_s", "window_bytes"])
def test_a_setting_that_is_not_above_zero_names_itself(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        SinkSettings(**{name: 0})
