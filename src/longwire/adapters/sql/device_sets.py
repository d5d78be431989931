"""Sets of devices: one blob a (set, segment), and beside each device the numbers of its sets.

    device_sets: kind, name ─► set_no ─► device_set_segments: (set_no, segment) ─► size, members
    device_memberships: device_no ─► numbers of its sets (not uploads)

``Sets`` is what one group of writes does to them: whatever is touched is read once, and written once by ``flush``.
Reads go to what is committed; nothing is cached, so that every process sees a change with its next read. A number
is never given twice: numbers of deleted sets may stay in memberships, where they mean nothing.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

import msgspec
from pyroaring import BitMap
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from longwire import bitmaps
from longwire.adapters.sql import bulk
from longwire.adapters.sql.database import Database
from longwire.adapters.sql.domains import Domain, take
from longwire.errors import StoreUnavailable
from longwire.ports.audiences import RESERVED_TAGS
from longwire.push_model import SetChange, SetKind

T = TypeVar("T")

MAX_OWN_TAGS = 200
EMPTY_KEPT_MS = 86_400_000
"""How long a tag without members keeps its number."""

_IDS_AT_ONCE = 10_000
_FIND_SETS = "SELECT set_no, name, expires_at_ms FROM device_sets WHERE kind = ? AND name IN ({rows})"
_KINDS = "SELECT set_no, kind, name FROM device_sets WHERE set_no IN ({rows})"
_ADD_SETS = "INSERT INTO device_sets (set_no, kind, name, created_at_ms, expires_at_ms) VALUES {rows}"
_KEEP_SETS = "UPDATE device_sets SET expires_at_ms = NULL WHERE set_no IN ({rows})"
_EMPTY_SET = """
UPDATE device_sets SET expires_at_ms = ? WHERE set_no = ? AND kind = ?
AND NOT EXISTS (SELECT 1 FROM device_set_segments g WHERE g.set_no = device_sets.set_no)
"""
_FIND_OWN = "SELECT device_no, sets FROM device_memberships WHERE device_no IN ({rows})"
_PUT_OWN = """
INSERT INTO device_memberships (device_no, sets) VALUES {rows}
ON CONFLICT (device_no) DO UPDATE SET sets = excluded.sets
"""
_FORGET_OWN = "DELETE FROM device_memberships WHERE device_no = ?"
_FIND_PARTS = "SELECT set_no, members FROM device_set_segments WHERE segment = ? AND set_no IN ({rows})"
_PUT_PARTS = """
INSERT INTO device_set_segments (set_no, segment, size, members) VALUES {rows}
ON CONFLICT (set_no, segment) DO UPDATE SET size = excluded.size, members = excluded.members
"""
_DELETE_PART = "DELETE FROM device_set_segments WHERE set_no = ? AND segment = ?"
_ALL_PARTS = "SELECT set_no, members FROM device_set_segments WHERE set_no IN ({rows})"
# One row for a whole batch, in its order: see token_check.py for what that saves.
_NUMBERS = """
SELECT json_group_array(d.device_no) FROM json_each(?) AS wanted LEFT JOIN devices d ON d.device_id = wanted.value
"""
_NUMBERED = "SELECT device_id, device_no FROM devices WHERE device_id IN ({rows})"
_numbers = msgspec.json.Decoder(list[int | None])


def system_tags(platform: str, app_version: str) -> tuple[str, ...]:
    """The tags that the system keeps for a device that says this of itself."""
    platform_tag = (f"{RESERVED_TAGS}platform={platform}",) if platform else ()
    return (*platform_tag, f"{RESERVED_TAGS}version={app_version}") if app_version else platform_tag


def day_tag(registered_at_ms: int) -> str:
    """The tag of all devices that were registered on this day (UTC)."""
    return f"{RESERVED_TAGS}registered={datetime.fromtimestamp(registered_at_ms / 1000, UTC):%Y-%m-%d}"


def change_sets(connection: Connection, changes: Sequence[SetChange], now_ms: int) -> list[bool]:
    """Applies changes within the writer's transaction; see AudienceStore.change.

    Further than that port goes: names may begin ``sys:``, and a change of EVERYONE makes a device known.
    """
    sets = Sets(connection)
    done = sets.apply(changes, now_ms)
    sets.flush(now_ms)
    return done


class Sets:
    """The sets as one transaction of the writer changes them. Nothing is written to segments before ``flush``."""

    def __init__(self, connection: Connection, max_own_tags: int = MAX_OWN_TAGS) -> None:
        self._connection = connection
        self._max_own_tags = max_own_tags
        self._names: dict[tuple[SetKind, str], int] = {}
        self._own_tags = BitMap()
        """Of the numbers seen, those of tags that are not the system's."""
        self._seen = BitMap()
        self._expiring: set[int] = set()
        self._mine: dict[int, BitMap | None] = {}
        self._changed: set[int] = set()
        self._moves: dict[int, dict[int, bool]] = {}
        """By set: the devices that join it (True) or leave it."""

    def apply(self, changes: Sequence[SetChange], now_ms: int) -> list[bool]:
        """As ``change_sets``."""
        self._find_names(changes, now_ms)
        self._find_devices({change.device_no for change in changes})
        return [self._change(change) for change in changes]

    def forget(self, device_no: int) -> None:
        """Takes the device out of everything."""
        self._find_devices({device_no})
        for set_no in self._mine[device_no] or ():
            self._move(set_no, device_no, False)
        self._mine[device_no] = None
        self._changed.add(device_no)

    def flush(self, now_ms: int) -> None:
        """Writes what has changed."""
        by_segment: dict[int, dict[int, tuple[BitMap, BitMap]]] = {}
        for set_no, moves in self._moves.items():
            for segment, (joining, leaving) in _by_segment(moves).items():
                by_segment.setdefault(segment, {})[set_no] = (joining, leaving)
        emptied: set[int] = set()
        for segment, moved in by_segment.items():
            emptied |= self._flush_segment(segment, moved)
        changed = [(device_no, self._mine[device_no]) for device_no in self._changed]
        bulk.execute(self._connection, _PUT_OWN, [(no, mine.serialize()) for no, mine in changed if mine is not None])
        for device_no in [no for no, mine in changed if mine is None]:
            self._connection.exec_driver_sql(_FORGET_OWN, (device_no,)).close()
        kept = [no for no in self._expiring if any(self._moves.get(no, {}).values())]
        bulk.update_in(self._connection, _KEEP_SETS, kept)
        for set_no in emptied:
            values = (now_ms + EMPTY_KEPT_MS, set_no, int(SetKind.TAG))
            self._connection.exec_driver_sql(_EMPTY_SET, values).close()
        self._moves.clear()
        self._changed.clear()
        self._expiring -= set(kept)

    def _flush_segment(self, segment: int, moved: dict[int, tuple[BitMap, BitMap]]) -> set[int]:
        """The sets that have nobody in this segment any more."""
        parts = {
            set_no: bitmaps.load(blob) for set_no, blob in bulk.select_in(self._connection, _FIND_PARTS, moved, segment)
        }
        rows: list[tuple[int, int, int, bytes]] = []
        emptied: set[int] = set()
        for set_no, (joining, leaving) in moved.items():
            members = (parts.get(set_no, BitMap()) | joining) - leaving
            blob = bitmaps.dump(members)
            if blob is not None:
                rows.append((set_no, segment, len(members), blob))
            elif set_no in parts:
                self._connection.exec_driver_sql(_DELETE_PART, (set_no, segment)).close()
                emptied.add(set_no)
        bulk.execute(self._connection, _PUT_PARTS, rows)
        return emptied

    # -- one change -------------------------------------------------------------------------------------------

    def _change(self, change: SetChange) -> bool:
        device_no, kind = change.device_no, change.kind
        mine = self._mine[device_no]
        if mine is None:
            if kind is not SetKind.EVERYONE:
                return False
            mine = BitMap()
        try:
            wanted = BitMap([self._names[kind, name] for name in change.add])
        except KeyError:  # tags were made by _find_names: it is a group
            return False
        joining, leaving = wanted - mine, BitMap()
        if change.remove:
            leaving.update([no for name in change.remove if (no := self._names.get((kind, name))) is not None])
            if kind is SetKind.GROUP and len(leaving) < len(set(change.remove)):
                return False
        if change.replaces:
            leaving |= self._own_tags_of(mine)
        if leaving:
            leaving &= mine - wanted
        after = (mine | joining) - leaving
        if kind is SetKind.TAG and len(after) > self._max_own_tags:
            is_more = bool(joining & self._own_tags)
            if is_more and len(self._own_tags_of(after)) > self._max_own_tags:
                return False
            after &= self._seen_of(after)
        for set_no in joining:
            self._move(set_no, device_no, True)
        for set_no in leaving:
            self._move(set_no, device_no, False)
        if joining or leaving or self._mine[device_no] is None:
            self._mine[device_no] = after
            self._changed.add(device_no)
        return True

    def _move(self, set_no: int, device_no: int, is_joining: bool) -> None:
        moves = self._moves.get(set_no)
        if moves is None:
            moves = self._moves[set_no] = {}
        moves[device_no] = is_joining

    def _own_tags_of(self, numbers: BitMap) -> BitMap:
        return self._seen_of(numbers) & self._own_tags

    def _seen_of(self, numbers: BitMap) -> BitMap:
        """Those of the numbers that are of sets which exist."""
        unseen = numbers - self._seen
        for set_no, kind, name in bulk.select_in(self._connection, _KINDS, unseen):
            self._see(SetKind(kind), name, set_no)
        return numbers & self._seen

    # -- what is read -----------------------------------------------------------------------------------------

    def _find_devices(self, device_nos: set[int]) -> None:
        unknown = [device_no for device_no in device_nos if device_no not in self._mine]
        found = dict(tuple(row) for row in bulk.select_in(self._connection, _FIND_OWN, unknown))
        for device_no in unknown:
            blob = found.get(device_no)
            self._mine[device_no] = None if blob is None else bitmaps.load(blob)

    def _find_names(self, changes: Sequence[SetChange], now_ms: int) -> None:
        """Looks up the sets, and makes tags that there are not; those expire unless somebody joins them."""
        for kind in {change.kind for change in changes}:
            added = {name for change in changes if change.kind is kind for name in change.add}
            named = added.union(*(change.remove for change in changes if change.kind is kind))
            self._look_up(kind, [name for name in named if (kind, name) not in self._names])
            missing = [name for name in sorted(added) if (kind, name) not in self._names]
            if missing and kind is not SetKind.GROUP:
                expires_at_ms = now_ms + EMPTY_KEPT_MS
                numbers = take(self._connection, Domain.SETS, len(missing))
                rows = [
                    (number, int(kind), name, now_ms, expires_at_ms)
                    for number, name in zip(numbers, missing, strict=True)
                ]
                bulk.execute(self._connection, _ADD_SETS, rows)
                self._look_up(kind, missing)

    def _look_up(self, kind: SetKind, names: Sequence[str]) -> None:
        for set_no, name, expires_at_ms in bulk.select_in(self._connection, _FIND_SETS, names, int(kind)):
            self._see(kind, name, set_no)
            if expires_at_ms is not None:
                self._expiring.add(set_no)

    def _see(self, kind: SetKind, name: str, set_no: int) -> None:
        self._names[kind, name] = set_no
        self._seen.add(set_no)
        if kind is SetKind.TAG and not name.startswith(RESERVED_TAGS):
            self._own_tags.add(set_no)


