"""The AudienceStore: device_sets.py behind the port, and groups with their users."""

from collections.abc import Sequence
from typing import Any

from pyroaring import BitMap
from sqlalchemy import Connection

from longwire.adapters.sql import bulk, device_sets
from longwire.adapters.sql.database import Database
from longwire.adapters.sql.device_sets import MAX_OWN_TAGS, SetWrites, change_sets
from longwire.adapters.sql.domains import Domain, take
from longwire.push_model import Group, Members, SetChange, SetCount, SetKind

_ADD_SET = "INSERT INTO device_sets (set_no, kind, name, title, created_at_ms, expires_at_ms) VALUES (?, ?, ?, ?, ?, ?)"
_COUNTS = """
SELECT s.name, SUM(g.size), MIN(s.created_at_ms) FROM device_sets s JOIN device_set_segments g ON g.set_no = s.set_no
WHERE s.kind = ? AND s.name > ? AND s.name >= ? AND s.name < ? GROUP BY s.name ORDER BY s.name LIMIT ?
"""
_GROUPS = """
SELECT s.name, s.title, s.created_at_ms,
    (SELECT coalesce(SUM(g.size), 0) FROM device_set_segments g WHERE g.set_no = s.set_no),
    (SELECT COUNT(*) FROM group_users u WHERE u.set_no = s.set_no)
FROM device_sets s WHERE s.kind = ? AND s.name {operator} ? ORDER BY s.name LIMIT ?
"""
_LAST = "\U0010ffff"
# One row for any number of devices: see token_check.py for what that saves.
_OF_USER = 'SELECT json_group_array(device_no) FROM devices WHERE "user" = ?'
_OF_GROUP = """
SELECT json_group_array(d.device_no) FROM group_users g JOIN devices d ON d."user" = g."user" WHERE g.set_no = ?
"""
_ADD_USERS = 'INSERT OR IGNORE INTO group_users (set_no, "user") VALUES {rows}'
_REMOVE_USERS = 'DELETE FROM group_users WHERE (set_no, "user") IN (VALUES {rows})'
_IS_MEMBER = 'SELECT 1 FROM group_users WHERE set_no = ? AND "user" = ?'
_FIND_OWN = "SELECT sets FROM device_memberships WHERE device_no = ?"
_USERS = """
SELECT u."user" FROM group_users u JOIN device_sets s ON s.set_no = u.set_no
WHERE s.kind = ? AND s.name = ? AND u."user" > ? ORDER BY u."user" LIMIT ?
"""


class SqlAudiences:
    """ports.audiences.AudienceStore on one database."""

    def __init__(self, database: Database, max_device_tags: int = MAX_OWN_TAGS) -> None:
        self._database = database
        self._writes = SetWrites(database, max_device_tags)

    async def everyone(self) -> BitMap:
        return await self._database.read(device_sets.everyone)

    async def members(self, kind: SetKind, names: Sequence[str]) -> list[BitMap | None]:
        wanted = list(names)
        return await self._database.read(lambda connection: members(connection, kind, wanted))

    async def is_member(self, group_id: str, device_no: int, user: str | None) -> bool:
        return await self._database.read(lambda connection: is_member(connection, group_id, device_no, user))

    async def numbers_of(self, device_ids: Sequence[str]) -> list[int | None]:
        wanted = list(device_ids)
        return await self._database.read(lambda connection: device_sets.numbers_of(connection, wanted))

    async def devices_of_users(self, users: Sequence[str]) -> list[BitMap]:
        wanted = list(users)
        return await self._database.read(lambda connection: [devices_of_user(connection, user) for user in wanted])

    async def change(self, changes: Sequence[SetChange], now_ms: int) -> list[bool]:
        wanted = list(changes)
        return await self._writes.write(lambda _connection, sets: sets.apply(wanted, now_ms), now_ms)

    async def names_of(self, device_nos: Sequence[int], kind: SetKind) -> list[tuple[str, ...]]:
        wanted = list(device_nos)
        return await self._database.read(lambda connection: device_sets.names_of(connection, wanted, kind))

    async def counts(self, kind: SetKind, prefix: str, after: str, limit: int) -> list[SetCount]:
        values = (int(kind), after, prefix, prefix + _LAST, limit)
        rows = await self._rows(_COUNTS, values)
        return [SetCount(name, devices, created_at_ms) for name, devices, created_at_ms in rows]

    async def add_group(self, group_id: str, title: str, now_ms: int) -> bool:
        def add(connection: Connection) -> bool:
            if device_sets.find_sets(connection, SetKind.GROUP, [group_id]):
                return False
            _add_set(connection, (SetKind.GROUP, group_id, title, now_ms, None))
            return True

        return await self._database.write(add, Domain.SETS)

    async def find_group(self, group_id: str) -> Group | None:
        rows = await self._rows(_GROUPS.format(operator="="), (int(SetKind.GROUP), group_id, 1))
        return Group(*rows[0]) if rows else None

    async def groups(self, after: str, limit: int) -> list[Group]:
        rows = await self._rows(_GROUPS.format(operator=">"), (int(SetKind.GROUP), after, limit))
        return [Group(*row) for row in rows]

    async def delete_group(self, group_id: str) -> bool:
        def delete(connection: Connection) -> bool:
            found = device_sets.find_sets(connection, SetKind.GROUP, [group_id])
            device_sets.delete_sets(connection, list(found.values()))
            return bool(found)

        return await self._database.write(delete, Domain.SETS)

    async def change_members(self, group_id: str, add: Members, remove: Members, now_ms: int) -> tuple[int, int] | None:
        return await self._database.write(
            lambda connection: change_members(connection, group_id, add, remove, now_ms), Domain.SETS
        )

    async def group_devices(self, group_id: str, after_no: int, limit: int) -> list[int]:
        def read(connection: Connection) -> list[int]:
            found = device_sets.find_sets(connection, SetKind.GROUP, [group_id])
            own = BitMap.union(BitMap(), *device_sets.members(connection, found.values()).values())
            own.remove_range(0, after_no + 1)
            return list(own[:limit])

        return await self._database.read(read)

    async def group_users(self, group_id: str, after: str, limit: int) -> list[str]:
        rows = await self._rows(_USERS, (int(SetKind.GROUP), group_id, after, limit))
        return [user for (user,) in rows]

    async def keep_upload(self, upload_id: str, devices: BitMap, now_ms: int, expires_at_ms: int) -> None:
        def keep(connection: Connection) -> None:
            _add_set(connection, (SetKind.UPLOAD, upload_id, "", now_ms, expires_at_ms))
            set_no = device_sets.find_sets(connection, SetKind.UPLOAD, [upload_id])[upload_id]
            device_sets.put_members(connection, set_no, devices)

        await self._database.write(keep, Domain.SETS)

    async def _rows(self, statement: str, values: tuple[Any, ...]) -> Sequence[Any]:
        return await self._database.read(lambda connection: connection.exec_driver_sql(statement, values).fetchall())


