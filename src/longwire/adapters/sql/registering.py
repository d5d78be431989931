"""Registering devices, a whole batch in a handful of statements.

Runs in a group that is alone with these tables: what is looked up first still holds when it is written.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from longwire.adapters.sql import bulk
from longwire.adapters.sql.device_sets import Sets, day_tag, system_tags
from longwire.adapters.sql.domains import Domain, take
from longwire.adapters.sql.tables import devices
from longwire.model import Device
from longwire.ports.accounts import AlreadyRegistered, NewDevice, TooManyTags
from longwire.push_model import SetChange, SetKind

DEVICE_COLUMNS = (
    devices.c.device_no,
    devices.c.device_id,
    devices.c.user,
    devices.c.platform,
    devices.c.app_version,
    devices.c.registered_at_ms,
    devices.c.is_disabled,
    devices.c.banned_until_ms,
)
_COLUMNS = ", ".join(f'"{column.name}"' for column in DEVICE_COLUMNS)
_FIND = f"SELECT {_COLUMNS}, refresh_hash, is_claimed FROM devices WHERE device_id IN ({{rows}})"
_ADD_DEVICES = """
INSERT INTO devices
    (device_no, device_id, "user", platform, app_version, registered_at_ms, refresh_hash, is_claimed) VALUES {rows}
"""
_CHANGE_DEVICE = """
UPDATE devices SET
    refresh_hash = coalesce(?, refresh_hash), "user" = coalesce(?, "user"),
    platform = coalesce(nullif(?, ''), platform), app_version = coalesce(nullif(?, ''), app_version),
    is_claimed = is_claimed | ?
WHERE device_no = ?
"""
_GIVE_TOKENS = "INSERT INTO tokens (token_hash, device_no, expires_at_ms) VALUES {rows}"


def device_of(row: Any) -> Device:
    """A row that begins with DEVICE_COLUMNS, as a Device."""
    number, device_id, user, platform, app_version, registered_at_ms, is_disabled, banned_until_ms, *_ = row
    return Device(number, device_id, user, platform, app_version, registered_at_ms, bool(is_disabled), banned_until_ms)


def find_devices(connection: Connection, device_ids: Sequence[str]) -> list[tuple[Device, bytes | None, bool] | None]:
    """Each device with its refresh hash and whether it is claimed, None for an unknown one."""
    found = {row[1]: row for row in bulk.select_in(connection, _FIND, dict.fromkeys(device_ids))}
    return [
        None if (row := found.get(device_id)) is None else (device_of(row), row[8], bool(row[9]))
        for device_id in device_ids
    ]


def register(connection: Connection, sets: Sets, wanted: Sequence[NewDevice], now_ms: int) -> list[tuple[Device, bool]]:
    """See AccountStore.register. What the sets become is not yet written."""
    ids = [new.device_id for new in wanted]
    known = {entry[0].device_id: entry for entry in find_devices(connection, ids) if entry is not None}
    fresh: dict[str, NewDevice] = {}
    changed: list[NewDevice] = []
    is_new: list[bool] = []
    for new in wanted:
        entry = known.get(new.device_id)
        is_known = entry is not None or new.device_id in fresh
        if is_known and new.must_be_new and (entry is None or entry[2]):
            raise AlreadyRegistered(f"device {new.device_id} is registered")
        is_new.append(not is_known)
        if is_known:
            changed.append(new)
        else:
            fresh[new.device_id] = new
    bulk.execute(
        connection,
        _ADD_DEVICES,
        [
            (number, new.device_id, new.user, new.platform, new.app_version, now_ms, new.refresh_hash, new.is_claimed)
            for number, new in zip(take(connection, Domain.ACCOUNTS, len(fresh)), fresh.values(), strict=True)
        ],
    )
    numbers = _numbers(connection, ids)
    changes = [
        (new.refresh_hash, new.user, new.platform, new.app_version, new.is_claimed, numbers[new.device_id])
        for new in changed
        if new.refresh_hash is not None
        or new.user is not None
        or new.platform
        or new.app_version
        or (new.is_claimed and not (new.device_id in known and known[new.device_id][2]))
    ]
    if changes:
        connection.exec_driver_sql(_CHANGE_DEVICE, changes)
    bulk.execute(
        connection,
        _GIVE_TOKENS,
        [(new.token_hash, numbers[new.device_id], new.token_expires_at_ms) for new in wanted if new.is_claimed],
    )
    said = {device_id: (entry[0].platform, entry[0].app_version) for device_id, entry in known.items()}
    _join_sets(sets, wanted, numbers, said, now_ms)
    found = find_devices(connection, ids)
    return [(entry[0], new) for entry, new in zip(found, is_new, strict=True) if entry is not None]


def _join_sets(
    sets: Sets, wanted: Sequence[NewDevice], numbers: dict[str, int], said: dict[str, tuple[str, str]], now_ms: int
) -> None:
    """Everyone, the system's tags, and those named. ``said``: platform and version of devices known before."""
    changes: list[SetChange] = []
    today = day_tag(now_ms)
    for new in wanted:
        number, before = numbers[new.device_id], said.get(new.device_id)
        if before is None:
            changes.append(SetChange(number, SetKind.EVERYONE, add=("",)))
            before, add = ("", ""), (today, *new.tags)
        else:
            add = new.tags
        after = (new.platform or before[0], new.app_version or before[1])
        said[new.device_id] = after
        remove: tuple[str, ...] = ()
        if after != before:
            remove, add = system_tags(*before), (*system_tags(*after), *add)
        if add:
            changes.append(SetChange(number, SetKind.TAG, add, remove))
    for change, is_done in zip(changes, sets.apply(changes, now_ms), strict=True):
        if not is_done:
            device_id = next(name for name, number in numbers.items() if number == change.device_no)
            raise TooManyTags(f"device {device_id} would have more tags than a device may")


def _numbers(connection: Connection, device_ids: Sequence[str]) -> dict[str, int]:
    template = "SELECT device_id, device_no FROM devices WHERE device_id IN ({rows})"
    return dict(tuple(row) for row in bulk.select_in(connection, template, dict.fromkeys(device_ids)))