def _by_segment(moves: dict[int, bool]) -> dict[int, tuple[BitMap, BitMap]]:
    joining = bitmaps.split(BitMap([device_no for device_no, is_joining in moves.items() if is_joining]))
    leaving = bitmaps.split(BitMap([device_no for device_no, is_joining in moves.items() if not is_joining]))
    none = BitMap()
    return {
        segment: (joining.get(segment, none), leaving.get(segment, none)) for segment in joining.keys() | leaving.keys()
    }


class SetWrites:
    """Calls that change sets, gathered: those that wait together touch each blob once, and each is told its own."""

    def __init__(self, database: Database, max_own_tags: int = MAX_OWN_TAGS) -> None:
        self._database = database
        self._max_own_tags = max_own_tags
        self._stage = database.stage(
            self._run,
            lambda call, result: call.settle(result),
            lambda call, error: call.fail(error),
            Domain.ACCOUNTS,
            Domain.SETS,
        )

    async def write(self, call: Callable[[Connection, Sets], T], now_ms: int) -> T:
        """As Database.write, with the sets that the call may change."""
        self._database.check_open()
        pending: _Write[T] = _Write(call, now_ms, asyncio.get_running_loop().create_future())
        self._stage.add(pending)
        return await pending.future

    def _run(self, connection: Connection, calls: "list[_Write[Any]]") -> list[Any]:
        sets = Sets(connection, self._max_own_tags)
        results = [call.run(connection, sets) for call in calls]
        sets.flush(max(call.now_ms for call in calls))
        return results


