"""The examples as a stranger would run them: a real process, real devices."""

import importlib

import pytest

from longwire.client import BadRequest, NotPermitted


@pytest.fixture
def fresh():
    """An example's application, with nothing in its memory."""

    def load(name: str):
        return importlib.reload(importlib.import_module(f"examples.{name}.app")).app

    return load


async def test_telemetry_counts_readings_and_raises_an_alarm(start, fresh) -> None:
    node = await start(fresh("telemetry"))
    async with node.device("plant-7") as plant:
        for value in (71.5, 80.0, 95.0):
            await plant.send("", {"sensor": "boiler", "value": value, "unit": "°C"}, "reading")
        alarm = await plant.receive(timeout_s=10)
        assert alarm.kind == "alarm"
        assert alarm.json()["value"] == 95.0
        await plant.send("", b"", "heartbeat")
        figures = (await plant.request("latest", {})).json()
        assert figures["sensors"]["boiler"]["count"] == 3
        assert figures["sensors"]["boiler"]["highest"] == 95.0
        assert figures["heartbeat_at_ms"] > 0
        with pytest.raises(BadRequest):
            await plant.request("latest", {"device_id": "plant-8"})


async def test_a_customer_and_an_agent_talk_through_the_desk(start, fresh) -> None:
    node = await start(fresh("support_chat"))
    async with node.device("alice") as alice, node.device("agent-ann") as ann:
        assert (await node.api.put("/v1/devices/agent-ann/user", json={"user": "support"})).status_code == 200
        await alice.send("", {"text": "My order has not come"}, "chat.say")
        assert (await alice.receive(timeout_s=10)).kind == "chat.queued"
        await ann.send("", b"", "agent.ready")
        said = await ann.receive(timeout_s=10)
        assert (said.kind, said.json()["text"]) == ("chat.said", "My order has not come")
        await ann.send("", {"customer": "alice", "text": "It is on its way"}, "agent.reply")
        answer = await alice.receive(timeout_s=10)
        assert (answer.kind, answer.json()["text"]) == ("chat.answer", "It is on its way")
        lines = (await alice.request("history", {})).json()["lines"]
        assert [line["author"] for line in lines] == ["alice", "agent-ann"]
        with pytest.raises(NotPermitted):
            await alice.send("device:agent-ann", b"psst", "chat.say")
