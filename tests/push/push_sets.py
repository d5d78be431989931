"""ports.audiences.AudienceStore in memory, as far as audiences read it."""

from collections.abc import Sequence

from pyroaring import BitMap

from longwire.push_model import SetKind


class MemorySets:
    def __init__(
        self,
        tags: dict[str, BitMap] | None = None,
        groups: dict[str, BitMap] | None = None,
        uploads: dict[str, BitMap] | None = None,
        users: dict[str, BitMap] | None = None,
        devices: dict[str, int] | None = None,
    ) -> None:
        self.sets = {SetKind.TAG: tags or {}, SetKind.GROUP: groups or {}, SetKind.UPLOAD: uploads or {}}
        self.users = users or {}
        self.devices = devices or {}
        self.reads: list[tuple[str, tuple[str, ...]]] = []

    async def everyone(self) -> BitMap:
        return BitMap(self.devices.values())

    async def members(self, kind: SetKind, names: Sequence[str]) -> list[BitMap | None]:
        self.reads.append((kind.name, tuple(names)))
        found = [self.sets[kind].get(name) for name in names]
        return [None if devices is None else devices.copy() for devices in found]

    async def numbers_of(self, device_ids: Sequence[str]) -> list[int | None]:
        self.reads.append(("devices", tuple(device_ids)))
        return [self.devices.get(name) for name in device_ids]

    async def devices_of_users(self, users: Sequence[str]) -> list[BitMap]:
        self.reads.append(("users", tuple(users)))
        return [self.users.get(name, BitMap()).copy() for name in users]
