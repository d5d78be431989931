"""Registration: what proves a device, what is refused, and that nobody gets in as somebody else."""

import asyncio

import pytest

from longwire.accounts.devices import Provision
from longwire.accounts.refusals import Refused
from longwire.accounts.registration import STAMP_WINDOW_MS, Admission, proof_of
from longwire.accounts.tags import BadIdentity
from longwire.accounts.tokens import hash_of
from longwire.ids import new_secret
from longwire.model import NodeInfo
from longwire.ports.accounts import App


async def credential(house, token):
    return (await house.store.check_tokens([hash_of(token)], house.clock.now_ms()))[0]


async def refused(awaitable, code, words=""):
    with pytest.raises(Refused) as caught:
        await awaitable
    assert caught.value.code == code
    assert words in str(caught.value)


def test_the_proof_is_the_one_of_the_specification() -> None:
    # Computed with: printf 'd-1\n1764000000000\nn-1' | openssl dgst -sha256 -hmac s3cret
    expected = "b7dd8666e39ef16f43575c4ce0d13fd780ac391911df3eca95ab0dc4dccb091a"
    assert proof_of("s3cret", "d-1", 1_764_000_000_000, "n-1") == expected


async def test_a_new_device_gets_a_token_a_refresh_token_and_a_node(house) -> None:
    done = await house.registration.register(house.claim(platform="linux", app_version="1.2"))
    assert done.is_new
    assert done.node.node_id == "n1~0a"
    assert (done.device.platform, done.device.app_version) == ("linux", "1.2")
    found = await credential(house, done.token)
    assert found.device_id == "d-1"
    assert found.expires_at_ms == house.clock.now_ms() + 86_400_000


async def test_nothing_but_hashes_of_secrets_is_kept(house, tmp_path) -> None:
    done = await house.registration.register(house.claim())
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert done.token.encode() not in kept
    assert done.refresh_token.encode() not in kept
    assert house.app.master_secret.encode() not in kept


@pytest.mark.parametrize(
    "changed", [{"proof": "0" * 64}, {"proof": ""}, {"proof": "é"}, {"app_key": "app_none"}, {"nonce": "other"}]
)
async def test_a_wrong_proof_is_refused_and_registers_nothing(house, changed) -> None:
    claim = house.claim()
    values = {name: getattr(claim, name) for name in claim.__struct_fields__} | changed
    await refused(house.registration.register(type(claim)(**values)), "auth-invalid")
    assert await house.store.find_devices(["d-1"]) == [None]


async def test_the_proof_may_be_written_in_capitals(house) -> None:
    claim = house.claim()
    assert await house.registration.register(house.claim(proof=claim.proof.upper()))


async def test_an_app_without_a_secret_is_no_way_in(house) -> None:
    await house.store.add_app(App("app_x", "real", "x"))
    claim = house.claim(app_key="app_x", proof=proof_of("", "d-1", house.clock.now_ms(), "n-1"))
    await refused(house.registration.register(claim), "auth-invalid")


@pytest.mark.parametrize("off_ms", [STAMP_WINDOW_MS, -STAMP_WINDOW_MS])
async def test_a_stamp_five_minutes_off_is_taken_and_a_millisecond_more_is_not(house, off_ms) -> None:
    now_ms = house.clock.now_ms()
    beyond = off_ms + (1 if off_ms > 0 else -1)
    await refused(house.registration.register(house.claim(ts_ms=now_ms + beyond)), "auth-invalid", "ts_ms")
    assert await house.registration.register(house.claim(ts_ms=now_ms + off_ms))


async def test_a_replay_is_refused_as_long_as_its_stamp_would_be_taken(house) -> None:
    claim = house.claim(ts_ms=house.clock.now_ms() + STAMP_WINDOW_MS)
    await house.registration.register(claim)
    await refused(house.registration.register(claim), "auth-invalid", "nonce")
    house.clock.advance(2 * STAMP_WINDOW_MS / 1000)
    await refused(house.registration.register(claim), "auth-invalid", "nonce")
    house.clock.advance(0.001)
    await refused(house.registration.register(claim), "auth-invalid", "ts_ms")


