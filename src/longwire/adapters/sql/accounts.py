"""Devices, tokens and keys on the SQL database.

Each call is one plain function over a Connection (here, and in registering.py and token_check.py), run as a read
or in the next group of writes. The statements on the roads of many devices are the driver's own and
take whole batches; the others are SQLAlchemy Core.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from msgspec import UNSET
from pyroaring import BitMap
from sqlalchemy import Connection, Row, Select, delete, exists, insert, literal, null, select, update
from sqlalchemy.exc import DBAPIError

from longwire.adapters.sql import audiences, bulk, device_sets, token_check
from longwire.adapters.sql.database import Database
from longwire.adapters.sql.device_sets import MAX_OWN_TAGS, Sets, SetWrites, change_sets, system_tags
from longwire.adapters.sql.domains import Domain
from longwire.adapters.sql.registering import (
    DEVICE_COLUMNS,
    device_of,
    find_devices,
    register,
)
from longwire.adapters.sql.tables import api_keys, apps, devices, inbox, presence, receipts, tokens
from longwire.errors import StoreUnavailable
from longwire.model import Credential, Device, Outcome
from longwire.ports.accounts import ApiKey, App, DeviceChange, DeviceFilter, NewDevice
from longwire.push_model import SetChange, SetKind

T = TypeVar("T")

_FURTHER = """
INSERT INTO tokens (token_hash, device_no, expires_at_ms)
SELECT ?, device_no, ? FROM devices WHERE device_no = ?
"""
_USE_NONCE = (
    "INSERT INTO nonces (app_key, nonce, expires_at_ms) VALUES (?, ?, ?) ON CONFLICT (app_key, nonce) DO NOTHING"
)
_COLUMNS = ", ".join(f'"{column.name}"' for column in DEVICE_COLUMNS)
_WITH_PREFIX = "SELECT json_group_array(device_no) FROM devices WHERE device_id >= ? AND device_id < ?"
_LAST = "\U0010ffff"
_MAX_NO = 1 << 32
_NEWEST = 5_000
"""Devices that are looked through for a prefix before the index of all is."""

ForgetInPushes = Callable[[Connection, int, int], None]
"""Ends what live pushes had for a device that is deleted: (connection, device_no, now_ms)."""


class SqlAccounts:
    """The AccountStore on one database."""

    def __init__(
        self,
        database: Database,
        forget_in_pushes: ForgetInPushes | None = None,
        max_device_tags: int = MAX_OWN_TAGS,
    ) -> None:
        self._database = database
        self._forget_in_pushes = forget_in_pushes
        self._sets = SetWrites(database, max_device_tags)

    async def check_tokens(self, token_hashes: Sequence[bytes], now_ms: int) -> list[Credential | None]:
        hashes = list(token_hashes)
        return await self._database.read(lambda connection: token_check.check_tokens(connection, hashes))

    async def register(self, devices: Sequence[NewDevice], now_ms: int) -> list[tuple[Device, bool]]:
        wanted = list(devices)
        return await self._sets.write(lambda connection, sets: register(connection, sets, wanted, now_ms), now_ms)

    async def find_devices(self, device_ids: Sequence[str]) -> list[Device | None]:
        wanted = list(device_ids)
        return await self._database.read(
            lambda connection: [None if found is None else found[0] for found in find_devices(connection, wanted)]
        )

    async def devices_of_users(self, users: Sequence[str]) -> list[list[Device]]:
        wanted = list(users)
        return await self._database.read(lambda connection: devices_of_users(connection, wanted))

    async def tags_of(self, device_nos: Sequence[int]) -> list[tuple[str, ...]]:
        wanted = list(device_nos)
        return await self._database.read(lambda connection: device_sets.names_of(connection, wanted, SetKind.TAG))

    async def find_registrations(self, device_ids: Sequence[str]) -> list[tuple[Device, bytes | None, bool] | None]:
        wanted = list(device_ids)
        return await self._database.read(lambda connection: find_devices(connection, wanted))

    async def find_by_refresh(self, refresh_hash: bytes) -> Device | None:
        query = select(*DEVICE_COLUMNS).where(devices.c.refresh_hash == refresh_hash)
        row = await self._first(query)
        return None if row is None else device_of(row)

    async def add_token(self, device_no: int, token_hash: bytes, expires_at_ms: int) -> None:
        values = (token_hash, expires_at_ms, device_no)
        await self._write(lambda connection: connection.exec_driver_sql(_FURTHER, values).close(), Domain.ACCOUNTS)

    async def token_hashes(self, device_no: int) -> list[bytes]:
        query = select(tokens.c.token_hash).where(tokens.c.device_no == device_no)
        return await self._database.read(lambda connection: list(connection.execute(query).scalars()))

    async def revoke_tokens(self, device_no: int, now_ms: int) -> None:
        await self._write(lambda connection: revoke_tokens(connection, device_no, now_ms), Domain.ACCOUNTS)

    async def set_disabled(self, device_no: int, is_disabled: bool) -> None:
        change = update(devices).where(devices.c.device_no == device_no).values(is_disabled=is_disabled)
        await self._write(lambda connection: connection.execute(change).close(), Domain.ACCOUNTS)

    async def set_user(self, device_no: int, user: str | None) -> None:
        change = update(devices).where(devices.c.device_no == device_no).values(user=user)
        await self._write(lambda connection: connection.execute(change).close(), Domain.ACCOUNTS)

    async def delete_device(self, device_no: int, now_ms: int) -> None:
        def delete(connection: Connection) -> None:
            if self._forget_in_pushes is not None:
                self._forget_in_pushes(connection, device_no, now_ms)
            delete_device(connection, device_no, now_ms)

        await self._write(delete, Domain.ACCOUNTS, Domain.SETS, Domain.MESSAGES, Domain.PUSHES, Domain.EVENTS)

    async def find_numbers(self, device_nos: Sequence[int]) -> list[Device | None]:
        wanted = list(device_nos)
        return await self._database.read(lambda connection: find_numbers(connection, wanted))

    async def change_device(self, device_no: int, change: DeviceChange, now_ms: int) -> None:
        await self._write(
            lambda connection: change_device(connection, device_no, change, now_ms), Domain.ACCOUNTS, Domain.SETS
        )

    async def ban(self, device_no: int, until_ms: int) -> None:
        change = update(devices).where(devices.c.device_no == device_no).values(banned_until_ms=until_ms)
        await self._write(lambda connection: connection.execute(change).close(), Domain.ACCOUNTS)

    async def page(self, wanted: DeviceFilter, below_no: int, limit: int) -> list[Device]:
        return await self._database.read(lambda connection: page(connection, wanted, below_no, limit))

    async def list_devices(self, after_no: int, limit: int) -> list[Device]:
        query = select(*DEVICE_COLUMNS).order_by(devices.c.device_no.desc()).limit(limit)
        if after_no > 0:
            query = query.where(devices.c.device_no < after_no)
        return await self._database.read(
            lambda connection: [device_of(row) for row in connection.execute(query).fetchall()]
        )

    async def use_nonce(self, app_key: str, nonce: str, expires_at_ms: int) -> bool:
        values = (app_key, nonce, expires_at_ms)
        return await self._write(lambda connection: connection.exec_driver_sql(_USE_NONCE, values).rowcount == 1)

    async def find_app(self, app_key: str) -> App | None:
        row = await self._first(select(apps).where(apps.c.app_key == app_key))
        return None if row is None else App(row.app_key, row.secret, row.master_hash)

    async def add_app(self, app: App) -> None:
        row = insert(apps).values(app_key=app.app_key, secret=app.secret, master_hash=app.master_hash)
        await self._write(lambda connection: connection.execute(row).close())

    async def find_key(self, key_id: str) -> ApiKey | None:
        row = await self._first(select(api_keys).where(api_keys.c.key_id == key_id))
        return None if row is None else _key_of(row)

    async def list_keys(self) -> list[ApiKey]:
        query = select(api_keys).order_by(api_keys.c.created_at_ms.desc(), api_keys.c.key_id.desc())
        return await self._database.read(
            lambda connection: [_key_of(row) for row in connection.execute(query).fetchall()]
        )

    async def add_key(self, key: ApiKey) -> None:
        row = insert(api_keys).values(
            key_id=key.key_id,
            name=key.name,
            secret_hash=key.secret_hash,
            scopes=" ".join(sorted(key.scopes)),
            created_at_ms=key.created_at_ms,
            revoked_at_ms=key.revoked_at_ms,
        )
        await self._write(lambda connection: connection.execute(row).close())

    async def revoke_key(self, key_id: str, now_ms: int) -> bool:
        change = (
            update(api_keys)
            .where(api_keys.c.key_id == key_id, api_keys.c.revoked_at_ms.is_(None))
            .values(revoked_at_ms=now_ms)
        )
        return await self._write(lambda connection: connection.execute(change).rowcount == 1)

    async def _first(self, query: Select[Any]) -> Row[Any] | None:
        return await self._database.read(lambda connection: connection.execute(query).first())

    async def _write(self, call: Callable[[Connection], T], *domains: Domain) -> T:
        """A write whose refusal by a constraint is told like every other one: nothing was kept."""
        try:
            return await self._database.write(call, *domains)
        except DBAPIError as error:
            raise StoreUnavailable(f"write refused: {error.orig}") from error


def devices_of_users(connection: Connection, users: Sequence[str]) -> list[list[Device]]:
    """The devices of each user, oldest first."""
    columns = ", ".join(f'"{column.name}"' for column in DEVICE_COLUMNS)
    template = f'SELECT {columns} FROM devices WHERE "user" IN ({{rows}}) ORDER BY device_no'
    found: dict[str, list[Device]] = {user: [] for user in users}
    for row in bulk.select_in(connection, template, found):
        device = device_of(row)
        assert device.user is not None
        found[device.user].append(device)
    return [list(found[user]) for user in users]


def find_numbers(connection: Connection, device_nos: Sequence[int]) -> list[Device | None]:
    """The devices of these numbers."""
    template = f"SELECT {_COLUMNS} FROM devices WHERE device_no IN ({{rows}})"
    found = {row[0]: device_of(row) for row in bulk.select_in(connection, template, dict.fromkeys(device_nos))}
    return [found.get(device_no) for device_no in device_nos]


def page(connection: Connection, wanted: DeviceFilter, below_no: int, limit: int) -> list[Device]:
    """See AccountStore.page: what is asked for becomes one bitmap, and its highest numbers are looked up."""
    if wanted.prefix and wanted == DeviceFilter(prefix=wanted.prefix):
        return _page_by_prefix(connection, wanted.prefix, below_no, limit)
    numbers = device_sets.everyone(connection)
    for chosen in _chosen(connection, wanted):
        numbers &= chosen
    if wanted.without is not None:
        numbers -= wanted.without
    if below_no:
        numbers.remove_range(below_no, _MAX_NO)
    newest = numbers[-limit:] if len(numbers) > limit else numbers
    return [device for device in find_numbers(connection, list(newest)[::-1]) if device is not None]


def _page_by_prefix(connection: Connection, prefix: str, below_no: int, limit: int) -> list[Device]:
    """Without a bitmap, which of a prefix that a million devices have holds the process for 100 ms.

    A prefix that many have is met among the newest; of one that few have the ids' index gives all at once.
    """
    newest = select(devices.c.device_no, devices.c.device_id).order_by(devices.c.device_no.desc()).limit(_NEWEST)
    if below_no:
        newest = newest.where(devices.c.device_no < below_no)
    numbers: list[int] = []
    for among in (newest.subquery(), devices):
        query = select(among.c.device_no).where(among.c.device_id >= prefix, among.c.device_id < prefix + _LAST)
        if below_no:
            query = query.where(among.c.device_no < below_no)
        query = query.order_by(among.c.device_no.desc()).limit(limit)
        numbers = list(connection.execute(query).scalars())
        if len(numbers) == limit:
            break
    return [device for device in find_numbers(connection, numbers) if device is not None]


def _chosen(connection: Connection, wanted: DeviceFilter) -> Iterator[BitMap]:
    if wanted.among is not None:
        yield wanted.among
    for kind, name in ((SetKind.TAG, wanted.tag), (SetKind.GROUP, wanted.group)):
        if name is not None:
            yield audiences.members(connection, kind, [name])[0] or BitMap()
    if wanted.user is not None:
        yield audiences.devices_of_user(connection, wanted.user)
    if wanted.prefix:
        yield BitMap(bulk.listed(connection, _WITH_PREFIX, wanted.prefix, wanted.prefix + _LAST))


def change_device(connection: Connection, device_no: int, change: DeviceChange, now_ms: int) -> None:
    """See AccountStore.change_device."""
    device = find_numbers(connection, [device_no])[0]
    if device is None:
        return
    platform = device.platform if change.platform is None else change.platform
    app_version = device.app_version if change.app_version is None else change.app_version
    user = device.user if change.user is UNSET else change.user
    new = update(devices).where(devices.c.device_no == device_no)
    connection.execute(new.values(user=user, platform=platform, app_version=app_version)).close()
    before, after = system_tags(device.platform, device.app_version), system_tags(platform, app_version)
    if before != after:
        change_sets(connection, [SetChange(device_no, SetKind.TAG, after, before)], now_ms)


def revoke_tokens(connection: Connection, device_no: int, now_ms: int) -> None:
    """Ends every token of the device, and its refresh token."""
    connection.execute(
        update(tokens)
        .where(tokens.c.device_no == device_no, tokens.c.revoked_at_ms.is_(None))
        .values(revoked_at_ms=now_ms)
    )
    # Claimed: nobody else is to become this device by the application's key alone.
    ended = update(devices).where(devices.c.device_no == device_no).values(refresh_hash=null(), is_claimed=True)
    connection.execute(ended)


def delete_device(connection: Connection, device_no: int, now_ms: int) -> None:
    """Forgets the device. What waited for it ends as withdrawn; its number is never given again."""
    is_ended = exists().where(receipts.c.seq == inbox.c.seq, receipts.c.device_no == device_no)
    withdrawn = select(
        inbox.c.seq, inbox.c.device_no, literal(int(Outcome.WITHDRAWN)), literal(now_ms), literal("")
    ).where(inbox.c.device_no == device_no, ~is_ended)
    connection.execute(insert(receipts).from_select(["seq", "device_no", "outcome", "at_ms", "node_id"], withdrawn))
    sets = Sets(connection)
    sets.forget(device_no)
    sets.flush(now_ms)
    for table in (inbox, presence, tokens, devices):
        connection.execute(delete(table).where(table.c.device_no == device_no))


def _key_of(row: Row[Any]) -> ApiKey:
    return ApiKey(
        row.key_id,
        row.name,
        row.secret_hash,
        frozenset(row.scopes.split()),
        row.created_at_ms,
        row.revoked_at_ms,
    )
