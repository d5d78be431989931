"""Tells nodes of sessions that newer ones elsewhere have taken over."""

import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable

from longwire.adapters.http import wire
from longwire.adapters.http.client import LinkClient, LinkFailed
from longwire.adapters.http.route_cache import RouteCache

log = logging.getLogger(__name__)

_WITHIN_S = 2.0
_AGAIN_AFTER_S = (0.2, 1.0, 5.0)
_MAX_WAITING = 100_000


class _Older:
    """A session on another node that is to end; ``done``: who waits for the first answer."""

    __slots__ = ("device_no", "done", "epoch")

    def __init__(self, device_no: int, epoch: int, done: Callable[[], None]) -> None:
        self.device_no = device_no
        self.epoch = epoch
        self.done: Callable[[], None] | None = done


class Takeovers:
    """One call at a time to a node, for all that has come meanwhile. ``start`` owns its tasks."""

    def __init__(
        self,
        client: LinkClient,
        cache: RouteCache,
        start: Callable[[Coroutine[None, None, None]], None],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._client = client
        self._cache = cache
        self._start = start
        self._sleep = sleep
        self._older: dict[str, list[_Older]] = {}

    @property
    def is_idle(self) -> bool:
        return not self._older

    def end_older(self, node_id: str, device_no: int, epoch: int, done: Callable[[], None]) -> None:
        """As ports.across.Across; what is not told in four attempts is left to the nodes' reconciling."""
        older = self._older.get(node_id)
        if older is None:
            older = self._older[node_id] = []
            self._start(self._tell(node_id))
        if len(older) < _MAX_WAITING:
            older.append(_Older(device_no, epoch, done))
        else:
            done()

    async def _tell(self, node_id: str) -> None:
        older = self._older[node_id]
        pauses_s = iter(_AGAIN_AFTER_S)
        try:
            while older and (node := self._cache.nodes.get(node_id)) is not None:
                told = older[:]
                sessions = [(one.device_no, one.epoch) for one in told]
                try:
                    await self._client.post(node, "end_older", wire.encode(sessions), _WITHIN_S)
                except LinkFailed as error:
                    _tell_done(told)  # nobody waits for a node that is not reached at once
                    pause_s = next(pauses_s, None)
                    if pause_s is None:
                        log.warning("%d sessions that were taken over are not ended yet: %s", len(told), error)
                        break
                    await self._sleep(pause_s)
                else:
                    del older[: len(told)]
                    pauses_s = iter(_AGAIN_AFTER_S)
                    _tell_done(told)
        finally:
            del self._older[node_id]
            _tell_done(older)


def _tell_done(told: Iterable[_Older]) -> None:
    for one in told:
        done, one.done = one.done, None
        if done is not None:
            done()
