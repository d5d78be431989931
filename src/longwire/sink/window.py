"""The window: what was read from the log and is not flushed, and how far the cursor may go.

Records end in any order; the cursor moves only over those that are done without a gap:

    offsets read    11   12   13   14   15
    done             x    x         x            cursor may go to 12; 14 waits for 13
                              ^ head

An entry that is done keeps its offset and nothing else. Three bounds close the window (see SinkSettings).
"""

import asyncio
from collections import deque

from longwire.model import UplinkRecord
from longwire.sink.settings import SinkSettings


class Entry:
    """One record in the window; ``record`` is None once it is done."""

    __slots__ = ("offset", "record")

    def __init__(self, record: UplinkRecord) -> None:
        self.offset = record.offset
        self.record: UplinkRecord | None = record


class Window:
    """Keeps count; never calls a handler or the log."""

    def __init__(self, settings: SinkSettings) -> None:
        self._settings = settings
        self._entries: deque[Entry] = deque()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._has_moved = asyncio.Event()
        self._flushed = -1
        self.cursor = -1
        """Everything up to this offset is done; -1 before anything is."""
        self.unfinished = 0
        self.held_bytes = 0

    @property
    def span(self) -> int:
        """Records from the oldest that is not done to the newest that was read."""
        return len(self._entries)

    @property
    def is_full(self) -> bool:
        settings = self._settings
        return (
            self.unfinished >= settings.window_records
            or self.held_bytes >= settings.window_bytes
            or len(self._entries) >= settings.max_span
        )

    @property
    def is_flushed(self) -> bool:
        return self._flushed == self.cursor

    @property
    def oldest(self) -> UplinkRecord | None:
        """The record that holds the cursor; None where nothing does."""
        return self._entries[0].record if self._entries else None

    async def room(self) -> int:
        """Waits until the window is open; how many records it takes, at least 1."""
        await self._has_room.wait()
        settings = self._settings
        return min(settings.window_records - self.unfinished, settings.max_span - len(self._entries))

    async def moved(self) -> None:
        """Waits until the cursor stands further than what was flushed."""
        await self._has_moved.wait()

    def admit(self, record: UplinkRecord) -> Entry:
        """Takes in the next record of the log; offsets rise."""
        entry = Entry(record)
        self._entries.append(entry)
        self.unfinished += 1
        self.held_bytes += len(record.payload)
        if self.is_full:
            self._has_room.clear()
        return entry

    def finish(self, entry: Entry) -> None:
        """The record was handled, buried or is nobody's; the cursor moves as far as it can."""
        if entry.record is None:
            return
        self.unfinished -= 1
        self.held_bytes -= len(entry.record.payload)
        entry.record = None
        entries = self._entries
        while entries and entries[0].record is None:
            self.cursor = entries.popleft().offset
        if not self.is_flushed:
            self._has_moved.set()
        if not self.is_full:
            self._has_room.set()

    def flushed(self, offset: int) -> None:
        """The log has the cursor at ``offset``."""
        self._flushed = offset
        if self.is_flushed:
            self._has_moved.clear()
