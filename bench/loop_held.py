"""How long the node's event loop was held at most: the time nobody's heartbeat, message or connect could get on.

The node watches itself a hundred times a second (gateway/lag.py) and says in its log, when it stops, how late it was
called at the worst since it was ready, and how long the collector's longest pause was.
"""

import re
from pathlib import Path
from typing import NamedTuple

_LINE = re.compile(r"the loop was held for (\d+) ms at the longest, the collector took (\d+) ms at the longest")


class Held(NamedTuple):
    """Milliseconds, each the longest of the node's life."""

    loop_ms: float
    collector_ms: float


def longest_hold(log: Path) -> Held | None:
    """What a node that has stopped said of itself; None where it said nothing."""
    told = _LINE.search(log.read_text(errors="replace"))
    return None if told is None else Held(float(told[1]), float(told[2]))
