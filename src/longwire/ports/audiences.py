"""Sets of devices: tags, groups, everyone and uploaded lists, as bitmaps (DESIGN §3).

Changes are durable when a call returns, and every later read sees them. Every call raises StoreUnavailable.
"""

from collections.abc import Sequence
from typing import Protocol

from pyroaring import BitMap

from longwire.push_model import Group, Members, SetChange, SetCount, SetKind

RESERVED_TAGS = "sys:"
"""Tags that begin so are kept by the system: platform, version and day of registration."""


class AudienceStore(Protocol):
    """Who is in which set. The bitmaps that come back are the caller's own."""

    async def everyone(self) -> BitMap:
        """Every registered device."""
        ...

    async def members(self, kind: SetKind, names: Sequence[str]) -> list[BitMap | None]:
        """The devices of each set, users' devices of groups included; None for a set that does not exist."""
        ...

    async def is_member(self, group_id: str, device_no: int, user: str | None) -> bool:
        """Whether the device is in the group: by itself or as one of this user's."""
        ...

    async def numbers_of(self, device_ids: Sequence[str]) -> list[int | None]:
        """The number of each device, None for one that is not registered. Any count; cheaper than find_devices."""
        ...

    async def devices_of_users(self, users: Sequence[str]) -> list[BitMap]:
        """The devices of each user."""
        ...

    async def change(self, changes: Sequence[SetChange], now_ms: int) -> list[bool]:
        """Applies the changes; False for a device that would have more than its bound of own tags, or is unknown.

        Sets come into being with their first member; groups do not, a change that names an unknown one is False.
        """
        ...

    async def names_of(self, device_nos: Sequence[int], kind: SetKind) -> list[tuple[str, ...]]:
        """The own tags (without ``sys:``) or the groups of each device, sorted."""
        ...

    async def counts(self, kind: SetKind, prefix: str, after: str, limit: int) -> list[SetCount]:
        """Sets whose name begins with ``prefix`` and sorts behind ``after``, by name; empty tags are left out."""
        ...

    async def add_group(self, group_id: str, title: str, now_ms: int) -> bool:
        """False where there is one of this id."""
        ...

    async def find_group(self, group_id: str) -> Group | None: ...

    async def groups(self, after: str, limit: int) -> list[Group]:
        """Groups whose id sorts behind ``after``, by id."""
        ...

    async def group_devices(self, group_id: str, after_no: int, limit: int) -> list[int]:
        """Devices that are members by themselves, with numbers above ``after_no``, in their order."""
        ...

    async def delete_group(self, group_id: str) -> bool:
        """Forgets the group; what was sent to it goes on."""
        ...

    async def change_members(self, group_id: str, add: Members, remove: Members, now_ms: int) -> tuple[int, int] | None:
        """How many were added and removed; None for an unknown group."""
        ...

    async def group_users(self, group_id: str, after: str, limit: int) -> list[str]:
        """Users who are members, by name."""
        ...

    async def keep_upload(self, upload_id: str, devices: BitMap, now_ms: int, expires_at_ms: int) -> None:
        """Keeps a list of devices under a name of its own until then."""
        ...
