"""Who devices and groups are, as this node knows it, kept for those it met lately.

A device's number never changes and is never given to another, so that a copy can be wrong in one way only: the
device was deleted. So copies are kept for a minute. Who is in a group changes, and is believed for a second.
"""

from pyroaring import BitMap

from longwire.clock import Clock
from longwire.ports.accounts import AccountStore
from longwire.ports.audiences import AudienceStore
from longwire.push_model import SetKind

_KEPT = 200_000
_FRESH_S = 60.0
_GROUPS_KEPT = 256
_GROUPS_FRESH_S = 1.0


class GroupMembers:
    """The devices of a group, those of its users among them."""

    __slots__ = ("_others", "_sender_no", "devices", "fresh_until")

    def __init__(self, devices: BitMap, fresh_until: float) -> None:
        self.devices = devices
        self.fresh_until = fresh_until
        self._sender_no = 0
        self._others = devices

    def without(self, device_no: int) -> BitMap:
        """Everybody else; the same object for one sender as long as it is the only one."""
        if device_no != self._sender_no:
            self._sender_no = device_no
            self._others = self.devices - BitMap((device_no,))
        return self._others


class Directory:
    """Look-ups of targets by name."""

    def __init__(self, accounts: AccountStore, sets: AudienceStore, clock: Clock, kept: int = _KEPT) -> None:
        self._accounts = accounts
        self._sets = sets
        self._clock = clock
        self._kept = kept
        self._numbers: dict[str, tuple[int, float]] = {}
        self._groups: dict[str, GroupMembers] = {}

    def find(self, device_id: str) -> int | None:
        """The device's number, where it is known here; never waits."""
        known = self._numbers.get(device_id)
        if known is None:
            return None
        device_no, until = known
        if self._clock.monotonic() < until:
            return device_no
        del self._numbers[device_id]
        return None

    async def look_up(self, device_id: str) -> int | None:
        """The device's number, None where it is not registered. Raises StoreUnavailable."""
        device = (await self._accounts.find_devices([device_id]))[0]
        if device is None:
            return None
        if len(self._numbers) >= self._kept:
            del self._numbers[next(iter(self._numbers))]
        self._numbers[device_id] = (device.device_no, self._clock.monotonic() + _FRESH_S)
        return device.device_no

    async def devices_of(self, user: str) -> tuple[int, ...]:
        """The numbers of the user's devices; empty where nobody is this user. Raises StoreUnavailable."""
        devices = (await self._accounts.devices_of_users([user]))[0]
        return tuple(device.device_no for device in devices)

    def find_group(self, group_id: str) -> GroupMembers | None:
        """The group's members, where they are known here; never waits."""
        known = self._groups.get(group_id)
        return known if known is not None and self._clock.monotonic() < known.fresh_until else None

    async def look_up_group(self, group_id: str) -> GroupMembers | None:
        """The group's members, None where there is no such group. Raises StoreUnavailable."""
        devices = (await self._sets.members(SetKind.GROUP, [group_id]))[0]
        self._groups.pop(group_id, None)
        if devices is None:
            return None
        if len(self._groups) >= _GROUPS_KEPT:
            del self._groups[next(iter(self._groups))]
        known = self._groups[group_id] = GroupMembers(devices, self._clock.monotonic() + _GROUPS_FRESH_S)
        return known
