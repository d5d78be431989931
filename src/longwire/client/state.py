"""What a device is doing, for the application to watch.

          ┌────────────── told to, or its wait is over ─────────────┐
          ▼                                                         │
STARTING ─► CONNECTING ─► CONNECTED ─► WAITING ─────────────────────┤
                └──────────────────────►  (40xx)                    │
                └────────────► STOPPED (41xx) ── reconnect() ───────┘      any ─► CLOSED
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from enum import Enum
from typing import NamedTuple

_MAX_UNSEEN = 64


class State(Enum):
    """Where a device stands."""

    STARTING = "starting"
    """Made, not entered yet."""
    CONNECTING = "connecting"
    """Asking for a node, or on its way to one."""
    CONNECTED = "connected"
    WAITING = "waiting"
    """Has no session and will connect again by itself after a while, unless STOPPED follows at once."""
    STOPPED = "stopped"
    """Will not connect again before ``Device.reconnect``; ``Device.last_close`` says why."""
    CLOSED = "closed"
    """For good."""


class Closed(NamedTuple):
    """How the last connection ended."""

    code: int
    """A close code of PROTOCOL §4, or 0 where the connection was lost or never made."""
    reason: str


class Watch:
    """The state with those who watch it."""

    __slots__ = ("_callbacks", "state")

    def __init__(self) -> None:
        self.state = State.STARTING
        self._callbacks: list[Callable[[State], object]] = []

    def set(self, state: State) -> None:
        """Moves on; the callbacks are called at once, in the order they came. Nothing leaves CLOSED."""
        if state is self.state or self.state is State.CLOSED:
            return
        self.state = state
        for callback in tuple(self._callbacks):
            callback(state)

    def add(self, callback: Callable[[State], object]) -> Callable[[], None]:
        """Calls ``callback`` at each change until the function that this gives is called."""
        self._callbacks.append(callback)

        def remove() -> None:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

        return remove

    async def wait_for(self, *states: State) -> State:
        """Waits until the state is one of these; CLOSED ends every wait."""
        if self.state in states or self.state is State.CLOSED:
            return self.state
        reached: asyncio.Future[State] = asyncio.get_running_loop().create_future()

        def look(state: State) -> None:
            if (state in states or state is State.CLOSED) and not reached.done():
                reached.set_result(state)

        remove = self.add(look)
        try:
            return await reached
        finally:
            remove()

    async def changes(self) -> AsyncIterator[State]:
        """The state now and each one after it, CLOSED the last; a slow watcher loses the oldest of 64."""
        seen: deque[State] = deque([self.state], maxlen=_MAX_UNSEEN)
        news = asyncio.Event()

        def note(state: State) -> None:
            seen.append(state)
            news.set()

        remove = self.add(note)
        try:
            while True:
                while seen:
                    state = seen.popleft()
                    yield state
                    if state is State.CLOSED:
                        return
                news.clear()
                await news.wait()
        finally:
            remove()
