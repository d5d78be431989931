"""One timing wheel for every connection of the process: no timer of its own for any of them.

A slot a tick, an item in one slot at most, so that adding and removing are O(1). Items that are not due yet when
their slot comes say how many ticks are left and move on: a connection that lives costs one look per interval.

Time on the wheel is the loop's, but a gap counts for a second at most: a process that was stopped for a minute
must read what waits in its sockets before it may call anybody silent.
"""

import logging
from collections.abc import Callable
from typing import Protocol

log = logging.getLogger(__name__)

TICK_S = 0.25
_SLOTS = 8_192
_LARGEST_GAP_S = 1.0


class Timed(Protocol):
    """Something that the wheel can call."""

    due_slot: int
    """The wheel's own note: the slot the item lies in, -1 while it lies in none."""

    def on_due(self) -> int:
        """Called when its time has come; gives the ticks until the next time, or 0 to leave the wheel."""
        ...


def ticks(seconds: float) -> int:
    """The ticks that cover ``seconds``, at least one."""
    return max(1, -int(-seconds // TICK_S))


class Wheel:
    """Calls items some ticks from now. ``advance`` is to be called about once a tick."""

    __slots__ = ("_behind_s", "_last", "_now", "_slots", "tick")

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._last = now()
        self._behind_s = 0.0
        self._slots: list[set[Timed] | None] = [None] * _SLOTS
        self.tick = 0
        """Ticks since the start."""

    def add(self, item: Timed, in_ticks: int) -> None:
        """Calls ``item.on_due`` that many ticks from now; moves it where it lies in the wheel already."""
        if item.due_slot >= 0:
            self.remove(item)
        slot = (self.tick + min(max(in_ticks, 1), _SLOTS - 1)) % _SLOTS
        items = self._slots[slot]
        if items is None:
            items = self._slots[slot] = set()
        items.add(item)
        item.due_slot = slot

    def remove(self, item: Timed) -> None:
        """Takes the item out; no error where it does not lie in the wheel."""
        if item.due_slot < 0:
            return
        items = self._slots[item.due_slot]
        if items is not None:
            items.discard(item)
        item.due_slot = -1

    def replace(self, item: Timed, by: Timed) -> None:
        """Gives the item's place, and so what is left of its time, to another."""
        slot = item.due_slot
        if slot < 0:
            return
        self.remove(item)
        self.add(by, (slot - self.tick) % _SLOTS)

    def advance(self) -> None:
        """Moves on by the time that has passed and calls what is due."""
        now = self._now()
        self._behind_s += min(now - self._last, _LARGEST_GAP_S)
        self._last = now
        while self._behind_s >= TICK_S:
            self._behind_s -= TICK_S
            self.tick += 1
            self._call(self.tick % _SLOTS)

    def _call(self, slot: int) -> None:
        items = self._slots[slot]
        if items is None:
            return
        self._slots[slot] = None
        for item in items:
            # One that was removed or moved by another's call is not this slot's any more.
            if item.due_slot != slot:
                continue
            item.due_slot = -1
            try:
                again = item.on_due()
            except Exception:
                log.exception("what was due failed; the others of its moment go on")
                continue
            if again > 0 and item.due_slot < 0:
                self.add(item, again)
