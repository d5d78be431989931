"""What every IdempotencyStore does, whatever engine it stands on."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from databases import Maker, OpenDatabase, maker_of

from longwire.adapters.sql.idempotency import SqlIdempotency
from longwire.errors import StoreUnavailable
from longwire.ports.idempotency import IdempotencyStore
from longwire.push_model import KeptAnswer

DAY_MS = 86_400_000
NOW_MS = 1_764_000_000_000


@pytest.fixture
def maker(open_database: OpenDatabase) -> Maker[IdempotencyStore]:
    return maker_of(open_database, SqlIdempotency)


@pytest.fixture
async def store(maker: Maker[IdempotencyStore]) -> AsyncIterator[IdempotencyStore]:
    async with maker() as made:
        yield made


def answer(key: str = "k", caller: str = "c", body: bytes = b"{}", created_at_ms: int = NOW_MS) -> KeptAnswer:
    return KeptAnswer(caller, key, b"f" * 32, 202, body, created_at_ms, "/v1/pushes/psh_1")


async def test_an_answer_is_found_as_it_was_kept_also_after_a_restart(maker) -> None:
    kept = answer(body=b"\0\xff" * 1_000)
    async with maker() as store:
        assert await store.find("c", "k") is None
        assert await store.keep(kept) is None
        assert await store.find("c", "k") == kept
    async with maker() as store:
        assert await store.find("c", "k") == kept


async def test_the_first_answer_of_a_day_stays(store) -> None:
    first, second = answer(body=b"1"), answer(body=b"2", created_at_ms=NOW_MS + DAY_MS - 1)
    assert await store.keep(first) is None
    assert await store.keep(second) == first
    assert await store.find("c", "k") == first
    third = answer(body=b"3", created_at_ms=NOW_MS + DAY_MS)
    assert await store.keep(third) is None
    assert await store.find("c", "k") == third


async def test_keys_are_their_callers_own_and_exact(store) -> None:
    for caller, key in (("c", "k"), ("c", "K"), ("C", "k"), ("ck", "")):
        assert await store.keep(answer(key, caller, f"{caller} {key}".encode())) is None
    assert (await store.find("c", "K")).body == b"c K"
    assert (await store.find("C", "k")).body == b"C k"
    assert await store.find("C", "K") is None


async def test_of_many_at_once_one_is_kept(store) -> None:
    told = await asyncio.gather(*(store.keep(answer(body=b"%d" % n)) for n in range(50)))
    kept = await store.find("c", "k")
    assert [found for found in told if found is not None] == [kept] * 49


async def test_a_store_that_is_stopped_says_so(maker) -> None:
    async with maker() as store:
        pass
    with pytest.raises(StoreUnavailable):
        await store.find("c", "k")
    with pytest.raises(StoreUnavailable):
        await store.keep(answer())
