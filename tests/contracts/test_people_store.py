"""What every PeopleStore does, whatever engine it stands on."""

import pytest
from databases import Maker, OpenDatabase, maker_of

from longwire.adapters.sql.people import SqlPeople
from longwire.ports.people import PeopleStore, Person, PersonSession

NOW = 1_764_000_000_000


@pytest.fixture
def maker(open_database: OpenDatabase) -> Maker[PeopleStore]:
    return maker_of(open_database, SqlPeople)


def person(name: str, role: str = "viewer") -> Person:
    return Person(0, name, role, "$argon2id$…", NOW, NOW, must_change=True)


def session(number: int, person_no: int) -> PersonSession:
    return PersonSession(bytes([number]) * 32, person_no, NOW, NOW, NOW + 1_000)


async def test_people_are_found_by_name_and_added_once(maker) -> None:
    async with maker() as store:
        assert await store.add(person("bert"))
        assert await store.add(person("anna", "admin"))
        assert not await store.add(person("bert", "admin"))
        assert await store.find("carl") is None
        found = await store.find("anna")
        assert (found.role, found.must_change, found.is_disabled, found.last_login_ms) == ("admin", True, False, None)
        assert [one.name for one in await store.all_people()] == ["anna", "bert"]
    async with maker() as store:
        assert (await store.find("bert")).role == "viewer"


async def test_a_session_is_found_with_its_person_until_it_is_closed(maker) -> None:
    async with maker() as store:
        await store.add(person("anna"))
        number = (await store.find("anna")).person_no
        await store.open_session(session(1, number))
        found, whose = await store.session(bytes([1]) * 32)
        assert (found, whose.name, whose.last_login_ms) == (session(1, number), "anna", NOW)
        await store.seen(found.token_hash, NOW + 60_000)
        assert (await store.session(found.token_hash))[0].seen_at_ms == NOW + 60_000
        await store.close_session(found.token_hash)
        await store.close_session(found.token_hash)
        assert await store.session(found.token_hash) is None


async def test_a_new_password_ends_every_session_but_the_one_that_is_kept(maker) -> None:
    async with maker() as store:
        await store.add(person("anna"))
        await store.add(person("bert"))
        numbers = [(await store.find(name)).person_no for name in ("anna", "anna", "bert")]
        for at, number in enumerate(numbers):
            await store.open_session(session(at, number))
        assert await store.set_password("anna", "new", False, NOW + 5, keeps=bytes([1]) * 32)
        assert [await store.session(bytes([at]) * 32) is not None for at in range(3)] == [False, True, True]
        found = await store.find("anna")
        assert (found.password_hash, found.must_change, found.changed_at_ms) == ("new", False, NOW + 5)
        assert not await store.set_password("carl", "new", False, NOW)


async def test_who_is_disabled_or_deleted_has_no_session(maker) -> None:
    async with maker() as store:
        for at, name in enumerate(("anna", "bert")):
            await store.add(person(name))
            await store.open_session(session(at, (await store.find(name)).person_no))
        changed = await store.change("anna", "operator", True)
        assert (changed.role, changed.is_disabled) == ("operator", True)
        assert (await store.change("anna", None, None)).is_disabled
        assert not (await store.change("anna", None, False)).is_disabled
        assert await store.change("carl", None, True) is None
        assert await store.delete("bert")
        assert not await store.delete("bert")
        assert [await store.session(bytes([at]) * 32) for at in range(2)] == [None, None]


async def test_a_number_is_not_given_to_another_person(maker) -> None:
    async with maker() as store:
        await store.add(person("anna"))
        before = (await store.find("anna")).person_no
        await store.delete("anna")
        await store.add(person("bert"))
        assert (await store.find("bert")).person_no > before
