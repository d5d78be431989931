"""The node is killed in the middle and comes back: the devices end with every message, each once."""

import asyncio

import pytest

from longwire.client import Device


@pytest.mark.parametrize("transport", ["tcp", "websocket"])
async def test_a_device_that_loses_its_node_mid_send_loses_and_repeats_nothing(node, tmp_path, transport) -> None:
    keys = node.credentials()
    options = {"app_key": keys["app_key"], "app_secret": keys["app_secret"], "transport": transport}
    count = 400
    got: list[int] = []
    async with (
        Device(node.http_url, "receiver", state=tmp_path / "receiver.db", **options) as receiver,
        Device(node.http_url, "sender", state=tmp_path / "sender.db", **options) as sender,
    ):
        sends = [asyncio.create_task(sender.send("device:receiver", str(n), "n")) for n in range(count)]

        under_way = asyncio.Event()

        async def receive() -> None:
            while len(got) < count:
                got.append(int((await receiver.receive()).text()))
                if len(got) == count // 8:
                    under_way.set()

        receiving = asyncio.create_task(receive())
        async with asyncio.timeout(60):
            await under_way.wait()
        await asyncio.to_thread(node.kill)
        await asyncio.to_thread(node.start)
        async with asyncio.timeout(120):
            await asyncio.gather(*sends)
            await receiving
        assert node.credentials()["app_key"] == keys["app_key"]
    assert got == list(range(count))