class _Write(Generic[T]):
    __slots__ = ("future", "now_ms", "run")

    def __init__(self, run: Callable[[Connection, Sets], T], now_ms: int, future: "asyncio.Future[T]") -> None:
        self.run = run
        self.now_ms = now_ms
        self.future = future

    def settle(self, result: T) -> None:
        if not self.future.done():
            self.future.set_result(result)

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            is_refused = isinstance(error, DBAPIError)
            self.future.set_exception(StoreUnavailable(f"write refused: {error}") if is_refused else error)


# -- reads --------------------------------------------------------------------------------------------------------


def find_sets(connection: Connection, kind: SetKind, names: Iterable[str]) -> dict[str, int]:
    """The numbers of those sets that exist."""
    return {name: set_no for set_no, name, _ in bulk.select_in(connection, _FIND_SETS, dict.fromkeys(names), int(kind))}


def members(connection: Connection, set_nos: Iterable[int]) -> dict[int, BitMap]:
    """The devices that stand in each set themselves."""
    parts: dict[int, list[BitMap]] = {set_no: [] for set_no in set_nos}
    for set_no, blob in bulk.select_in(connection, _ALL_PARTS, parts):
        parts[set_no].append(bitmaps.load(blob))
    return {set_no: BitMap.union(*found) if found else BitMap() for set_no, found in parts.items()}


