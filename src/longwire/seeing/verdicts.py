"""Where something is, in one sentence. Times are UTC: of today by the clock, of another day with their date."""

from datetime import UTC, datetime

from longwire.model import Device
from longwire.operations_model import AuditEntry, Command, CommandStatus
from longwire.ports.trace_rows import UplinkRow
from longwire.push_model import ENDED, Push, PushStatus, RecipientState
from longwire.reasons import CloseCode, Status
from longwire.seeing.found import Code, Verdict
from longwire.seeing.live import Live

_REPEATED_S = 30

UNKNOWN = Verdict(
    Code.UNKNOWN,
    "Nobody knows this id. What was refused, or went at most once (ttl_s 0), is not kept: the logs have the call.",
    True,
)
TOO_OLD = Verdict(Code.TOO_OLD, "Nothing of this id is kept: details go after seven days.", True)
NOBODY = Verdict(Code.UNKNOWN, "There is no device and no user of this name.", True)


def moment(at_ms: int, now_ms: int) -> str:
    """``09:12:31`` of today, ``2026-11-23 09:12`` of another day."""
    at, now = (datetime.fromtimestamp(ms / 1000, UTC) for ms in (at_ms, now_ms))
    return f"{at:%H:%M:%S}" if at.date() == now.date() else f"{at:%Y-%m-%d %H:%M}"


def took(ms: int) -> str:
    """A span of time as people say it."""
    if ms < 10_000:
        return f"{max(ms, 0)} ms"
    seconds = ms // 1000
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def reason_of(code: int | None) -> str:
    """Why a connection ended."""
    if code is None:
        return "it went away without a word"
    known = code in CloseCode.__members__.values()
    return f"{code} {CloseCode(code).label.replace('_', ' ')}" if known else str(code)


# -- messages -----------------------------------------------------------------------------------------------------


def acked(device: str, at_ms: int, sent_at_ms: int, now_ms: int) -> Verdict:
    after = took(at_ms - sent_at_ms)
    text = f"{device} acknowledged it at {moment(at_ms, now_ms)}, {after} after it was accepted."
    return Verdict(Code.ACKED, text, True)


def expired(device: str, at_ms: int, live: Live | None, now_ms: int) -> Verdict:
    absent = ""
    if live is not None and live.session is None and live.last is not None and live.last.ended_at_ms < at_ms:
        absent = f"; the device has not been connected since {moment(live.last.ended_at_ms, now_ms)}"
    text = f"Its time to live was over at {moment(at_ms, now_ms)} before {device} acknowledged it{absent}."
    return Verdict(Code.EXPIRED, text, True)


def missed(device: str, at_ms: int, now_ms: int) -> Verdict:
    text = (
        f"The inbox of {device} was full at {moment(at_ms, now_ms)}: its oldest messages were dropped, this one among"
        " them, and the device is told how many."
    )
    return Verdict(Code.MISSED, text, True)


def collapsed(device: str, at_ms: int, now_ms: int) -> Verdict:
    text = f"At {moment(at_ms, now_ms)} a later message of the same collapse key took its place for {device}."
    return Verdict(Code.COLLAPSED, text, True)


def withdrawn(device: str, at_ms: int, now_ms: int) -> Verdict:
    text = f"It was taken out of the inbox of {device} at {moment(at_ms, now_ms)}: emptied, or the device deleted."
    return Verdict(Code.WITHDRAWN, text, True)


def not_kept(device: str) -> Verdict:
    return Verdict(Code.NOT_KEPT, f"What became of it at {device} is not kept.", True)


def waiting(device: str, live: Live, before: int, window: int, expires_at_ms: int, now_ms: int) -> Verdict:
    """Of a message that lies in the inbox."""
    until = f"until {moment(expires_at_ms, now_ms)}"
    if live.session is not None and before >= window:
        text = f"{device} is online and catches up; {before} messages are before this one. It waits {until}."
        return Verdict(Code.WAITING_ONLINE, text, False)
    if live.session is not None:
        text = (
            f"It is written to {device} on {live.session.node_id} and not acknowledged yet; it goes out again every"
            f" {_REPEATED_S} s {until}."
        )
        return Verdict(Code.WRITTEN_UNACKED, text, False)
    barred = _barred(device, live.device, now_ms)
    if not live.is_known:
        text = f"It waits {until}; whether {device} is online is unknown: {live.node_id or 'its node'} does not answer."
        return Verdict(Code.WAITING_UNKNOWN, text, False)
    if live.node_id:
        text = f"{device} was on {live.node_id}, which has died, and has not come back; the message waits {until}."
        return Verdict(Code.WAITING_OFFLINE, text + barred, False)
    if live.last is not None:
        since = moment(live.last.ended_at_ms, now_ms)
        return Verdict(
            Code.WAITING_OFFLINE, f"{device} has not connected since {since}; the message waits {until}.{barred}", False
        )
    text = f"{device} has never connected, as far as is known; the message waits {until}.{barred}"
    return Verdict(Code.WAITING_NEVER_CONNECTED, text, False)


