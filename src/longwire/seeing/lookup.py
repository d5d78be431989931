"""Where is my message: one question, whatever the id is of, answered from what is kept.

A look-up is some reads by key, most of them at once; nothing on the way of a message waits for one. For pushes it is
computed from their bitmaps.
"""

import asyncio
import re
from collections.abc import Sequence
from typing import Final, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from longwire.clock import Clock
from longwire.errors import LongwireError
from longwire.ids import is_device_id, message_id_bytes, prefixed
from longwire.model import Device, Outcome
from longwire.operations_model import Command, CommandStatus, PastSession
from longwire.ports.accounts import AccountStore
from longwire.ports.commands import CommandStore
from longwire.ports.link import Link
from longwire.ports.presence import PresenceStore
from longwire.ports.pushes import PushStore
from longwire.ports.registry import Registry
from longwire.ports.routes import RouteTable
from longwire.ports.trace_rows import (
    MessageRow,
    ReceiverMessage,
    ReceiverRow,
    RefKind,
    TraceRef,
    TraceRows,
    UplinkRow,
    WebhookProgress,
)
from longwire.push_model import ENDED, Push, PushStatus, RecipientState
from longwire.seeing import timeline, verdicts
from longwire.seeing.found import Code, Found, Receiver, Related, Span, Verdict
from longwire.seeing.live import Live, Whereabouts

_DAY_MS = 86_400_000
# As long as the sweeper keeps them (adapters/sql/retention.py).
_MESSAGES_MS = 10 * _DAY_MS
_DETAILS_MS = 7 * _DAY_MS
_SHOWN = 100
_COUNTED = 10_000
"""Receivers of a message: more than a group has that gets inbox rows."""
_SHOWN_SESSIONS = 20
_SHOWN_MESSAGES = 20
_COMMAND_GRACE_MS = 5_000
_HEX = re.compile("[0-9a-f]{32}")
_PREFIXED = re.compile("(msg|psh|cmd|req)_([0-9a-f]{32})")
_TRACEPARENT = re.compile("[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")

T = TypeVar("T")

_Facts = dict[str, str | int | bool | None]


class Sight(Struct, frozen=True):
    """What who asks may see beside messages, devices and commands."""

    pushes: bool = True
    calls: bool = True
    """Who called what: the audit."""


ALL: Final = Sight()


class PushesHidden(LongwireError):
    """What was found is a push, and who asks may not see pushes."""