async def test_a_nonce_of_another_device_is_a_nonce_seen_before(house) -> None:
    await house.registration.register(house.claim("d-1", "n"))
    await refused(house.registration.register(house.claim("d-2", "n")), "auth-invalid", "nonce")


async def test_a_known_device_needs_its_refresh_token(house) -> None:
    first = await house.registration.register(house.claim(nonce="1"))
    await refused(house.registration.register(house.claim(nonce="2")), "auth-invalid", "refresh token")
    wrong = house.claim(nonce="3", refresh_token=new_secret())
    await refused(house.registration.register(wrong), "auth-invalid", "refresh token")
    again = await house.registration.register(house.claim(nonce="4", refresh_token=first.refresh_token))
    assert not again.is_new
    assert again.refresh_token == first.refresh_token
    assert again.token != first.token
    assert await credential(house, first.token) is not None  # earlier tokens stay


async def test_another_devices_refresh_token_proves_nothing(house) -> None:
    await house.registration.register(house.claim("d-1", "1"))
    other = await house.registration.register(house.claim("d-2", "2"))
    claim = house.claim("d-1", "3", refresh_token=other.refresh_token)
    await refused(house.registration.register(claim), "auth-invalid", "refresh token")


async def test_reregister_allow_lets_a_known_device_in_without_proof_of_itself(house) -> None:
    registration = house.registering(reregister="allow")
    first = await registration.register(house.claim(nonce="1"))
    again = await registration.register(house.claim(nonce="2"))
    assert not again.is_new
    assert again.refresh_token != first.refresh_token
    assert (await house.tokens.refresh(again.refresh_token))[0].device_id == "d-1"


async def test_a_client_that_lost_the_answer_registers_again_with_the_refresh_token_it_brought(house) -> None:
    own = new_secret()
    first = await house.registration.register(house.claim(nonce="1", refresh_token=own))
    assert first.is_new
    assert first.refresh_token == own
    again = await house.registration.register(house.claim(nonce="2", refresh_token=own))
    assert not again.is_new


async def test_a_short_or_taken_refresh_token_of_a_clients_own_is_replaced(house) -> None:
    first = await house.registration.register(house.claim("d-1", "1", refresh_token="short"))
    assert first.refresh_token != "short"
    thief = await house.registration.register(house.claim("d-2", "2", refresh_token=first.refresh_token))
    assert thief.refresh_token != first.refresh_token
    assert (await house.tokens.refresh(first.refresh_token))[0].device_id == "d-1"


async def test_of_many_that_register_one_unknown_id_at_once_one_gets_it(house) -> None:
    claims = [house.claim(nonce=str(n)) for n in range(20)]
    outcomes = await asyncio.gather(*(house.registration.register(claim) for claim in claims), return_exceptions=True)
    done = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    assert len(done) == 1
    assert all(isinstance(outcome, Refused) for outcome in outcomes if outcome is not done[0])
    assert (await credential(house, done[0].token)).device_id == "d-1"


async def test_two_hundred_registrations_at_once_are_two_hundred_devices(house) -> None:
    done = await asyncio.gather(*(house.registration.register(house.claim(f"d-{n}", f"n-{n}")) for n in range(200)))
    assert len({one.device.device_no for one in done}) == 200
    assert len({one.token for one in done}) == 200


async def test_a_disabled_device_is_refused_whatever_it_proves(house) -> None:
    first = await house.registration.register(house.claim(nonce="1"))
    await house.devices.set_disabled("d-1", True)
    claim = house.claim(nonce="2", refresh_token=first.refresh_token)
    await refused(house.registration.register(claim), "device-disabled")


