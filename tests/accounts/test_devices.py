"""What operators do to devices, and that it reaches the store before the session."""

import pytest

from longwire.accounts.devices import MAX_BATCH, Devices, Provision
from longwire.accounts.refusals import Refused
from longwire.accounts.token_copies import CHANGED_FOR_S, REVOKED_FOR_S
from longwire.accounts.tokens import hash_of
from longwire.adapters.embedded.registry import EmbeddedRegistry
from longwire.adapters.embedded.routes import EmbeddedRoutes
from longwire.model import NodeInfo
from longwire.reasons import CloseCode


@pytest.fixture
async def online(house):
    """A device with a session."""
    given = (await house.devices.provision([Provision("d-1", "ann", ("vip",))]))[0]
    house.link.online.add(given.device.device_no)
    return given


async def state(house, given):
    return (await house.store.check_tokens([hash_of(given.token)], house.clock.now_ms()))[0]


async def test_provisioned_devices_have_a_token_a_refresh_token_a_user_and_tags(house) -> None:
    given = await house.devices.provision([Provision("d-1", "ann", ("vip", "a")), Provision("d-2")])
    assert [one.device.device_id for one in given] == ["d-1", "d-2"]
    assert all(one.is_new for one in given)
    assert (await house.tokens.authenticate(given[1].token)).device_id == "d-2"
    assert (await house.tokens.refresh(given[0].refresh_token))[0].device_id == "d-1"
    view = await house.devices.find("d-1")
    assert (view.device.user, view.tags) == ("ann", ("a", "vip"))


async def test_provisioning_a_known_device_gives_a_further_token_and_leaves_the_rest(house, online) -> None:
    again = (await house.devices.provision([Provision("d-1")]))[0]
    assert (again.is_new, again.refresh_token) == (False, None)
    assert again.device.device_no == online.device.device_no
    assert again.device.user == "ann"
    assert await state(house, online) is not None
    assert await house.tokens.refresh(online.refresh_token)


async def test_more_than_a_batch_is_refused(house) -> None:
    with pytest.raises(ValueError, match="1001 devices"):
        await house.devices.provision([Provision(f"d-{n}") for n in range(MAX_BATCH + 1)])


async def test_revoking_ends_tokens_refresh_token_and_session(house, online) -> None:
    _, was_online = await house.devices.revoke("d-1")
    assert was_online
    assert house.link.closed == [(online.device.device_no, CloseCode.DISABLED)]
    assert (await state(house, online)).is_revoked
    with pytest.raises(Refused):
        await house.tokens.refresh(online.refresh_token)


async def test_the_store_knows_before_the_session_is_closed(house, online) -> None:
    seen = []
    close = house.link.close_session

    async def close_session(device_no, code, reason):
        seen.append(await state(house, online))
        return await close(device_no, code, reason)

    house.link.close_session = close_session
    await house.devices.set_disabled("d-1", True)
    await house.devices.revoke("d-1")
    await house.devices.delete("d-1")
    assert seen[0].is_disabled
    assert seen[1].is_revoked
    assert seen[2] is None


async def test_disabling_closes_the_session_and_enabling_lets_the_same_token_in_again(house, online) -> None:
    view, was_online = await house.devices.set_disabled("d-1", True)
    assert (view.device.is_disabled, was_online) == (True, True)
    assert house.link.closed == [(online.device.device_no, CloseCode.DISABLED)]
    view, was_online = await house.devices.set_disabled("d-1", False)
    assert (view.device.is_disabled, was_online) == (False, False)
    assert (await house.tokens.authenticate(online.token)).device_id == "d-1"
    assert len(house.link.closed) == 1


async def test_a_disconnected_device_may_come_back_with_its_token(house, online) -> None:
    _, was_online = await house.devices.disconnect("d-1")
    assert was_online
    _, was_online = await house.devices.disconnect("d-1", CloseCode.REBALANCED)
    assert not was_online
    assert [code for _, code in house.link.closed] == [CloseCode.KICKED, CloseCode.REBALANCED]
    assert await house.tokens.authenticate(online.token)


async def test_a_deleted_device_is_gone_with_its_session(house, online) -> None:
    await house.devices.delete("d-1")
    assert house.link.closed == [(online.device.device_no, CloseCode.DISABLED)]
    assert await state(house, online) is None
    with pytest.raises(Refused):
        await house.devices.find("d-1")


async def test_copies_of_what_tokens_prove_are_barred_once_the_store_has_the_change(house, online) -> None:
    barred = []

    async def bar(hashes, for_s) -> None:
        barred.append((hashes, for_s, await state(house, online)))

    devices = Devices(house.store, house.clock, house.tokens, house.link, bar_tokens=bar)
    own = [hash_of(online.token)]
    await devices.set_disabled("d-1", True)
    await devices.set_disabled("d-1", False)
    await devices.disconnect("d-1", ban_s=60)
    await devices.set_user("d-1", "bob")
    await devices.revoke("d-1")
    await devices.delete("d-1")
    assert [hashes for hashes, _, _ in barred] == [own] * 6
    assert [for_s for _, for_s, _ in barred] == [CHANGED_FOR_S] * 4 + [REVOKED_FOR_S] * 2
    seen = [credential for _, _, credential in barred]
    assert (seen[0].is_disabled, seen[1].is_disabled, seen[3].user, seen[4].is_revoked) == (True, False, "bob", True)
    assert seen[2].banned_until_ms > house.clock.now_ms()
    assert seen[5] is None


async def test_who_is_routed_to_a_node_that_is_gone_is_not_online(house) -> None:
    given = await house.devices.provision([Provision("d-1"), Provision("d-2")])
    routes, registry = EmbeddedRoutes(house.clock), EmbeddedRegistry()
    await registry.register(NodeInfo("alive~1", "127.0.0.1", 1, None, ""))
    for one, node_id in zip(given, ("alive~1", "gone~1"), strict=True):
        await routes.attach(node_id, [one.device.device_no])
    devices = Devices(house.store, house.clock, house.tokens, house.link, routes, registry)
    assert [view.device.device_id for view in (await devices.page(0, 10, is_online=True))[0]] == ["d-1"]
    assert [view.device.device_id for view in (await devices.page(0, 10, is_online=False))[0]] == ["d-2"]


@pytest.mark.parametrize("call", ["find", "delete", "revoke", "disconnect"])
async def test_an_unknown_device_is_said_to_be_unknown(house, call) -> None:
    with pytest.raises(Refused) as caught:
        await getattr(house.devices, call)("nobody")
    assert caught.value.code == "not-found"
    assert house.link.closed == []


async def test_a_device_changes_its_user(house, online) -> None:
    assert (await house.devices.set_user("d-1", "bob")).device.user == "bob"
    assert (await house.devices.set_user("d-1", None)).device.user is None


async def test_pages_show_every_device_once_newest_first(house) -> None:
    await house.devices.provision([Provision(f"d-{n}", tags=("t",)) for n in range(7)])
    seen, after = [], 0
    while after is not None:
        views, after = await house.devices.page(after, 3)
        seen += [view.device.device_id for view in views]
        assert all(view.tags == ("t",) for view in views)
    assert seen == [f"d-{n}" for n in reversed(range(7))]
