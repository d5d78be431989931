"""What operators ask of every process for a while: marks, whose traces are told whole, and log levels.

A directive is a row with an end. Every process reads the rows every two seconds (app/directives_watch.py): none has
to be reached, a restart forgets nothing, and what nobody takes back ends by itself.
"""

import re
from collections.abc import Sequence

from msgspec import Struct

from longwire.accounts.refusals import RefusalCode, Refused
from longwire.clock import Clock
from longwire.ids import is_device_id, new_message_id
from longwire.ports.accounts import AccountStore
from longwire.ports.directives import LEVEL, MARK, Directive, DirectiveStore

MAX_MARK_S = 1_800
MAX_LEVEL_S = 86_400
MAX_MARKS = 50
MAX_LEVELS = 50

_MARK_ID = re.compile("mrk_([0-9a-f]{32})")
_PUSH_ID = re.compile("psh_[0-9a-f]{32}")


class Mark(Struct, frozen=True):
    """A device, a user or a push whose traces are told whole."""

    mark_id: str
    target: str
    """``device:ID``, ``user:NAME`` or ``push:psh_…``."""
    until_ms: int
    caller: str


class Level(Struct, frozen=True):
    """An area that logs at a level of its own."""

    area: str
    level: str
    until_ms: int
    caller: str


class Directives:
    """Sets and takes back. Every method raises StoreUnavailable."""

    def __init__(self, store: DirectiveStore, accounts: AccountStore, clock: Clock) -> None:
        self._store = store
        self._accounts = accounts
        self._clock = clock

    async def marks(self) -> list[Mark]:
        """Those that stand, oldest first."""
        return [mark_of(one) for one in await self._live(MARK)]

    async def mark(self, target: str, for_s: int, caller: str) -> Mark:
        """Marks a device, a user or a push, for at most ``MAX_MARK_S``; what is marked already is marked anew.

        Raises Refused: invalid-parameter, not-found for a device or user nobody registered, state-conflict where
        ``MAX_MARKS`` others stand.
        """
        _check_time(for_s, MAX_MARK_S)
        await self._check(target)
        directive = self._new(MARK, target, new_message_id().hex(), for_s, caller)
        if not await self._store.put(directive, MAX_MARKS):
            raise Refused(RefusalCode.STATE_CONFLICT, f"{MAX_MARKS} marks stand already; take one away first")
        return mark_of(directive)

    async def unmark(self, mark_id: str) -> None:
        """Takes a mark away. Raises Refused (not-found)."""
        found = _MARK_ID.fullmatch(mark_id)
        if found is None or not await self._store.remove(MARK, value=found[1]):
            raise Refused(RefusalCode.NOT_FOUND, f"there is no mark {mark_id}")

    async def levels(self) -> list[Level]:
        """Those that differ from the base, oldest first."""
        return [level_of(one) for one in await self._live(LEVEL)]

    async def set_level(self, area: str, level: str, for_s: int, caller: str) -> Level:
        """Has an area log at this level, for at most ``MAX_LEVEL_S``. The caller has checked both words.

        Raises Refused: invalid-parameter, state-conflict where ``MAX_LEVELS`` others stand.
        """
        _check_time(for_s, MAX_LEVEL_S)
        directive = self._new(LEVEL, area, level, for_s, caller)
        if not await self._store.put(directive, MAX_LEVELS):
            raise Refused(RefusalCode.STATE_CONFLICT, f"{MAX_LEVELS} levels stand already; take one away first")
        return level_of(directive)

    async def reset_level(self, area: str) -> None:
        """Has an area log at the base level again. Raises Refused (not-found)."""
        if not await self._store.remove(LEVEL, name=area):
            raise Refused(RefusalCode.NOT_FOUND, f"the area {area} has no level of its own")

    def _new(self, kind: str, name: str, value: str, for_s: int, caller: str) -> Directive:
        now_ms = self._clock.now_ms()
        return Directive(kind, name, value, caller, now_ms, now_ms + for_s * 1000)

    async def _live(self, kind: str) -> Sequence[Directive]:
        return [one for one in await self._store.live(self._clock.now_ms()) if one.kind == kind]

    async def _check(self, target: str) -> None:
        scheme, _, name = target.partition(":")
        is_sound = is_device_id(name) if scheme in ("device", "user") else _PUSH_ID.fullmatch(name) is not None
        if scheme not in ("device", "user", "push") or not is_sound:
            raise Refused(RefusalCode.INVALID_PARAMETER, "a mark is on a device, a user or a push")
        if scheme == "device" and (await self._accounts.find_devices([name]))[0] is None:
            raise Refused(RefusalCode.NOT_FOUND, f"no device {name} is registered")
        if scheme == "user" and not (await self._accounts.devices_of_users([name]))[0]:
            raise Refused(RefusalCode.NOT_FOUND, f"no device of the user {name} is registered")


def mark_of(directive: Directive) -> Mark:
    """A directive of kind MARK."""
    return Mark(f"mrk_{directive.value}", directive.name, directive.until_ms, directive.caller)


def level_of(directive: Directive) -> Level:
    """A directive of kind LEVEL."""
    return Level(directive.name, directive.value, directive.until_ms, directive.caller)


def _check_time(for_s: int, limit_s: int) -> None:
    if not 0 < for_s <= limit_s:
        raise Refused(RefusalCode.INVALID_PARAMETER, f"for_s of {for_s} is not 1 to {limit_s}")