class Lookup:
    """The operators' question. Every call raises StoreUnavailable, and gives a verdict for what nobody knows."""

    def __init__(
        self,
        rows: TraceRows,
        pushes: PushStore,
        presence: PresenceStore,
        link: Link,
        accounts: AccountStore,
        commands: CommandStore,
        registry: Registry,
        routes: RouteTable,
        clock: Clock,
        window: int = 64,
    ) -> None:
        """``window``: unacknowledged messages on a connection at a time (limits.window)."""
        self._rows = rows
        self._pushes = pushes
        self._accounts = accounts
        self._commands = commands
        self._whereabouts = Whereabouts(presence, link, routes, registry)
        self._clock = clock
        self._window = window

    async def find(self, q: str, device_id: str | None = None, sight: Sight = ALL) -> Found:
        """What ``q`` means: an id as the API shows it, 32 hex digits, a UUID, a traceparent, a device or a user.

        ``device_id`` narrows a message or a push to this device. Raises PushesHidden for a push that is not in
        ``sight``.
        """
        if known := _PREFIXED.fullmatch(q):
            number = bytes.fromhex(known[2])
            if known[1] == "msg":
                return await self.message(number, device_id, sight=sight)
            if known[1] == "psh":
                return await self.push(number, device_id, sight=sight)
            return await (self.command(number) if known[1] == "cmd" else self.request(q, sight=sight))
        if traced := _TRACEPARENT.fullmatch(q):
            return await self.trace(bytes.fromhex(traced[1]), sight=sight)
        if _HEX.fullmatch(q):
            return await self._any(bytes.fromhex(q), device_id, sight)
        try:
            return await self._any(message_id_bytes(q), device_id, sight)
        except ValueError:
            return await self._named(q, sight)

    async def message(self, message_id: bytes, device_id: str | None = None, sight: Sight = ALL) -> Found:
        """A message to devices, what a device sent to the application, or a push of this message id."""
        found = await self._sent(message_id, device_id, sight)
        return found or self._unknown("message", prefixed("msg", message_id), message_id)

    async def push(self, push_id: bytes, device_id: str | None = None, sight: Sight = ALL) -> Found:
        """A push: as a whole, or at one device."""
        found = await self._push(push_id, device_id, sight)
        return found or self._unknown("push", prefixed("psh", push_id), push_id)

    async def command(self, command_id: bytes) -> Found:
        """A command and its reply."""
        found = await self._command(command_id)
        return found or self._unknown("command", prefixed("cmd", command_id), command_id)

    async def trace(self, trace_id: bytes, sight: Sight = ALL) -> Found:
        """What belongs to a trace; where that is one thing, the thing."""
        found = await self._trace(trace_id, prefixed("req", trace_id), sight)
        return found or self._unknown("trace", trace_id.hex(), b"")

    async def request(self, request_id: str, sight: Sight = ALL) -> Found:
        """What a call made: its request id is its trace's, unless the caller gave one of them."""
        known = _PREFIXED.fullmatch(request_id)
        trace_id = bytes.fromhex(known[2]) if known is not None else b""
        found = await self._trace(trace_id, request_id, sight)
        return found or self._unknown("request", request_id, trace_id)

    async def device(self, device_id: str) -> Found:
        """A device: where it is, its last connections and messages."""
        device = (await self._accounts.find_devices([device_id]))[0]
        if device is None:
            return Found("device", device_id, Verdict(Code.DEVICE_UNKNOWN, f"There is no device {device_id}.", True))
        return await self._device(device)

    async def user(self, name: str) -> Found:
        """A user's devices."""
        devices = (await self._accounts.devices_of_users([name]))[0]
        if not devices:
            return Found("user", name, Verdict(Code.UNKNOWN, f"No device belongs to user {name}.", True))
        return await self._user(name, devices)

    async def sessions(self, device: Device, before_epoch: int, limit: int) -> tuple[list[Span], int | None]:
        """A device's connections, newest first and the standing one before all; and where the next page starts."""
        past = await self._rows.past_sessions(device.device_no, before_epoch, limit + 1)
        spans: list[Span] = []
        if not before_epoch:
            (live,) = await self._whereabouts.of([device.device_no], [device])
            spans = [] if live.session is None else [timeline.span_of(live.session)]
        page = past[:limit]
        return spans + list(map(timeline.span_of, page)), page[-1].epoch if len(past) > limit else None

    async def messages_of(self, device: Device, limit: int) -> list[ReceiverMessage]:
        """A device's newest messages, those that wait and those that have ended."""
        return await self._rows.recent_messages(device.device_no, limit)

    # -- whatever it is ---------------------------------------------------------------------------------------

    async def _any(self, number: bytes, device_id: str | None, sight: Sight) -> Found:
        """Sixteen bytes without a word of what they are of."""
        found = await self._sent(number, device_id, sight)
        found = found or await self._trace(number, prefixed("req", number), sight)
        found = found or await self._command(number)
        return found or self._unknown("unknown", number.hex(), number)

    async def _named(self, q: str, sight: Sight) -> Found:
        scheme, _, name = q.partition(":")
        if scheme == "user" and is_device_id(name):
            return await self.user(name)
        if scheme == "device" and is_device_id(name):
            return await self.device(name)
        if is_device_id(q):
            device = (await self._accounts.find_devices([q]))[0]
            if device is not None:
                return await self._device(device)
            if devices := (await self._accounts.devices_of_users([q]))[0]:
                return await self._user(q, devices)
        found = await self._trace(b"", q, sight)
        return found or Found("unknown", q, verdicts.NOBODY)

    def _unknown(self, kind: str, name: str, number: bytes) -> Found:
        """Nothing is kept: of an id that tells its own time, whether that was too long ago."""
        made_ms = int.from_bytes(number[:6], "big") if len(number) == 16 and number[6] >> 4 == 7 else None
        now_ms = self._clock.now_ms()
        is_old = made_ms is not None and 0 < made_ms < now_ms - _DETAILS_MS
        return Found(kind, name, verdicts.TOO_OLD if is_old else verdicts.UNKNOWN)

    # -- messages ---------------------------------------------------------------------------------------------

    async def _sent(self, message_id: bytes, device_id: str | None, sight: Sight) -> Found | None:
        rows, records = await asyncio.gather(self._rows.messages(message_id), self._rows.uplink(message_id))
        if not rows and not records:
            return await self._push(message_id, device_id, sight)
        if not rows:
            return self._uplink(records[0])
        found = await self._message(rows[-1], device_id)
        others = [
            Related("message", found.id, f"From {row.sender or 'the application'}, of the same id") for row in rows[:-1]
        ]
        return replace(found, related=found.related + tuple(others)) if others else found

    async def _message(self, row: MessageRow, device_id: str | None) -> Found:
        now_ms = self._clock.now_ms()
        found = Found(
            "message",
            prefixed("msg", row.message_id),
            verdicts.UNKNOWN,
            _trace_id(row.trace),
            {
                "from": row.sender or "application",
                "to": row.to or None,
                "kind": row.kind,
                "sent_at_ms": row.sent_at_ms,
                "expires_at_ms": row.expires_at_ms,
                "bytes": row.payload_bytes,
                "devices": None if row.receivers is None else len(row.receivers),
            },
            kept_until_ms=row.sent_at_ms + _MESSAGES_MS,
        )
        wanted: list[int] | None = None
        device: Device | None = None
        if device_id is not None:
            device = (await self._accounts.find_devices([device_id]))[0]
            if device is None:
                text = f"There is no device {device_id}."
                return replace(
                    found, verdict=Verdict(Code.DEVICE_UNKNOWN, text, True), timeline=tuple(timeline.accepted(row))
                )
            wanted = [device.device_no]
        receivers = [_ended(row, one, now_ms) for one in await self._rows.receivers(row, wanted, _COUNTED)]
        if device is not None and not receivers:
            outside = verdicts.not_in_audience(device, row.sent_at_ms, now_ms)
            return replace(found, verdict=outside, timeline=tuple(timeline.accepted(row)))
        numbers = [receiver.device_no for receiver in receivers[:_SHOWN]]
        lives = await self._whereabouts.of(numbers, await self._accounts.find_numbers(numbers))
        # Of an older release's message only those are known for whom it has ended: one of them is not all.
        if len(receivers) == 1 and (row.receivers is not None or device is not None):
            return await self._at_one(found, row, receivers[0], lives[0], now_ms)
        return await self._at_many(found, row, receivers, lives, now_ms)

    async def _at_one(self, found: Found, row: MessageRow, receiver: ReceiverRow, live: Live, now_ms: int) -> Found:
        device_no = receiver.device_no
        until_ms = receiver.at_ms or now_ms
        before, past, webhook = await asyncio.gather(
            self._rows.before(device_no, row.seq, now_ms),
            self._rows.sessions_at(device_no, row.sent_at_ms, until_ms, _SHOWN_SESSIONS),
            self._rows.webhook_progress(row, device_no, receiver.at_ms)
            if receiver.outcome is Outcome.ACKED
            else _none(WebhookProgress.NOBODY),
        )
        spans = _spans(past, live)
        name = _name(live)
        verdict = self._verdict(row, receiver, live, before, now_ms)
        steps = timeline.message(row, receiver, name, live, spans, before, self._window, webhook, now_ms)
        return replace(
            found,
            verdict=verdict,
            facts=found.facts | {"to": row.to or f"device:{name}"},
            timeline=steps,
            receivers=(_receiver(receiver, live, verdict),),
            sessions=tuple(reversed(spans)),
            related=(() if live.device is None else (Related("device", name, "The device that it is for"),)),
        )

    async def _at_many(
        self, found: Found, row: MessageRow, receivers: Sequence[ReceiverRow], lives: Sequence[Live], now_ms: int
    ) -> Found:
        acked = sum(receiver.outcome is Outcome.ACKED for receiver in receivers)
        waiting = sum(receiver.outcome is None and receiver.is_waiting for receiver in receivers)
        total = len(receivers) if row.receivers is None else len(row.receivers)
        shown = []
        for receiver, live in zip(receivers, lives, strict=False):
            # How much waits before it is read for one receiver only.
            shown.append(_receiver(receiver, live, self._verdict(row, receiver, live, 0, now_ms)))
        steps = [*timeline.accepted(row), *timeline.expires(row.expires_at_ms, now_ms)]
        return replace(
            found,
            verdict=verdicts.receivers_not_kept(acked)
            if row.receivers is None
            else verdicts.some_receivers(acked, waiting, total - acked - waiting, total),
            timeline=timeline.ordered(steps),
            receivers=tuple(shown),
            receivers_more=max(0, total - len(shown)),
        )

    def _verdict(self, row: MessageRow, receiver: ReceiverRow, live: Live, before: int, now_ms: int) -> Verdict:
        name, at_ms = _name(live), receiver.at_ms
        match receiver.outcome:
            case Outcome.ACKED:
                return verdicts.acked(name, at_ms, row.sent_at_ms, now_ms)
            case Outcome.COLLAPSED:
                return verdicts.collapsed(name, at_ms, now_ms)
            case Outcome.WITHDRAWN:
                return verdicts.withdrawn(name, at_ms, now_ms)
            case Outcome.MISSED:
                return verdicts.missed(name, at_ms, now_ms)
            case Outcome.EXPIRED:
                return verdicts.expired(name, at_ms, live, now_ms)
        if not receiver.is_waiting:
            return verdicts.not_kept(name)
        return verdicts.waiting(name, live, before, self._window, row.expires_at_ms, now_ms)

    def _uplink(self, row: UplinkRow) -> Found:
        facts: _Facts = {
            "from": f"device:{row.device_id}",
            "to": "application",
            "kind": row.kind,
            "sent_at_ms": row.sent_at_ms,
            "bytes": row.payload_bytes,
        }
        related = [Related("device", row.device_id, "The device that sent it")]
        related += [Related("letter", f"ltr_{one.letter_no}", "Its dead letter") for one in row.letters]
        return Found(
            "uplink",
            prefixed("msg", row.message_id),
            verdicts.uplink(row, self._clock.now_ms()),
            _trace_id(row.trace),
            facts,
            timeline.uplink(row),
            related=tuple(related),
            kept_until_ms=row.sent_at_ms + _DETAILS_MS,
        )

    # -- pushes and commands ------------------------------------------------------------------------------------

    async def _push(self, push_id: bytes, device_id: str | None, sight: Sight) -> Found | None:
        now_ms = self._clock.now_ms()
        push = await self._pushes.find(push_id, now_ms)
        if push is None:
            return None
        if not sight.pushes:
            raise PushesHidden("this is a push")
        steps = timeline.push(push, now_ms)
        found = Found(
            "push",
            prefixed("psh", push.new.push_id),
            verdicts.push(push, now_ms),
            _trace_id(push.new.message.trace),
            _push_facts(push),
            timeline.ordered(steps),
            kept_until_ms=None if push.ended_at_ms is None else push.ended_at_ms + _DETAILS_MS,
        )
        return found if device_id is None else await self._push_at(found, push, device_id, now_ms)

    async def _push_at(self, found: Found, push: Push, device_id: str, now_ms: int) -> Found:
        device = (await self._accounts.find_devices([device_id]))[0]
        if device is None:
            return replace(found, verdict=Verdict(Code.DEVICE_UNKNOWN, f"There is no device {device_id}.", True))
        if push.status in (PushStatus.SCHEDULED, PushStatus.RESOLVING):
            return replace(found, verdict=verdicts.push_scheduled_for(device_id, push, now_ms))
        state = await self._pushes.state_of(push.push_no, device.device_no, now_ms)
        resolved_at_ms = push.started_at_ms or push.new.created_at_ms
        if state is None:
            is_kept = await self._pushes.in_state(push.push_no, RecipientState.ACKED, now_ms) is not None
            outside = verdicts.not_in_audience(device, resolved_at_ms, now_ms)
            return replace(found, verdict=outside if is_kept else verdicts.not_kept(device_id))
        (live,), past = await asyncio.gather(
            self._whereabouts.of([device.device_no], [device]),
            self._rows.sessions_at(
                device.device_no, resolved_at_ms, push.ended_at_ms or push.new.expires_at_ms, _SHOWN_SESSIONS
            ),
        )
        spans = _spans(past, live)
        verdict = verdicts.push_at(device_id, push, *state, live, now_ms)
        steps = timeline.push(push, now_ms) + timeline.push_at(push, *state, device_id, spans)
        return replace(
            found,
            verdict=verdict,
            timeline=timeline.ordered(steps),
            receivers=(Receiver(device_id, verdict, state[0].value, None),),
            sessions=tuple(reversed(spans)),
            related=(Related("device", device_id, "The device that is asked about"),),
        )

    async def _command(self, command_id: bytes) -> Found | None:
        command = await self._commands.find(command_id)
        if command is None:
            return None
        now_ms = self._clock.now_ms()
        command = _seen(command, now_ms)
        facts: _Facts = {
            "to": f"device:{command.device_id}",
            "method": command.method,
            "status": command.status.value,
            "sent_at_ms": command.created_at_ms,
            "timeout_ms": command.timeout_ms,
            "bytes": len(command.payload),
        }
        return Found(
            "command",
            prefixed("cmd", command_id),
            verdicts.command(command, now_ms),
            None,
            facts,
            timeline.command(command),
            related=(Related("device", command.device_id, "The device that was asked"),),
            kept_until_ms=command.created_at_ms + _DETAILS_MS,
        )

    # -- traces and calls ---------------------------------------------------------------------------------------

    async def _trace(self, trace_id: bytes, request_id: str, sight: Sight) -> Found | None:
        refs, entry = await asyncio.gather(
            self._rows.refs(trace_id, _SHOWN) if trace_id else _none(list[TraceRef]()),
            self._rows.request(request_id) if sight.calls else _none(None),
        )
        if not sight.pushes and any(ref.kind is RefKind.PUSH for ref in refs):
            refs = [ref for ref in refs if ref.kind is not RefKind.PUSH]
            if not refs:
                raise PushesHidden("this is a push")
        kind, name = ("trace", trace_id.hex()) if entry is None else ("request", request_id)
        called = [] if entry is None else [timeline.called(entry)]
        if not refs and entry is None:
            return None
        if len(refs) == 1:
            found = await self._only(*timeline.ref_of(refs[0]), sight)
            return replace(found, trace_id=trace_id.hex(), timeline=timeline.ordered([*called, *found.timeline]))
        if not refs:
            assert entry is not None
            return Found(
                kind, name, verdicts.call_only(entry, self._clock.now_ms()), trace_id.hex() or None, {}, tuple(called)
            )
        return Found(
            kind,
            name,
            verdicts.trace(len(refs)),
            trace_id.hex(),
            {"things": len(refs)},
            timeline.ordered([*called, *timeline.refs(refs)]),
            related=tuple(Related(*timeline.ref_of(ref), "Of this trace") for ref in refs),
            kept_until_ms=refs[0].at_ms + _DETAILS_MS,
        )

    async def _only(self, kind: str, name: str, sight: Sight) -> Found:
        number = bytes.fromhex(name.partition("_")[2])
        if kind == "push":
            return await self.push(number, sight=sight)
        if kind == "command":
            return await self.command(number)
        return await self.message(number, sight=sight)

    # -- devices and users ----------------------------------------------------------------------------------------

    async def _device(self, device: Device) -> Found:
        now_ms, number = self._clock.now_ms(), device.device_no
        (live,), past, latest, waiting = await asyncio.gather(
            self._whereabouts.of([number], [device]),
            self._rows.past_sessions(number, 0, _SHOWN_SESSIONS),
            self._rows.recent_messages(number, _SHOWN_MESSAGES),
            self._rows.before(number, 1 << 62, now_ms),
        )
        spans = _spans(list(reversed(past)), live)
        facts: _Facts = {
            "user": device.user,
            "platform": device.platform or None,
            "app_version": device.app_version or None,
            "registered_at_ms": device.registered_at_ms,
            "waiting": waiting,
        }
        related = [Related("message", prefixed("msg", one.message_id), _message_line(one, now_ms)) for one in latest]
        if device.user is not None:
            related.append(Related("user", f"user:{device.user}", "Whose device it is"))
        return Found(
            "device",
            device.device_id,
            verdicts.device(live, now_ms),
            None,
            facts,
            timeline.connections(spans, device.device_id),
            related=tuple(related),
            sessions=tuple(reversed(spans)),
        )

    async def _user(self, name: str, devices: Sequence[Device]) -> Found:
        shown = devices[:_SHOWN]
        now_ms = self._clock.now_ms()
        lives = await self._whereabouts.of([device.device_no for device in shown], shown)
        online = sum(live.session is not None for live in lives)
        receivers = []
        for device, live in zip(shown, lives, strict=True):
            verdict = verdicts.device(live, now_ms)
            receivers.append(Receiver(device.device_id, verdict, "offline" if live.session is None else "online", None))
        return Found(
            "user",
            name,
            verdicts.user(name, len(devices), online),
            facts={"devices": len(devices), "online": online},
            receivers=tuple(receivers),
            receivers_more=len(devices) - len(shown),
            related=tuple(Related("device", device.device_id, "A device of theirs") for device in shown),
        )


