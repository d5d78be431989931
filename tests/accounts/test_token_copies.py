import asyncio
import itertools

import pytest

from longwire.accounts.token_copies import CHANGED_FOR_S, REVOKED_FOR_S, CheckedTokens
from longwire.adapters.redis import RedisTokens, connect
from longwire.errors import StoreUnavailable
from longwire.model import Credential
from longwire.testing import ManualClock
from longwire.testing.engines import Redis

_prefixes = itertools.count()


class Store:
    """Accounts that can be changed, and taken away."""

    def __init__(self) -> None:
        self.known: dict[bytes, Credential] = {}
        self.asked: list[list[bytes]] = []
        self.is_away = False
        self.is_frozen = False

    async def check_tokens(self, token_hashes, now_ms):
        self.asked.append(list(token_hashes))
        if self.is_frozen:
            await asyncio.Event().wait()
        if self.is_away:
            raise StoreUnavailable("away")
        return [self.known.get(token_hash) for token_hash in token_hashes]


def token(number: int) -> bytes:
    return number.to_bytes(32, "little")


def credential(number: int, missed: int = 0, is_revoked: bool = False) -> Credential:
    return Credential(number, f"dev-{number}", 2_000_000_000_000, is_revoked, False, missed)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store() -> Store:
    store = Store()
    store.known = {token(no): credential(no) for no in range(1, 10)}
    return store


@pytest.fixture
async def copies(redis_engine):
    server = connect(redis_engine.url)
    yield RedisTokens(server, f"checked{next(_prefixes)}")
    await server.aclose()


@pytest.fixture
def checked(store, copies, clock) -> CheckedTokens:
    return CheckedTokens(store, copies, clock)


async def test_the_store_is_asked_once_for_what_the_copies_do_not_know(checked, store) -> None:
    assert await checked.check_tokens([token(1), token(99), token(2)], 0) == [credential(1), None, credential(2)]
    assert await checked.check_tokens([token(1), token(3), token(2)], 0) == [credential(no) for no in (1, 3, 2)]
    assert store.asked == [[token(1), token(99), token(2)], [token(3)]]


async def test_what_nobody_was_given_is_never_copied(checked, store) -> None:
    for _ in range(2):
        assert await checked.check_tokens([token(99)], 0) == [None]
    assert len(store.asked) == 2


async def test_an_old_copy_is_asked_for_again_and_holds_while_the_store_is_away(checked, store, copies, clock) -> None:
    await copies.put_many([(token(1), credential(1), False)])
    assert await checked.check_tokens([token(1)], 0) == [credential(1)]
    assert store.asked == [[token(1)]]
    await copies.put_many([(token(1), credential(1), False)])
    store.is_away = True
    known, unknown = await checked.check_tokens([token(1), token(2)], 0)
    assert known == credential(1)
    assert isinstance(unknown, StoreUnavailable)
    # Those who come next need not wait for the store.
    assert (await checked.check_tokens([token(1)], 0)) == [credential(1)]
    assert len(store.asked) == 2
    store.is_away = False
    clock.advance(1.1)
    assert await checked.check_tokens([token(2)], 0) == [credential(2)]


async def test_a_store_that_does_not_answer_is_away(checked, store) -> None:
    store.is_frozen = True
    async with asyncio.timeout(5):
        (told,) = await checked.check_tokens([token(1)], 0)
    assert isinstance(told, StoreUnavailable)


async def test_a_revoked_token_is_asked_for_at_once_and_a_late_reader_does_not_bring_it_back(
    checked, store, copies
) -> None:
    await checked.check_tokens([token(1)], 0)
    store.known[token(1)] = credential(1, is_revoked=True)
    await checked.bar([token(1)], REVOKED_FOR_S)
    await copies.put_many([(token(1), credential(1), True)])  # read before
    assert await checked.check_tokens([token(1)], 0) == [credential(1, is_revoked=True)]
    store.is_away = True
    (told,) = await checked.check_tokens([token(1)], 0)
    assert isinstance(told, StoreUnavailable)


async def test_missed_messages_are_told_by_the_store_and_never_by_a_copy(checked, store) -> None:
    store.known[token(1)] = credential(1, missed=3)
    for _ in range(2):
        assert await checked.check_tokens([token(1)], 0) == [credential(1, missed=3)]
    store.is_away = True
    assert await checked.check_tokens([token(1)], 0) == [credential(1)]


async def test_with_the_copies_away_the_store_alone_is_asked_and_bars_are_tried_again(tmp_path, store, clock) -> None:
    with Redis(tmp_path, keeps_data=False) as engine:
        server = connect(engine.url, 1.0)
        checked = CheckedTokens(store, RedisTokens(server), clock, sleep=lambda _s: asyncio.sleep(0.05))
        await checked.check_tokens([token(1)], 0)
        engine.freeze()
        assert await checked.check_tokens([token(1)], 0) == [credential(1)]
        store.known[token(1)] = credential(1, is_revoked=True)
        await checked.bar([token(1)], CHANGED_FOR_S)
        task = asyncio.create_task(checked.run())
        engine.thaw()
        other = RedisTokens(server)
        try:
            async with asyncio.timeout(10):
                while True:
                    # In the process that knows of the change, the copy holds at no time.
                    assert await checked.check_tokens([token(1)], 0) == [credential(1, is_revoked=True)]
                    try:
                        (copy,) = await other.get_many([token(1)])
                    except StoreUnavailable:
                        copy = None
                    if copy is not None and copy.credential is None:
                        break
                    await asyncio.sleep(0.02)
        finally:
            task.cancel()
            await server.aclose()
