"""Who an audience means: the algebra against sets, and what is refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from push_sets import MemorySets
from pyroaring import BitMap

from longwire.accounts.refusals import RefusalCode, Refused
from longwire.limits import Limits
from longwire.push.audience import Audiences, Resolved, push_id_of
from longwire.push_model import Audience, RecipientState, SetKind, TagExpression
from longwire.testing import ManualClock

NAMES = [f"t{n}" for n in range(6)]
TAGS = st.lists(st.sampled_from(NAMES), max_size=4).map(tuple)
EXPRESSIONS = st.builds(TagExpression, any=TAGS, all=TAGS, none=TAGS).filter(lambda tags: tags.any or tags.all)
# Several segments, and both kinds of containers.
DEVICES = st.one_of(
    st.frozensets(st.integers(0, 400_000), max_size=60),
    st.integers(0, 5).map(lambda n: frozenset(range(n * 65_000, n * 65_000 + 9_000))),
)
SETS = st.dictionaries(st.sampled_from(NAMES), DEVICES)


def audiences_of(sets: MemorySets) -> Audiences:
    return Audiences(sets, None, ManualClock(), Limits())  # type: ignore[arg-type]


def brute_force(tags: TagExpression, sets: dict[str, frozenset[int]]) -> set[int]:
    everyone = set().union(*sets.values())
    return {
        device
        for device in everyone
        if (not tags.any or any(device in sets.get(name, ()) for name in tags.any))
        and all(device in sets.get(name, ()) for name in tags.all)
        and not any(device in sets.get(name, ()) for name in tags.none)
    }


@settings(max_examples=100, deadline=None)
@given(EXPRESSIONS, SETS)
async def test_an_expression_of_tags_means_what_brute_force_says(tags, sets) -> None:
    memory = MemorySets(tags={name: BitMap(devices) for name, devices in sets.items()})
    before = {name: devices.copy() for name, devices in memory.sets[SetKind.TAG].items()}
    assert set(await audiences_of(memory).resolve_tags(tags)) == brute_force(tags, sets)
    assert memory.sets[SetKind.TAG] == before


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=20), st.dictionaries(st.sampled_from("abcdef"), DEVICES)
)
async def test_groups_mean_their_union_and_unknown_ones_are_told_once(names, groups) -> None:
    memory = MemorySets(groups={name: BitMap(devices) for name, devices in groups.items()})
    unknown = list(dict.fromkeys(name for name in names if name not in groups))
    if len(unknown) == len(set(names)):
        with pytest.raises(Refused) as refused:
            await audiences_of(memory).resolve(Audience(groups=tuple(names)))
        assert refused.value.code is RefusalCode.NO_TARGET
        return
    found = await audiences_of(memory).resolve(Audience(groups=tuple(names)))
    assert set(found.devices) == set().union(*(groups.get(name, frozenset()) for name in names))
    assert (found.unresolved, found.sample) == (len(unknown), tuple(unknown))


async def test_a_tag_that_nobody_has_means_nobody() -> None:
    sets = MemorySets(tags={"a": BitMap([1, 2])})
    for tags in (
        TagExpression(any=("b",)),
        TagExpression(all=("a", "b")),
        TagExpression(any=("a",), none=("a",)),
    ):
        assert await audiences_of(sets).resolve(Audience(tags=tags)) == Resolved(BitMap())


async def test_devices_are_those_that_exist_and_ten_of_the_others_are_named() -> None:
    sets = MemorySets(devices={"d-1": 1, "d-2": 2, "d-3": 3})
    names = ("d-2", *(f"x-{n}" for n in range(15)), "d-1", "d-2", "x-0")
    found = await audiences_of(sets).resolve(Audience(devices=names))
    assert found == Resolved(BitMap([1, 2]), 15, tuple(f"x-{n}" for n in range(10)))


async def test_names_of_which_none_exists_are_no_target() -> None:
    sets = MemorySets(devices={"d-1": 1}, users={"u": BitMap([1])}, groups={"g": BitMap()})
    for audience in (Audience(devices=("x",)), Audience(users=("x", "y")), Audience(groups=("x",))):
        with pytest.raises(Refused, match="none of") as refused:
            await audiences_of(sets).resolve(audience)
        assert refused.value.code is RefusalCode.NO_TARGET
    assert await audiences_of(sets).resolve(Audience(groups=("g",))) == Resolved(BitMap())


async def test_a_device_that_is_matched_several_ways_is_one() -> None:
    sets = MemorySets(users={"u": BitMap([1, 2]), "v": BitMap([2, 3])})
    found = await audiences_of(sets).resolve(Audience(users=("u", "v", "u", "w")))
    assert found == Resolved(BitMap([1, 2, 3]), 1, ("w",))


async def test_an_upload_is_less_those_who_are_gone() -> None:
    sets = MemorySets(
        devices={f"d-{n}": n for n in range(1, 5)}, uploads={"up": BitMap(range(3, 8)), "old": BitMap([9])}
    )
    found = await audiences_of(sets).resolve(Audience(upload="up"))
    assert found == Resolved(BitMap([3, 4]), 3)
    for upload, code in (("none", RefusalCode.NOT_FOUND), ("old", RefusalCode.NO_TARGET)):
        with pytest.raises(Refused) as refused:
            await audiences_of(sets).resolve(Audience(upload=upload))
        assert refused.value.code is code


@pytest.mark.parametrize(
    ("audience", "limit"),
    [
        (Audience(devices=("d",) * 1_001), 1_000),
        (Audience(users=("u",) * 1_001), 1_000),
        (Audience(groups=("g",) * 21), 20),
        (Audience(tags=TagExpression(any=("a",) * 20, all=("b",) * 20, none=("c",) * 11)), 50),
    ],
)
async def test_more_names_than_allowed_are_too_complex(audience, limit) -> None:
    with pytest.raises(Refused) as refused:
        await audiences_of(MemorySets()).resolve(audience)
    assert refused.value.code is RefusalCode.AUDIENCE_TOO_COMPLEX
    assert refused.value.more == {"limit": limit, "actual": limit + 1}


@pytest.mark.parametrize(
    "audience",
    [
        Audience(),
        Audience(everyone=True, devices=("d",)),
        Audience(devices=("d",), upload="up"),
        Audience(tags=TagExpression()),
        Audience(tags=TagExpression(none=("a",))),
        Audience(retry_of="psh_" + "0" * 32),
        Audience(retry_of="psh_" + "0" * 32, states=(RecipientState.ACKED,)),
        Audience(notice_of="psh_" + "0" * 32),
    ],
)
async def test_what_is_no_audience_is_refused(audience) -> None:
    with pytest.raises(Refused) as refused:
        await audiences_of(MemorySets()).resolve(audience)
    assert refused.value.code is RefusalCode.INVALID_PARAMETER


@pytest.mark.parametrize(
    "text", ["", "psh_", "psh_12", "0" * 32, "psh_" + "G" * 32, "psh_" + "AB" * 16, "msg_" + "0" * 32]
)
def test_what_is_no_push_id_is_not_found(text) -> None:
    with pytest.raises(Refused) as refused:
        push_id_of(text)
    assert refused.value.code is RefusalCode.NOT_FOUND


def test_a_push_id_is_its_text() -> None:
    assert push_id_of("psh_" + "0f" * 16) == b"\x0f" * 16
