"""Registration, tokens and nodes: the device's side of API §2."""

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random

import httpx
import pytest
from client_fake_api import APP_KEY, APP_SECRET, FakeApi
from client_fake_node import FakeNode
from client_manual_time import ManualTimers, settle, until

from longwire.client import Device, DeviceStopped, State
from longwire.client.account import proof
from longwire.errors import LocalProtocolError
from longwire.wire.packets import Close, Connect

MakeDevice = Callable[..., Device]


@pytest.fixture
def api(node: FakeNode) -> FakeApi:
    fake = FakeApi()
    fake.add_node("n1", node.port)
    node.on_connect = lambda connect: (
        None if fake.tokens.get(connect.token) == connect.device_id else Close(4104, "bad token", False, 0)
    )
    return fake


@pytest.fixture
async def register(api: FakeApi, clock: ManualTimers) -> AsyncIterator[MakeDevice]:
    async with api.client() as http:

        def make(device_id: str = "d-1", **settings: object) -> Device:
            settings = {"app_key": APP_KEY, "app_secret": APP_SECRET, "rng": Random(1)} | settings
            return Device("http://api", device_id, http=http, timers=clock, **settings)

        yield make


async def lose(node: FakeNode, device: Device, clock: ManualTimers) -> None:
    connects = len(node.connects)
    node.link.drop()
    await until(lambda: device.state is State.WAITING)
    await clock.advance(1)
    await until(lambda: len(node.connects) > connects and device.state is State.CONNECTED)


def test_the_proof_is_the_hmac_of_api_section_2() -> None:
    expected = hmac.new(b"s3cret", b"d-1\n1764000000000\nn0nce", hashlib.sha256).hexdigest()
    assert proof("s3cret", "d-1", 1_764_000_000_000, "n0nce") == expected


async def test_a_device_registers_and_goes_to_the_node_it_is_told(
    api: FakeApi, node: FakeNode, register: MakeDevice
) -> None:
    async with register(platform="linux", app_version="2.1") as device:
        assert device.state is State.CONNECTED
        assert device.token == "token-1"
    assert api.calls == ["register"]
    assert (api.bodies[0]["platform"], api.bodies[0]["app_version"]) == ("linux", "2.1")
    assert node.connects == [Connect("token-1", "d-1", 60, "linux", "2.1")]


async def test_a_device_registers_with_its_users_credentials_in_place_of_the_secret(
    api: FakeApi, register: MakeDevice
) -> None:
    async with register(app_secret="", credentials="alice:pw") as device:
        assert device.state is State.CONNECTED
    assert "proof" not in api.bodies[0]
    with pytest.raises(DeviceStopped):
        async with register("d-2", app_secret="", credentials="mallory:pw"):
            pass


async def test_a_reconnect_asks_for_a_node_with_the_token_it_has(
    api: FakeApi, node: FakeNode, register: MakeDevice, clock: ManualTimers
) -> None:
    async with register() as device:
        await clock.advance(40)
        await lose(node, device, clock)
    assert api.calls == ["register", "node"]
    assert [connect.token for connect in node.connects] == ["token-1", "token-1"]


async def test_a_node_that_cannot_be_reached_is_avoided(
    api: FakeApi, node: FakeNode, second_node: FakeNode, register: MakeDevice, clock: ManualTimers
) -> None:
    api.add_node("n2", second_node.port)
    await node.stop()
    second_node.on_connect = node.on_connect
    async with register() as device:
        assert device.state is State.WAITING
        await clock.advance(1)
        await until(lambda: device.node_id == "n2")
    assert api.calls == ["register", "node?avoid=n1"]


@pytest.mark.parametrize("code", [4000, 4002, 4003, 4007, 4008])
async def test_a_node_that_sends_devices_away_is_avoided(
    api: FakeApi, node: FakeNode, second_node: FakeNode, register: MakeDevice, clock: ManualTimers, code: int
) -> None:
    api.add_node("n2", second_node.port)
    second_node.on_connect = node.on_connect
    async with register() as device:
        await clock.advance(60)
        node.link.close(code)
        await until(lambda: device.state is State.WAITING)
        await clock.advance(1)
        await until(lambda: device.node_id == "n2")


async def test_the_only_node_there_is_is_not_avoided_for_long(
    api: FakeApi, node: FakeNode, register: MakeDevice, clock: ManualTimers
) -> None:
    async with register() as device:
        await lose(node, device, clock)
    assert api.calls == ["register", "node?avoid=n1", "node"]