async def _none(nothing: T) -> T:
    """What is not looked for."""
    return nothing


def _trace_id(trace: bytes) -> str | None:
    return trace[:16].hex() or None


def _name(live: Live) -> str:
    return "a deleted device" if live.device is None else live.device.device_id


def _spans(past: Sequence[PastSession], live: Live) -> list[Span]:
    """Oldest first, the standing one last."""
    spans = list(map(timeline.span_of, past))
    if live.session is not None:
        spans.append(timeline.span_of(live.session))
    return spans


def _ended(row: MessageRow, receiver: ReceiverRow, now_ms: int) -> ReceiverRow:
    """With the end of its time to live, whenever the sweeper comes by."""
    is_over = receiver.outcome is None and receiver.is_waiting and row.expires_at_ms <= now_ms
    if receiver.outcome is Outcome.EXPIRED or is_over:
        return replace(receiver, outcome=Outcome.EXPIRED, at_ms=row.expires_at_ms)
    return receiver


def _receiver(receiver: ReceiverRow, live: Live, verdict: Verdict) -> Receiver:
    state = "waiting" if receiver.is_waiting else "unknown"
    if receiver.outcome is not None:
        state = receiver.outcome.name.lower()
    return Receiver(None if live.device is None else live.device.device_id, verdict, state, receiver.at_ms or None)


