"""Marks and log levels reach the process that looks, and end by themselves."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pyroaring import BitMap

from longwire.accounts.directives import MAX_MARKS, Directives
from longwire.accounts.refusals import Refused
from longwire.accounts.tokens import hash_of
from longwire.adapters.sql.accounts import SqlAccounts
from longwire.adapters.sql.directives import SqlDirectives
from longwire.adapters.sql.sqlite import SqliteDatabase
from longwire.app.directives_watch import DirectivesWatch
from longwire.errors import StoreUnavailable
from longwire.ports.accounts import NewDevice
from longwire.testing import ManualClock
from longwire.traces import NO_MARKS, Traces

PUSH = "psh_" + "ab" * 16


class Watched:
    """A store with its service, and a process that watches it."""

    def __init__(self, database: SqliteDatabase) -> None:
        self.clock = ManualClock()
        self.store = SqlDirectives(database)
        self.accounts = SqlAccounts(database)
        self.directives = Directives(self.store, self.accounts, self.clock)
        self.traces = Traces(clock=self.clock)
        self.levels: list[dict[str, str]] = []
        self.watch = DirectivesWatch(
            self.store,
            self.accounts,
            self.traces,
            lambda levels: self.levels.append(dict(levels)),
            self.clock,
            self.clock.sleep,
        )

    async def register(self, *device_ids: str, user: str | None = None) -> list[int]:
        now_ms = self.clock.now_ms()
        wanted = [NewDevice(name, hash_of(name), now_ms + 1_000, None, user) for name in device_ids]
        return [device.device_no for device, _ in await self.accounts.register(wanted, now_ms)]


@pytest.fixture
async def it(tmp_path: Path) -> AsyncIterator[Watched]:
    database = SqliteDatabase(tmp_path)
    await database.start()
    yield Watched(database)
    await database.stop()


async def test_marks_on_a_device_a_user_and_a_push_are_known_after_a_look(it) -> None:
    one, *anns = await it.register("d-1") + await it.register("a-1", "a-2", user="ann")
    for target in ("device:d-1", "user:ann", f"push:{PUSH}"):
        await it.directives.mark(target, 60, "key_1")
    await it.watch.look()
    assert it.traces.marks.devices == BitMap([one, *anns])
    assert it.traces.marks.pushes == {bytes.fromhex(PUSH[4:])}
    (later,) = await it.register("a-3", user="ann")
    await it.watch.look()
    assert later in it.traces.marks.devices, "a user's devices are looked up again"


async def test_a_mark_ends_by_itself_also_while_the_store_is_away(it, monkeypatch, caplog) -> None:
    (number,) = await it.register("d-1")
    await it.directives.mark("device:d-1", 60, "key_1")
    await it.directives.set_level("gateway", "debug", 60, "key_1")
    await it.watch.look()

    async def away(_now_ms: int) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr(it.store, "live", away)
    it.clock.advance(59)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            await it.watch.look()
    assert number in it.traces.marks.devices
    assert len(caplog.records) == 1, "said once"
    it.clock.advance(1)
    await it.watch.look()
    assert it.traces.marks is NO_MARKS
    assert it.levels == [{"gateway": "debug"}, {}]


async def test_the_watch_looks_every_two_seconds(it) -> None:
    (number,) = await it.register("d-1")
    watching = asyncio.create_task(it.watch.run())
    while not it.clock.sleepers:
        await asyncio.sleep(0.001)
    await it.directives.mark("device:d-1", 60, "key_1")
    await it.directives.set_level("sql", "debug", 60, "key_1")
    assert not it.traces.has_marks
    it.clock.advance(2)
    while not it.levels:
        await asyncio.sleep(0.001)
    assert number in it.traces.marks.devices
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


async def test_levels_are_told_only_when_they_change(it) -> None:
    await it.directives.set_level("sql", "debug", 60, "key_1")
    for _ in range(3):
        await it.watch.look()
    await it.directives.reset_level("sql")
    await it.watch.look()
    assert it.levels == [{"sql": "debug"}, {}]
    with pytest.raises(Refused, match="no level of its own"):
        await it.directives.reset_level("sql")


async def test_a_mark_needs_something_to_be_on_an_end_and_room(it) -> None:
    await it.register("d-1")
    for target in ("device:nobody", "user:nobody"):
        with pytest.raises(Refused, match="registered"):
            await it.directives.mark(target, 60, "key_1")
    for target in ("d-1", "topic:x", "push:psh_1", "device:", "device:a b"):
        with pytest.raises(Refused, match="a mark is on"):
            await it.directives.mark(target, 60, "key_1")
    for for_s in (0, -1, 1_801):
        with pytest.raises(Refused, match="1 to 1800"):
            await it.directives.mark("device:d-1", for_s, "key_1")
    for n in range(MAX_MARKS):
        await it.directives.mark(f"push:psh_{n:032x}", 60, "key_1")
    with pytest.raises(Refused, match="50 marks stand"):
        await it.directives.mark("device:d-1", 60, "key_1")
    it.clock.advance(60)
    await it.directives.mark("device:d-1", 60, "key_1")
