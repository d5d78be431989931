"""What every DirectiveStore does, whatever engine it stands on."""

import asyncio

import pytest
from databases import Maker, OpenDatabase, maker_of

from longwire.adapters.sql.directives import SqlDirectives
from longwire.ports.directives import LEVEL, MARK, Directive, DirectiveStore

NOW = 1_764_000_000_000


@pytest.fixture
def maker(open_database: OpenDatabase) -> Maker[DirectiveStore]:
    return maker_of(open_database, SqlDirectives)


def mark(name: str, value: str = "a" * 32, until_ms: int = NOW + 1_000) -> Directive:
    return Directive(MARK, name, value, "key_1", NOW, until_ms)


async def test_what_was_put_stands_until_its_end_in_the_order_it_was_put(maker) -> None:
    level = Directive(LEVEL, "gateway", "debug", "person:anna", NOW, NOW + 5_000)
    async with maker() as store:
        assert await store.put(mark("device:d-2"), 10)
        assert await store.put(level, 10)
        assert await store.put(mark("device:d-1"), 10)
    async with maker() as store:
        assert await store.live(NOW + 999) == [mark("device:d-2"), level, mark("device:d-1")]
        assert await store.live(NOW + 1_000) == [level]


async def test_of_a_kind_and_name_there_is_one(maker) -> None:
    async with maker() as store:
        await store.put(mark("device:d"), 1)
        assert await store.put(mark("device:d", "b" * 32, NOW + 9_000), 1), "it takes the place of the one before"
        assert await store.put(Directive(LEVEL, "device:d", "debug", "", NOW, NOW + 1_000), 1)
        assert [(one.kind, one.value) for one in await store.live(NOW)] == [(MARK, "b" * 32), (LEVEL, "debug")]


async def test_the_limit_counts_others_of_the_kind_that_live(maker) -> None:
    async with maker() as store:
        assert await store.put(mark("device:a", until_ms=NOW), 2)
        assert await store.put(mark("device:b"), 2)
        assert await store.put(mark("device:c"), 2)
        assert not await store.put(mark("device:d"), 2)
        assert [one.name for one in await store.live(NOW)] == ["device:b", "device:c"]
        outcomes = await asyncio.gather(*(store.put(mark(f"user:{n}"), 4) for n in range(6)))
        assert sum(outcomes) == 2


async def test_one_is_removed_by_its_name_or_by_its_value(maker) -> None:
    async with maker() as store:
        await store.put(mark("device:a", "a" * 32), 10)
        await store.put(mark("device:b", "b" * 32), 10)
        assert not await store.remove(LEVEL, name="device:a")
        assert await store.remove(MARK, name="device:a")
        assert not await store.remove(MARK, name="device:a")
        assert await store.remove(MARK, value="b" * 32)
        assert await store.live(NOW) == []
