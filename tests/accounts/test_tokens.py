"""Device tokens: what they prove, to whom, and until when."""

import pytest

from longwire.accounts.devices import Provision
from longwire.accounts.refusals import Refused
from longwire.accounts.tokens import NotAdopted, TokenSettings, close_code, hash_of, new_secrets
from longwire.model import Credential
from longwire.reasons import CloseCode

GOOD = Credential(1, "d-1", 1_000, False, False, 0, False)


@pytest.fixture
async def given(house):
    """Two devices with a token each."""
    return await house.devices.provision([Provision("d-1"), Provision("d-2")])


@pytest.mark.parametrize(
    ("credential", "now_ms", "code"),
    [
        (GOOD, 999, None),
        (GOOD, 1_000, CloseCode.TOKEN_EXPIRED),
        (None, 0, CloseCode.BAD_CREDENTIALS),
        (Credential(2, "d-2", 1_000, False, False, 0, False), 0, CloseCode.BAD_CREDENTIALS),
        (Credential(1, "d-1", 1_000, True, False, 0, False), 2_000, CloseCode.DISABLED),
        (Credential(1, "d-1", 1_000, False, True, 0, False), 0, CloseCode.DISABLED),
    ],
)
def test_a_connect_is_refused_with_the_code_of_the_protocol(credential, now_ms, code) -> None:
    assert close_code(credential, "d-1", now_ms) == code


def test_secrets_are_256_bits_each_and_differ() -> None:
    made = new_secrets(100)
    assert len(set(made)) == 100
    assert {len(secret) for secret in made} == {43}


async def test_a_renewed_token_holds_beside_the_old_one(house, given) -> None:
    issued = await house.tokens.renew(given[0].device.device_no)
    assert issued.expires_at_ms == house.clock.now_ms() + 86_400_000
    assert house.tokens.expires_in_s(issued.expires_at_ms) == 86_400
    for token in (issued.token, given[0].token):
        assert (await house.tokens.authenticate(token)).device_id == "d-1"


async def test_a_token_of_a_device_that_is_gone_is_not_given(house, given) -> None:
    await house.devices.delete("d-1")
    issued = await house.tokens.renew(given[0].device.device_no)
    assert await house.store.check_tokens([hash_of(issued.token)], 0) == [None]


async def test_a_session_adopts_only_a_good_token_of_its_own_device(house, given) -> None:
    first, second = given
    number = first.device.device_no
    adopted = await house.tokens.adopt(first.token, number)
    assert adopted.expires_at_ms == first.expires_at_ms
    for token in (second.token, "unknown", "\ud800"):
        with pytest.raises(NotAdopted, match="not one of this device") as caught:
            await house.tokens.adopt(token, number)
        assert caught.value.code == CloseCode.BAD_CREDENTIALS
    house.clock.advance(86_400)
    with pytest.raises(NotAdopted, match="token_expired"):
        await house.tokens.adopt(first.token, number)


@pytest.mark.parametrize("how", ["revoke", "disable", "expire", "unknown"])
async def test_a_token_that_does_not_hold_is_refused_by_name(house, given, how) -> None:
    token = given[0].token
    if how == "revoke":
        await house.devices.revoke("d-1")
    elif how == "disable":
        await house.devices.set_disabled("d-1", True)
    elif how == "expire":
        house.clock.advance(86_400)
    else:
        token = "unknown"
    with pytest.raises(Refused) as caught:
        await house.tokens.authenticate(token)
    expected = {"disable": "device-disabled", "expire": "token-expired"}.get(how, "auth-invalid")
    assert caught.value.code == expected


async def test_a_refresh_token_gets_tokens_for_its_device_until_it_is_revoked(house, given) -> None:
    house.clock.advance(365 * 86_400)
    device, issued = await house.tokens.refresh(given[0].refresh_token)
    assert device.device_id == "d-1"
    assert (await house.tokens.authenticate(issued.token)).device_id == "d-1"
    await house.devices.set_disabled("d-1", True)
    with pytest.raises(Refused, match="disabled"):
        await house.tokens.refresh(given[0].refresh_token)
    await house.devices.set_disabled("d-1", False)
    await house.devices.revoke("d-1")
    with pytest.raises(Refused, match="register again"):
        await house.tokens.refresh(given[0].refresh_token)
    assert (await house.tokens.refresh(given[1].refresh_token))[0].device_id == "d-2"


def test_a_lifetime_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="token_ttl_s is 0"):
        TokenSettings(token_ttl_s=0)


async def test_a_banned_device_gets_no_token_until_its_ban_is_over(house, given) -> None:
    token, refresh_token = given[0].token, given[0].refresh_token
    await house.devices.disconnect("d-1", ban_s=90)
    for call in (house.tokens.authenticate(token), house.tokens.refresh(refresh_token)):
        with pytest.raises(Refused, match="banned for another 90 s") as caught:
            await call
        assert (caught.value.code, caught.value.retry_after_s) == ("device-disabled", 90)
    house.clock.advance(90)
    assert (await house.tokens.authenticate(token)).device_id == "d-1"
    assert (await house.tokens.refresh(refresh_token))[0].device_id == "d-1"