def _push_facts(push: Push) -> _Facts:
    new, stats = push.new, push.stats
    return {
        "status": push.status.value,
        "from": new.message.sender or new.caller or "application",
        "kind": new.message.kind,
        "created_at_ms": new.created_at_ms,
        "send_at_ms": new.send_at_ms,
        "started_at_ms": push.started_at_ms,
        "ended_at_ms": push.ended_at_ms if push.status in ENDED else None,
        "expires_at_ms": new.expires_at_ms,
        "bytes": len(new.message.payload),
        "targeted": stats.targeted,
        "online_at_send": stats.online_at_send,
        "written": stats.written,
        "acked": stats.acked,
        "expired": stats.expired,
        "failed": stats.failed,
        "collapsed": stats.collapsed,
        "canceled": stats.canceled,
        "withdrawn": stats.withdrawn,
        "pending": stats.pending,
    }


def _seen(command: Command, now_ms: int) -> Command:
    """A command whose process died while it waited is one whose time is up."""
    over_ms = command.created_at_ms + command.timeout_ms + _COMMAND_GRACE_MS
    if command.status is CommandStatus.SENT and now_ms > over_ms:
        return replace(command, status=CommandStatus.TIMED_OUT, detail="The node stopped before the reply came.")
    return command


def _message_line(one: ReceiverMessage, now_ms: int) -> str:
    sender = one.sender or "the application"
    sent = f"{one.kind} from {sender} at {verdicts.moment(one.sent_at_ms, now_ms)}"
    if one.outcome is not None:
        return f"{sent}: {one.outcome.name.lower()} at {verdicts.moment(one.at_ms, now_ms)}"
    return f"{sent}: " + ("expired" if one.expires_at_ms <= now_ms else "waits")