async def test_a_move_without_an_address_asks_the_api(
    api: FakeApi, node: FakeNode, second_node: FakeNode, register: MakeDevice, clock: ManualTimers
) -> None:
    api.add_node("n2", second_node.port)
    second_node.on_connect = node.on_connect
    async with register() as device:
        node.link.move(5_000, "")
        await clock.advance(5)
        await until(lambda: device.node_id == "n2")
    assert api.calls == ["register", "node?avoid=n1"]


async def test_a_device_that_has_nowhere_to_move_stays_and_asks_again(
    api: FakeApi, node: FakeNode, second_node: FakeNode, register: MakeDevice, clock: ManualTimers
) -> None:
    second_node.on_connect = node.on_connect
    async with register() as device:
        node.link.move(1_000, "")
        await clock.advance(2)
        api.mode = "down"
        await clock.advance(4)
        assert (len(node.connects), device.state) == (1, State.CONNECTED)
        await device.send("", b"still here")
        api.mode = ""
        api.add_node("n2", second_node.port)
        for _ in range(20):
            await clock.advance(1)
        await until(lambda: device.node_id == "n2")
    assert len(node.connects) == 1


async def test_behind_a_balancer_the_node_that_answered_is_the_one_to_leave(
    api: FakeApi, node: FakeNode, second_node: FakeNode, register: MakeDevice, clock: ManualTimers
) -> None:
    node.node_id = "n7"
    api.add_node("n2", second_node.port)
    second_node.on_connect = node.on_connect
    async with register() as device:
        assert device.node_id == "n7"
        node.link.move(1_000, "")
        await clock.advance(1)
        await until(lambda: len(api.calls) == 2)
    assert api.calls == ["register", "node?avoid=n7"]


@pytest.mark.parametrize("mode", ["down", "failing"])
async def test_the_last_node_is_used_while_the_api_is_away(
    api: FakeApi, node: FakeNode, register: MakeDevice, clock: ManualTimers, mode: str
) -> None:
    async with register() as device:
        api.mode = mode
        await lose(node, device, clock)


@pytest.mark.parametrize("mode", ["down", "failing"])
async def test_an_api_that_is_away_from_the_start_is_tried_again(
    api: FakeApi, register: MakeDevice, clock: ManualTimers, mode: str
) -> None:
    api.mode = mode
    async with register() as device:
        assert device.state is State.WAITING
        api.mode = ""
        await clock.advance(1)
        await until(lambda: device.state is State.CONNECTED)


async def test_retry_after_of_the_api_holds(api: FakeApi, register: MakeDevice, clock: ManualTimers) -> None:
    api.mode = "busy"
    async with register() as device:
        assert "overloaded" in device.last_close.reason
        api.mode = ""
        await clock.advance(16.9)
        assert len(api.calls) == 1
        await clock.advance(0.2)
        await until(lambda: device.state is State.CONNECTED)


async def test_the_backoff_that_the_api_asks_for_is_followed(
    api: FakeApi, register: MakeDevice, clock: ManualTimers, node: FakeNode
) -> None:
    class Highest(Random):
        def uniform(self, a: float, b: float) -> float:
            return b

    api.backoff = {"base_ms": 5_000, "max_ms": 8_000}
    node.on_connect = lambda connect: Close(4003, "", True, 0)
    async with register(rng=Highest()):
        for wait_s in (5, 8, 8):
            connects = len(node.connects)
            await settle()
            await clock.advance(wait_s - 0.5)
            assert len(node.connects) == connects
            await clock.advance(0.6)
            await until(lambda seen=connects: len(node.connects) == seen + 1)


async def test_an_expired_token_is_replaced_with_the_refresh_token(
    api: FakeApi, node: FakeNode, register: MakeDevice, clock: ManualTimers
) -> None:
    async with register() as device:
        api.tokens.clear()
        node.link.close(4001, "token expired")
        await until(lambda: device.state is State.WAITING)
        await clock.advance(1)
        await until(lambda: device.state is State.CONNECTED)
    assert api.calls == ["register", "token"]
    assert node.connects[-1].token == "token-2"


async def test_a_token_that_the_api_does_not_know_any_more_is_replaced(
    api: FakeApi, node: FakeNode, register: MakeDevice, clock: ManualTimers
) -> None:
    async with register() as device:
        await clock.advance(60)
        api.tokens.clear()
        await lose(node, device, clock)
    assert api.calls == ["register", "node", "token"]


async def test_a_lost_refresh_token_means_registering_again(
    api: FakeApi, node: FakeNode, register: MakeDevice, clock: ManualTimers
) -> None:
    async with register() as device:
        api.tokens.clear()
        api.refresh_tokens.clear()
        node.link.close(4104, "bad token")
        await until(lambda: device.state is State.WAITING)
        await clock.advance(1)
        await until(lambda: device.state is State.CONNECTED)
    assert api.calls == ["register", "token", "register"]