def some_receivers(acked: int, waiting: int, ended: int, total: int) -> Verdict:
    text = f"{acked} of {total} devices acknowledged it; {waiting} wait"
    text += f"; for {ended} it ended otherwise." if ended else "."
    return Verdict(Code.ACKED if acked == total else Code.SOME_RECEIVERS, text, waiting == 0)


def receivers_not_kept(acked: int) -> Verdict:
    text = "Whom it was for is not kept: a process of an older release took it"
    text += f"; {acked} acknowledged it, and a device that is named can be asked about."
    return Verdict(Code.NOT_KEPT, text, False)


def not_in_audience(device: Device, at_ms: int, now_ms: int) -> Verdict:
    text = f"{device.device_id} was not in the audience when it was resolved at {moment(at_ms, now_ms)}"
    if device.registered_at_ms > at_ms:
        text += f": it was registered later, at {moment(device.registered_at_ms, now_ms)}"
    return Verdict(Code.NOT_IN_AUDIENCE, f"{text}.", True)


# -- what devices sent --------------------------------------------------------------------------------------------


def uplink(row: UplinkRow, now_ms: int) -> Verdict:
    letter = row.letters[0] if row.letters else None
    if letter is not None and letter.replayed_at_ms is None:
        text = (
            f"The application's handler would not take it: at {moment(letter.buried_at_ms, now_ms)} it became dead"
            f" letter ltr_{letter.letter_no}."
        )
        return Verdict(Code.BURIED, text, False)
    if row.behind is None:
        if row.offset == 0:
            return Verdict(Code.NOT_KEPT, "Its dead letter was replayed; the record itself is kept no more.", True)
        return Verdict(Code.TAKEN, "The application has taken it from the log, and no dead letter stands.", True)
    if row.behind == 0:
        return Verdict(Code.HANDLED, "The application has handled it.", True)
    return Verdict(Code.LOGGED, f"It is in the log; {row.behind - 1} records are before it.", False)


# -- pushes -------------------------------------------------------------------------------------------------------


def push(push: Push, now_ms: int) -> Verdict:
    stats = push.stats
    counts = f"{stats.acked} of {stats.targeted} devices acknowledged it, {stats.pending} are pending"
    if push.status is PushStatus.SCHEDULED and push.new.send_at_ms is not None:
        text = f"It goes out at {moment(push.new.send_at_ms, now_ms)}; its audience is resolved then."
        return Verdict(Code.PUSH_SCHEDULED, text, False)
    if push.status is PushStatus.PAUSED:
        return Verdict(Code.PUSH_PAUSED, f"It is paused; {counts}.", False)
    if push.status in ENDED:
        others = {
            "expired": stats.expired,
            "failed": stats.failed,
            "collapsed": stats.collapsed,
            "canceled": stats.canceled,
            "withdrawn": stats.withdrawn,
        }
        rest = "".join(f", {count} {name}" for name, count in others.items() if count)
        why = f": {push.failure}" if push.failure else ""
        pending = f", {stats.pending} pending" if stats.pending else ""
        text = f"It is {push.status}{why}; {stats.acked} of {stats.targeted} devices acknowledged it{rest}{pending}."
        return Verdict(Code.PUSH_ENDED, text, not stats.pending)
    until = moment(push.new.expires_at_ms, now_ms)
    how = "It went to all who are online" if push.status is PushStatus.DISPATCHED else "It is being sent"
    return Verdict(Code.PUSH_SENDING, f"{how}; {counts}, until {until}.", False)


def push_scheduled_for(device: str, push: Push, now_ms: int) -> Verdict:
    at = moment(push.new.send_at_ms or push.new.created_at_ms, now_ms)
    text = f"Whether it is for {device} is decided when it goes out, at {at}: nobody is in its audience yet."
    return Verdict(Code.PUSH_SCHEDULED, text, False)


def push_at(
    device: str, push: Push, state: RecipientState, is_written: bool, reason: str, live: Live, now_ms: int
) -> Verdict:
    """Of one device in the audience."""
    if state is RecipientState.PENDING:
        return _push_pending(device, push, is_written, live, now_ms)
    written = f"It was written to {device}, which did not acknowledge it" if is_written else "It was never written"
    ended = moment(push.ended_at_ms or push.new.expires_at_ms, now_ms)
    code, text = {
        RecipientState.ACKED: (Code.ACKED, f"{device} has it and acknowledged it."),
        RecipientState.WITHDRAWN: (Code.WITHDRAWN, f"{written} before it was withdrawn at {ended}."),
        RecipientState.CANCELED: (Code.CANCELED, f"{written} before the push was canceled at {ended}."),
        RecipientState.COLLAPSED: (
            Code.COLLAPSED,
            f"{written} before a later push of the same collapse key took its place.",
        ),
        RecipientState.FAILED: (Code.FAILED, f"{written}, and it cannot be: {reason or 'why is not kept'}."),
        RecipientState.EXPIRED: (
            Code.EXPIRED,
            f"{written} before its time to live was over at {moment(push.new.expires_at_ms, now_ms)}.",
        ),
    }[state]
    return Verdict(code, text, True)


