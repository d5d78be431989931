"""How devices leave a node: all of them before it stops or is emptied, some where other nodes have more room.

    begin ─► listed as draining ─► (a second) ─► MOVE, evenly over 60 % of the time ─► (85 %) CLOSE 4000 to who is left
    move  ─► MOVE to so many, evenly over 60 % of the time; who does not go, stays

Everything happens on the node's tick, a slice at a time; nothing here raises. The node stays listed, as draining,
until its stop: one that is not listed counts as dead, and its devices as offline.
"""

import asyncio
import math
import random
from collections import deque
from collections.abc import Callable

from longwire.clock import Clock
from longwire.gateway.admission import Admission
from longwire.gateway.hub import Hub
from longwire.gateway.session import Session
from longwire.net.connection import Flavour, encode
from longwire.operations_model import DrainState
from longwire.ports.registry import Registry
from longwire.reasons import CloseCode
from longwire.wire.packets import Move

# Until every api has heard that this node drains, it may send a device back here.
_HEARD_AFTER_S = 1.0
_TOLD_UNTIL = 0.6
_CLOSED_FROM = 0.85
# A device goes at a random moment within a fifth of the time: the last one told has gone before closing begins.
_MOST_WITHIN_MS = 5_000
_WITHIN_MS_PER_S = 200
_MOST_A_TICK = 2_000
_RATE_OVER_S = 5.0
_NOT_TOLD_AGAIN_S = 60.0


class Drain:
    """The leaving of one node's sessions. ``changed``: the node publishes anew what it is (registry.update)."""

    def __init__(
        self,
        node_id: str,
        hub: Hub,
        registry: Registry,
        admission: Admission,
        clock: Clock,
        changed: Callable[[], None],
    ) -> None:
        self.is_on = False
        """Whether the node is being emptied, or is empty. It takes no connection then."""
        self._node_id = node_id
        self._hub = hub
        self._registry = registry
        self._admission = admission
        self._clock = clock
        self._changed = changed
        self._leaving: _Leaving | None = None
        self._is_stopping = False
        self._is_over = asyncio.Event()

    def begin(self, within_s: float, *, is_stopping: bool = False) -> None:
        """Sends every device elsewhere within this time; where that goes on already, only takes the new time.

        ``is_stopping``: the process ends after it, and ``end`` does nothing any more.
        """
        before = self._leaving if self.is_on else None
        pool, told = (self._hub.sessions(), []) if before is None else (before.pool, before.told)
        self._leaving = _Leaving(pool, len(pool), told, within_s, "draining", self._clock)
        self._leaving.closed = 0 if before is None else before.closed
        self.is_on = self._admission.is_draining = True
        self._is_stopping |= is_stopping
        self._is_over.clear()
        self._changed()

    def end(self) -> None:
        """Takes devices again; those that were told to move do."""
        if self.is_on and not self._is_stopping:
            self.is_on = self._admission.is_draining = False
            self._leaving = None
            self._is_over.set()
            self._changed()

    def move(self, count: int, within_s: float) -> int:
        """Sends so many devices elsewhere, at random; gives how many will be told.

        Those that were told within the last minute and are here still count among them, so that asking again sends
        no more away. 0 while the node drains.
        """
        if self.is_on:
            return 0
        before = self._leaving
        told = set() if before is None else {session for session in before.told if self._is_here(session)}
        pool = [session for session in self._hub.sessions() if session not in told]
        count = max(0, min(count - len(told), len(pool)))
        if count:
            self._leaving = _Leaving(pool, count, list(told), within_s, "rebalanced", self._clock)
        return count

    def tick(self) -> None:
        """To be called on each tick of the node."""
        leaving = self._leaving
        if leaving is None:
            return
        now = self._clock.monotonic()
        if self.is_on:
            self._empty(leaving, now)
        elif now < leaving.ends_at + _NOT_TOLD_AGAIN_S:
            leaving.tell(now, 0.0)
        else:
            self._leaving = None

    def _empty(self, leaving: "_Leaving", now: float) -> None:
        leaving.note(now, len(self._hub))
        if leaving.share(now) >= _CLOSED_FROM:
            leaving.close(now, self._hub)
        elif self._others_take_devices():
            leaving.tell(now, _HEARD_AFTER_S)
        elif self._is_stopping:
            self._is_over.set()  # they have nowhere to go, and the stop tells them all
        if not len(self._hub) or now >= leaving.ends_at:
            self._is_over.set()

    async def wait(self) -> None:
        """Returns when nobody is left, when the time of the drain is over, or where there is nowhere to go."""
        if self.is_on and len(self._hub) and self._others_take_devices():
            await self._is_over.wait()

    def hurry(self) -> None:
        """The devices are not waited for any more: ``wait`` returns."""
        self._is_over.set()

    def state(self) -> DrainState | None:
        """How far it has come; None where nobody is to leave."""
        leaving = self._leaving
        if leaving is None:
            return None
        now = self._clock.monotonic()
        if self.is_on:
            left = len(self._hub)
            name = "stopping" if self._is_stopping else "draining" if left else "drained"
            return leaving.state(name, left, leaving.eta_s(now, left))
        left = leaving.to_tell + sum(map(self._is_here, leaving.told))
        if not left or now >= leaving.ends_at:
            return None
        return leaving.state("moving", left, leaving.ends_at - now)

    def _others_take_devices(self) -> bool:
        return any(node.node_id != self._node_id and not node.is_draining for node in self._registry.nodes())

    def _is_here(self, session: Session) -> bool:
        return self._hub.find(session.device_no) is session


