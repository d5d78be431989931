"""API keys: argon2 once a minute, never for the asking."""

import asyncio

import pytest

from longwire.accounts.api_keys import ALL_SCOPES, ApiKeys, ApiKeySettings, Principal, Scope
from longwire.accounts.refusals import Refused


async def refused(awaitable) -> Refused:
    with pytest.raises(Refused) as caught:
        await awaitable
    return caught.value


async def test_a_key_is_told_once_and_kept_as_argon2(house) -> None:
    key, text = await house.keys.create("ci", [Scope.DEVICE_READ])
    assert text.startswith(f"lwk_{key.key_id.removeprefix('key_')}_")
    kept = await house.store.find_key(key.key_id)
    assert kept.secret_hash.startswith("$argon2id$")
    assert text.split("_", 2)[2] not in kept.secret_hash
    assert kept.scopes == {"device:read"}
    principal = await house.keys.authenticate_key(text)
    assert principal == Principal(key.key_id, frozenset({"device:read"}))


async def test_a_check_that_succeeded_is_remembered_for_a_minute(house) -> None:
    _, text = await house.keys.create("ci", [Scope.ADMIN])
    for _ in range(5):
        await house.keys.authenticate_key(text)
    assert house.hasher.checks == 1
    house.clock.advance(59.9)
    await house.keys.authenticate_key(text)
    assert house.hasher.checks == 1
    house.clock.advance(0.1)
    await house.keys.authenticate_key(text)
    assert house.hasher.checks == 2


async def test_many_calls_at_once_pay_for_one_check(house) -> None:
    _, text = await house.keys.create("ci", [Scope.ADMIN])
    await asyncio.gather(*(house.keys.authenticate_key(text) for _ in range(50)))
    assert house.hasher.checks == 1


async def test_what_is_remembered_is_bounded(house) -> None:
    keys = ApiKeys(house.store, house.clock, ApiKeySettings(max_remembered=2), house.hasher)
    texts = [(await keys.create(str(n), [Scope.ADMIN]))[1] for n in range(3)]
    for text in [*texts, texts[2], texts[1], texts[0]]:
        await keys.authenticate_key(text)
    assert house.hasher.checks == 4  # the first was pushed out by the third


@pytest.mark.parametrize(
    "text",
    ["", "lwk", "lwk_", "lwk_00_", "lwk__x", "other_00_x", "lwk_00_x", "lwk_\ud800_\ud800", "lwk_00_" + "x" * 999],
)
async def test_what_is_no_key_of_ours_costs_no_argon2(house, text) -> None:
    assert (await refused(house.keys.authenticate_key(text))).code == "auth-invalid"
    assert house.hasher.checks == 0


async def test_wrong_secrets_are_rationed_and_the_right_one_still_passes_where_it_was_known(house) -> None:
    key, text = await house.keys.create("ci", [Scope.ADMIN])
    await house.keys.authenticate_key(text)
    wrong = f"lwk_{key.key_id.removeprefix('key_')}_wrong"
    errors = [await refused(house.keys.authenticate_key(wrong)) for _ in range(20)]
    assert [error.code for error in errors] == ["auth-invalid"] * 10 + ["rate-limited"] * 10
    assert errors[-1].retry_after_s == pytest.approx(5)
    assert house.hasher.checks == 11
    assert await house.keys.authenticate_key(text)
    house.clock.advance(60)  # no longer remembered: yet its owner is not locked out by the other's failures
    for _ in range(20):
        with pytest.raises(Refused):
            await house.keys.authenticate_key(wrong)
    assert await house.keys.authenticate_key(text)


async def test_few_wait_for_argon2_and_the_rest_is_told_to_come_back(house) -> None:
    keys = ApiKeys(house.store, house.clock, ApiKeySettings(max_waiting=3), house.hasher)
    texts = [(await keys.create(str(n), [Scope.ADMIN]))[1] for n in range(10)]
    outcomes = await asyncio.gather(*map(keys.authenticate_key, texts), return_exceptions=True)
    assert sum(isinstance(outcome, Principal) for outcome in outcomes) == 3
    assert {outcome.code for outcome in outcomes if isinstance(outcome, Refused)} == {"rate-limited"}


async def test_a_revoked_key_ends_at_once_and_revoking_again_finds_nothing(house) -> None:
    key, text = await house.keys.create("ci", [Scope.ADMIN])
    await house.keys.authenticate_key(text)
    await house.keys.revoke(key.key_id)
    assert (await refused(house.keys.authenticate_key(text))).code == "auth-invalid"
    assert (await refused(house.keys.revoke(key.key_id))).code == "not-found"
    assert [one.revoked_at_ms for one in await house.keys.all_keys()] == [house.clock.now_ms()]


async def test_a_check_that_ran_while_its_key_was_revoked_is_not_remembered(house) -> None:
    key, text = await house.keys.create("ci", [Scope.ADMIN])
    verify, loop = house.hasher.verify, asyncio.get_running_loop()

    def revoked_meanwhile(*arguments):
        asyncio.run_coroutine_threadsafe(house.keys.revoke(key.key_id), loop).result()
        return verify(*arguments)

    house.hasher.verify = revoked_meanwhile
    await house.keys.authenticate_key(text)
    assert (await refused(house.keys.authenticate_key(text))).code == "auth-invalid"


async def test_the_master_secret_has_every_scope(house) -> None:
    principal = await house.keys.authenticate_app(house.app.app_key, house.app.master_secret)
    assert principal.scopes == ALL_SCOPES
    await house.keys.authenticate_app(house.app.app_key, house.app.master_secret)
    assert house.hasher.checks == 1
    assert (await refused(house.keys.authenticate_app(house.app.app_key, house.app.app_secret))).code == "auth-invalid"
    assert (await refused(house.keys.authenticate_app("app_none", "x"))).code == "auth-invalid"


def test_admin_includes_every_scope_and_no_other_does() -> None:
    assert all(Principal("k", frozenset({Scope.ADMIN})).has(scope) for scope in Scope)
    for own in set(Scope) - {Scope.ADMIN}:
        assert [scope for scope in Scope if Principal("k", frozenset({own})).has(scope)] == [own]
