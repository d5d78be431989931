"""How late a timer of the node's loop was at most, and what the collector's longest pause was.

The node watches itself a hundred times a second (gateway/lag.py) and says in its log, when it stops, how late it was
called at the worst since it was ready. That is the turn of a loop, not one callback: see bench/callbacks.py.
"""

import re
from pathlib import Path
from typing import NamedTuple

_LINE = re.compile(r"the loop was held for (\d+) ms at the longest, the collector took (\d+) ms at the longest")


class Lateness(NamedTuple):
    """Milliseconds, each the longest of the node's life."""

    timer_ms: float
    collector_ms: float


def longest_lateness(log: Path) -> Lateness | None:
    """What a node that has stopped said of itself; None where it said nothing."""
    told = _LINE.search(log.read_text(errors="replace"))
    return None if told is None else Lateness(float(told[1]), float(told[2]))
