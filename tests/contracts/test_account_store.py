"""What every AccountStore does, whatever engine it stands on."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from databases import Maker, OpenDatabase, maker_of

from longwire.adapters.sql.accounts import SqlAccounts
from longwire.errors import StoreUnavailable
from longwire.ports.accounts import AccountStore, AlreadyRegistered, ApiKey, App, NewDevice

NOW_MS = 1_764_000_000_000
LATER_MS = NOW_MS + 86_400_000


@pytest.fixture
def maker(open_database: OpenDatabase) -> Maker[AccountStore]:
    return maker_of(open_database, SqlAccounts)


@pytest.fixture
async def store(maker: Maker[AccountStore]) -> AsyncIterator[AccountStore]:
    async with maker() as made:
        yield made


def hash_of(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def new(device_id: str, token: str = "", refresh: str | None = None, **more: object) -> NewDevice:
    refresh_hash = None if refresh is None else hash_of(refresh)
    return NewDevice(device_id, hash_of(token or f"t-{device_id}"), LATER_MS, refresh_hash, **more)  # type: ignore[arg-type]


async def test_a_registered_device_is_found_as_it_was_registered(store) -> None:
    wanted = new("d-1", user="ann", tags=("b", "a"), platform="ios", app_version="2")
    ((device, is_new),) = await store.register([wanted], NOW_MS)
    assert is_new
    assert (device.device_id, device.user, device.platform, device.app_version) == ("d-1", "ann", "ios", "2")
    assert (device.registered_at_ms, device.is_disabled) == (NOW_MS, False)
    assert await store.find_devices(["x", "d-1", "d-1"]) == [None, device, device]
    assert await store.tags_of([device.device_no, 999]) == [("a", "b"), ()]


async def test_names_that_differ_only_in_case_are_different(store) -> None:
    made = await store.register([new("D-1", "1", user="Ann"), new("d-1", "2", user="ann")], NOW_MS)
    assert [is_new for _, is_new in made] == [True, True]
    assert [[d.device_id for d in found] for found in await store.devices_of_users(["ann", "Ann"])] == [
        ["d-1"],
        ["D-1"],
    ]


async def test_registering_a_known_device_adds_a_token_and_keeps_what_is_not_named(store) -> None:
    ((first, _),) = await store.register([new("d-1", "t1", "r1", user="ann", platform="ios")], NOW_MS)
    ((again, is_new),) = await store.register([new("d-1", "t2")], NOW_MS + 5)
    assert not is_new
    assert again == first
    assert await store.find_by_refresh(hash_of("r1")) == first
    checked = await store.check_tokens([hash_of("t1"), hash_of("t2")], NOW_MS)
    assert [found.device_no for found in checked] == [first.device_no] * 2
    ((changed, _),) = await store.register(
        [new("d-1", "t3", "r2", user="bob", platform="mac", app_version="3", tags=("x",))], NOW_MS
    )
    assert (changed.user, changed.platform, changed.app_version) == ("bob", "mac", "3")
    assert changed.registered_at_ms == NOW_MS
    assert await store.find_by_refresh(hash_of("r1")) is None
    await store.register([new("d-1", "t4", tags=("x", "y"))], NOW_MS)
    assert await store.tags_of([first.device_no]) == [("x", "y")]


async def test_a_device_that_stands_twice_in_one_call_is_new_once(store) -> None:
    made = await store.register([new("d-1", "a"), new("d-2", "b"), new("d-1", "c", user="u")], NOW_MS)
    assert [is_new for _, is_new in made] == [True, True, False]
    assert made[0][0].device_no == made[2][0].device_no
    assert made[2][0].user == "u"


async def test_a_device_that_had_to_be_new_and_is_not_leaves_no_trace_of_the_call(store) -> None:
    await store.register([new("d-1", "t1")], NOW_MS)
    with pytest.raises(AlreadyRegistered):
        await store.register([new("d-2", "t2"), new("d-1", "t3", must_be_new=True)], NOW_MS)
    assert await store.find_devices(["d-2"]) == [None]
    assert await store.check_tokens([hash_of("t2"), hash_of("t3")], NOW_MS) == [None, None]


async def test_of_concurrent_registrations_of_one_new_id_one_wins(store) -> None:
    calls = [store.register([new("d-1", str(n), must_be_new=True)], NOW_MS) for n in range(50)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(not isinstance(outcome, Exception) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, AlreadyRegistered) for outcome in outcomes) == 49


async def test_a_thousand_devices_register_in_one_call_in_their_order(store) -> None:
    wanted = [new(f"d-{n}", tags=("t",)) for n in range(1_000)]
    made = await store.register(wanted, NOW_MS)
    assert [device.device_id for device, _ in made] == [one.device_id for one in wanted]
    assert len({device.device_no for device, _ in made}) == 1_000


async def test_no_devices_are_no_work(store) -> None:
    assert await store.register([], NOW_MS) == []
    assert await store.check_tokens([], NOW_MS) == []
    assert await store.find_devices([]) == []
    assert await store.find_registrations([]) == []
    assert await store.devices_of_users([]) == []
    assert await store.tags_of([]) == []


async def test_tokens_are_checked_in_the_order_they_were_asked_for(store) -> None:
    made = await store.register([new(f"d-{n}") for n in range(300)], NOW_MS)
    order = [n * 7 % 300 for n in range(300)]
    asked = [hash_of(f"t-d-{n}") for n in order]
    asked[100] = hash_of("nobody's")
    checked = await store.check_tokens(asked, NOW_MS)
    assert checked[100] is None
    for place, n in enumerate(order):
        if place != 100:
            assert checked[place].device_no == made[n][0].device_no
            assert checked[place].device_id == f"d-{n}"
            assert checked[place].expires_at_ms == LATER_MS
            assert not (checked[place].is_revoked)
            assert not (checked[place].is_disabled)
            assert checked[place].user is None
            assert checked[place].missed == 0


async def test_one_token_asked_for_twice_is_answered_twice(store) -> None:
    await store.register([new("d-1")], NOW_MS)
    first, second = await store.check_tokens([hash_of("t-d-1")] * 2, NOW_MS)
    assert first == second
    assert first is not None


async def test_disabling_and_revoking_show_in_the_check(store) -> None:
    ((one, _), (two, _)) = await store.register([new("d-1", "t1", "r1"), new("d-2", "t2", "r2")], NOW_MS)
    await store.set_disabled(one.device_no, True)
    await store.revoke_tokens(two.device_no, NOW_MS)
    first, second = await store.check_tokens([hash_of("t1"), hash_of("t2")], NOW_MS)
    assert (first.is_disabled, first.is_revoked) == (True, False)
    assert (second.is_disabled, second.is_revoked) == (False, True)
    assert await store.find_by_refresh(hash_of("r2")) is None
    await store.set_disabled(one.device_no, False)
    await store.add_token(two.device_no, hash_of("t3"), LATER_MS)
    first, second = await store.check_tokens([hash_of("t1"), hash_of("t3")], NOW_MS)
    assert not first.is_disabled
    assert not second.is_revoked


async def test_a_deleted_device_leaves_nothing_and_its_number_does_not_come_again(store) -> None:
    made = await store.register([new("d-1", "t1", "r1", user="u", tags=("x",)), new("d-2", "t2")], NOW_MS)
    highest = made[1][0]
    await store.delete_device(highest.device_no, NOW_MS)
    await store.delete_device(made[0][0].device_no, NOW_MS)
    assert await store.find_devices(["d-1", "d-2"]) == [None, None]
    assert await store.check_tokens([hash_of("t1"), hash_of("t2")], NOW_MS) == [None, None]
    assert await store.find_by_refresh(hash_of("r1")) is None
    assert await store.devices_of_users(["u"]) == [[]]
    assert await store.tags_of([made[0][0].device_no]) == [()]
    await store.add_token(highest.device_no, hash_of("t9"), LATER_MS)
    assert await store.check_tokens([hash_of("t9")], NOW_MS) == [None]
    ((again, is_new),) = await store.register([new("d-2", "t3")], NOW_MS)
    assert is_new
    assert again.device_no > highest.device_no


async def test_deleting_a_device_that_is_not_there_is_no_error(store) -> None:
    await store.delete_device(12_345, NOW_MS)


async def test_registrations_come_with_their_refresh_hash(store) -> None:
    ((one, _), (two, _)) = await store.register([new("d-1", refresh="r"), new("d-2")], NOW_MS)
    assert await store.find_registrations(["d-2", "none", "d-1"]) == [
        (two, None, True),
        None,
        (one, hash_of("r"), True),
    ]


async def test_users_have_their_devices(store) -> None:
    made = await store.register([new("a", user="u1"), new("b", user="u2"), new("c", user="u1")], NOW_MS)
    a, b, c = (device for device, _ in made)
    assert await store.devices_of_users(["u1", "none", "u2", "u1"]) == [[a, c], [], [b], [a, c]]
    await store.set_user(a.device_no, None)
    await store.set_user(b.device_no, "u1")
    found = await store.devices_of_users(["u1", "u2"])
    assert [[device.device_id for device in one] for one in found] == [["b", "c"], []]


async def test_lists_go_from_the_newest_in_pages(store) -> None:
    made = [device for device, _ in await store.register([new(f"d-{n}") for n in range(5)], NOW_MS)]
    assert await store.list_devices(0, 2) == [made[4], made[3]]
    assert await store.list_devices(made[3].device_no, 10) == [made[2], made[1], made[0]]
    assert await store.list_devices(made[0].device_no, 10) == []


async def test_a_nonce_is_used_once_for_each_app(store) -> None:
    assert await store.use_nonce("a", "n", LATER_MS)
    assert not await store.use_nonce("a", "n", LATER_MS)
    assert await store.use_nonce("b", "n", LATER_MS)
    assert await store.use_nonce("a", "N", LATER_MS)
    assert await store.use_nonce("a", "é\n'\"", LATER_MS)
    outcomes = await asyncio.gather(*(store.use_nonce("a", "same", LATER_MS) for _ in range(50)))
    assert sum(outcomes) == 1


async def test_apps_are_found_by_their_key(store) -> None:
    app = App("app_1", "secret", "$argon2id$x")
    await store.add_app(app)
    assert await store.find_app("app_1") == app
    assert await store.find_app("app_2") is None


async def test_keys_are_listed_newest_first_and_end_once(store) -> None:
    old = ApiKey("key_1", "old", "h1", frozenset({"admin"}), NOW_MS)
    young = ApiKey("key_2", "ünï 'q\"", "h2", frozenset({"device:read", "push:write"}), NOW_MS + 1)
    await store.add_key(old)
    await store.add_key(young)
    assert await store.list_keys() == [young, old]
    assert await store.find_key("key_2") == young
    assert await store.find_key("key_3") is None
    assert await store.revoke_key("key_1", NOW_MS + 2)
    assert not await store.revoke_key("key_1", NOW_MS + 3)
    assert not await store.revoke_key("key_3", NOW_MS)
    assert (await store.find_key("key_1")).revoked_at_ms == NOW_MS + 2


async def test_what_returned_is_there_after_a_restart(maker) -> None:
    async with maker() as store:
        ((device, _),) = await store.register([new("d-1", refresh="r")], NOW_MS)
        assert await store.use_nonce("a", "n", LATER_MS)
    async with maker() as store:
        assert await store.find_by_refresh(hash_of("r")) == device
        assert (await store.check_tokens([hash_of("t-d-1")], NOW_MS))[0].device_no == device.device_no
        assert not await store.use_nonce("a", "n", LATER_MS)


CALLS: list[Callable[[AccountStore], Awaitable[object]]] = [
    lambda store: store.check_tokens([hash_of("t")], NOW_MS),
    lambda store: store.register([new("d-1")], NOW_MS),
    lambda store: store.find_devices(["d-1"]),
    lambda store: store.use_nonce("a", "n", LATER_MS),
    lambda store: store.add_token(1, hash_of("t"), LATER_MS),
    lambda store: store.list_keys(),
]


@pytest.mark.parametrize("call", CALLS)
async def test_a_store_that_is_stopped_says_that_it_is_unavailable(maker, call) -> None:
    async with maker() as store:
        pass
    with pytest.raises(StoreUnavailable):
        await call(store)
