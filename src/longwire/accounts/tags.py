"""Tags: what one may be called, and which devices have it."""

import re
from collections.abc import Sequence

from longwire.accounts.devices import DeviceView, Unresolved
from longwire.accounts.refusals import RefusalCode, Refused
from longwire.clock import Clock
from longwire.errors import LongwireError
from longwire.ids import is_device_id
from longwire.limits import Limits
from longwire.ports.accounts import AccountStore
from longwire.ports.audiences import RESERVED_TAGS, AudienceStore
from longwire.push_model import SetChange, SetCount, SetKind

MAX_TAGS = 200
"""Tags of one device (API §4)."""
USER_RULE = "is not 1-64 characters of A-Z a-z 0-9 . _ : @ -"

_TAG = re.compile(r"[A-Za-z0-9._:@=/-]{1,64}")


class BadIdentity(LongwireError):
    """The application's own judgement named a user or a tag that cannot be."""


def tag_fault(tag: str) -> str | None:
    """What is wrong with a tag, None where nothing is."""
    if _TAG.fullmatch(tag) is None:
        return "is not 1-64 characters of A-Z a-z 0-9 . _ : @ = / -"
    if tag.startswith(RESERVED_TAGS):
        return f"begins with {RESERVED_TAGS}, which is the system's own"
    return None


def check_identity(user: str | None, tags: tuple[str, ...]) -> None:
    """Raises BadIdentity for a user or tags that cannot be kept."""
    if user is not None and not is_device_id(user):
        raise BadIdentity(f"user {user!r} {USER_RULE}")
    if len(tags) > MAX_TAGS:
        raise BadIdentity(f"{len(tags)} tags; at most {MAX_TAGS}")
    for tag in tags:
        if fault := tag_fault(tag):
            raise BadIdentity(f"tag {tag!r} {fault}")


class Tags:
    """The operator's calls. Those for one device raise Refused (not-found, invalid-parameter); all StoreUnavailable."""

    def __init__(self, accounts: AccountStore, sets: AudienceStore, clock: Clock, limits: Limits) -> None:
        self._accounts = accounts
        self._sets = sets
        self._clock = clock
        self._limits = limits

    async def replace(self, device_id: str, tags: Sequence[str]) -> DeviceView:
        """Gives the device exactly these tags of its own."""
        return await self._change(device_id, tuple(tags), (), replaces=True)

    async def change(self, device_id: str, add: Sequence[str], remove: Sequence[str]) -> DeviceView:
        """Gives and takes tags; one that stands in both is given."""
        return await self._change(device_id, tuple(add), tuple(remove), replaces=False)

    async def page(self, prefix: str, after: str, limit: int) -> tuple[list[SetCount], str | None]:
        """Tags that somebody has, the system's too, by name; and behind which one the next page starts."""
        found = await self._sets.counts(SetKind.TAG, prefix, after, limit + 1)
        return found[:limit], found[limit - 1].name if len(found) > limit else None

    async def change_devices(
        self, tag: str, add: Sequence[str], remove: Sequence[str]
    ) -> tuple[int, int, Unresolved, list[str]]:
        """Gives a tag to devices and takes it from others; a device that stands in both gets it.

        How many got it and lost it who had it otherwise before, which are not registered, and which have as many tags
        as they may.
        """
        numbers = await self._sets.numbers_of([*add, *remove])
        added = {no: device_id for no, device_id in zip(numbers, add, strict=False) if no is not None}
        removed = {no for no in numbers[len(add) :] if no is not None and no not in added}
        changes = [SetChange(no, SetKind.TAG, add=(tag,)) for no in added]
        changes += [SetChange(no, SetKind.TAG, remove=(tag,)) for no in removed]
        before = (await self._sets.members(SetKind.TAG, [tag]))[0] or ()
        done = await self._sets.change(changes, self._clock.now_ms())
        refused = [device_id for device_id, is_done in zip(added.values(), done, strict=False) if not is_done]
        unknown = [name for name, no in zip([*add, *remove], numbers, strict=True) if no is None]
        got = sum(no not in before for no in added) - len(refused)
        return got, sum(no in before for no in removed), Unresolved.of(unknown), refused

    async def _change(
        self, device_id: str, add: tuple[str, ...], remove: tuple[str, ...], *, replaces: bool
    ) -> DeviceView:
        device = (await self._accounts.find_devices([device_id]))[0]
        if device is None:
            raise Refused(RefusalCode.NOT_FOUND, f"there is no device {device_id}")
        change = SetChange(device.device_no, SetKind.TAG, add, remove, replaces)
        is_done = (await self._sets.change([change], self._clock.now_ms()))[0]
        tags = (await self._sets.names_of([device.device_no], SetKind.TAG))[0]
        if not is_done:
            limit, actual = self._limits.max_device_tags, len(_after(tags, add, remove, replaces=replaces))
            message = f"device {device_id} would have {actual} tags; at most {limit}"
            raise Refused(RefusalCode.INVALID_PARAMETER, message, more={"limit": limit, "actual": actual})
        return DeviceView(device, tags)


def _after(tags: Sequence[str], add: Sequence[str], remove: Sequence[str], *, replaces: bool) -> set[str]:
    return set(add) if replaces else (set(tags) - set(remove)) | set(add)
