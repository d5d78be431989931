"""`longwire …` with every callback of its event loop timed: which one kept all others waiting, and for how long.

python -P bench/callbacks.py dev --data DIR …      is that command; at its end it says on stderr what took longest

A callback is whatever the loop calls before it can call anything else: bytes for a connection, its end, a timer, one
step of a task, a finished commit. The loop may call many of them in one turn: when 15,000 sockets are ready at once,
libuv hands each to its callback before it looks at a timer, and so the timers are late although nobody held the loop.
The clock costs 0.2 µs a callback: the rates of a process that runs like this are not to be quoted.
"""

import asyncio
import atexit
import functools
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import uvloop

from longwire.cli import main
from longwire.net.connection import Connection
from longwire.net.native_connection import NativeConnection
from longwire.net.sniffer import Sniffer
from longwire.net.websocket_connection import WebSocketConnection

_TOLD = re.compile(r"longest callback ([\d.]+) ms: (.*)")
_PROTOCOL_CALLS = ("connection_made", "data_received", "connection_lost", "pause_writing", "resume_writing")


class Longest(NamedTuple):
    """The callback that took longest in a process's life."""

    ms: float
    name: str


def longest_callback(log: Path) -> Longest | None:
    """What a process that ran under this module said at its end; None where it said nothing."""
    told = _TOLD.search(log.read_text(errors="replace"))
    return None if told is None else Longest(float(told[1]), told[2])


class _Record:
    def __init__(self) -> None:
        self.is_on = False
        """From the first connection on: what is done before the port is open holds nobody."""
        self.longest_s = 0.0
        self.name = ""

    def timed(self, call: Callable[..., Any], name: str = "") -> Callable[..., Any]:
        @functools.wraps(call, updated=())
        def run(*args: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return call(*args, **options)
            finally:
                took = time.perf_counter() - began
                if took > self.longest_s and self.is_on:
                    self.longest_s, self.name = took, name or _name_of(call)

        return run


def _name_of(call: Callable[..., Any]) -> str:
    owner = getattr(call, "__self__", None)
    if isinstance(owner, asyncio.Task):
        return f"a step of {owner.get_coro()!r}"
    return str(getattr(call, "__qualname__", call))


_RECORD = _Record()


class _TimedLoop(uvloop.Loop):
    """uvloop's loop; tasks, futures and timers come to these calls too."""

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        return super().call_soon(_RECORD.timed(callback), *args, context=context)

    def call_soon_threadsafe(self, callback: Callable[..., Any], *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        return super().call_soon_threadsafe(_RECORD.timed(callback), *args, context=context)

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        return super().call_later(delay, _RECORD.timed(callback), *args, context=context)

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        return super().call_at(when, _RECORD.timed(callback), *args, context=context)


def _time_protocols() -> None:
    opened = Sniffer.connection_made

    def first_opened(sniffer: Sniffer[Any], transport: asyncio.BaseTransport) -> None:
        _RECORD.is_on = True
        opened(sniffer, transport)

    Sniffer.connection_made = first_opened  # type: ignore[method-assign, assignment]
    # The transports call these themselves, past the loop's own calls.
    for kind in (Connection, NativeConnection, WebSocketConnection, Sniffer):
        for name in _PROTOCOL_CALLS:
            if name in vars(kind):
                setattr(kind, name, _RECORD.timed(vars(kind)[name], f"{kind.__name__}.{name}"))


def _tell() -> None:
    print(f"longest callback {_RECORD.longest_s * 1000:.1f} ms: {_RECORD.name}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    uvloop.Loop = _TimedLoop  # type: ignore[misc]  # uvloop.run makes its loop of this
    _time_protocols()
    atexit.register(_tell)
    main()
