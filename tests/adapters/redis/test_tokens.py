import asyncio
import hashlib

import pytest

from longwire.adapters.redis import RedisTokens, connect
from longwire.adapters.redis.server import Call
from longwire.model import Credential
from longwire.ports.tokens import TokenCopy

ONE = Credential(7, "dev-7", 2_000_000_000_000, False, False, 0, "ann", 0)
TWO = Credential(8, "dev-8", 2_000_000_000_000, False, True, 0, None, 1_999_999_999_999)


def hash_of(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


@pytest.fixture(params=["redis", "redis cluster"])
async def tokens(request, prefix):
    if request.param == "redis":
        server = connect(request.getfixturevalue("redis_engine").url)
    else:
        server = connect(request.getfixturevalue("redis_cluster").url.replace("redis:", "redis+cluster:"))
    yield RedisTokens(server, prefix)
    await server.aclose()


async def test_a_copy_says_what_was_put_and_how_old_it_is(tokens) -> None:
    await tokens.put_many([(hash_of(1), ONE, True), (hash_of(2), TWO, True)])
    one, none, two = await tokens.get_many([hash_of(1), hash_of(3), hash_of(2)])
    assert none is None
    assert (one.credential, two.credential) == (ONE, TWO)
    assert 0 <= one.age_ms < 5_000
    await asyncio.sleep(0.02)
    (again,) = await tokens.get_many([hash_of(1)])
    assert again.age_ms >= one.age_ms + 15


async def test_many_go_in_one_call_in_their_order(tokens) -> None:
    kept = [(hash_of(no), Credential(no, f"dev-{no}", 1, False, False, 0), True) for no in range(300)]
    await tokens.put_many(kept)
    found = await tokens.get_many([token_hash for token_hash, _, _ in kept])
    assert [copy.credential.device_no for copy in found] == list(range(300))


async def test_nothing_is_no_work(tokens) -> None:
    await tokens.put_many([])
    await tokens.bar([], 60)
    assert await tokens.get_many([]) == []


async def test_a_copy_that_is_not_fresh_is_old_from_the_start(tokens) -> None:
    await tokens.put_many([(hash_of(1), ONE, False)])
    (copy,) = await tokens.get_many([hash_of(1)])
    assert copy.credential == ONE
    assert copy.age_ms > 86_400_000


async def test_a_barred_token_has_no_copy_and_takes_none(tokens) -> None:
    await tokens.put_many([(hash_of(1), ONE, True)])
    await tokens.bar([hash_of(1), hash_of(2)], 60)
    await tokens.put_many([(hash_of(1), ONE, True), (hash_of(2), TWO, True)])
    assert await tokens.get_many([hash_of(1), hash_of(2)]) == [TokenCopy(None, 0)] * 2


async def test_what_another_release_put_is_no_copy(redis_engine, prefix) -> None:
    server = connect(redis_engine.url)
    tokens = RedisTokens(server, prefix)
    await tokens.put_many([(hash_of(1), ONE, True)])
    (key,) = tokens._keys([hash_of(1)], [0])
    await server.run([Call("SETRANGE", [key], [13, b"\x01"])])
    assert await tokens.get_many([hash_of(1)]) == [None]
    await server.aclose()
