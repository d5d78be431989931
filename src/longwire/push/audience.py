"""Audiences: from an expression to the devices it means, as one bitmap.

    devices, users, groups     names; those that mean nothing are told, and are no error while one means something
    tags                       (any₁ ∪ any₂ …) ∩ all₁ ∩ all₂ … − none₁ − none₂ …
    upload, everyone, retry    sets that are kept already

Every read goes to what is committed: a tag that was given before the call is seen by it.
"""

from collections.abc import Sequence
from typing import NamedTuple

from pyroaring import BitMap

from longwire.accounts.refusals import RefusalCode, Refused
from longwire.clock import Clock
from longwire.ids import MESSAGE_ID_BYTES, prefixed
from longwire.limits import Limits
from longwire.ports.audiences import AudienceStore
from longwire.ports.pushes import PushStore
from longwire.push_model import Audience, RecipientState, SetKind, TagExpression

PUSH_PREFIX = "psh"
MAX_SAMPLE = 10
"""Names of unresolved targets that are told."""
RETRIED = frozenset({RecipientState.FAILED, RecipientState.EXPIRED})
"""States whose devices may be sent the same message again."""


class Resolved(NamedTuple):
    """The devices that an audience means now."""

    devices: BitMap
    unresolved: int = 0
    """Names that mean nothing, or devices of an upload that have been deleted since."""
    sample: tuple[str, ...] = ()
    """The first of the names, at most MAX_SAMPLE."""


class Audiences:
    """Resolves audiences. Calls raise Refused, and StoreUnavailable."""

    def __init__(self, sets: AudienceStore, pushes: PushStore, clock: Clock, limits: Limits) -> None:
        self._sets = sets
        self._pushes = pushes
        self._clock = clock
        self._limits = limits

    def check(self, audience: Audience) -> None:
        """Refuses what is of no possible form: not exactly one kind, too many names, ``none`` alone."""
        kinds = [
            audience.everyone,
            audience.devices,
            audience.users,
            audience.groups,
            audience.tags is not None,
            audience.upload,
            audience.retry_of,
            audience.sent_to_group,
        ]
        if sum(map(bool, kinds)) != 1:
            raise Refused(RefusalCode.INVALID_PARAMETER, "an audience is exactly one of its kinds, and not empty")
        limits = self._limits
        _check_count("devices", len(audience.devices), limits.max_audience_ids)
        _check_count("users", len(audience.users), limits.max_audience_ids)
        _check_count("groups", len(audience.groups), limits.max_audience_groups)
        if audience.tags is not None:
            self._check_tags(audience.tags)
        if audience.retry_of and not (audience.states and RETRIED.issuperset(audience.states)):
            raise Refused(RefusalCode.INVALID_PARAMETER, "what is sent again goes to failed and expired devices only")

    async def resolve(self, audience: Audience) -> Resolved:
        """The devices; nobody is an answer where sets are empty, not where all of the names mean nothing.

        Refused: as ``check``, no-target for names of which none means anything, not-found for an unknown upload or
        push. The audience of a notice is for the store to say, which knows who has the push (ports.pushes.withdraw).
        """
        self.check(audience)
        if audience.devices:
            return await self._devices(audience.devices)
        if audience.users:
            return _named("user", audience.users, [found or None for found in await self._of_users(audience.users)])
        if audience.groups or audience.sent_to_group:
            groups = list(dict.fromkeys(audience.groups or (audience.sent_to_group,)))
            return _named("group", groups, await self._sets.members(SetKind.GROUP, groups))
        if audience.tags is not None:
            return Resolved(await self.resolve_tags(audience.tags))
        if audience.upload:
            return await self._upload(audience.upload)
        if audience.retry_of:
            return Resolved(await self._in_states(audience.retry_of, audience.states))
        return Resolved(await self._sets.everyone())

    async def resolve_tags(self, tags: TagExpression) -> BitMap:
        """The devices that an expression of tags means; a tag that nobody has means nobody."""
        self._check_tags(tags)
        names = list(dict.fromkeys(tags.any + tags.all + tags.none))
        found = await self._sets.members(SetKind.TAG, names)
        sets = {name: devices or BitMap() for name, devices in zip(names, found, strict=True)}
        # Where ``any`` says nothing, ``all`` says something, and its first set is what the others narrow.
        devices = BitMap.union(*(sets[name] for name in tags.any)) if tags.any else sets[tags.all[0]].copy()
        for name in tags.all:
            devices &= sets[name]
        for name in tags.none:
            devices -= sets[name]
        return devices

    def _check_tags(self, tags: TagExpression) -> None:
        if not tags.any and not tags.all:
            raise Refused(RefusalCode.INVALID_PARAMETER, "tags need one of any or all; none stands only beside them")
        _check_count("tags", len(tags.any) + len(tags.all) + len(tags.none), self._limits.max_audience_tags)

    async def _devices(self, device_ids: Sequence[str]) -> Resolved:
        wanted = list(dict.fromkeys(device_ids))
        numbers = await self._sets.numbers_of(wanted)
        unknown = [name for name, number in zip(wanted, numbers, strict=True) if number is None]
        return _some("device", wanted, unknown, BitMap([number for number in numbers if number is not None]))

    async def _of_users(self, users: Sequence[str]) -> list[BitMap]:
        return await self._sets.devices_of_users(list(dict.fromkeys(users)))

    async def _upload(self, upload_id: str) -> Resolved:
        uploaded = (await self._sets.members(SetKind.UPLOAD, [upload_id]))[0]
        if uploaded is None:
            raise Refused(RefusalCode.NOT_FOUND, f"there is no upload {upload_id}; uploads are kept for a day")
        devices = uploaded & await self._sets.everyone()
        if not devices:
            raise Refused(RefusalCode.NO_TARGET, f"none of the devices of upload {upload_id} is registered any more")
        return Resolved(devices, len(uploaded) - len(devices))

    async def _in_states(self, push: str, states: Sequence[RecipientState]) -> BitMap:
        now_ms = self._clock.now_ms()
        before = await self._pushes.find(push_id_of(push), now_ms)
        if before is None:
            raise Refused(RefusalCode.NOT_FOUND, f"there is no push {push}")
        devices = BitMap()
        for state in states:
            found = await self._pushes.in_state(before.push_no, state, now_ms)
            if found is None:
                raise Refused(RefusalCode.NOT_FOUND, f"what became of the devices of push {push} is not kept any more")
            devices |= found
        devices &= await self._sets.everyone()
        if not devices:
            raise Refused(RefusalCode.NO_TARGET, f"no device of push {push} is {' or '.join(states)}")
        return devices


