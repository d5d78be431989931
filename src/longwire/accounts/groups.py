"""Groups: devices, and users with all their devices, under one name that can be written to."""

from collections.abc import Sequence
from typing import NamedTuple

from longwire.accounts.devices import Unresolved
from longwire.accounts.refusals import RefusalCode, Refused
from longwire.clock import Clock
from longwire.ids import new_message_id, prefixed
from longwire.ports.accounts import AccountStore
from longwire.ports.audiences import AudienceStore
from longwire.push_model import Group, Members

_DEVICES, _USERS = "d", "u"


class Member(NamedTuple):
    """A device or a user: exactly one is given."""

    device_id: str | None = None
    user: str | None = None


class ChangedMembers(NamedTuple):
    """How many members came and went, and which devices are not registered."""

    added: int
    removed: int
    unresolved: Unresolved


class Groups:
    """The operator's calls. Each raises Refused (not-found) for an unknown group, and StoreUnavailable."""

    def __init__(self, accounts: AccountStore, sets: AudienceStore, clock: Clock) -> None:
        self._accounts = accounts
        self._sets = sets
        self._clock = clock

    async def create(self, group_id: str | None, title: str) -> Group:
        """A new group, with an id of its own making where none is given. Raises Refused (already-exists)."""
        group_id = group_id or prefixed("grp", new_message_id())
        if not await self._sets.add_group(group_id, title, self._clock.now_ms()):
            raise Refused(RefusalCode.ALREADY_EXISTS, f"there is a group {group_id}")
        return await self.find(group_id)

    async def find(self, group_id: str) -> Group:
        """The group and how many members it has."""
        group = await self._sets.find_group(group_id)
        if group is None:
            raise _unknown(group_id)
        return group

    async def page(self, after: str, limit: int) -> tuple[list[Group], str | None]:
        """Groups by id; and behind which one the next page starts."""
        found = await self._sets.groups(after, limit + 1)
        return found[:limit], found[limit - 1].group_id if len(found) > limit else None

    async def delete(self, group_id: str) -> None:
        """Forgets the group; its members stay, and what was sent to it goes on."""
        if not await self._sets.delete_group(group_id):
            raise _unknown(group_id)

    async def members(self, group_id: str, cursor: str, limit: int) -> tuple[list[Member], str | None]:
        """First the devices, oldest first, then the users by name; and the cursor of the next page.

        ``cursor``: "", or one that was given out.
        """
        await self.find(group_id)
        kind, after = cursor[:1] or _DEVICES, cursor[1:]
        found: list[tuple[Member, str]] = []
        if kind == _DEVICES:
            numbers = await self._sets.group_devices(group_id, int(after or 0), limit + 1)
            for device in await self._accounts.find_numbers(numbers):
                if device is not None:
                    found.append((Member(device_id=device.device_id), f"{_DEVICES}{device.device_no}"))
            after = ""
        if len(found) <= limit:
            users = await self._sets.group_users(group_id, after, limit + 1 - len(found))
            found += [(Member(user=user), _USERS + user) for user in users]
        return [member for member, _ in found[:limit]], found[limit - 1][1] if len(found) > limit else None

    async def change_members(self, group_id: str, add: Sequence[Member], remove: Sequence[Member]) -> ChangedMembers:
        """Takes members in and out; one that stands in both comes in. A user need not have a device yet."""
        names = [member.device_id for member in (*add, *remove) if member.device_id is not None]
        numbers = dict(zip(names, await self._sets.numbers_of(names), strict=True))
        changed = await self._sets.change_members(
            group_id, _members(add, numbers), _members(remove, numbers), self._clock.now_ms()
        )
        if changed is None:
            raise _unknown(group_id)
        unknown = [name for name, number in numbers.items() if number is None]
        return ChangedMembers(*changed, Unresolved.of(unknown))


def _members(members: Sequence[Member], numbers: dict[str, int | None]) -> Members:
    devices = [number for member in members if (number := numbers.get(member.device_id or "")) is not None]
    return Members(tuple(devices), tuple(member.user for member in members if member.user is not None))


def _unknown(group_id: str) -> Refused:
    return Refused(RefusalCode.NOT_FOUND, f"there is no group {group_id}")