def everyone(connection: Connection) -> BitMap:
    """Every registered device."""
    found = find_sets(connection, SetKind.EVERYONE, [""])
    return members(connection, found.values())[found[""]] if found else BitMap()


def numbers_of(connection: Connection, device_ids: Sequence[str]) -> list[int | None]:
    """The number of each device, None for one that is not registered."""
    if connection.dialect.name != "sqlite":
        # PostgreSQL is not to be asked for a text with a NUL.
        wanted = [device_id for device_id in dict.fromkeys(device_ids) if "\0" not in device_id]
        numbers: dict[str, int] = dict(map(tuple, bulk.select_in(connection, _NUMBERED, wanted)))
        return [numbers.get(device_id) for device_id in device_ids]
    found: list[int | None] = []
    for at in range(0, len(device_ids), _IDS_AT_ONCE):
        some = msgspec.json.encode(device_ids[at : at + _IDS_AT_ONCE]).decode()
        found += _numbers.decode(connection.exec_driver_sql(_NUMBERS, (some,)).fetchall()[0][0])
    return found


def names_of(connection: Connection, device_nos: Sequence[int], kind: SetKind) -> list[tuple[str, ...]]:
    """The names of each device's sets of this kind, sorted, without the system's own tags."""
    own = {no: bitmaps.load(blob) for no, blob in bulk.select_in(connection, _FIND_OWN, dict.fromkeys(device_nos))}
    numbers = BitMap.union(*own.values()) if own else BitMap()
    names = {
        set_no: name
        for set_no, found, name in bulk.select_in(connection, _KINDS, numbers)
        if found == kind and not name.startswith(RESERVED_TAGS)
    }
    named = BitMap(list(names))
    return [
        tuple(sorted(names[no] for no in own[device_no] & named)) if device_no in own else ()
        for device_no in device_nos
    ]


def sweep_sets(connection: Connection, now_ms: int, limit: int) -> int:
    """Forgets sets whose time is over: tags that stayed empty, and uploads. How many."""
    gone = connection.exec_driver_sql(
        "SELECT set_no FROM device_sets WHERE expires_at_ms <= ? LIMIT ?", (now_ms, limit)
    ).fetchall()
    delete_sets(connection, [set_no for (set_no,) in gone])
    return len(gone)


def delete_sets(connection: Connection, set_nos: Sequence[int]) -> None:
    """Forgets sets, whoever is in them."""
    for table in ("device_set_segments", "group_users", "device_sets"):
        bulk.update_in(connection, f"DELETE FROM {table} WHERE set_no IN ({{rows}})", set_nos)


def put_members(connection: Connection, set_no: int, devices: BitMap) -> None:
    """Writes all members of a set that has none yet and that no membership names (an upload)."""
    rows = [(set_no, segment, len(some), bitmaps.dump(some)) for segment, some in bitmaps.split(devices).items()]
    bulk.execute(connection, _PUT_PARTS, rows)
