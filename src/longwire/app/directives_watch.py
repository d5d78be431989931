"""Has this process do what the directives say: marks go to its traces, levels to its log.

Reads the store every two seconds. While the store is away, what is known goes on until its end.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from pyroaring import BitMap

from longwire.clock import Clock
from longwire.errors import StoreUnavailable
from longwire.ports.accounts import AccountStore
from longwire.ports.directives import LEVEL, MARK, Directive, DirectiveStore
from longwire.traces import NO_MARKS, Marks, Traces

log = logging.getLogger(__name__)

_EVERY_S = 2.0
_MAX_DEVICES_OF_USER = 1_000


class DirectivesWatch:
    """Looks until it is cancelled. ``set_levels`` is given all levels that differ from the base, by area."""

    def __init__(
        self,
        store: DirectiveStore,
        accounts: AccountStore,
        traces: Traces,
        set_levels: Callable[[Mapping[str, str]], None],
        clock: Clock,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._accounts = accounts
        self._traces = traces
        self._set_levels = set_levels
        self._clock = clock
        self._sleep = sleep
        self._known: Sequence[Directive] = ()
        self._targets: dict[str, BitMap] = {}
        """The devices of each marked device or user, as last looked up."""
        self._is_away = False
        self._levels: dict[str, str] = {}

    async def run(self) -> None:
        """A look every two seconds."""
        while True:
            await self.look()
            await self._sleep(_EVERY_S)

    async def look(self) -> None:
        """Reads, and applies what stands; a store that is away changes nothing but that directives end."""
        try:
            self._known = await self._store.live(self._clock.now_ms())
            self._targets = await self._look_up([one.name for one in self._known if one.kind == MARK])
        except StoreUnavailable as error:
            if not self._is_away:
                log.warning("marks and log levels are not read for now, those known go on: %s", error)
            self._is_away = True
        else:
            self._is_away = False
        now_ms = self._clock.now_ms()
        self._apply([one for one in self._known if one.until_ms > now_ms])

    async def _look_up(self, targets: Sequence[str]) -> dict[str, BitMap]:
        devices = [target.removeprefix("device:") for target in targets if target.startswith("device:")]
        users = [target.removeprefix("user:") for target in targets if target.startswith("user:")]
        found: dict[str, BitMap] = {}
        if devices:
            for name, device in zip(devices, await self._accounts.find_devices(devices), strict=True):
                found[f"device:{name}"] = BitMap() if device is None else BitMap([device.device_no])
        if users:
            for name, owned in zip(users, await self._accounts.devices_of_users(users), strict=True):
                found[f"user:{name}"] = BitMap([device.device_no for device in owned[:_MAX_DEVICES_OF_USER]])
        return found

    def _apply(self, live: Sequence[Directive]) -> None:
        devices = BitMap()
        pushes: set[bytes] = set()
        for one in live:
            if one.kind != MARK:
                continue
            if one.name.startswith("push:psh_"):
                pushes.add(bytes.fromhex(one.name.removeprefix("push:psh_")))
            else:
                devices |= self._targets.get(one.name, BitMap())
        self._traces.set_marks(Marks(devices, frozenset(pushes)) if devices or pushes else NO_MARKS)
        levels = {one.name: one.value for one in live if one.kind == LEVEL}
        if levels != self._levels:
            self._levels = levels
            self._set_levels(levels)
