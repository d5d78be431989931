"""The context: what handlers send and look up through it."""

import pytest

from longwire.application import CallEnded, NotBound, SendRefused, UnknownDevice
from longwire.errors import StoreUnavailable
from longwire.reasons import Status
from longwire.testing.services import MemoryServices, context, device

MESSAGE = bytes(range(16))


@pytest.fixture
def services() -> MemoryServices:
    return MemoryServices([device("d-1", 1, user="ann"), device("d-2", 2)])


async def test_a_reply_goes_to_the_device_that_asked_and_carries_the_trace(services: MemoryServices) -> None:
    ctx = context("x", services, trace=bytes(24))
    assert await ctx.reply("done", {"ok": True}, ttl_s=5, collapse_key="k") is Status.OK
    (sent,) = services.sent
    assert (sent.to, sent.kind, sent.payload) == ("device:d-1", "done", b'{"ok":true}')
    assert (sent.ttl_s, sent.collapse_key, sent.trace) == (5, "k", bytes(24))


async def test_a_second_attempt_does_not_send_the_same_thing_again(services: MemoryServices) -> None:
    answers = []
    for attempt in (1, 2):
        ctx = context("x", services, message_id=MESSAGE, attempt=attempt)
        answers.append([await ctx.push("device:d-2", "n", "1"), await ctx.push("user:ann", "n", "1")])
    assert answers == [[Status.OK] * 2, [Status.DUPLICATE] * 2]
    assert len(services.sent) == 2


async def test_the_same_thing_sent_twice_by_one_attempt_is_two_messages(services: MemoryServices) -> None:
    for _ in range(2):
        ctx = context("x", services, message_id=MESSAGE)
        await ctx.push("device:d-2", "n", "1")
        await ctx.push("device:d-2", "n", "1")
    assert len(services.sent) == 2


async def test_what_differs_between_attempts_is_never_taken_for_a_repeat(services: MemoryServices) -> None:
    await context("x", services, message_id=MESSAGE).push("device:d-2", "n", "1")
    await context("x", services, message_id=MESSAGE).push("device:d-2", "n", "2")
    await context("x", services, message_id=MESSAGE, device_no=9).push("device:d-2", "n", "1")
    await context("x", services, message_id=bytes(16)).push("device:d-2", "n", "1")
    assert len({sent.message_id for sent in services.sent}) == 4
    assert all(len(sent.message_id) == 16 for sent in services.sent)


async def test_two_requests_that_say_the_same_are_answered_twice(services: MemoryServices) -> None:
    for _ in range(2):
        await context("method", services).reply("n", "1")
    assert len(services.sent) == 2


@pytest.mark.parametrize(
    ("to", "kind", "ttl_s"),
    [("d-2", "n", 0), ("device:", "n", 0), ("topic:a", "n", 0), ("device:d-2", "", 0), ("device:d-2", "n", -2)],
)
async def test_what_cannot_be_sent_is_named(services: MemoryServices, to: str, kind: str, ttl_s: int) -> None:
    with pytest.raises(ValueError, match=r"is not"):
        await context("x", services).push(to, kind, ttl_s=ttl_s)
    assert services.sent == []


async def test_a_refused_message_raises_with_its_status(services: MemoryServices) -> None:
    with pytest.raises(SendRefused, match="status 10 unknown_target") as caught:
        await context("x", services).push("device:nobody", "n")
    assert caught.value.status is Status.UNKNOWN_TARGET


async def test_a_message_that_the_store_does_not_take_raises_store_unavailable() -> None:
    class Full(MemoryServices):
        async def send(self, *_: object, **__: object) -> Status:  # type: ignore[override]
            return Status.NOT_DURABLE

    with pytest.raises(StoreUnavailable):
        await context("x", Full()).push("device:d-1", "n")


async def test_the_device_is_told_as_it_is_registered_now(services: MemoryServices) -> None:
    facts = await context("x", services).device()
    assert (facts.user, facts.platform, facts.app_version) == ("ann", "linux", "1.0")
    with pytest.raises(UnknownDevice):
        await context("x", services, device_id="gone").device()


async def test_an_ended_call_can_neither_send_nor_look_up(services: MemoryServices) -> None:
    ctx = context("x", services)
    ctx.end()
    with pytest.raises(CallEnded):
        await ctx.reply("n")
    with pytest.raises(CallEnded):
        await ctx.device()


async def test_a_context_of_an_unbound_application_says_so() -> None:
    with pytest.raises(NotBound):
        await context("x").reply("n")