async def test_credentials_that_are_refused_for_good_stop_the_device(api: FakeApi, register: MakeDevice) -> None:
    with pytest.raises(DeviceStopped, match="auth-invalid"):
        async with register(app_secret="wrong"):
            pass
    async with register():
        pass
    with pytest.raises(DeviceStopped, match="auth-invalid"):
        async with register():  # known by now, and without the refresh token
            pass
    api.disabled.add("d-2")
    with pytest.raises(DeviceStopped, match="device-disabled"):
        async with register("d-2"):
            pass


async def test_tokens_that_nodes_go_on_refusing_stop_the_device_after_three(
    api: FakeApi, node: FakeNode, register: MakeDevice, clock: ManualTimers
) -> None:
    node.on_connect = lambda connect: Close(4104, "bad token", False, 0)
    async with register() as device:
        for _ in range(3):
            await clock.advance(10)
        await until(lambda: device.state is State.STOPPED)
    assert len(node.connects) == 3


async def test_a_device_with_a_wrong_clock_registers_by_the_apis(api: FakeApi, register: MakeDevice) -> None:
    api.clock_ms += 86_400_000
    async with register() as device:
        assert device.state is State.CONNECTED
    assert api.calls == ["register", "register"]


async def test_tokens_survive_a_restart_in_the_state_file(
    api: FakeApi, node: FakeNode, register: MakeDevice, tmp_path: Path, clock: ManualTimers
) -> None:
    path = tmp_path / "d-1.db"
    async with register(state=path):
        pass
    assert path.stat().st_mode & 0o777 == 0o600
    async with register(state=path):
        pass
    assert api.calls == ["register", "node"]
    api.tokens.clear()
    async with register(state=path) as device:
        assert device.token == "token-2"
    assert api.calls[2:] == ["node", "token"]
    await clock.advance(86_401)
    async with register(state=path) as device:
        assert device.token == "token-3"
    assert api.calls[4:] == ["token"]  # it knew by itself that the token was over


async def test_a_restart_while_the_api_is_away_uses_the_token_and_node_it_kept(
    api: FakeApi, node: FakeNode, register: MakeDevice, tmp_path: Path
) -> None:
    async with register(state=tmp_path / "d-1.db"):
        pass
    api.mode = "down"
    async with register(state=tmp_path / "d-1.db") as device:
        assert device.state is State.CONNECTED


async def test_a_given_token_asks_the_api_for_a_node_and_stops_when_it_is_refused(
    api: FakeApi, node: FakeNode, register: MakeDevice
) -> None:
    api.tokens["given"] = "d-1"
    async with register(token="given", app_key="", app_secret="") as device:
        assert api.calls == ["node"]
        api.tokens.clear()
        node.link.close(4104, "revoked")
        await until(lambda: device.state is State.STOPPED)


async def test_a_renewed_token_is_kept_in_place_of_the_one_it_grew_from(
    node: FakeNode, make_device: MakeDevice, clock: ManualTimers, tmp_path: Path
) -> None:
    node.terms |= {"token_expires_in_s": 100, "heartbeat_s": 900}
    path = tmp_path / "d-1.db"
    async with make_device(state=path) as device:
        await clock.advance(86)
        await until(lambda: device.token == "renewed-1")
    async with make_device(state=path):
        pass
    async with make_device(state=path, token="another"):
        pass
    assert [connect.token for connect in node.connects] == ["t0k", "renewed-1", "another"]


@pytest.mark.parametrize(
    "settings",
    [
        {"device_id": "no spaces"},
        {"device_id": "d-1"},
        {"device_id": "d-1", "address": "localhost:7300"},
        {"device_id": "d-1", "address": "http://localhost", "token": "t"},
        {"device_id": "d-1", "address": "localhost:port", "token": "t"},
        {"device_id": "d-1", "http_url": "http://api"},
        {"device_id": "d-1", "http_url": "api:7380", "token": "t"},
        {"device_id": "d-1", "address": "localhost:1", "token": "t", "transport": "mqtt"},
    ],
)
def test_arguments_that_cannot_work_are_refused_when_the_device_is_made(settings: dict[str, str]) -> None:
    with pytest.raises(LocalProtocolError):
        Device(**settings)


def test_secrets_do_not_show() -> None:
    device = Device("http://api", "d-1", app_key="k", app_secret="s3cret", http=httpx.AsyncClient())
    assert "s3cret" not in repr(device)


async def test_many_devices_share_one_http_client(api: FakeApi, node: FakeNode, register: MakeDevice) -> None:
    devices = [register(f"d-{i}") for i in range(200)]
    await asyncio.gather(*(device.__aenter__() for device in devices))
    assert len(node.open_links) == 200
    await asyncio.gather(*(device.close() for device in devices))
