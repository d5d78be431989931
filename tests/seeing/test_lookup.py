"""Where is my message: each way that something can end, on every database, told in words and step by step."""

import asyncio
import itertools
import time
from collections.abc import Sequence
from typing import Any, cast

import pytest
from msgspec.structs import replace
from pyroaring import BitMap
from sqlalchemy import Connection

from longwire.adapters.embedded.registry import EmbeddedRegistry
from longwire.adapters.embedded.routes import EmbeddedRoutes
from longwire.adapters.sql import bulk, trace_rows
from longwire.adapters.sql.accounts import SqlAccounts
from longwire.adapters.sql.audit import SqlAudit
from longwire.adapters.sql.commands import SqlCommands
from longwire.adapters.sql.database import Database
from longwire.adapters.sql.events import SqlEvents
from longwire.adapters.sql.messages import SqlMessageStore
from longwire.adapters.sql.presence import SqlPresence
from longwire.adapters.sql.push_waiting import SqlPushWaiting
from longwire.adapters.sql.pushes import SqlPushes
from longwire.adapters.sql.trace_rows import SqlTraceRows
from longwire.adapters.sql.uplink import SqlUplinkLog
from longwire.adapters.sql.webhooks import SqlWebhooks
from longwire.histogram import Histogram
from longwire.ids import message_id_text, new_message_id, new_message_ids, prefixed
from longwire.model import Envelope, NodeInfo, Receipt, UplinkRecord
from longwire.operations_model import AuditEntry, Command, CommandStatus, LastSession, SessionView, Webhook
from longwire.ports.accounts import NewDevice
from longwire.ports.link import Link
from longwire.push_model import Audience, NewPush, Push, PushMessage, SegmentReceipts
from longwire.reasons import CloseCode, Status
from longwire.seeing.found import Code, Found
from longwire.seeing.lookup import Lookup, PushesHidden, Sight
from longwire.testing import ManualClock

NODE = "n1~0a0a0a0a"
WINDOW = 3
MAX_INBOX = 8
MESSAGES = 100_000
DEVICES = 10_000
WITHIN_S = 1.0


class Sessions:
    """The nodes' part of a link: who is connected, as the test says."""

    def __init__(self) -> None:
        self.views: dict[int, SessionView] = {}
        self.hangs = False

    async def sessions(self, device_nos: Sequence[int]) -> list[SessionView | None]:
        if self.hangs:
            await asyncio.Event().wait()
        return [self.views.get(device_no) for device_no in device_nos]