def _add_set(connection: Connection, values: tuple[Any, ...]) -> None:
    connection.exec_driver_sql(_ADD_SET, (*take(connection, Domain.SETS, 1), *values)).close()


def members(connection: Connection, kind: SetKind, names: Sequence[str]) -> list[BitMap | None]:
    """See AudienceStore.members."""
    numbers = device_sets.find_sets(connection, kind, names)
    found = device_sets.members(connection, numbers.values())
    if kind is SetKind.GROUP:
        for set_no, own in found.items():
            own |= listed(connection, _OF_GROUP, set_no)
    return [found[numbers[name]].copy() if name in numbers else None for name in names]


def devices_of_user(connection: Connection, user: str) -> BitMap:
    """The devices of a user."""
    return listed(connection, _OF_USER, user)


def is_member(connection: Connection, group_id: str, device_no: int, user: str | None) -> bool:
    """See AudienceStore.is_member."""
    set_no = device_sets.find_sets(connection, SetKind.GROUP, [group_id]).get(group_id)
    if set_no is None:
        return False
    own = connection.exec_driver_sql(_FIND_OWN, (device_no,)).first()
    if own is not None and set_no in BitMap.deserialize(own[0]):
        return True
    return user is not None and connection.exec_driver_sql(_IS_MEMBER, (set_no, user)).first() is not None


def change_members(
    connection: Connection, group_id: str, add: Members, remove: Members, now_ms: int
) -> tuple[int, int] | None:
    """See AudienceStore.change_members. Who is to be added and removed is added."""
    set_no = device_sets.find_sets(connection, SetKind.GROUP, [group_id]).get(group_id)
    if set_no is None:
        return None
    before = device_sets.members(connection, [set_no])[set_no]
    joining, leaving = BitMap(add.devices), BitMap(remove.devices) - BitMap(add.devices)
    changes = [SetChange(device_no, SetKind.GROUP, add=(group_id,)) for device_no in joining - before]
    done = change_sets(connection, changes, now_ms)
    leavers = leaving & before
    change_sets(connection, [SetChange(device_no, SetKind.GROUP, remove=(group_id,)) for device_no in leavers], now_ms)
    removed = bulk.execute(
        connection, _REMOVE_USERS, [(set_no, user) for user in dict.fromkeys(remove.users) if user not in add.users]
    )
    added = bulk.execute(connection, _ADD_USERS, [(set_no, user) for user in dict.fromkeys(add.users)])
    return sum(done) + added, len(leavers) + removed


def listed(connection: Connection, statement: str, *values: object) -> BitMap:
    """The devices that a statement lists."""
    return BitMap(bulk.listed(connection, statement, *values))