class _Leaving:
    """Sessions that are to leave within a time: ``to_tell`` of a pool, beside those that were told before."""

    def __init__(
        self, pool: list[Session], to_tell: int, told: list[Session], within_s: float, reason: str, clock: Clock
    ) -> None:
        self.pool = pool
        self.to_tell = to_tell
        """How many are still to be told."""
        self.told = told
        self.closed = 0
        self.ends_at = clock.monotonic() + within_s
        self._began_at = clock.monotonic()
        self._began_at_ms = clock.now_ms()
        self._within_s = within_s
        self._sessions = to_tell + len(told)
        self._at_first = to_tell
        self._to_close: int | None = None
        self._closed_before = 0
        self._counts: deque[tuple[float, int]] = deque()
        """How many were here, at the ticks of the last seconds."""
        move = Move(min(_MOST_WITHIN_MS, int(within_s * _WITHIN_MS_PER_S)), reason, "")
        self._frames = [encode(flavour, move) for flavour in Flavour]

    def share(self, now: float) -> float:
        """How much of the time is over."""
        return min((now - self._began_at) / self._within_s, 1.0) if self._within_s > 0 else 1.0

    def tell(self, now: float, after_s: float) -> None:
        """Sends MOVE to as many, at random, as are due; the first of them ``after_s`` from the beginning."""
        begins = min(after_s / self._within_s, _TOLD_UNTIL / 2)
        share = min((self.share(now) - begins) / (_TOLD_UNTIL - begins), 1.0)
        due = math.ceil(self._at_first * share) - (self._at_first - self.to_tell)
        for _ in range(min(due, _MOST_A_TICK)):
            session = self._draw()
            self.to_tell -= 1
            if not session.connection.is_closing:
                session.connection.write(self._frames[session.connection.flavour])
                self.told.append(session)

    def _draw(self) -> Session:
        """One of the pool, at random; the others lose their order, which a shuffle at once would hold the loop for."""
        pool = self.pool
        at = random.randrange(len(pool))  # noqa: S311 - who goes first is no secret
        pool[at], pool[-1] = pool[-1], pool[at]
        return pool.pop()

    def close(self, now: float, hub: Hub) -> None:
        """Closes as many of those who have not gone as are due: evenly until the end, and then whoever is left."""
        if self._to_close is None:
            self._to_close, self._closed_before = len(hub), self.closed
        share = (self.share(now) - _CLOSED_FROM) / (1 - _CLOSED_FROM)
        due = len(hub) if share >= 1 else math.ceil(self._to_close * share) - (self.closed - self._closed_before)
        for session in hub.sessions()[: max(0, min(due, _MOST_A_TICK))]:
            session.connection.close(CloseCode.DRAINING)
            self.closed += 1

    def note(self, now: float, left: int) -> None:
        """How many are here now."""
        self._counts.append((now, left))
        while now - self._counts[0][0] > _RATE_OVER_S:
            self._counts.popleft()

    def eta_s(self, now: float, left: int) -> float | None:
        """How long until nobody is left, at the rate of the last seconds; at most what is left of the time."""
        if not left:
            return 0.0
        in_time_s = self.ends_at - now
        if not self._counts:
            return in_time_s
        at, before = self._counts[0]
        if before <= left or now <= at:
            return in_time_s if in_time_s > 0 else None
        eta_s = left * (now - at) / (before - left)
        return min(eta_s, in_time_s) if in_time_s > 0 else eta_s

    def state(self, name: str, left: int, eta_s: float | None) -> DrainState:
        return DrainState(
            name,
            self._began_at_ms,
            self._within_s,
            self._sessions,
            left,
            len(self.told),
            self.closed,
            None if eta_s is None else round(eta_s, 1),
        )
