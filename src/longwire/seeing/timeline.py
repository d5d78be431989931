"""What happened on the way, step by step, from what is kept of it."""

from collections.abc import Iterable, Sequence

from longwire.ids import prefixed
from longwire.model import APPLICATION_NO, Outcome
from longwire.operations_model import AuditEntry, Command, CommandStatus, PastSession, SessionView
from longwire.ports.trace_rows import MessageRow, ReceiverRow, RefKind, TraceRef, UplinkRow, WebhookProgress
from longwire.push_model import ENDED, Push, PushStatus, RecipientState
from longwire.seeing import verdicts
from longwire.seeing.found import Span, State, Step
from longwire.seeing.live import Live

_MANY_SESSIONS = 20
_ENDS = {
    Outcome.EXPIRED: ("expired", "Its time to live was over."),
    Outcome.COLLAPSED: ("collapsed", "A later message of the same collapse key took its place."),
    Outcome.WITHDRAWN: ("withdrawn", "It was taken out of the inbox: emptied, or the device deleted."),
    Outcome.MISSED: ("missed", "The inbox was full: the oldest messages were dropped, this one among them."),
}
_WEBHOOK = {
    WebhookProgress.TOLD: (State.DONE, "Every webhook that takes message.acked was told."),
    WebhookProgress.WAITING: (State.AHEAD, "A webhook that takes message.acked is still to be told."),
    WebhookProgress.BURIED: (State.FAILED, "A webhook would not take it: a dead letter of webhooks has it."),
    WebhookProgress.UNKNOWN: (State.UNKNOWN, "Too much waits for webhooks, or was buried, to look through for this."),
}
_REFS = {
    RefKind.MESSAGE: ("message", "msg"),
    RefKind.UPLINK: ("message", "msg"),
    RefKind.PUSH: ("push", "psh"),
    RefKind.COMMAND: ("command", "cmd"),
}


def ordered(steps: Iterable[Step]) -> tuple[Step, ...]:
    """In the order of time; one without a time stays behind the one before it, and one that is ahead is last."""
    keyed: list[tuple[bool, int, Step]] = []
    at_ms = 0
    for step in steps:
        at_ms = at_ms if step.at_ms is None else step.at_ms
        keyed.append((step.state is State.AHEAD, at_ms, step))
    return tuple(step for *_, step in sorted(keyed, key=lambda item: item[:2]))


def span_of(session: PastSession | SessionView) -> Span:
    """A connection, past or standing."""
    if isinstance(session, PastSession):
        name = f"{session.device_no:x}-{session.epoch:x}"
        return Span(
            session.began_at_ms, session.ended_at_ms, session.node_id, session.transport, name, session.close_code
        )
    return Span(session.since_ms, None, session.node_id, session.transport, session.session_id)


def message(
    row: MessageRow,
    receiver: ReceiverRow,
    device_id: str,
    live: Live,
    spans: Sequence[Span],
    before: int,
    window: int,
    webhook: WebhookProgress,
    now_ms: int,
) -> tuple[Step, ...]:
    """The way of a message to one device."""
    steps = accepted(row)
    steps.append(Step("queued", row.sent_at_ms, f"It was stored for {device_id}.", device_id=device_id))
    end_ms = receiver.at_ms or now_ms
    if (
        live.last is not None
        and live.last.ended_at_ms < row.sent_at_ms
        and not any(span.began_at_ms <= row.sent_at_ms for span in spans)
    ):
        why = verdicts.reason_of(live.last.close_code)
        steps.append(_away(live.last.ended_at_ms, live.last.node_id, device_id, why, None))
    steps += _sessions(spans, row.sent_at_ms, end_ms, device_id)
    steps += _last_steps(row, receiver, device_id, live, before, window, now_ms)
    if receiver.outcome is Outcome.ACKED and webhook in _WEBHOOK:
        state, text = _WEBHOOK[webhook]
        steps.append(Step("webhook", None, text, state, device_id=device_id))
    return ordered(steps)


def accepted(row: MessageRow) -> list[Step]:
    """What is the same for every receiver of a message."""
    sender = row.sender or ("the application" if row.sender_no == APPLICATION_NO else "a device")
    text = f"Accepted from {sender}: {row.payload_bytes} bytes of kind {row.kind}."
    steps = [Step("accepted", row.sent_at_ms, text)]
    if row.receivers is not None:
        whom = f" of {row.to}" if row.to else ""
        count = len(row.receivers)
        devices = "1 device" if count == 1 else f"{count} devices"
        steps.append(Step("resolved", row.sent_at_ms, f"It was for {devices}{whom}.", detail={"devices": count}))
    return steps


