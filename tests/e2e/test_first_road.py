"""The first whole road: register, connect, send, be away, come back."""

import asyncio
import json

import pytest

from longwire import Context, Longwire
from longwire.client import Device, DeviceStopped, State, UnknownTarget, Unsupported
from longwire.reasons import CloseCode, Status

pytestmark = pytest.mark.parametrize("transport", ["tcp", "websocket"])


async def test_a_message_reaches_the_other_device_once_and_is_confirmed(start, transport) -> None:
    node = await start()
    async with node.device("alice", transport=transport) as alice, node.device("bob", transport=transport) as bob:
        result = await alice.send("device:bob", {"text": "hi"}, "chat")
        assert result.status is Status.OK
        message = await bob.receive(timeout_s=10)
        assert (message.sender, message.kind, message.json()) == ("device:alice", "chat", {"text": "hi"})
        again = await alice.send("device:bob", {"text": "hi"}, "chat", message_id=result.message_id)
        assert again.is_duplicate
        await alice.send("device:bob", b"next", "chat")
        assert (await bob.receive(timeout_s=10)).payload == b"next"


async def test_what_an_absent_device_misses_waits_and_comes_in_order(start, transport) -> None:
    node = await start()
    async with node.device("bob", transport=transport):
        pass
    async with node.device("alice", transport=transport) as alice:
        for n in range(150):
            await alice.send("device:bob", str(n), "chat")
    async with node.device("bob", transport=transport) as bob:
        got = [(await bob.receive(timeout_s=10)).text() for _ in range(150)]
    assert got == [str(n) for n in range(150)]


async def test_the_application_answers_messages_and_requests(start, transport) -> None:
    app = Longwire()

    @app.uplink("greeting")
    async def greet(name: str, ctx: Context) -> None:
        await ctx.reply("greeted", f"hello {name}")

    @app.request("double")
    def double(number: int) -> int:
        return number * 2

    node = await start(app)
    async with node.device("alice", transport=transport) as alice:
        await alice.send("", "Ann", "greeting")
        assert (await alice.receive(timeout_s=10)).text() == "hello Ann"
        assert (await alice.request("double", 21)).json() == 42
        with pytest.raises(Unsupported):
            await alice.request("treble", 21)


async def test_all_devices_of_a_user_get_a_message_but_the_one_that_sent_it(start, transport) -> None:
    node = await start()
    async with (
        node.device("phone", transport=transport) as phone,
        node.device("tablet", transport=transport) as tablet,
        node.device("desk", transport=transport) as desk,
    ):
        for name in ("phone", "tablet"):
            answer = await node.api.put(f"/v1/devices/{name}/user", json={"user": "ann"})
            assert answer.status_code == 200
        await phone.send("user:ann", b"mine", "note")
        assert (await tablet.receive(timeout_s=10)).to == "user:ann"
        await desk.send("user:ann", b"yours", "note")
        assert (await phone.receive(timeout_s=10)).payload == b"yours"
        assert (await tablet.receive(timeout_s=10)).payload == b"yours"
        with pytest.raises(UnknownTarget):
            await desk.send("user:nobody", b"", "note")
        with pytest.raises(UnknownTarget):
            await desk.send("group:nobody", b"", "note")
        with pytest.raises(Unsupported):
            await desk.send("topic:all", b"", "note")


async def test_a_revoked_device_is_closed_with_4102_and_stays_away(start, transport) -> None:
    node = await start()
    async with node.device("alice", transport=transport) as alice:
        answer = await node.api.post("/v1/devices/alice/disable")
        assert answer.status_code == 200
        with pytest.raises(DeviceStopped):
            await alice.receive(timeout_s=10)
        assert alice.last_close is not None
        assert alice.last_close.code == CloseCode.DISABLED


async def test_a_second_log_in_takes_over_and_the_first_stays_away(start, transport) -> None:
    node = await start()
    async with node.device("alice", transport=transport) as first, node.device("alice", transport=transport) as second:
        with pytest.raises(DeviceStopped):
            await first.receive(timeout_s=10)
        assert first.state is State.STOPPED
        assert second.state is State.CONNECTED
        assert len(node.process.system.node.hub) == 1


async def test_a_provisioned_token_connects_without_http(start, transport) -> None:
    node = await start()
    answer = await node.api.post("/v1/devices/batch", json={"items": [{"device_id": "plc-1"}, {"device_id": "plc-2"}]})
    tokens = {item["device_id"]: item["token"] for item in answer.json()["items"]}
    address = f"127.0.0.1:{node.process.system.node.port_number}"
    async with (
        Device(device_id="plc-1", token=tokens["plc-1"], address=address, transport=transport) as one,
        Device(device_id="plc-2", token=tokens["plc-2"], address=address, transport=transport) as two,
    ):
        await one.send("device:plc-2", json.dumps([1]), "list")
        assert (await two.receive(timeout_s=10)).json() == [1]


async def test_many_senders_and_a_cut_lose_nothing_and_repeat_nothing(start, transport) -> None:
    node = await start()
    async with node.device("sink", transport=transport) as sink, asyncio.TaskGroup() as group:

        async def send(n: int) -> None:
            async with node.device(f"source-{n}", transport=transport) as source:
                for m in range(20):
                    await source.send("device:sink", f"{n}/{m}", "part")

        for n in range(10):
            group.create_task(send(n))
        await asyncio.sleep(0)
        got: list[str] = []
        for at in range(200):
            got.append((await sink.receive(timeout_s=20)).text())
            if at == 60:
                session = node.process.system.node.hub.find_by_id("sink")
                assert session is not None
                session.connection.abort()
    assert sorted(got) == sorted(f"{n}/{m}" for n in range(10) for m in range(20))
    for n in range(10):
        mine = [text for text in got if text.startswith(f"{n}/")]
        assert mine == [f"{n}/{m}" for m in range(20)]
