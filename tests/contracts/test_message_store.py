"""What every MessageStore does, whatever engine it stands on.

``missed`` is asked of the account store that goes with it.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import pytest
from databases import OpenDatabase

from longwire.adapters.sql.accounts import SqlAccounts
from longwire.adapters.sql.messages import SqlMessageStore
from longwire.errors import StoreUnavailable
from longwire.ids import new_message_id
from longwire.limits import MAX_TTL_S
from longwire.model import Committed, Envelope, InboxQuery, Receipt, Waiting
from longwire.ports.accounts import AccountStore, NewDevice
from longwire.ports.messages import MessageStore
from longwire.reasons import Status
from longwire.testing import ManualClock

MAX_INBOX = 5
HOUR_MS = 3_600_000
HANG_GUARD_S = 20.0


@dataclass
class Made:
    store: MessageStore
    accounts: AccountStore
    clock: ManualClock


Maker = Callable[[ManualClock, int], AbstractAsyncContextManager[Made]]


@pytest.fixture
def maker(open_database: OpenDatabase) -> Maker:
    @contextlib.asynccontextmanager
    async def make(clock: ManualClock, max_inbox: int) -> AsyncIterator[Made]:
        async with open_database() as database:
            store = SqlMessageStore(database, clock, max_inbox)
            await store.start()
            yield Made(store, SqlAccounts(database), clock)

    return make


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def made(maker: Maker, clock: ManualClock) -> AsyncIterator[Made]:
    async with maker(clock, MAX_INBOX) as made:
        devices = [NewDevice(f"d-{n}", bytes([n]) * 32, clock.now_ms() + HOUR_MS, None) for n in range(1, 6)]
        await made.accounts.register(devices, clock.now_ms())
        yield made


@pytest.fixture
def store(made: Made) -> MessageStore:
    return made.store


def envelope(
    clock: ManualClock,
    *receivers: int,
    payload: bytes = b"hi",
    sender: int = 100,
    message_id: bytes | None = None,
    key: str = "",
    ttl_s: int = 3_600,
    online: tuple[int, ...] = (),
) -> Envelope:
    now = clock.now_ms()
    return Envelope(
        sender,
        f"device:s-{sender}",
        message_id or new_message_id(),
        "",
        "chat",
        payload,
        key,
        now,
        now + ttl_s * 1000,
        receivers or (1,),
        online,
        b"t" * 24,
    )


async def commit(store: MessageStore, *envelopes: Envelope) -> list[Committed]:
    """All in one turn, and so in one group where the engine gathers."""
    told: list[tuple[Envelope, Committed]] = []
    for one in envelopes:
        store.commit(one, lambda e, c: told.append((e, c)))
    async with asyncio.timeout(HANG_GUARD_S):
        while len(told) < len(envelopes):
            await asyncio.sleep(0.001)
    assert [e for e, _ in told] == list(envelopes)
    assert store.queued_bytes == 0
    return [c for _, c in told]


async def waiting(store: MessageStore, clock: ManualClock, device_no: int = 1, limit: int = 1_000) -> list[Waiting]:
    (found,) = await store.waiting([InboxQuery(device_no, 0, limit)], clock.now_ms())
    return found


async def payloads(store: MessageStore, clock: ManualClock, device_no: int = 1) -> list[bytes]:
    return [message.payload for message in await waiting(store, clock, device_no)]


async def missed(made: Made, device_no: int = 1) -> int:
    (found,) = await made.accounts.check_tokens([bytes([device_no]) * 32], made.clock.now_ms())
    assert found is not None
    return found.missed


async def barrier(store: MessageStore) -> None:
    """What was queued before is committed."""
    await store.empty_inbox(9_999)


async def test_a_message_waits_as_it_was_sent(store, clock) -> None:
    sent = envelope(clock, 1, payload=b"\0\xff", key="k")
    ((outcome),) = await commit(store, sent)
    assert (outcome.status, outcome.receivers) == (Status.OK, (1,))
    assert await waiting(store, clock) == [
        Waiting(
            outcome.seq,
            sent.message_id,
            sent.sender,
            "",
            "chat",
            b"\0\xff",
            "k",
            sent.sent_at_ms,
            sent.expires_at_ms,
            b"t" * 24,
        )
    ]
    assert set(await store.oldest_waiting([1, 2], clock.now_ms())) == {1}
    assert 1 in await store.who_may_wait([1, 2])


async def test_places_rise_with_the_order_of_commits(store, clock) -> None:
    outcomes = await commit(store, *(envelope(clock, 1 + n % 3) for n in range(9)))
    outcomes += await commit(store, envelope(clock, 1))
    places = [outcome.seq for outcome in outcomes]
    assert places == sorted(set(places))


async def test_waiting_comes_oldest_first_behind_a_place_and_within_a_limit(store, clock) -> None:
    outcomes = await commit(store, *(envelope(clock, 1, payload=b"%d" % n) for n in range(5)))
    queries = [InboxQuery(1, 0, 2), InboxQuery(2, 0, 9), InboxQuery(1, outcomes[1].seq, 2), InboxQuery(1, 0, 9)]
    found = await store.waiting(queries, clock.now_ms())
    assert [[m.payload for m in one] for one in found] == [
        [b"0", b"1"],
        [],
        [b"2", b"3"],
        [b"0", b"1", b"2", b"3", b"4"],
    ]


async def test_the_oldest_that_waits_is_told_for_each_device_and_who_acknowledged_for_each_message(
    store, clock
) -> None:
    first, second = await commit(store, envelope(clock, 1, 2, ttl_s=10), envelope(clock, 1, 2, 3))
    assert await store.oldest_waiting([1, 2, 3, 4], clock.now_ms()) == {1: first.seq, 2: first.seq, 3: second.seq}
    store.acknowledge([Receipt(1, first.seq, clock.now_ms(), "n1"), Receipt(3, second.seq, clock.now_ms(), "n2")])
    await barrier(store)
    assert await store.oldest_waiting([1, 2, 3, 4], clock.now_ms()) == {1: second.seq, 2: first.seq}
    assert await store.acked_by(first.seq) == {1}
    assert await store.acked_by(second.seq) == {3}
    clock.advance(10)
    assert await store.oldest_waiting([2], clock.now_ms()) == {2: second.seq}


@pytest.mark.parametrize("together", [True, False])
async def test_a_repeat_is_a_duplicate_of_its_senders_message_alone(store, clock, together) -> None:
    message_id = new_message_id()
    first, repeat = envelope(clock, 1, message_id=message_id), envelope(clock, 2, message_id=message_id)
    others = envelope(clock, 1, sender=101, message_id=message_id)
    if together:
        outcomes = await commit(store, first, repeat, others)
    else:
        outcomes = [(await commit(store, one))[0] for one in (first, repeat, others)]
    assert [outcome.status for outcome in outcomes] == [Status.OK, Status.DUPLICATE, Status.OK]
    assert outcomes[1].receivers == ()
    assert len(await waiting(store, clock, 1)) == 2
    assert await waiting(store, clock, 2) == []


async def test_a_message_is_known_after_its_ack_and_for_a_day_at_least(store, clock) -> None:
    message_id = new_message_id()
    (outcome,) = await commit(store, envelope(clock, 1, message_id=message_id))
    store.acknowledge([Receipt(1, outcome.seq, clock.now_ms(), "n1")])
    clock.advance(86_400)
    assert (await commit(store, envelope(clock, 1, message_id=message_id)))[0].status is Status.DUPLICATE
    assert await waiting(store, clock) == []


async def test_an_ack_ends_what_waits_for_that_device_and_repeating_it_is_no_error(store, clock) -> None:
    (outcome,) = await commit(store, envelope(clock, 1, 2))
    receipt = Receipt(1, outcome.seq, clock.now_ms(), "n1")
    for _ in range(2):
        store.acknowledge([receipt, receipt, Receipt(3, outcome.seq, 1, "n1"), Receipt(1, 999_999, 1, "n1")])
        await barrier(store)
    assert await waiting(store, clock, 1) == []
    assert len(await waiting(store, clock, 2)) == 1
    assert await store.oldest_waiting([1, 2, 3], clock.now_ms()) == {2: outcome.seq}
    assert await store.acked_by(outcome.seq) >= {1}
    assert await store.acked_by(999) == set()


async def test_what_has_expired_does_not_wait(store, clock) -> None:
    outcomes = await commit(store, envelope(clock, 1, ttl_s=10), envelope(clock, 1, ttl_s=20))
    clock.advance(10)
    assert [m.seq for m in await waiting(store, clock)] == [outcomes[1].seq]
    assert await store.still_waiting([(1, o.seq) for o in outcomes], clock.now_ms()) == await _none_and(
        store, clock, outcomes[1].seq
    )
    clock.advance(10)
    assert await waiting(store, clock) == []
    assert await store.oldest_waiting([1], clock.now_ms()) == {}


async def _none_and(store: MessageStore, clock: ManualClock, seq: int) -> list[Waiting | None]:
    return [None, next(m for m in await waiting(store, clock) if m.seq == seq)]


async def test_still_waiting_answers_in_the_order_it_was_asked(store, clock) -> None:
    outcomes = await commit(store, envelope(clock, 1, payload=b"a"), envelope(clock, 2, payload=b"b"))
    wanted = [(2, outcomes[1].seq), (1, outcomes[1].seq), (1, outcomes[0].seq), (7, 7)]
    found = await store.still_waiting(wanted, clock.now_ms())
    assert [None if one is None else one.payload for one in found] == [b"b", None, b"a", None]


# Collapse keys


@pytest.mark.parametrize("together", [True, False])
async def test_a_collapse_key_replaces_what_waits_and_takes_the_newest_place(store, clock, together) -> None:
    sent = [
        envelope(clock, 1, payload=b"1", key="k"),
        envelope(clock, 1, payload=b"2"),
        envelope(clock, 1, payload=b"3", key="k"),
        envelope(clock, 1, payload=b"4", key="k"),
    ]
    if together:
        outcomes = await commit(store, *sent)
        assert [o.receivers for o in outcomes] == [(), (1,), (), (1,)]
    else:
        outcomes = [(await commit(store, one))[0] for one in sent]
    assert [o.status for o in outcomes] == [Status.OK] * 4
    assert await payloads(store, clock) == [b"2", b"4"]


async def test_a_key_collapses_only_for_the_same_receiver_sender_and_key(store, clock) -> None:
    await commit(store, envelope(clock, 1, 2, payload=b"both", key="k"))
    await commit(store, envelope(clock, 1, payload=b"other sender", sender=7, key="k"))
    await commit(store, envelope(clock, 1, payload=b"other key", key="l"))
    await commit(store, envelope(clock, 1, payload=b"new", key="k"))
    assert await payloads(store, clock, 1) == [b"other sender", b"other key", b"new"]
    assert await payloads(store, clock, 2) == [b"both"]


async def test_a_repeat_with_a_key_collapses_nothing(store, clock) -> None:
    message_id = new_message_id()
    await commit(store, envelope(clock, 1, payload=b"1", key="k", message_id=message_id))
    await commit(store, envelope(clock, 1, payload=b"2", key="k"))
    (again,) = await commit(store, envelope(clock, 1, payload=b"1", key="k", message_id=message_id))
    assert again.status is Status.DUPLICATE
    assert await payloads(store, clock) == [b"2"]


async def test_the_ack_of_what_was_replaced_does_not_remove_the_new(store, clock) -> None:
    (old,) = await commit(store, envelope(clock, 1, key="k"))
    await commit(store, envelope(clock, 1, payload=b"new", key="k"))
    store.acknowledge([Receipt(1, old.seq, clock.now_ms(), "n1")])
    await barrier(store)
    assert await payloads(store, clock) == [b"new"]


# The bound


async def test_for_an_absent_device_the_oldest_goes_and_is_counted(made, store, clock) -> None:
    for n in range(8):
        assert (await commit(store, envelope(clock, 1, payload=b"%d" % n)))[0].status is Status.OK
    assert await payloads(store, clock) == [b"3", b"4", b"5", b"6", b"7"]
    assert await missed(made) == 3
    await commit(store, *(envelope(clock, 1, payload=b"%d" % n) for n in range(8, 20)))
    assert await payloads(store, clock) == [b"15", b"16", b"17", b"18", b"19"]
    assert await missed(made) == 15


async def test_for_a_device_with_a_session_the_newest_is_refused_and_nothing_is_lost(made, store, clock) -> None:
    outcomes = await commit(store, *(envelope(clock, 1, payload=b"%d" % n, online=(1,)) for n in range(8)))
    assert [o.status for o in outcomes] == [Status.OK] * 5 + [Status.OVERLOADED] * 3
    assert all(o.receivers == () for o in outcomes[5:])
    assert await payloads(store, clock) == [b"0", b"1", b"2", b"3", b"4"]
    assert await missed(made) == 0


async def test_a_refused_message_is_not_remembered(store, clock) -> None:
    outcomes = await commit(store, *(envelope(clock, 1, online=(1,)) for _ in range(5)))
    refused = envelope(clock, 1, payload=b"again", online=(1,))
    assert (await commit(store, refused))[0].status is Status.OVERLOADED
    store.acknowledge([Receipt(1, outcomes[0].seq, clock.now_ms(), "n1")])
    assert (await commit(store, refused))[0].status is Status.OK
    assert (await payloads(store, clock))[-1] == b"again"


async def test_a_repeat_of_what_is_refused_in_the_same_group_is_refused_too(store, clock) -> None:
    await commit(store, *(envelope(clock, 1, online=(1,)) for _ in range(5)))
    one = envelope(clock, 1, online=(1,))
    outcomes = await commit(store, envelope(clock, 2), one, one, envelope(clock, 3), one)
    assert [o.status for o in outcomes] == [
        Status.OK,
        Status.OVERLOADED,
        Status.OVERLOADED,
        Status.OK,
        Status.OVERLOADED,
    ]


async def test_a_refused_message_has_not_replaced_anything(store, clock) -> None:
    await commit(store, *(envelope(clock, 1, payload=b"%d" % n, online=(1,)) for n in range(4)))
    await commit(store, envelope(clock, 1, payload=b"old", key="k", online=(1,)))
    outcomes = await commit(
        store,
        envelope(clock, 1, payload=b"too many", online=(1,)),
        envelope(clock, 1, payload=b"new", key="k", online=(1,)),
    )
    assert [o.status for o in outcomes] == [Status.OVERLOADED, Status.OK]
    assert await payloads(store, clock) == [b"0", b"1", b"2", b"3", b"new"]


async def test_one_that_replaces_fits_into_a_full_inbox(made, store, clock) -> None:
    await commit(store, *(envelope(clock, 1, key="k" if n == 0 else "", online=(1,)) for n in range(5)))
    for _ in range(3):
        assert (await commit(store, envelope(clock, 1, key="k", online=(1,))))[0].status is Status.OK
    await commit(store, envelope(clock, 1, key="k"))
    assert await missed(made) == 0


async def test_nothing_is_dropped_for_a_device_that_is_online_because_another_is_not(made, store, clock) -> None:
    await commit(store, *(envelope(clock, 1, payload=b"%d" % n) for n in range(5)))
    both = envelope(clock, 1, 2, online=(1,))
    assert (await commit(store, both))[0].status is Status.OVERLOADED
    assert await payloads(store, clock) == [b"0", b"1", b"2", b"3", b"4"]
    assert await waiting(store, clock, 2) == []
    assert await missed(made) == 0


async def test_a_refusal_for_one_receiver_costs_the_others_nothing(made, store, clock) -> None:
    await commit(store, *(envelope(clock, 1) for _ in range(5)))
    await commit(store, *(envelope(clock, 2, payload=b"%d" % n, key="k" if n == 4 else "") for n in range(5)))
    both = envelope(clock, 1, 2, 3, payload=b"new", key="k", online=(1,))
    assert (await commit(store, both))[0].status is Status.OVERLOADED
    assert await payloads(store, clock, 2) == [b"0", b"1", b"2", b"3", b"4"]
    assert await missed(made, 2) == 0


async def test_what_has_expired_takes_no_room(made, store, clock) -> None:
    await commit(store, *(envelope(clock, 1, ttl_s=10) for _ in range(5)))
    clock.advance(11)
    outcomes = await commit(store, *(envelope(clock, 1, payload=b"%d" % n, online=(1,)) for n in range(5)))
    assert [o.status for o in outcomes] == [Status.OK] * 5
    await commit(store, envelope(clock, 1, payload=b"5"))
    assert await missed(made) == 1


async def test_missed_is_told_once_and_later_ones_stay_counted(made, store, clock) -> None:
    await commit(store, *(envelope(clock, 1) for _ in range(8)))
    assert await missed(made) == 3
    await commit(store, *(envelope(clock, 1) for _ in range(2)))
    store.told_missed(1, 3)
    await barrier(store)
    assert await missed(made) == 2
    store.told_missed(1, 3)
    await barrier(store)
    assert await missed(made) == 0


async def test_emptying_an_inbox_withdraws_everything_in_it(store, clock) -> None:
    await commit(store, envelope(clock, 1, 2), envelope(clock, 1))
    assert await store.empty_inbox(1) == 2
    assert await store.empty_inbox(1) == 0
    assert await waiting(store, clock, 1) == []
    assert len(await waiting(store, clock, 2)) == 1


# Restarts


async def test_what_was_confirmed_is_there_after_a_restart_and_places_go_on_rising(maker, clock) -> None:
    message_id = new_message_id()
    last = 0
    for n in range(3):
        async with maker(clock, MAX_INBOX) as made:
            again = envelope(clock, 1, message_id=message_id)
            (outcome,) = await commit(made.store, again)
            assert outcome.status is (Status.OK if n == 0 else Status.DUPLICATE)
            (outcome,) = await commit(made.store, envelope(clock, 1, payload=b"%d" % n))
            assert outcome.seq > last
            last = outcome.seq
            assert 1 in await made.store.who_may_wait([1])
    async with maker(clock, MAX_INBOX) as made:
        assert [m.payload for m in await waiting(made.store, clock)] == [b"hi", b"0", b"1", b"2"]


async def test_after_a_restart_what_is_left_of_a_ttl_is_the_maximum_at_most(maker) -> None:
    ahead = ManualClock(now_ms=2_000_000_000_000)
    async with maker(ahead, MAX_INBOX) as made:
        await commit(made.store, envelope(ahead, 1))
    behind = ManualClock(now_ms=1_700_000_000_000)
    async with maker(behind, MAX_INBOX) as made:
        await commit(made.store, envelope(behind, 1, payload=b"short", ttl_s=60))
        assert len(await waiting(made.store, behind)) == 2
        behind.advance(MAX_TTL_S - 1)
        assert len(await waiting(made.store, behind)) == 1
        behind.advance(2)
        assert await waiting(made.store, behind) == []


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.waiting([InboxQuery(1, 0, 1)], 0),
        lambda store: store.oldest_waiting([1], 0),
        lambda store: store.acked_by(1),
        lambda store: store.still_waiting([(1, 1)], 0),
        lambda store: store.empty_inbox(1),
    ],
)
async def test_a_store_that_is_stopped_says_that_it_is_unavailable(maker, clock, call) -> None:
    async with maker(clock, MAX_INBOX) as made:
        pass
    with pytest.raises(StoreUnavailable):
        await call(made.store)


async def test_a_hint_never_leaves_out_a_device_for_whom_something_waits(store, clock) -> None:
    rng = random.Random(7)
    for _ in range(200):
        no = rng.randint(1, 5)
        match rng.randint(0, 3):
            case 0 | 1:
                store.commit(envelope(clock, no), lambda _e, _c: None)
            case 2:
                await asyncio.gather(
                    store.waiting([InboxQuery(no, 0, 3)], clock.now_ms()),
                    store.waiting([InboxQuery(no, 0, 1)], clock.now_ms()),
                )
            case 3:
                for message in await waiting(store, clock, no, 2):
                    store.acknowledge([Receipt(no, message.seq, 0, "n")])
        if rng.random() < 0.2:
            await barrier(store)  # what is committed has been told
            assert set(await store.oldest_waiting(range(1, 6), clock.now_ms())) <= await store.who_may_wait(range(1, 6))
    await barrier(store)
    assert set(await store.oldest_waiting(range(1, 6), clock.now_ms())) <= await store.who_may_wait(range(1, 6))