class Site:
    """One installation, told what happens as the node and the api tell it."""

    def __init__(self, database: Database) -> None:
        self.clock = ManualClock()
        self.database = database
        self.events = SqlEvents(database)
        self.messages = SqlMessageStore(database, self.clock, MAX_INBOX, self.events)
        self.uplink = SqlUplinkLog(database, self.clock)
        self.accounts = SqlAccounts(database)
        self.presence = SqlPresence(database)
        self.commands = SqlCommands(database)
        self.pushes = SqlPushes(database, self.clock, SqlPushWaiting(database, self.clock))
        self.audit = SqlAudit(database)
        self.webhooks = SqlWebhooks(database, self.events)
        self.rows = SqlTraceRows(database)
        self.link = Sessions()
        self.routes = EmbeddedRoutes(self.clock)
        self.registry = EmbeddedRegistry()
        self.epochs = itertools.count(1)
        self.lookup = Lookup(
            self.rows,
            self.pushes,
            self.presence,
            cast("Link", self.link),
            self.accounts,
            self.commands,
            self.registry,
            self.routes,
            self.clock,
            WINDOW,
        )

    async def device(self, name: str, user: str | None = None) -> int:
        new = NewDevice(name, name.encode().ljust(32, b"."), self.clock.now_ms() + 10**9, None, user)
        ((device, _),) = await self.accounts.register([new], self.clock.now_ms())
        return device.device_no

    def connect(self, device_no: int) -> None:
        epoch, now_ms = next(self.epochs), self.clock.now_ms()
        name = f"{device_no:x}-{epoch:x}"
        self.link.views[device_no] = SessionView(device_no, name, NODE, epoch * 2, now_ms, now_ms, "native")

    async def disconnect(self, device_no: int, code: CloseCode | None = CloseCode.HEARTBEAT_TIMEOUT) -> None:
        view, now_ms = self.link.views.pop(device_no), self.clock.now_ms()
        self.presence.ended(LastSession(device_no, view.version + 1, now_ms, NODE, "native", code, view.since_ms))
        await self.settled()

    async def send(self, *receivers: int, ttl_s: int = 3_600, key: str = "", trace: bytes = b"", to: str = "") -> bytes:
        message_id, now_ms = new_message_id(), self.clock.now_ms()
        done: asyncio.Future[Status] = asyncio.get_running_loop().create_future()
        envelope = Envelope(
            0, "", message_id, to, "news", b"x" * 120, key, now_ms, now_ms + ttl_s * 1000, receivers, trace=trace
        )
        self.messages.commit(envelope, lambda _, outcome: done.set_result(outcome.status))
        assert await done is Status.OK
        return message_id

    async def ack(self, message_id: bytes, *device_nos: int) -> None:
        (row,) = await self.rows.messages(message_id)
        self.messages.acknowledge([Receipt(no, row.seq, self.clock.now_ms(), NODE) for no in device_nos])
        await self.settled()

    async def say(self, device_no: int, name: str, trace: bytes = b"") -> UplinkRecord:
        done: asyncio.Future[Status] = asyncio.get_running_loop().create_future()
        record = UplinkRecord(device_no, name, new_message_id(), "step", b"yy", self.clock.now_ms(), trace)
        self.uplink.append(record, lambda _, status: done.set_result(status))
        assert await done is Status.OK
        return record

    async def push(self, devices: Sequence[int], *, send_at_ms: int | None = None, trace: bytes = b"") -> Push:
        push_id, now_ms = new_message_id(), self.clock.now_ms()
        message = PushMessage(push_id, "sale", b"zzz", now_ms, trace=trace)
        new = NewPush(
            push_id, Audience(everyone=True), message, now_ms, now_ms + 3_600_000, ttl_s=3_600, send_at_ms=send_at_ms
        )
        push, _ = await self.pushes.create(new, BitMap(devices))
        return push

    async def settled(self) -> None:
        """A write returns after what was queued before it."""
        await self.database.write(lambda connection: None)

    async def message(self, message_id: bytes, device_id: str | None = None) -> Found:
        return await self.lookup.find(prefixed("msg", message_id), device_id)


@pytest.fixture
async def site(database: Database) -> Site:
    site = Site(database)
    await site.messages.start()
    await site.uplink.start()
    await site.registry.register(NodeInfo(NODE, "127.0.0.1", 1, None, ""))
    return site


def steps(found: Found) -> list[str]:
    return [f"{step.step} {step.state}" for step in found.timeline]


def text_of(found: Found) -> str:
    return found.verdict.text


async def test_a_message_that_is_acknowledged_tells_its_whole_way(site: Site) -> None:
    device = await site.device("hall-7")
    site.connect(device)
    site.clock.advance(60)
    message = await site.send(device)
    site.clock.advance(0.25)
    await site.ack(message, device)
    found = await site.message(message)
    assert found.verdict.code is Code.ACKED
    assert text_of(found) == "hall-7 acknowledged it at 16:01:00, 250 ms after it was accepted."
    assert steps(found) == [
        "accepted done",
        "resolved done",
        "queued done",
        "routed done",
        "written done",
        "acked done",
    ]
    routed = found.timeline[3]
    assert (routed.node_id, routed.session_id) == (NODE, f"{device:x}-1")
    assert (found.facts["to"], found.facts["bytes"], found.facts["devices"]) == ("device:hall-7", 120, 1)
    assert [(one.device_id, one.state) for one in found.receivers] == [("hall-7", "acked")]
    assert found.verdict.is_final


async def test_one_for_a_device_that_is_away_says_since_when_and_until_when(site: Site) -> None:
    device = await site.device("hall-7")
    never = await site.message(await site.send(device))
    assert never.verdict.code is Code.WAITING_NEVER_CONNECTED
    site.connect(device)
    site.clock.advance(600)
    await site.disconnect(device)
    site.clock.advance(60)
    message = await site.send(device, ttl_s=7_200)
    found = await site.message(message)
    assert found.verdict.code is Code.WAITING_OFFLINE
    assert text_of(found) == "hall-7 has not connected since 16:10:00; the message waits until 18:11:00."
    assert steps(found)[0] == "disconnected done"
    assert steps(found)[-3:] == ["written ahead", "acked ahead", "expires ahead"]
    assert "4005 heartbeat timeout" in found.timeline[0].text
    assert not found.verdict.is_final
    await site.accounts.set_disabled(device, True)
    assert text_of(await site.message(message)).endswith("hall-7 is disabled.")