def expires(expires_at_ms: int, now_ms: int) -> list[Step]:
    """The end of the time to live, while it is ahead."""
    return [Step("expires", expires_at_ms, "Its time to live ends.", State.AHEAD)] if expires_at_ms > now_ms else []


def connections(spans: Sequence[Span], device_id: str) -> tuple[Step, ...]:
    """The comings and goings of a device."""
    return ordered(_sessions(spans, 0, 1 << 62, device_id))


def uplink(row: UplinkRow) -> tuple[Step, ...]:
    """The way of what a device sent to the application."""
    text = f"Accepted from {row.device_id}: {row.payload_bytes} bytes of kind {row.kind}."
    steps = [Step("accepted", row.sent_at_ms, text, device_id=row.device_id)]
    place: dict[str, str | int] = {"offset": row.offset} if row.offset else {}
    steps.append(Step("logged", row.sent_at_ms, "It is durable in the uplink log.", detail=place))
    for letter in reversed(row.letters):
        more: dict[str, str | int] = {"letter": f"ltr_{letter.letter_no}", "error": letter.error[:500]}
        text = f"The handler would not take it: dead letter ltr_{letter.letter_no}."
        steps.append(Step("buried", letter.buried_at_ms, text, State.FAILED, detail=more))
        if letter.replayed_at_ms is not None:
            steps.append(Step("logged", letter.replayed_at_ms, "The dead letter was replayed: it is in the log again."))
    if row.letters and row.letters[0].replayed_at_ms is None:
        return ordered(steps)
    if row.behind is None:
        steps.append(Step("handled", None, "The application took it; its end is not kept.", State.UNKNOWN))
    elif row.behind == 0:
        steps.append(Step("handled", None, "The application's handler took it."))
    else:
        steps.append(Step("handled", None, f"{row.behind - 1} records are handled before it.", State.AHEAD))
    return ordered(steps)


def push(push: Push, now_ms: int) -> list[Step]:
    """The way of a push, without any device of it."""
    new, stats = push.new, push.stats
    sender = new.caller or new.message.sender or "a device"
    text = f"Accepted from {sender}: {len(new.message.payload)} bytes of kind {new.message.kind}."
    steps = [Step("accepted", new.created_at_ms, text)]
    if new.send_at_ms is not None:
        state = State.DONE if push.started_at_ms is not None else State.AHEAD
        steps.append(Step("scheduled", new.send_at_ms, "It was to go out.", state))
    resolved_at_ms = push.started_at_ms or (new.created_at_ms if new.send_at_ms is None else None)
    if resolved_at_ms is not None:
        text = f"The audience was resolved: {stats.targeted} devices."
        if new.unresolved:
            text = f"The audience was resolved: {stats.targeted} devices; {new.unresolved} names meant nobody."
        steps.append(Step("resolved", resolved_at_ms, text, detail={"devices": stats.targeted}))
    if push.status is PushStatus.PAUSED:
        steps.append(Step("paused", None, "It is paused.", State.DONE))
    if push.status in ENDED and push.ended_at_ms is not None:
        state = State.FAILED if push.status is PushStatus.FAILED else State.DONE
        text = push.failure or f"It was {push.status}."
        steps.append(Step("ended", push.ended_at_ms, text, state, detail={"status": push.status.value}))
    return steps + expires(new.expires_at_ms, now_ms)


def push_at(
    push: Push, state: RecipientState, is_written: bool, reason: str, device_id: str, spans: Sequence[Span]
) -> list[Step]:
    """What became of a push at one device."""
    began_ms = push.started_at_ms or push.new.created_at_ms
    end_ms = push.ended_at_ms or push.new.expires_at_ms
    steps = _sessions(spans, began_ms, end_ms, device_id)
    is_over = state is not RecipientState.PENDING
    if is_written:
        steps.append(Step("written", None, f"It was written to {device_id}.", device_id=device_id))
    elif is_over:
        steps.append(Step("written", None, f"It was never written to {device_id}.", State.FAILED, device_id=device_id))
    else:
        steps.append(Step("written", None, f"It is to be written to {device_id}.", State.AHEAD, device_id=device_id))
    if state is RecipientState.ACKED:
        steps.append(Step("acked", None, f"{device_id} acknowledged it.", device_id=device_id))
    elif is_over:
        at_ms = push.new.expires_at_ms if state is RecipientState.EXPIRED else None
        text = reason or f"For {device_id} it is {state.value}."
        steps.append(Step(state.value, at_ms, text, State.FAILED, device_id=device_id))
    return steps


