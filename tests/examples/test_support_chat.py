"""The support chat example: who gets whose words, when agents come and go, and who may do what."""

import msgspec
import pytest

from longwire.application import Session
from longwire.reasons import Status
from longwire.testing.services import MemoryServices, device

ID = bytes(range(16))


@pytest.fixture
def chat(start):
    agents = [device("agent-ann", 1, user="support"), device("agent-bob", 2, user="support")]
    customers = [device(name, number) for number, name in enumerate(("alice", "carl", "dora"), 3)]
    return start("examples.support_chat.app:app", MemoryServices([*agents, *customers]))


def said_to(chat, agent: str) -> list[tuple[str, str]]:
    return [(body["customer"], body["text"]) for kind, body in chat.received(agent) if kind == "chat.said"]


async def test_a_customer_gets_an_agent_and_the_agents_answer(chat) -> None:
    await chat.send("agent-ann", "agent.ready")
    await chat.send("alice", "chat.say", {"text": "hello"})
    assert said_to(chat, "agent-ann") == [("alice", "hello")]
    await chat.send("agent-ann", "agent.reply", {"customer": "alice", "text": "hi"})
    ((kind, body),) = chat.received("alice")
    assert (kind, body["text"], body["author"]) == ("chat.answer", "hi", "agent-ann")


async def test_customers_are_shared_among_agents_and_stay_with_theirs(chat) -> None:
    await chat.send("agent-ann", "agent.ready")
    await chat.send("agent-bob", "agent.ready")
    for text in ("1", "2"):
        for customer in ("alice", "carl"):
            await chat.send(customer, "chat.say", {"text": text})
    assert said_to(chat, "agent-ann") == [("alice", "1"), ("alice", "2")]
    assert said_to(chat, "agent-bob") == [("carl", "1"), ("carl", "2")]


async def test_what_is_said_while_nobody_is_there_is_handed_over_in_order(chat) -> None:
    await chat.send("alice", "chat.say", {"text": "1"})
    await chat.send("alice", "chat.say", {"text": "2"})
    assert [kind for kind, _ in chat.received("alice")] == ["chat.queued", "chat.queued"]
    await chat.send("agent-bob", "agent.ready")
    assert said_to(chat, "agent-bob") == [("alice", "1"), ("alice", "2")]
    await chat.send("agent-ann", "agent.ready")
    assert said_to(chat, "agent-ann") == []


async def test_customers_of_an_agent_who_leaves_go_to_another(chat) -> None:
    await chat.send("agent-ann", "agent.ready")
    await chat.send("alice", "chat.say", {"text": "1"})
    await chat.send("agent-ann", "agent.away")
    await chat.send("agent-bob", "agent.ready")
    await chat.send("alice", "chat.say", {"text": "2"})
    assert said_to(chat, "agent-bob") == [("alice", "2")]


async def test_an_agent_who_was_deleted_is_replaced(chat) -> None:
    await chat.send("agent-ann", "agent.ready")
    await chat.send("agent-bob", "agent.ready")
    del chat.services.devices["agent-ann"]
    assert (await chat.send("alice", "chat.say", {"text": "hello"})).status is Status.OK
    assert said_to(chat, "agent-bob") == [("alice", "hello")]


async def test_a_message_that_comes_again_is_said_and_kept_once(chat) -> None:
    await chat.send("agent-ann", "agent.ready")
    for attempt in (1, 2):
        await chat.send("alice", "chat.say", {"text": "hello"}, message_id=ID, attempt=attempt)
    assert said_to(chat, "agent-ann") == [("alice", "hello")]
    assert len(await history(chat, "alice", {})) == 1


async def history(chat, asker: str, query: dict[str, object]) -> list[dict[str, object]]:
    result = await chat.request(asker, "history", query)
    assert result.status is Status.OK
    return msgspec.json.decode(result.payload)["lines"]


async def test_customers_read_their_own_history_and_agents_any(chat) -> None:
    await chat.send("agent-ann", "agent.ready")
    await chat.send("alice", "chat.say", {"text": "hello"})
    await chat.send("agent-ann", "agent.reply", {"customer": "alice", "text": "hi"})
    assert [line["text"] for line in await history(chat, "alice", {})] == ["hello", "hi"]
    assert [line["text"] for line in await history(chat, "agent-bob", {"customer": "alice", "limit": 1})] == ["hi"]
    assert await history(chat, "carl", {}) == []
    refused = await chat.request("carl", "history", {"customer": "alice"})
    assert (refused.status, refused.detail) == (Status.BAD_REQUEST, "only agents may do this")


async def test_customers_cannot_make_themselves_agents_or_write_past_the_desk(chat) -> None:
    assert (await chat.send("carl", "agent.ready")).status is Status.BAD_REQUEST
    forged = await chat.send("carl", "agent.reply", {"customer": "alice", "text": "your password, please"})
    assert forged.status is Status.BAD_REQUEST
    assert chat.received("alice") == []
    session = Session(device_id="carl", device_no=4, session_id="s")
    assert await chat.app.hooks.judge_send(session, "device:alice", "chat") is Status.NOT_PERMITTED