async def test_one_that_is_written_and_one_behind_a_full_window_say_so(site: Site) -> None:
    device = await site.device("hall-7")
    site.connect(device)
    sent = [await site.send(device) for _ in range(WINDOW + 2)]
    assert (await site.message(sent[0])).verdict.code is Code.WRITTEN_UNACKED
    behind = await site.message(sent[-1])
    assert behind.verdict.code is Code.WAITING_ONLINE
    assert f"{WINDOW + 1} messages are before this one" in text_of(behind)


async def test_a_node_that_does_not_answer_and_one_that_died_are_not_mistaken_for_absence(site: Site) -> None:
    device = await site.device("hall-7")
    message = await site.send(device)
    await site.routes.attach(NODE, [device])
    found = await site.message(message)
    assert (found.verdict.code, NODE in text_of(found)) == (Code.WAITING_UNKNOWN, True)
    await site.registry.leave(NODE)
    found = await site.message(message)
    assert (found.verdict.code, "which has died" in text_of(found)) == (Code.WAITING_OFFLINE, True)
    site.link.hangs = True
    assert (await site.message(message)).verdict.code is Code.WAITING_UNKNOWN


async def test_messages_that_end_without_an_acknowledgement_say_why(site: Site) -> None:
    device = await site.device("hall-7")
    old, other = await site.send(device, key="score"), await site.send(device, ttl_s=10)
    await site.send(device, key="score")
    found = await site.message(old)
    assert (found.verdict.code, steps(found)[-1]) == (Code.COLLAPSED, "collapsed failed")
    site.clock.advance(10)
    found = await site.message(other)
    assert (found.verdict.code, steps(found)[-1]) == (Code.EXPIRED, "expired failed")
    assert "at 16:00:10" in text_of(found)
    first = await site.send(device)
    for _ in range(MAX_INBOX):
        await site.send(device)
    found = await site.message(first)
    assert (found.verdict.code, steps(found)[-1]) == (Code.MISSED, "missed failed")
    last = await site.send(device)
    await site.messages.empty_inbox(device)
    found = await site.message(last)
    assert (found.verdict.code, steps(found)[-1]) == (Code.WITHDRAWN, "withdrawn failed")
    await site.accounts.delete_device(device, site.clock.now_ms())
    assert (await site.message(last)).receivers[0].device_id is None


async def test_a_message_to_several_adds_up_and_each_of_them_can_be_asked_about(site: Site) -> None:
    one, two, three = [await site.device(name, "anna") for name in ("a", "b", "c")]
    await site.device("stranger")
    message = await site.send(one, two, three, to="user:anna")
    await site.ack(message, two)
    found = await site.message(message)
    assert found.verdict.code is Code.SOME_RECEIVERS
    assert text_of(found) == "1 of 3 devices acknowledged it; 2 wait."
    assert [(r.device_id, r.state) for r in found.receivers] == [("a", "waiting"), ("b", "acked"), ("c", "waiting")]
    assert (await site.message(message, "b")).verdict.code is Code.ACKED
    outside = await site.message(message, "stranger")
    assert outside.verdict.code is Code.NOT_IN_AUDIENCE
    site.clock.advance(5)
    await site.device("late")
    assert "it was registered later, at 16:00:05" in text_of(await site.message(message, "late"))
    assert (await site.message(message, "nobody")).verdict.code is Code.DEVICE_UNKNOWN
    await site.ack(message, one, three)
    assert (await site.message(message)).verdict.is_final


async def test_what_a_device_sent_is_followed_to_the_handler_and_to_its_dead_letter(site: Site) -> None:
    device = await site.device("hall-7")
    first, second = await site.say(device, "hall-7"), await site.say(device, "hall-7")
    found = await site.message(second.message_id)
    assert (found.kind, found.verdict.code) == ("uplink", Code.LOGGED)
    assert text_of(found) == "It is in the log; 1 records are before it."
    await site.uplink.bury("application", first, "ValueError: no")
    await site.uplink.flush("application", second.offset)
    assert (await site.message(second.message_id)).verdict.code is Code.HANDLED
    found = await site.message(first.message_id)
    assert (found.verdict.code, steps(found)[-1]) == (Code.BURIED, "buried failed")
    assert [one.kind for one in found.related] == ["device", "letter"]
    letter = found.timeline[-1].detail["letter"]
    await site.uplink.replay(int(str(letter).removeprefix("ltr_")))
    assert (await site.message(first.message_id)).verdict.code is Code.LOGGED


