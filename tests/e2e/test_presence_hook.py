"""``on_presence`` of an application, with devices on the SDK and the operators' door."""

import asyncio

from longwire.application import Longwire, Presence
from longwire.reasons import CloseCode


async def test_the_application_is_told_who_comes_and_goes_and_the_api_says_the_same(start) -> None:
    app = Longwire()
    told: asyncio.Queue[Presence] = asyncio.Queue()

    @app.on_presence
    async def moved(presence: Presence) -> None:
        told.put_nowait(presence)
        raise RuntimeError("a hook that fails changes nothing")

    running = await start(app)

    async def next_of(device_id: str, is_online: bool) -> Presence:
        async with asyncio.timeout(20):
            presence = await told.get()
        assert (presence.device_id, presence.is_online) == (device_id, is_online)
        return presence

    versions = []
    for transport in ("tcp", "websocket"):
        async with running.device("d-1", transport=transport) as device:
            await device.connected()
            came = await next_of("d-1", True)
            answer = await running.api.get("/v1/devices/d-1/presence")
            assert (answer.json()["online"], answer.json()["session_id"]) == (True, came.session_id)
        gone = await next_of("d-1", False)
        assert (gone.session_id, gone.version) == (came.session_id, came.version + 1)
        versions += [came.version, gone.version]
    assert versions == sorted(versions)
    async with running.device("d-1") as device:
        await device.connected()
        await next_of("d-1", True)
        assert (await running.api.post("/v1/devices/d-1/disable")).status_code == 200
        gone = await next_of("d-1", False)
        assert gone.code == CloseCode.DISABLED
    assert told.empty()
