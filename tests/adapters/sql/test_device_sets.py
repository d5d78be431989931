"""Device sets on SQLite, where it is the rows that matter: a blob a segment, touched once a group; what is swept."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from alembic import command
from alembic.config import Config
from hypothesis import strategies as st
from pyroaring import BitMap
from sqlalchemy import Connection, create_engine, event

from longwire.adapters.sql import device_sets, migrate
from longwire.adapters.sql.accounts import SqlAccounts
from longwire.adapters.sql.audiences import SqlAudiences, members
from longwire.adapters.sql.device_sets import EMPTY_KEPT_MS, Sets, change_sets, names_of, sweep_sets
from longwire.adapters.sql.sqlite import SqliteDatabase
from longwire.adapters.sql.tables import metadata
from longwire.ports.accounts import NewDevice
from longwire.push_model import SetChange, SetKind

NOW_MS = 1_764_000_000_000
DAY_MS = 86_400_000
TAG = SetKind.TAG


@pytest.fixture
def connection() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    metadata.create_all(engine)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def know(connection: Connection, *device_nos: int) -> None:
    change_sets(connection, [SetChange(no, SetKind.EVERYONE, add=("",)) for no in device_nos], NOW_MS)


def tag(connection: Connection, device_no: int, *add: str, remove: tuple[str, ...] = (), now_ms: int = NOW_MS) -> bool:
    return change_sets(connection, [SetChange(device_no, TAG, add, remove)], now_ms)[0]


def test_a_set_is_a_row_a_segment_and_no_row_a_device(connection) -> None:
    numbers = [1, 2, 65_535, 65_536, 200_000]
    know(connection, *numbers)
    assert [tag(connection, no, "x") for no in numbers] == [True] * 5
    rows = connection.exec_driver_sql(
        "SELECT segment, size FROM device_set_segments g JOIN device_sets s ON s.set_no = g.set_no"
        " WHERE s.name = 'x' ORDER BY segment"
    ).fetchall()
    assert rows == [(0, 3), (1, 1), (3, 1)]
    assert members(connection, TAG, ["x"]) == [BitMap(numbers)]


def test_what_changes_together_touches_each_blob_once(connection) -> None:
    know(connection, *range(1, 1_001))
    written: list[str] = []
    event.listen(connection.engine, "before_cursor_execute", lambda _c, _u, statement, *_: written.append(statement))
    sets = Sets(connection)
    for no in range(1, 1_001):
        assert sets.apply([SetChange(no, TAG, add=("a", "b"))], NOW_MS) == [True]
    sets.flush(NOW_MS)
    assert sum(statement.count("(?,?,?,?)") for statement in written if "INTO device_set_segments" in statement) == 2


def test_a_device_that_comes_and_goes_within_a_group_leaves_nothing(connection) -> None:
    know(connection, 1)
    changes = [SetChange(1, TAG, add=("x",)), SetChange(1, TAG, remove=("x",))]
    assert change_sets(connection, changes, NOW_MS) == [True, True]
    assert members(connection, TAG, ["x"]) == [BitMap()]
    assert names_of(connection, [1], TAG) == [()]


def test_a_tag_is_forgotten_a_day_after_its_last_member_left(connection) -> None:
    know(connection, 1)
    tag(connection, 1, "x", "y")
    tag(connection, 1, remove=("x",))
    assert sweep_sets(connection, NOW_MS + EMPTY_KEPT_MS - 1, 10) == 0
    assert sweep_sets(connection, NOW_MS + EMPTY_KEPT_MS, 10) == 1
    assert members(connection, TAG, ["x", "y"]) == [None, BitMap([1])]
    tag(connection, 1, "x")
    assert members(connection, TAG, ["x"]) == [BitMap([1])]


def test_a_tag_that_gets_a_member_again_is_kept(connection) -> None:
    know(connection, 1)
    tag(connection, 1, "x")
    tag(connection, 1, remove=("x",))
    tag(connection, 1, "x", now_ms=NOW_MS + 5)
    assert sweep_sets(connection, NOW_MS + 10 * DAY_MS, 10) == 0


def test_a_tag_that_was_only_refused_goes_too(connection) -> None:
    know(connection, 1)
    many = tuple(f"t{n}" for n in range(200))
    assert tag(connection, 1, *many)
    assert not tag(connection, 1, "more")
    assert sweep_sets(connection, NOW_MS + DAY_MS, 10) == 1
    assert members(connection, TAG, ["more", "t7"]) == [None, BitMap([1])]


def test_everyone_and_groups_are_never_swept(connection) -> None:
    know(connection, 1)
    sets = Sets(connection)
    sets.forget(1)
    sets.flush(NOW_MS)
    assert device_sets.everyone(connection) == BitMap()
    assert sweep_sets(connection, NOW_MS + 10 * DAY_MS, 10) == 0


def test_numbers_of_sets_that_are_gone_leave_a_device_that_has_many(connection) -> None:
    """Else they would count, and pile up."""
    know(connection, 1)
    connection.exec_driver_sql("INSERT INTO device_sets (kind, name, created_at_ms) VALUES (2, 'g', 0)").close()
    change_sets(connection, [SetChange(1, SetKind.GROUP, add=("g",))], NOW_MS)
    tag(connection, 1, *(f"t{n}" for n in range(198)))
    gone = device_sets.find_sets(connection, SetKind.GROUP, ["g"])["g"]
    device_sets.delete_sets(connection, [gone])
    assert tag(connection, 1, "u1")
    assert tag(connection, 1, "u2")
    assert not tag(connection, 1, "u3")
    (blob,) = connection.exec_driver_sql("SELECT sets FROM device_memberships").scalars()
    assert gone not in BitMap.deserialize(blob)


DEVICES = [1, 65_535, 65_536, 65_537, 300_000]
NAMES = ["a", "b", "c", "sys:v=1"]
CHANGES = st.lists(
    st.builds(
        SetChange,
        st.sampled_from(DEVICES),
        st.just(TAG),
        st.lists(st.sampled_from(NAMES), max_size=4).map(tuple),
        st.lists(st.sampled_from(NAMES), max_size=4).map(tuple),
        st.booleans(),
    ),
    max_size=12,
)


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(st.lists(CHANGES, max_size=5))
def test_any_groups_of_changes_leave_what_plain_sets_would_hold(groups: list[list[SetChange]]) -> None:
    engine = create_engine("sqlite://")
    metadata.create_all(engine)
    model: dict[int, set[str]] = {no: set() for no in DEVICES}
    with engine.connect() as connection:
        know(connection, *DEVICES)
        for changes in groups:
            sets = Sets(connection, max_own_tags=2)
            for change in changes:
                own = model[change.device_no]
                kept = {name for name in own if name.startswith("sys:")} if change.replaces else set(own)
                after = (kept - set(change.remove)) | set(change.add)
                own_after = {name for name in after if not name.startswith("sys:")}
                is_allowed = len(own_after) <= 2 or own_after <= own
                assert sets.apply([change], NOW_MS) == [is_allowed]
                if is_allowed:
                    model[change.device_no] = after
            sets.flush(NOW_MS)
        for name, found in zip(NAMES, members(connection, TAG, NAMES), strict=True):
            assert set(found or ()) == {no for no, own in model.items() if name in own}
        sizes = dict(
            tuple(row)
            for row in connection.exec_driver_sql(
                "SELECT s.name, SUM(g.size) FROM device_sets s JOIN device_set_segments g ON g.set_no = s.set_no"
                " WHERE s.kind = 1 GROUP BY s.name"
            )
        )
        assert sizes == {name: held for name in NAMES if (held := sum(name in own for own in model.values()))}
    engine.dispose()


async def test_registrations_that_wait_together_write_each_blob_once(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path)
    await database.start()
    accounts, sets = SqlAccounts(database), SqlAudiences(database)
    assert database._engine is not None
    written: list[str] = []
    event.listen(database._engine, "before_cursor_execute", lambda _c, _u, statement, *_: written.append(statement))
    await asyncio.gather(
        *(
            accounts.register([NewDevice(f"d-{n}", bytes([n]) * 32, NOW_MS, None, platform="ios")], NOW_MS)
            for n in range(100)
        )
    )
    assert len(await sets.everyone()) == 100
    # Everyone, the day and the platform: at most a group for the first, one for the others.
    assert sum(statement.count("(?,?,?,?)") for statement in written if "INTO device_set_segments" in statement) <= 6
    await database.stop()


def test_the_migration_carries_tags_and_gives_every_device_the_systems(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/x.db")
    config = Config()
    config.set_main_option("script_location", str(Path(migrate.__file__).with_name("migrations")))
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for number, device_id, platform, version in (
            (1, "a", "ios", "1"),
            (2, "b", "", ""),
            (70_000, "c", "ios", ""),
        ):
            connection.exec_driver_sql(
                "INSERT INTO devices (device_no, device_id, platform, app_version, registered_at_ms)"
                " VALUES (?, ?, ?, ?, ?)",
                (number, device_id, platform, version, NOW_MS),
            ).close()
        for number, name in ((1, "vip"), (70_000, "vip"), (1, "\u00fc"), (5, "nobody's")):
            connection.exec_driver_sql("INSERT INTO device_tags VALUES (?, ?)", (number, name)).close()
        connection.commit()
        migrate.upgrade(connection)
        assert names_of(connection, [1, 2, 70_000, 5], TAG) == [("vip", "\u00fc"), (), ("vip",), ()]
        asked = ["vip", "sys:platform=ios", "sys:version=1", "sys:registered=2025-11-24", "nobody's"]
        assert members(connection, TAG, asked) == [
            BitMap([1, 70_000]),
            BitMap([1, 70_000]),
            BitMap([1]),
            BitMap([1, 2, 70_000]),
            None,
        ]
        assert device_sets.everyone(connection) == BitMap([1, 2, 70_000])
        assert connection.exec_driver_sql("SELECT SUM(size) FROM device_set_segments").scalar() == 12
        assert connection.exec_driver_sql("SELECT MIN(is_claimed), MAX(banned_until_ms) FROM devices").one() == (1, 0)
        assert tag(connection, 2, "vip", remove=("sys:x",))
        connection.commit()
    engine.dispose()