def command(command: Command) -> tuple[Step, ...]:
    """The way of a command and of its reply."""
    device_id = command.device_id
    text = f"{command.method} was asked of {device_id}: {len(command.payload)} bytes."
    steps = [Step("command-sent", command.created_at_ms, text, device_id=device_id)]
    over_ms = command.created_at_ms + command.timeout_ms
    if command.replied_at_ms is not None:
        late = ", too late" if command.is_late else ""
        state = State.DONE if command.status is CommandStatus.REPLIED else State.FAILED
        text = f"{device_id} answered{late}: {len(command.reply)} bytes."
        steps.append(Step("command-replied", command.replied_at_ms, text, state, device_id=device_id))
    elif command.status is CommandStatus.SENT:
        steps.append(Step("command-replied", over_ms, "The reply is waited for.", State.AHEAD, device_id=device_id))
    elif command.status is CommandStatus.TIMED_OUT:
        steps.append(Step("expired", over_ms, "No reply came in time.", State.FAILED, device_id=device_id))
    else:
        text = command.detail or "The device had no session."
        steps.append(Step("failed", command.created_at_ms, text, State.FAILED, device_id=device_id))
    return ordered(steps)


def called(entry: AuditEntry) -> Step:
    """An audited call."""
    state = State.DONE if entry.status < 400 else State.FAILED
    text = f"{entry.caller} called {entry.action}: {entry.status}."
    return Step("called", entry.at_ms, text, state, detail={"target": entry.target, "request_id": entry.request_id})


def ref_of(ref: TraceRef) -> tuple[str, str]:
    """What a trace points to: its kind, and the id it is found by."""
    kind, prefix = _REFS[ref.kind]
    return kind, prefixed(prefix, ref.ref)


def refs(found: Sequence[TraceRef]) -> list[Step]:
    """What belongs to a trace."""
    steps = []
    for ref in found:
        kind, name = ref_of(ref)
        steps.append(Step("accepted", ref.at_ms, f"{kind.capitalize()} {name}.", detail={"kind": kind, "id": name}))
    return steps


def _sessions(spans: Sequence[Span], from_ms: int, until_ms: int, device_id: str) -> list[Step]:
    """Connections that stood between, the first as the one that the thing was routed to."""
    steps: list[Step] = []
    for span in spans[-_MANY_SESSIONS:]:
        if span.began_at_ms > until_ms or (span.ended_at_ms is not None and span.ended_at_ms < from_ms):
            continue
        where = f"{span.node_id} by {span.transport}"
        if span.began_at_ms >= from_ms:
            text, at_ms, step = f"{device_id} connected to {where}.", span.began_at_ms, "connected"
        else:
            text, at_ms, step = f"{device_id} was connected to {where}: it went there.", from_ms, "routed"
        steps.append(Step(step, at_ms, text, State.DONE, span.node_id, span.session_id, device_id))
        if span.ended_at_ms is not None and span.ended_at_ms <= until_ms:
            why = verdicts.reason_of(span.close_code)
            steps.append(_away(span.ended_at_ms, span.node_id, device_id, why, span.session_id))
    return steps


def _away(at_ms: int, node_id: str, device_id: str, why: str, session_id: str | None) -> Step:
    text = f"{device_id} disconnected from {node_id}: {why}."
    return Step("disconnected", at_ms, text, State.DONE, node_id, session_id, device_id)


def _last_steps(
    row: MessageRow, receiver: ReceiverRow, device_id: str, live: Live, before: int, window: int, now_ms: int
) -> list[Step]:
    """Whether it was written, and how it ended."""
    if receiver.outcome is Outcome.ACKED:
        node_id = receiver.node_id or None
        return [
            Step("written", None, f"It was written to {device_id}.", State.DONE, node_id, device_id=device_id),
            Step("acked", receiver.at_ms, f"{device_id} acknowledged it.", State.DONE, node_id, device_id=device_id),
        ]
    if receiver.outcome is not None:
        step, text = _ENDS[receiver.outcome]
        return [
            Step("written", None, "Whether it was written before is not kept.", State.UNKNOWN, device_id=device_id),
            Step(step, receiver.at_ms, text, State.FAILED, device_id=device_id),
        ]
    if not receiver.is_waiting:
        return [Step("written", None, "What became of it is not kept.", State.UNKNOWN, device_id=device_id)]
    if live.session is not None and before < window:
        node_id, session_id = live.session.node_id, live.session.session_id
        text = f"It is written to {device_id}, which has not acknowledged it yet."
        written = Step("written", None, text, State.DONE, node_id, session_id, device_id)
    else:
        when = f"behind {before} others" if live.session is not None else "when it connects"
        written = Step("written", None, f"It is written to {device_id} {when}.", State.AHEAD, device_id=device_id)
    ack = Step("acked", None, f"{device_id} acknowledges it.", State.AHEAD, device_id=device_id)
    return [written, ack, *expires(row.expires_at_ms, now_ms)]