def _push_pending(device: str, push: Push, is_written: bool, live: Live, now_ms: int) -> Verdict:
    until = moment(push.new.expires_at_ms, now_ms)
    if is_written:
        if push.status is PushStatus.CANCELED:
            text = f"It was written to {device} before the push was canceled; an acknowledgement still counts."
        elif live.session is not None:
            text = f"It is written to {device} on {live.session.node_id} and not acknowledged yet; it is repeated."
        else:
            text = f"It was written to {device}, which went away without acknowledging it; it goes out on its return."
        return Verdict(Code.WRITTEN_UNACKED, text, False)
    if push.status is PushStatus.PAUSED:
        return Verdict(Code.PUSH_PAUSED, f"The push is paused; {device} gets it once it goes on, until {until}.", False)
    if live.session is not None:
        return Verdict(Code.WAITING_ONLINE, f"{device} is online and is about to be written to.", False)
    return waiting(device, live, 0, 1, push.new.expires_at_ms, now_ms)


# -- commands, devices, calls ---------------------------------------------------------------------------------------


def command(command: Command, now_ms: int) -> Verdict:
    device = command.device_id
    if command.status is CommandStatus.SENT:
        until = moment(command.created_at_ms + command.timeout_ms, now_ms)
        return Verdict(Code.COMMAND_SENT, f"{device} was asked and has not answered yet; it may until {until}.", False)
    if command.status is CommandStatus.TIMED_OUT:
        text = f"{device} did not answer within {took(command.timeout_ms)}; a late reply is kept"
        return Verdict(Code.COMMAND_TIMEOUT, text + (f". {command.detail}" if command.detail else "."), False)
    if command.reply_status == Status.OFFLINE:
        return Verdict(Code.COMMAND_OFFLINE, f"{device} had no session; it was not asked.", True)
    if command.replied_at_ms is None:
        return Verdict(Code.COMMAND_FAILED, f"{device} was not asked: {command.detail or 'its node refused'}.", True)
    after = f"at {moment(command.replied_at_ms, now_ms)}, after {took(command.replied_at_ms - command.created_at_ms)}"
    if command.status is CommandStatus.FAILED:
        known = {int(status): status.label for status in Status}
        label = known.get(command.reply_status or 0, str(command.reply_status))
        return Verdict(Code.COMMAND_FAILED, f"{device} answered {label} {after}.", True)
    if command.is_late:
        return Verdict(
            Code.COMMAND_LATE, f"{device} answered too late, {after}; the caller was told it timed out.", True
        )
    return Verdict(Code.COMMAND_REPLIED, f"{device} answered {after}.", True)


def device(live: Live, now_ms: int) -> Verdict:
    found = live.device
    assert found is not None
    name = found.device_id
    if found.is_disabled:
        return Verdict(Code.DEVICE_DISABLED, f"{name} is disabled: it does not connect until it is enabled.", False)
    if found.banned_until_ms > now_ms:
        until = moment(found.banned_until_ms, now_ms)
        return Verdict(Code.DEVICE_BANNED, f"{name} is banned until {until}: its tokens do not connect.", False)
    if live.session is not None:
        since = moment(live.session.since_ms, now_ms)
        text = f"{name} is online on {live.session.node_id} since {since}."
        return Verdict(Code.DEVICE_ONLINE, text, False)
    if not live.is_known:
        text = f"Whether {name} is online is unknown: {live.node_id or 'its node'} does not answer."
        return Verdict(Code.DEVICE_UNKNOWN, text, False)
    if live.node_id:
        return Verdict(Code.DEVICE_OFFLINE, f"{name} was on {live.node_id}, which has died; it is offline.", False)
    if live.last is None:
        return Verdict(Code.DEVICE_OFFLINE, f"{name} has never connected, as far as is known.", False)
    ended = moment(live.last.ended_at_ms, now_ms)
    text = f"{name} has been offline since {ended}: {reason_of(live.last.close_code)}."
    return Verdict(Code.DEVICE_OFFLINE, text, False)


def user(name: str, devices: int, online: int) -> Verdict:
    return Verdict(Code.USER, f"{name} has {devices} devices; {online} are online.", False)


def trace(things: int) -> Verdict:
    return Verdict(Code.TRACE, f"{things} things belong to this trace.", False)


def call_only(entry: AuditEntry, now_ms: int) -> Verdict:
    text = (
        f"The call was {entry.action} by {entry.caller} at {moment(entry.at_ms, now_ms)}: {entry.status}. It made"
        " nothing that is kept."
    )
    return Verdict(Code.CALL_ONLY, text, True)


def _barred(device: str, found: Device | None, now_ms: int) -> str:
    if found is None:
        return ""
    if found.is_disabled:
        return f" {device} is disabled."
    if found.banned_until_ms > now_ms:
        return f" {device} is banned until {moment(found.banned_until_ms, now_ms)}."
    return ""
