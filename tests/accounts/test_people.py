"""People: passwords are rationed and never remembered, sessions end, and one-time passwords are good for one thing."""

import asyncio

import pytest

from longwire.accounts.people import SCOPES, People, PeopleSettings, PersonRole, WrongPassword
from longwire.accounts.refusals import Refused
from longwire.adapters.sql.people import SqlPeople

GOOD = "correct horse battery"


class House:
    def __init__(self, house) -> None:
        self.clock, self.hasher = house.clock, house.hasher
        self.store = SqlPeople(house.database)
        self.people = People(self.store, house.clock, hasher=house.hasher)

    async def anna(self, role: PersonRole = PersonRole.VIEWER) -> str:
        _, password = await self.people.create("anna", role, is_one_time=False)
        return password


@pytest.fixture
def home(house) -> House:
    return House(house)


async def refused(awaitable) -> Refused:
    with pytest.raises(Refused) as caught:
        await awaitable
    return caught.value


async def test_a_password_and_a_token_are_kept_as_hashes(home) -> None:
    password = await home.anna()
    person = await home.store.find("anna")
    assert person.password_hash.startswith("$argon2id$")
    assert password not in repr(person)
    token, visitor = await home.people.log_in("anna", password)
    assert token.startswith("lws_")
    assert token.encode() not in visitor.token_hash
    assert visitor.token_hash.hex() not in token


async def test_the_role_says_what_a_visitor_may_do(home) -> None:
    for role in PersonRole:
        _, password = await home.people.create(role.value, role, is_one_time=False)
        token, visitor = await home.people.log_in(role.value, password)
        assert visitor.scopes == SCOPES[role]
        assert visitor.name == f"person:{role}"
        assert (await home.people.authenticate(token)).scopes == SCOPES[role]
    assert not [scope for scope in SCOPES[PersonRole.VIEWER] if not scope.endswith(":read")]


async def test_who_has_a_one_time_password_may_do_nothing_until_it_is_replaced(home) -> None:
    _, password = await home.people.create("anna", PersonRole.ADMIN)
    token, visitor = await home.people.log_in("anna", password)
    assert (visitor.must_change, visitor.scopes) == (True, frozenset())
    await home.people.change_password(visitor, password, GOOD)
    visitor = await home.people.authenticate(token)
    assert (visitor.must_change, visitor.scopes) == (False, SCOPES[PersonRole.ADMIN])
    assert isinstance(await refused(home.people.log_in("anna", password)), WrongPassword)


@pytest.mark.parametrize("name", ["", "Anna", "an na", "a" * 58, "änna", "a\n"])
async def test_a_name_that_is_none_is_refused(home, name) -> None:
    assert (await refused(home.people.create(name, PersonRole.VIEWER))).code == "invalid-parameter"
    checks = home.hasher.checks
    assert (await refused(home.people.log_in(name, GOOD))).code == "auth-invalid"
    assert home.hasher.checks == checks


async def test_a_name_is_given_once(home) -> None:
    await home.anna()
    assert (await refused(home.people.create("anna", PersonRole.ADMIN))).code == "already-exists"


async def test_wrong_passwords_are_rationed_by_name_and_alike_for_a_name_that_nobody_has(home) -> None:
    password = await home.anna()
    for name in ("anna", "nobody"):
        errors = [await refused(home.people.log_in(name, "wrong")) for _ in range(7)]
        assert [error.code for error in errors] == ["auth-invalid"] * 5 + ["rate-limited"] * 2
        assert errors[-1].retry_after_s == pytest.approx(20)
        assert str(errors[0]) == str(WrongPassword(None))
    assert home.hasher.checks == 10  # as many for the one as for the other
    assert (await refused(home.people.log_in("anna", password))).code == "rate-limited"
    home.clock.advance(20)
    await home.people.log_in("anna", password)


async def test_only_a_few_passwords_wait_for_argon2(home) -> None:
    people = People(home.store, home.clock, PeopleSettings(max_waiting=2), home.hasher)
    password = await home.anna()
    found = await asyncio.gather(*(people.log_in("anna", password) for _ in range(5)), return_exceptions=True)
    assert sorted(getattr(one, "code", "in") for one in found) == ["in", "in"] + ["rate-limited"] * 3


async def test_a_session_ends_after_twelve_hours_and_after_two_without_a_call(home) -> None:
    password = await home.anna()
    token, _ = await home.people.log_in("anna", password)
    for _ in range(11):
        home.clock.advance(3_600)
        await home.people.authenticate(token)
    home.clock.advance(3_599)
    await home.people.authenticate(token)
    home.clock.advance(6)
    assert (await refused(home.people.authenticate(token))).code == "auth-invalid"
    token, _ = await home.people.log_in("anna", password)
    home.clock.advance(7_199)
    await home.people.authenticate(token)
    home.clock.advance(7_201)
    assert (await refused(home.people.authenticate(token))).code == "auth-invalid"


async def test_disabling_acts_within_five_seconds_in_another_process_and_at_once_here(home) -> None:
    password = await home.anna()
    elsewhere = People(home.store, home.clock, hasher=home.hasher)
    token, _ = await home.people.log_in("anna", password)
    await elsewhere.authenticate(token)
    await home.people.change("anna", None, True)
    assert (await refused(home.people.authenticate(token))).code == "auth-invalid"
    home.clock.advance(5)
    assert (await refused(elsewhere.authenticate(token))).code == "auth-invalid"
    assert (await refused(home.people.log_in("anna", password))).code == "auth-invalid"


async def test_a_new_password_ends_the_other_sessions(home) -> None:
    password = await home.anna()
    (first, visitor), (second, _) = [await home.people.log_in("anna", password) for _ in range(2)]
    await home.people.change_password(visitor, password, GOOD)
    await home.people.authenticate(first)
    assert (await refused(home.people.authenticate(second))).code == "auth-invalid"


@pytest.mark.parametrize(("old", "new"), [(GOOD, "short"), ("wrong", GOOD + "!"), (None, None), (None, "x" * 257)])
async def test_a_password_is_not_changed_for_a_bad_one_or_by_who_does_not_know_it(home, old, new) -> None:
    password = await home.anna()
    _, visitor = await home.people.log_in("anna", password)
    error = await refused(home.people.change_password(visitor, old or password, new or password))
    assert error.code == "invalid-parameter"
    await home.people.log_in("anna", password)


async def test_signing_out_ends_a_session_and_a_reset_ends_all(home) -> None:
    password = await home.anna()
    (first, visitor), (second, _) = [await home.people.log_in("anna", password) for _ in range(2)]
    await home.people.log_out(visitor)
    assert (await refused(home.people.authenticate(first))).code == "auth-invalid"
    again = await home.people.reset_password("anna")
    assert (await refused(home.people.authenticate(second))).code == "auth-invalid"
    assert (await home.people.log_in("anna", again))[1].must_change


@pytest.mark.parametrize("token", ["lws_", "lws_x", "lws_" + "x" * 999, "lws_\ud800"])
async def test_what_is_no_token_of_ours_is_refused(home, token) -> None:
    assert (await refused(home.people.authenticate(token))).code == "auth-invalid"


async def test_what_is_remembered_is_bounded(home) -> None:
    people = People(home.store, home.clock, PeopleSettings(max_remembered=2), home.hasher)
    password = await home.anna()
    tokens = [(await people.log_in("anna", password))[0] for _ in range(3)]
    for token in tokens:
        await people.authenticate(token)
    assert len(people._known) == 2
