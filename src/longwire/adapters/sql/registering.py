"""Registering devices, a whole batch in a handful of statements.

Runs on the writer, which is alone: what is looked up first still holds when it is written.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from longwire.adapters.sql import bulk
from longwire.adapters.sql.tables import devices
from longwire.model import Device
from longwire.ports.accounts import AlreadyRegistered, NewDevice

DEVICE_COLUMNS = (
    devices.c.device_no,
    devices.c.device_id,
    devices.c.user,
    devices.c.platform,
    devices.c.app_version,
    devices.c.registered_at_ms,
    devices.c.is_disabled,
)
_COLUMNS = ", ".join(f'"{column.name}"' for column in DEVICE_COLUMNS)
_FIND = f"SELECT {_COLUMNS}, refresh_hash FROM devices WHERE device_id IN ({{rows}})"
_ADD_DEVICES = """
INSERT INTO devices (device_id, "user", platform, app_version, registered_at_ms, refresh_hash) VALUES {rows}
"""
_CHANGE_DEVICE = """
UPDATE devices SET
    refresh_hash = coalesce(?, refresh_hash), "user" = coalesce(?, "user"),
    platform = coalesce(nullif(?, ''), platform), app_version = coalesce(nullif(?, ''), app_version)
WHERE device_no = ?
"""
_GIVE_TOKENS = "INSERT INTO tokens (token_hash, device_no, expires_at_ms) VALUES {rows}"
_ADD_TAGS = "INSERT INTO device_tags (device_no, tag) VALUES {rows} ON CONFLICT (device_no, tag) DO NOTHING"


def device_of(row: Any) -> Device:
    """A row that begins with DEVICE_COLUMNS, as a Device."""
    number, device_id, user, platform, app_version, registered_at_ms, is_disabled, *_ = row
    return Device(number, device_id, user, platform, app_version, registered_at_ms, bool(is_disabled))


def find_devices(connection: Connection, device_ids: Sequence[str]) -> list[tuple[Device, bytes | None] | None]:
    """Each device with its refresh hash, None for an unknown one."""
    found = {row[1]: row for row in bulk.select_in(connection, _FIND, dict.fromkeys(device_ids))}
    return [None if (row := found.get(device_id)) is None else (device_of(row), row[7]) for device_id in device_ids]


def register(connection: Connection, wanted: Sequence[NewDevice], now_ms: int) -> list[tuple[Device, bool]]:
    """See AccountStore.register."""
    ids = [new.device_id for new in wanted]
    known = {device_id for device_id, device in zip(ids, find_devices(connection, ids), strict=True) if device}
    fresh: dict[str, NewDevice] = {}
    changed: list[NewDevice] = []
    is_new: list[bool] = []
    for new in wanted:
        is_known = new.device_id in known or new.device_id in fresh
        if is_known and new.must_be_new:
            raise AlreadyRegistered(f"device {new.device_id} is registered")
        is_new.append(not is_known)
        if is_known:
            changed.append(new)
        else:
            fresh[new.device_id] = new
    bulk.execute(
        connection,
        _ADD_DEVICES,
        [(new.device_id, new.user, new.platform, new.app_version, now_ms, new.refresh_hash) for new in fresh.values()],
    )
    numbers = _numbers(connection, ids)
    changes = [
        (new.refresh_hash, new.user, new.platform, new.app_version, numbers[new.device_id])
        for new in changed
        if new.refresh_hash is not None or new.user is not None or new.platform or new.app_version
    ]
    if changes:
        connection.exec_driver_sql(_CHANGE_DEVICE, changes)
    bulk.execute(
        connection,
        _GIVE_TOKENS,
        [(new.token_hash, numbers[new.device_id], new.token_expires_at_ms) for new in wanted],
    )
    bulk.execute(connection, _ADD_TAGS, [(numbers[new.device_id], tag) for new in wanted for tag in new.tags])
    found = find_devices(connection, ids)
    return [(entry[0], new) for entry, new in zip(found, is_new, strict=True) if entry is not None]


def _numbers(connection: Connection, device_ids: Sequence[str]) -> dict[str, int]:
    template = "SELECT device_id, device_no FROM devices WHERE device_id IN ({rows})"
    return dict(tuple(row) for row in bulk.select_in(connection, template, dict.fromkeys(device_ids)))
