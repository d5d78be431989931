"""What every AudienceStore does, whatever engine it stands on."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
from databases import Maker, OpenDatabase, maker_of
from pyroaring import BitMap

from longwire.adapters.sql.accounts import SqlAccounts
from longwire.adapters.sql.audiences import SqlAudiences
from longwire.errors import StoreUnavailable
from longwire.ports.accounts import AccountStore, DeviceChange, DeviceFilter, NewDevice, TooManyTags
from longwire.ports.audiences import AudienceStore
from longwire.push_model import Group, Members, SetChange, SetCount, SetKind

NOW_MS = 1_764_000_000_000  # 2025-11-24
TAG, GROUP = SetKind.TAG, SetKind.GROUP


@pytest.fixture
def maker(open_database: OpenDatabase) -> Maker[tuple[AccountStore, AudienceStore]]:
    return maker_of(open_database, lambda database: (SqlAccounts(database), SqlAudiences(database)))


@pytest.fixture
async def stores(maker: Maker[tuple[AccountStore, AudienceStore]]) -> AsyncIterator[tuple[AccountStore, AudienceStore]]:
    async with maker() as made:
        yield made


@pytest.fixture
def accounts(stores) -> AccountStore:
    return stores[0]


@pytest.fixture
def sets(stores) -> AudienceStore:
    return stores[1]


async def register(accounts: AccountStore, *names: str, now_ms: int = NOW_MS, **more) -> list[int]:
    wanted = [NewDevice(name, f"{name}-{now_ms}".encode().ljust(32, b"."), NOW_MS, None, **more) for name in names]
    return [device.device_no for device, _ in await accounts.register(wanted, now_ms)]


async def members(sets: AudienceStore, kind: SetKind, name: str) -> list[int] | None:
    found = (await sets.members(kind, [name]))[0]
    return None if found is None else list(found)


async def test_everyone_is_who_is_registered(accounts, sets) -> None:
    assert await sets.everyone() == BitMap()
    one, two, three = await register(accounts, "a", "b", "c")
    assert await sets.everyone() == BitMap([one, two, three])
    await accounts.delete_device(two, NOW_MS)
    assert await sets.everyone() == BitMap([one, three])


async def test_tags_are_given_and_taken_and_counted(accounts, sets) -> None:
    one, two, three = await register(accounts, "a", "b", "c")
    done = await sets.change(
        [
            SetChange(one, TAG, add=("x", "y")),
            SetChange(two, TAG, add=("x",)),
            SetChange(one, TAG, add=("z",), remove=("y",)),
            SetChange(999, TAG, add=("x",)),
        ],
        NOW_MS,
    )
    assert done == [True, True, True, False]
    assert await sets.members(TAG, ["x", "y", "z", "nobody's"]) == [BitMap([one, two]), BitMap(), BitMap([one]), None]
    assert await sets.names_of([three, one, two, 999], TAG) == [(), ("x", "z"), ("x",), ()]
    assert await sets.counts(TAG, "", "", 10) == [
        SetCount("sys:registered=2025-11-24", 3, NOW_MS),
        SetCount("x", 2, NOW_MS),
        SetCount("z", 1, NOW_MS),
    ]
    assert [count.name for count in await sets.counts(TAG, "", "sys:registered=2025-11-24", 1)] == ["x"]
    assert [count.name for count in await sets.counts(TAG, "z", "", 10)] == ["z"]


async def test_replacing_leaves_the_tags_of_the_system_and_the_groups(accounts, sets) -> None:
    (one,) = await register(accounts, "a", tags=("old", "kept"), platform="ios")
    await sets.add_group("g", "", NOW_MS)
    assert await sets.change([SetChange(one, GROUP, add=("g",))], NOW_MS) == [True]
    assert await sets.change([SetChange(one, TAG, add=("kept", "new"), replaces=True)], NOW_MS) == [True]
    assert await sets.names_of([one], TAG) == [("kept", "new")]
    assert await sets.names_of([one], GROUP) == [("g",)]
    assert await members(sets, TAG, "sys:platform=ios") == [one]
    assert await members(sets, TAG, "old") == []


async def test_a_device_has_two_hundred_tags_and_no_more(accounts, sets) -> None:
    (one,) = await register(accounts, "a", platform="ios", app_version="2")
    many = tuple(f"t{n}" for n in range(200))
    assert await sets.change([SetChange(one, TAG, add=many)], NOW_MS) == [True]
    assert await sets.change([SetChange(one, TAG, add=("more",))], NOW_MS) == [False]
    assert await members(sets, TAG, "more") == []
    assert await sets.change([SetChange(one, TAG, add=("more",), remove=("t7",))], NOW_MS) == [True]
    assert len((await sets.names_of([one], TAG))[0]) == 200
    assert await sets.change([SetChange(one, TAG, add=(*many, "x"), replaces=True)], NOW_MS) == [False]
    assert await sets.change([SetChange(one, TAG, add=("x",), replaces=True)], NOW_MS) == [True]
    assert await sets.names_of([one], TAG) == [("x",)]


async def test_a_registration_that_would_give_too_many_tags_leaves_no_trace(accounts, sets) -> None:
    (one,) = await register(accounts, "a", tags=tuple(f"t{n}" for n in range(200)))
    with pytest.raises(TooManyTags, match="device a"):
        await accounts.register(
            [NewDevice("b", b"b" * 32, NOW_MS, None), NewDevice("a", b"c" * 32, NOW_MS, None, tags=("more",))], NOW_MS
        )
    assert await accounts.find_devices(["b"]) == [None]
    assert await sets.everyone() == BitMap([one])
    await register(accounts, "a", now_ms=NOW_MS + 1, tags=("t1",))


async def test_the_systems_tags_follow_what_a_device_says_of_itself(accounts, sets) -> None:
    (one,) = await register(accounts, "a", platform="ios", app_version="1")
    tomorrow = NOW_MS + 86_400_000
    await register(accounts, "a", now_ms=tomorrow, app_version="2")
    assert await members(sets, TAG, "sys:platform=ios") == [one]
    assert await members(sets, TAG, "sys:version=1") == []
    assert await members(sets, TAG, "sys:version=2") == [one]
    assert await members(sets, TAG, "sys:registered=2025-11-24") == [one]
    assert await members(sets, TAG, "sys:registered=2025-11-25") is None
    await accounts.change_device(one, DeviceChange(platform="mac os \u00fc", app_version=""), tomorrow)
    assert await members(sets, TAG, "sys:platform=ios") == []
    assert await members(sets, TAG, "sys:platform=mac os \u00fc") == [one]
    assert await members(sets, TAG, "sys:version=2") == []
    assert await sets.names_of([one], TAG) == [()]
    await accounts.change_device(999, DeviceChange(platform="x"), NOW_MS)
    assert await members(sets, TAG, "sys:platform=x") is None


async def test_of_a_device_that_stands_twice_in_a_call_the_last_platform_counts(accounts, sets) -> None:
    made = await accounts.register(
        [
            NewDevice("a", b"1" * 32, NOW_MS, None, platform="ios", tags=("x",)),
            NewDevice("a", b"2" * 32, NOW_MS, None, platform="mac", tags=("y",)),
        ],
        NOW_MS,
    )
    number = made[0][0].device_no
    assert await members(sets, TAG, "sys:platform=ios") == []
    assert await members(sets, TAG, "sys:platform=mac") == [number]
    assert await sets.names_of([number], TAG) == [("x", "y")]


async def test_a_group_has_devices_and_the_devices_of_its_users(accounts, sets) -> None:
    (one,) = await register(accounts, "a", user="ann")
    two, three = await register(accounts, "b", "c")
    assert await sets.add_group("g", "Friends", NOW_MS)
    assert not await sets.add_group("g", "Others", NOW_MS)
    assert await members(sets, GROUP, "g") == []
    add = Members(devices=(two, 999), users=("ann", "nobody"))
    assert await sets.change_members("g", add, Members(devices=(three,)), NOW_MS) == (3, 0)
    assert await sets.change_members("g", add, Members(), NOW_MS) == (0, 0)
    assert await sets.find_group("g") == Group("g", "Friends", NOW_MS, 1, 2)
    assert await members(sets, GROUP, "g") == [one, two]
    assert await sets.group_devices("g", 0, 10) == [two]
    assert await sets.group_users("g", "", 10) == ["ann", "nobody"]
    assert [await sets.is_member("g", no, user) for no, user in ((one, "ann"), (one, None), (two, None))] == [
        True,
        False,
        True,
    ]
    (later,) = await register(accounts, "d", user="ann")
    assert await members(sets, GROUP, "g") == [one, two, later]
    assert await sets.change_members("g", Members(), Members((two,), ("ann", "other")), NOW_MS) == (0, 2)
    assert await members(sets, GROUP, "g") == []
    assert not await sets.is_member("g", one, "ann")


async def test_an_unknown_group_is_told_and_not_made(accounts, sets) -> None:
    (one,) = await register(accounts, "a")
    assert await sets.change([SetChange(one, GROUP, add=("g",))], NOW_MS) == [False]
    assert await sets.change([SetChange(one, GROUP, remove=("g",))], NOW_MS) == [False]
    assert await sets.change_members("g", Members((one,)), Members(), NOW_MS) is None
    assert await sets.members(GROUP, ["g"]) == [None]
    assert await sets.find_group("g") is None
    assert await sets.group_users("g", "", 1) == []
    assert await sets.group_devices("g", 0, 1) == []
    assert not await sets.is_member("g", one, None)
    assert not await sets.delete_group("g")


async def test_a_deleted_group_and_a_new_one_of_its_name_share_no_members(accounts, sets) -> None:
    (one,) = await register(accounts, "a")
    await sets.add_group("g", "", NOW_MS)
    await sets.change_members("g", Members((one,), ("ann",)), Members(), NOW_MS)
    assert await sets.delete_group("g")
    assert await sets.names_of([one], GROUP) == [()]
    await sets.add_group("g", "", NOW_MS)
    assert await members(sets, GROUP, "g") == []
    assert await sets.find_group("g") == Group("g", "", NOW_MS, 0, 0)
    assert await sets.change_members("g", Members((one,)), Members(), NOW_MS) == (1, 0)


async def test_groups_are_listed_by_id(sets) -> None:
    for name in ("b", "a", "c"):
        await sets.add_group(name, name.upper(), NOW_MS)
    assert [group.group_id for group in await sets.groups("", 2)] == ["a", "b"]
    assert [group.title for group in await sets.groups("b", 2)] == ["C"]


async def test_a_deleted_device_is_in_no_set(accounts, sets) -> None:
    one, two = await register(accounts, "a", "b", tags=("x",), platform="ios")
    await sets.add_group("g", "", NOW_MS)
    await sets.change_members("g", Members((one, two)), Members(), NOW_MS)
    await accounts.delete_device(one, NOW_MS)
    assert await sets.members(TAG, ["x", "sys:platform=ios"]) == [BitMap([two])] * 2
    assert await members(sets, GROUP, "g") == [two]
    assert await sets.names_of([one], TAG) == [()]
    assert await sets.change([SetChange(one, TAG, add=("y",))], NOW_MS) == [False]


async def test_an_upload_is_what_was_sent(accounts, sets) -> None:
    numbers = BitMap([*await register(accounts, "a", "b"), 70_000, 200_000])
    await sets.keep_upload("upl_1", numbers, NOW_MS, NOW_MS + 1)
    assert await sets.members(SetKind.UPLOAD, ["upl_1", "upl_2"]) == [numbers, None]


async def test_numbers_come_in_the_order_of_the_ids(accounts, sets) -> None:
    numbers = await register(accounts, *(f"d-{n}" for n in range(100)))
    asked = [f"d-{n * 7 % 120}" for n in range(25_000)]
    expected = [numbers[place] if (place := n * 7 % 120) < 100 else None for n in range(25_000)]
    assert await sets.numbers_of(asked) == expected
    assert await sets.numbers_of([]) == []
    assert await sets.numbers_of(["\"quo'ted", "\u00fc"]) == [None, None]


async def test_users_have_their_devices_as_bitmaps(accounts, sets) -> None:
    one, two = await register(accounts, "a", "b", user="ann")
    assert await sets.devices_of_users(["bob", "ann", "ann"]) == [BitMap(), BitMap([one, two]), BitMap([one, two])]


async def test_a_bitmap_that_came_back_is_the_callers_own(accounts, sets) -> None:
    (one,) = await register(accounts, "a", tags=("x",))
    first, second = await sets.members(TAG, ["x", "x"])
    first.clear()
    assert list(second) == [one]
    assert await members(sets, TAG, "x") == [one]


async def test_changes_at_once_all_count(accounts, sets) -> None:
    numbers = await register(accounts, *(f"d-{n}" for n in range(50)))
    calls = [sets.change([SetChange(no, TAG, add=("all", f"own-{no % 5}"))], NOW_MS) for no in numbers]
    calls += [sets.change([SetChange(no, TAG, add=("other",))], NOW_MS) for no in numbers]
    assert await asyncio.gather(*calls) == [[True]] * 100
    assert await sets.members(TAG, ["all", "other"]) == [BitMap(numbers)] * 2
    assert sum(count.devices for count in await sets.counts(TAG, "own-", "", 10)) == 50


async def test_pages_of_devices_meet_everything_that_is_asked_for(accounts, sets) -> None:
    made = await register(accounts, *(f"d-{n:02}" for n in range(20)), user="ann", tags=("x",))
    others = await register(accounts, *(f"e-{n:02}" for n in range(5)), tags=("x", "y"))
    await sets.add_group("g", "", NOW_MS)
    await sets.change_members("g", Members((made[3], others[1]), ()), Members(), NOW_MS)

    async def page(below_no: int = 0, limit: int = 100, **wanted) -> list[int]:
        found = await accounts.page(DeviceFilter(**wanted), below_no, limit)
        return [device.device_no for device in found]

    assert await page() == [*others[::-1], *made[::-1]]
    assert await page(tag="x", limit=6) == [*others[::-1], made[19]]
    assert await page(tag="x", below_no=made[19], limit=2) == [made[18], made[17]]
    assert await page(tag="y", user="ann") == []
    assert await page(tag="sys:registered=2025-11-24", prefix="e-0") == others[::-1]
    assert await page(group="g", user="ann") == [made[3]]
    assert await page(group="none") == await page(tag="none") == await page(user="none") == []
    assert await page(prefix="d-1", limit=3) == [made[19], made[18], made[17]]
    assert await page(prefix="d-", below_no=made[3]) == made[2::-1]
    assert await page(among=BitMap([made[0], others[0], 9_999])) == [others[0], made[0]]
    assert await page(tag="x", without=BitMap(made)) == others[::-1]


async def test_what_was_told_is_there_after_a_restart(maker) -> None:
    async with maker() as (accounts, sets):
        (one,) = await register(accounts, "a")
        await sets.change([SetChange(one, TAG, add=("x",))], NOW_MS)
    async with maker() as (_, sets):
        assert await members(sets, TAG, "x") == [one]
    with pytest.raises(StoreUnavailable):
        await sets.change([SetChange(one, TAG, add=("y",))], NOW_MS)


@pytest.mark.parametrize("seed", range(5))
async def test_any_course_of_changes_leaves_what_plain_sets_would_hold(accounts, sets, seed) -> None:
    """Against a model of a dict of Python sets, over several segments, with refusals and deletions."""
    chance = random.Random(seed)
    names = [f"t{n}" for n in range(8)]
    groups = ["g0", "g1"]
    for group in groups:
        await sets.add_group(group, "", NOW_MS)
    numbers = await register(accounts, *(f"d-{n}" for n in range(12)))
    model: dict[int, dict[SetKind, set[str]]] = {no: {TAG: set(), GROUP: set()} for no in numbers}
    for _ in range(60):
        if model and chance.random() < 0.05:
            gone = chance.choice(sorted(model))
            await accounts.delete_device(gone, NOW_MS)
            del model[gone]
        changes = []
        for _ in range(chance.randrange(1, 8)):
            kind = chance.choice((TAG, TAG, GROUP))
            pool = names if kind is TAG else groups
            add = tuple(chance.sample(pool, chance.randrange(0, len(pool))))
            remove = tuple(chance.sample(pool, chance.randrange(0, len(pool))))
            is_all = kind is TAG and chance.random() < 0.2
            changes.append(SetChange(chance.choice(numbers), kind, add, () if is_all else remove, is_all))
        done = await sets.change(changes, NOW_MS)
        for change, is_done in zip(changes, done, strict=True):
            own = model.get(change.device_no)
            assert is_done == (own is not None)
            if own is not None:
                own[change.kind] = (set() if change.replaces else own[change.kind] - set(change.remove)) | set(
                    change.add
                )
    for kind, pool in ((TAG, names), (GROUP, groups)):
        found = await sets.members(kind, pool)
        for name, have in zip(pool, found, strict=True):
            assert set(have or ()) == {no for no, own in model.items() if name in own[kind]}, name
        own_names = await sets.names_of(numbers, kind)
        assert own_names == [tuple(sorted(model[no][kind])) if no in model else () for no in numbers]
    assert set(await sets.everyone()) == set(model)