async def test_a_revoked_device_comes_back_only_when_an_operator_provisions_it(house) -> None:
    first = await house.registration.register(house.claim(nonce="1"))
    await house.devices.revoke("d-1")
    claim = house.claim(nonce="2", refresh_token=first.refresh_token)
    await refused(house.registration.register(claim), "auth-invalid")
    given = (await house.devices.provision([Provision("d-1")]))[0]
    assert not given.is_new
    again = await house.registration.register(house.claim(nonce="3", refresh_token=given.refresh_token))
    assert not again.is_new


async def test_without_a_node_the_nonce_is_kept_for_the_next_try(house) -> None:
    await house.registry.leave("n1~0a")
    claim = house.claim()
    await refused(house.registration.register(claim), "no-node")
    await house.registry.register(NodeInfo("n2~0b", "h", 1, None, "ws://h:1/ws"))
    assert (await house.registration.register(claim)).is_new


class Judge:
    """An authenticate hook that answers what it is told to, and remembers who asked."""

    def __init__(self, answer: Admission | Exception | None) -> None:
        self.answer = answer
        self.asked = []

    async def __call__(self, applicant):
        self.asked.append(applicant)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def test_the_hook_sets_user_and_tags(house) -> None:
    judge = Judge(Admission("ann", ("vip", "beijing")))
    done = await house.registering(authenticate=judge).register(house.claim(credentials="jwt"))
    assert done.device.user == "ann"
    assert await house.store.tags_of([done.device.device_no]) == [("beijing", "vip")]
    asked = judge.asked[0]
    assert (asked.credentials, asked.has_proof, asked.is_known, asked.has_refresh_token) == (
        "jwt",
        True,
        False,
        False,
    )


async def test_the_hooks_no_is_a_no(house) -> None:
    registration = house.registering(authenticate=Judge(None))
    await refused(registration.register(house.claim()), "auth-invalid", "application refused")
    assert await house.store.find_devices(["d-1"]) == [None]


async def test_the_hooks_yes_is_enough_for_a_known_device(house) -> None:
    await house.registration.register(house.claim(nonce="1"))
    judge = Judge(Admission())
    done = await house.registering(authenticate=judge).register(house.claim(nonce="2"))
    assert not done.is_new
    assert judge.asked[0].is_known
    assert not judge.asked[0].has_refresh_token


async def test_credentials_stand_for_the_proof_only_where_a_hook_judges_them(house) -> None:
    claim = house.claim(proof="", credentials="jwt")
    await refused(house.registration.register(claim), "auth-invalid")
    judge = Judge(Admission("ann"))
    done = await house.registering(authenticate=judge).register(claim)
    assert done.is_new
    assert not judge.asked[0].has_proof
    bare = house.claim(nonce="3", proof="")
    await refused(house.registering(authenticate=judge).register(bare), "auth-invalid")


async def test_a_replay_does_not_reach_the_hook(house) -> None:
    judge = Judge(None)
    registration = house.registering(authenticate=judge)
    claim = house.claim()
    for _ in range(2):
        await refused(registration.register(claim), "auth-invalid")
    assert len(judge.asked) == 1


@pytest.mark.parametrize("admission", [Admission("bad user"), Admission(tags=("sys:x",)), Admission(tags=("",))])
async def test_a_hook_that_names_what_cannot_be_registers_nothing(house, admission) -> None:
    with pytest.raises(BadIdentity):
        await house.registering(authenticate=Judge(admission)).register(house.claim())
    assert await house.store.find_devices(["d-1"]) == [None]


async def test_what_the_hook_raises_ends_the_call(house) -> None:
    with pytest.raises(ZeroDivisionError):
        await house.registering(authenticate=Judge(ZeroDivisionError())).register(house.claim())


async def test_secrets_do_not_stand_in_reprs(house) -> None:
    claim = house.claim(refresh_token="r-secret", credentials="c-secret")
    assert "secret" not in repr(claim)
    assert house.app.app_secret not in repr(house.app)
    assert house.app.app_secret not in repr(await house.store.find_app(house.app.app_key))
