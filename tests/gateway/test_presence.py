"""Who came and who went: told to the application's hook and to webhooks, with versions that sort."""

import asyncio
import json

from longwire.adapters.sql.events import SqlEvents
from longwire.adapters.sql.webhooks import SqlWebhooks
from longwire.application import Presence
from longwire.operations_model import Webhook
from longwire.reasons import CloseCode


async def test_the_hook_is_told_of_every_change_and_versions_say_what_is_later(houses, app) -> None:
    seen: list[Presence] = []

    @app.on_presence
    async def moved(presence: Presence) -> None:
        seen.append(presence)

    house = await houses().start()
    first = await house.device("d-1")
    await house.device("d-1")
    assert (await first.ended()).code == CloseCode.TAKEN_OVER
    await house.until(lambda: len(seen) == 3)
    told = sorted(seen, key=lambda presence: presence.version)
    assert [(p.is_online, p.code) for p in told] == [(True, None), (False, CloseCode.TAKEN_OVER), (True, None)]
    assert [p.version % 2 for p in told] == [0, 1, 0]
    assert told[0].session_id == told[1].session_id != told[2].session_id
    assert {(p.device_id, p.node_id, p.transport) for p in told} == {("d-1", "n1~0001", "native")}


async def test_webhooks_are_told_also_of_a_device_that_is_deleted(houses) -> None:
    house = houses()
    events = SqlEvents(house.database)
    webhooks = SqlWebhooks(house.database, events)
    house.with_engines(events=events)
    await house.start()
    await webhooks.start()
    number = (await webhooks.add(Webhook(0, "https://a.example/", "s", ("presence.*",), True, 0))).webhook_no
    peer = await house.device("d-1")
    await house.accounts.delete_device(house.no_of("d-1"), house.clock.now_ms())
    await house.node.close_session(house.no_of("d-1"), CloseCode.DISABLED, "deleted")
    await peer.ended()
    async with asyncio.timeout(20):
        found = list(await events.read(number, 0, 10))
        while len(found) < 2:
            found += await events.read(number, found[-1].event_no, 10)
    bodies = [json.loads(event.body) for event in found]
    assert [event.kind for event in found] == ["presence.online", "presence.offline"]
    assert [body["device_id"] for body in bodies] == ["d-1", "d-1"]
    assert bodies[1]["version"] == bodies[0]["version"] + 1
    assert bodies[1]["close_code"] == CloseCode.DISABLED
