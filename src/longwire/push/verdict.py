"""What became of one device of a push, in words."""

from msgspec import Struct

from longwire.operations_model import SessionView
from longwire.push_model import Push, PushStatus, RecipientState


class Step(Struct, frozen=True):
    """Something that happened to a push, or to the device that is asked about; or that will, where it is ahead."""

    at_ms: int
    what: str
    """``created``, ``scheduled``, ``started``, ``device-online`` (since then), ``expires``, or the status it ended
    with."""


def timeline(push: Push, now_ms: int, session: SessionView | None) -> tuple[Step, ...]:
    """The steps in the order of time; those ahead of ``now_ms`` are still to come."""
    new = push.new
    steps = [Step(new.created_at_ms, "created"), Step(new.expires_at_ms, "expires")]
    if new.send_at_ms is not None:
        steps.append(Step(new.send_at_ms, "scheduled"))
    if push.started_at_ms is not None:
        steps.append(Step(push.started_at_ms, "started"))
    if push.ended_at_ms is not None:
        steps.append(Step(push.ended_at_ms, push.status.value))
    if session is not None:
        steps.append(Step(min(session.since_ms, now_ms), "device-online"))
    return tuple(sorted(steps, key=lambda step: step.at_ms))


def verdict(push: Push, state: RecipientState | None, is_written: bool, reason: str, is_online: bool) -> str:
    """One sentence for an operator who asks why."""
    if state is None:
        return _outside(push)
    if state is RecipientState.PENDING:
        return _pending(push, is_written, is_online)
    written = "It was written to the device, which did not acknowledge it" if is_written else "It was never written"
    return {
        RecipientState.ACKED: "The device has it and acknowledged it.",
        RecipientState.WITHDRAWN: f"{written} before it was withdrawn.",
        RecipientState.CANCELED: f"{written} before the push was canceled.",
        RecipientState.COLLAPSED: f"{written} before a later push of the same collapse key took its place.",
        RecipientState.FAILED: f"{written}, and it cannot be: {reason or 'unknown'}.",
        RecipientState.EXPIRED: f"{written} before its time to live was over.",
    }[state]


def _outside(push: Push) -> str:
    if push.status in (PushStatus.SCHEDULED, PushStatus.RESOLVING):
        return "The audience is resolved when the push is sent: nobody is in it yet."
    return "The device was not in the audience when it was resolved."


def _pending(push: Push, is_written: bool, is_online: bool) -> str:
    if is_written:
        if push.status is PushStatus.CANCELED:
            return "It was written to the device before the push was canceled; an acknowledgement still counts."
        if is_online:
            return "It is written to the device, which has not acknowledged it yet; it is repeated until it does."
        return "It was written to the device, which went away without acknowledging it; it is repeated on its return."
    if push.status is PushStatus.PAUSED:
        return "The push is paused; the device gets it once it goes on."
    if is_online:
        return "The device is online and is about to be written to."
    return "The device is offline; it gets the push when it connects before the push expires."