def push_id_of(text: str) -> bytes:
    """The id of a push from ``psh_`` and 32 hex digits. Refused (not-found) for anything else: nothing is so called."""
    try:
        push_id = bytes.fromhex(text.removeprefix(f"{PUSH_PREFIX}_"))
    except ValueError:
        push_id = b""
    if len(push_id) != MESSAGE_ID_BYTES or prefixed(PUSH_PREFIX, push_id) != text:
        raise Refused(RefusalCode.NOT_FOUND, f"there is no push {text[:64]}")
    return push_id


def _named(what: str, names: Sequence[str], found: Sequence[BitMap | None]) -> Resolved:
    """The union of named sets, of which None ones mean nothing."""
    wanted = list(dict.fromkeys(names))
    unknown = [name for name, devices in zip(wanted, found, strict=True) if devices is None]
    return _some(what, wanted, unknown, BitMap.union(BitMap(), *(devices for devices in found if devices is not None)))


def _some(what: str, wanted: Sequence[str], unknown: Sequence[str], devices: BitMap) -> Resolved:
    sample = tuple(unknown[:MAX_SAMPLE])
    if len(unknown) == len(wanted):
        raise Refused(
            RefusalCode.NO_TARGET,
            f"none of {len(wanted)} {what}s exists: {', '.join(sample)}{' …' if len(unknown) > MAX_SAMPLE else ''}",
        )
    return Resolved(devices, len(unknown), sample)


def _check_count(what: str, actual: int, limit: int) -> None:
    if actual > limit:
        raise Refused(
            RefusalCode.AUDIENCE_TOO_COMPLEX,
            f"{actual} {what} exceed {limit}",
            more={"limit": limit, "actual": actual},
        )