async def test_webhooks_are_the_last_step_of_an_acknowledgement(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    await site.webhooks.start()
    hook = await site.webhooks.add(Webhook(0, "http://h/", "s", ("message.acked",), True, site.clock.now_ms()))
    device = await site.device("hall-7")
    message = await site.send(device)
    await site.ack(message, device)
    assert steps(await site.message(message))[-1] == "webhook ahead"
    (event,) = await site.events.read(hook.webhook_no, 0, 10)
    await site.webhooks.bury(hook.webhook_no, event.event_no, b'{"events":[' + event.body + b"]}", "500", 1 << 45)
    assert steps(await site.message(message))[-1] == "webhook failed"
    other = await site.send(device)
    await site.ack(other, device)
    (event,) = await site.events.read(hook.webhook_no, event.event_no, 10)
    await site.events.flush(hook.webhook_no, event.event_no, site.clock.now_ms())
    assert steps(await site.message(other))[-1] == "webhook done"
    monkeypatch.setattr(trace_rows, "_WEBHOOK_LETTERS_LOOKED_AT", 1)
    assert steps(await site.message(other))[-1] == "webhook unknown", "a later letter may have it"


async def test_a_device_that_is_sent_little_costs_no_scan_of_what_groups_were_sent(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace_rows, "_RECEIPTS_LOOKED_AT", 4)
    devices = [await site.device(f"d{number}") for number in range(4)]
    first = await site.send(devices[0])
    await site.ack(first, devices[0])
    found = await site.rows.recent_messages(devices[0], 10)
    assert [one.message_id for one in found] == [first]
    last = await site.send(*devices)
    await site.ack(last, *devices)
    found = await site.rows.recent_messages(devices[0], 10)
    assert [one.message_id for one in found] == [last], "bounded by rows: five of two messages are one too many"


async def test_a_push_is_told_as_a_whole_and_at_one_device(site: Site) -> None:
    one, two = await site.device("a"), await site.device("b")
    push = await site.push([one, two])
    name = prefixed("psh", push.new.push_id)
    await site.device("c")
    assert (await site.lookup.find(name)).verdict.code is Code.PUSH_SENDING
    assert (await site.lookup.find(name, "b")).verdict.code is Code.WAITING_NEVER_CONNECTED
    assert (await site.lookup.find(name, "c")).verdict.code is Code.NOT_IN_AUDIENCE
    done = asyncio.Event()
    acks = SegmentReceipts(push.push_no, 0, BitMap([one]), BitMap([one]), Histogram())
    site.pushes.merge([acks], lambda _parts, _status: done.set())
    await done.wait()
    found = await site.lookup.find(name, "a")
    assert (found.verdict.code, [r.state for r in found.receivers]) == (Code.ACKED, ["acked"])
    whole = await site.lookup.find(name)
    assert (whole.facts["acked"], whole.facts["pending"], whole.facts["targeted"]) == (1, 1, 2)
    await site.pushes.set_paused(push.push_no, True)
    assert (await site.lookup.find(name)).verdict.code is Code.PUSH_PAUSED
    await site.pushes.cancel(push.push_no, site.clock.now_ms())
    await site.pushes.finish_cancel(push.push_no, [], site.clock.now_ms())
    ended = await site.lookup.find(name)
    assert (ended.verdict.code, ended.verdict.is_final) == (Code.PUSH_ENDED, True)
    assert (await site.lookup.find(name, "b")).verdict.code is Code.CANCELED
    later = await site.push([], send_at_ms=site.clock.now_ms() + 60_000)
    assert (await site.lookup.push(later.new.push_id)).verdict.code is Code.PUSH_SCHEDULED
    assert (await site.lookup.push(later.new.push_id, "a")).verdict.code is Code.PUSH_SCHEDULED
    with pytest.raises(PushesHidden):
        await site.lookup.find(name, sight=Sight(pushes=False))


async def test_a_command_is_told_with_its_reply_or_with_its_absence(site: Site) -> None:
    now_ms = site.clock.now_ms()
    sent = Command(new_message_id(), 7, "hall-7", "lights.off", b"{}", now_ms, 5_000)
    ends: list[tuple[Code, dict[str, Any]]] = [
        (Code.COMMAND_SENT, {}),
        (Code.COMMAND_REPLIED, {"status": CommandStatus.REPLIED, "reply_status": 0, "replied_at_ms": now_ms + 9}),
        (Code.COMMAND_LATE, {"status": CommandStatus.REPLIED, "replied_at_ms": now_ms + 9_000, "is_late": True}),
        (Code.COMMAND_TIMEOUT, {"status": CommandStatus.TIMED_OUT}),
        (Code.COMMAND_OFFLINE, {"status": CommandStatus.FAILED, "reply_status": int(Status.OFFLINE)}),
        (Code.COMMAND_FAILED, {"status": CommandStatus.FAILED, "reply_status": 17, "replied_at_ms": now_ms + 9}),
    ]
    for code, change in ends:
        command = replace(sent, command_id=new_message_id(), **change)
        await site.commands.add(command)
        found = await site.lookup.find(prefixed("cmd", command.command_id))
        assert (found.kind, found.verdict.code) == ("command", code)
        assert found.timeline[0].step == "command-sent"
    site.clock.advance(11)
    late = await site.lookup.find(prefixed("cmd", sent.command_id))
    assert late.verdict.code is Code.UNKNOWN


async def test_a_trace_leads_to_everything_that_it_made(site: Site) -> None:
    device = await site.device("hall-7")
    trace = bytes(range(16)) + b"s" * 8
    message = await site.send(device, trace=trace)
    alone = await site.lookup.find(f"00-{trace[:16].hex()}-{'ab' * 8}-01")
    assert (alone.kind, alone.id, alone.trace_id) == ("message", prefixed("msg", message), trace[:16].hex())
    record = await site.say(device, "hall-7", trace)
    push = await site.push([device], trace=trace)
    await site.commands.add(Command(b"c" * 16, device, "hall-7", "m", b"", site.clock.now_ms(), 1_000), trace)
    found = await site.lookup.find(trace[:16].hex())
    assert (found.kind, found.verdict.code) == ("trace", Code.TRACE)
    assert {one.id for one in found.related} == {
        prefixed("msg", message),
        prefixed("msg", record.message_id),
        prefixed("psh", push.new.push_id),
        prefixed("cmd", b"c" * 16),
    }
    hidden = await site.lookup.find(trace[:16].hex(), sight=Sight(pushes=False))
    assert {one.kind for one in hidden.related} == {"message", "command"}
    assert (await site.lookup.find(message_id_text(message))).id == prefixed("msg", message)


async def test_a_call_is_found_by_its_request_id_with_what_it_made(site: Site) -> None:
    made, empty = new_message_id(), new_message_id()
    for request in (made, empty):
        entry = AuditEntry(site.clock.now_ms(), "key_1", "POST /v1/pushes", "-", 202, prefixed("req", request))
        site.audit.append(entry)
    site.audit.append(AuditEntry(site.clock.now_ms(), "key_1", "POST /v1/keys", "-", 201, "my-own-id"))
    push = await site.push([await site.device("a")], trace=made + b"s" * 8)
    found = await site.lookup.find(prefixed("req", made))
    assert (found.kind, found.id) == ("push", prefixed("psh", push.new.push_id))
    assert found.timeline[0].step == "called"
    assert (await site.lookup.find(prefixed("req", empty))).verdict.code is Code.CALL_ONLY
    assert (await site.lookup.find("my-own-id")).verdict.code is Code.CALL_ONLY


async def test_a_device_and_a_user_are_found_by_name(site: Site) -> None:
    device = await site.device("hall-7", "anna")
    message = await site.send(device)
    for code in (CloseCode.HEARTBEAT_TIMEOUT, None):
        site.connect(device)
        site.clock.advance(10)
        await site.disconnect(device, code)
        site.clock.advance(10)
    found = await site.lookup.find("hall-7")
    assert (found.verdict.code, found.facts["waiting"]) == (Code.DEVICE_OFFLINE, 1)
    assert text_of(found) == "hall-7 has been offline since 16:00:30: it went away without a word."
    assert [one.close_code for one in found.sessions] == [None, int(CloseCode.HEARTBEAT_TIMEOUT)]
    assert prefixed("msg", message) in {one.id for one in found.related}
    site.connect(device)
    assert (await site.lookup.find("device:hall-7")).verdict.code is Code.DEVICE_ONLINE
    user = await site.lookup.find("anna")
    assert (user.kind, user.verdict.code, user.facts["online"]) == ("user", Code.USER, 1)
    (known,) = await site.accounts.find_devices(["hall-7"])
    assert known is not None
    spans, after = await site.lookup.sessions(known, 0, 1)
    assert [span.ended_at_ms is None for span in spans] == [True, False]
    assert after is not None
    spans, after = await site.lookup.sessions(known, after, 1)
    assert ([span.close_code for span in spans], after) == ([int(CloseCode.HEARTBEAT_TIMEOUT)], None)
    await site.accounts.ban(device, site.clock.now_ms() + 60_000)
    assert (await site.lookup.device("hall-7")).verdict.code is Code.DEVICE_BANNED


async def test_what_nobody_knows_is_told_from_what_is_kept_no_more(site: Site) -> None:
    assert (await site.lookup.find("nobody-home")).verdict.code is Code.UNKNOWN
    assert (await site.lookup.find("user:nobody")).verdict.code is Code.UNKNOWN
    assert (await site.message(new_message_id())).verdict.code is Code.UNKNOWN
    old = (site.clock.now_ms() - 8 * 86_400_000).to_bytes(6, "big") + b"\x70" + b"\x00\x80" + b"x" * 7
    assert (await site.message(old)).verdict.code is Code.TOO_OLD
    assert (await site.lookup.find(old.hex())).verdict.code is Code.TOO_OLD


async def test_a_message_of_an_older_release_is_told_as_far_as_it_is_known(site: Site, database: Database) -> None:
    device = await site.device("hall-7")
    message, waiting = await site.send(device), await site.send(device)
    await database.write(lambda c: c.exec_driver_sql("UPDATE messages SET receivers = NULL").close())
    await site.ack(message, device)
    # Whether it was for others, too, nobody knows.
    told = await site.message(message)
    assert (told.verdict.code, told.verdict.is_final) == (Code.NOT_KEPT, False)
    assert "; 1 acknowledged it" in told.verdict.text
    assert (await site.message(message, "hall-7")).verdict.code is Code.ACKED
    assert (await site.message(waiting)).verdict.code is Code.NOT_KEPT
    assert (await site.message(waiting, "hall-7")).verdict.code is Code.WAITING_NEVER_CONNECTED


@pytest.mark.chaos
async def test_any_of_a_hundred_thousand_messages_is_found_within_a_second(site: Site, database: Database) -> None:
    await site.device("hall-7")
    ids, now_ms = new_message_ids(MESSAGES), site.clock.now_ms()

    def fill(connection: Connection, at: int) -> None:
        numbers = range(at + 1, at + 10_001)
        receivers = [number % DEVICES + 2 for number in numbers]
        rows = [
            (
                n,
                0,
                ids[n - 1],
                "",
                "",
                "news",
                b"x" * 200,
                "",
                now_ms,
                now_ms + 10**7,
                ids[n - 1] + b"s" * 8,
                r.to_bytes(8, "little"),
            )
            for n, r in zip(numbers, receivers, strict=True)
        ]
        bulk.execute(
            connection,
            'INSERT INTO messages (seq, sender_no, message_id, sender, "to", kind, payload, collapse_key,'
            " sent_at_ms, expires_at_ms, trace, receivers) VALUES {rows}",
            rows,
        )
        half = [(r, n, now_ms + 10**7) for n, r in zip(numbers, receivers, strict=True) if n % 2]
        bulk.execute(connection, "INSERT INTO inbox (device_no, seq, expires_at_ms) VALUES {rows}", half)
        rest = [(n, r, 1, now_ms + 5, "n") for n, r in zip(numbers, receivers, strict=True) if not n % 2]
        bulk.execute(connection, "INSERT INTO receipts (seq, device_no, outcome, at_ms, node_id) VALUES {rows}", rest)
        refs = [(ids[n - 1], 1, ids[n - 1], now_ms) for n in numbers]
        bulk.execute(connection, "INSERT INTO trace_refs (trace_id, kind, ref, at_ms) VALUES {rows}", refs)
        sessions = [(r, n, now_ms, now_ms, "n", "native", None) for n, r in zip(numbers, receivers, strict=True)]
        bulk.execute(
            connection,
            "INSERT INTO past_sessions (device_no, epoch, began_at_ms, ended_at_ms, node_id, transport, close_code)"
            " VALUES {rows}",
            sessions,
        )

    for at in range(0, MESSAGES, 10_000):
        await database.write(lambda c, at=at: fill(c, at))
    questions = [prefixed("msg", ids[at]) for at in (0, 1, 49_999, 99_998, 99_999)]
    questions += [ids[12_345].hex(), "hall-7", "nobody", prefixed("req", ids[77])]
    took = {}
    for question in questions:
        began = time.perf_counter()
        await site.lookup.find(question)
        took[question] = time.perf_counter() - began
    assert max(took.values()) < WITHIN_S, took
