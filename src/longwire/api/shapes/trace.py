"""Where something is, as JSON: the answer of ``/v1/trace``, and a device's connections and messages."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from longwire.api.shapes import Time, rfc3339
from longwire.ids import prefixed
from longwire.ports.trace_rows import ReceiverMessage
from longwire.reasons import CloseCode
from longwire.seeing.found import Code, Found, Receiver, Span, Step, Verdict

_AT_MS = "_at_ms"


class VerdictAnswer(BaseModel):
    """Where it is, in one sentence."""

    code: Code
    text: str = Field(examples=["hall-7 has not connected since 09:12:31; the message waits until 18:00:00."])
    is_final: bool = Field(description="Nothing will change it")

    @classmethod
    def of(cls, verdict: Verdict) -> "VerdictAnswer":
        return cls(code=verdict.code, text=verdict.text, is_final=verdict.is_final)


class StepAnswer(BaseModel):
    """Something on the way."""

    at: Time | None = Field(description="null: its time is not kept")
    step: str = Field(examples=["accepted"])
    text: str
    state: Literal["done", "failed", "ahead", "unknown"]
    node_id: str | None
    session_id: str | None
    device_id: str | None
    detail: dict[str, str | int]

    @classmethod
    def of(cls, step: Step) -> "StepAnswer":
        return cls(
            at=_time(step.at_ms),
            step=step.step,
            text=step.text,
            state=step.state.value,
            node_id=step.node_id,
            session_id=step.session_id,
            device_id=step.device_id,
            detail=step.detail,
        )


class ReceiverAnswer(BaseModel):
    """One device that it was for."""

    device_id: str | None = Field(description="null: deleted since")
    verdict: VerdictAnswer
    state: str = Field(examples=["acked"])
    at: Time | None

    @classmethod
    def of(cls, receiver: Receiver) -> "ReceiverAnswer":
        return cls(
            device_id=receiver.device_id,
            verdict=VerdictAnswer.of(receiver.verdict),
            state=receiver.state,
            at=_time(receiver.at_ms),
        )


class RelatedAnswer(BaseModel):
    """Something else to look at: ``id`` is what to ask for."""

    kind: str
    id: str
    text: str


class CloseAnswer(BaseModel):
    """Why a connection ended; both null where the device went away without a word."""

    code: int | None
    reason: str | None


class SessionAnswer(BaseModel):
    """A connection."""

    session_id: str
    began_at: Time
    ended_at: Time | None = Field(description="null: it stands")
    node_id: str
    transport: str
    close: CloseAnswer | None

    @classmethod
    def of(cls, span: Span) -> "SessionAnswer":
        known = span.close_code in CloseCode.__members__.values()
        reason = CloseCode(span.close_code).label if known and span.close_code is not None else None
        return cls(
            session_id=span.session_id,
            began_at=rfc3339(span.began_at_ms),
            ended_at=_time(span.ended_at_ms),
            node_id=span.node_id,
            transport=span.transport,
            close=None if span.ended_at_ms is None else CloseAnswer(code=span.close_code, reason=reason),
        )


class SessionPage(BaseModel):
    """A device's connections, newest first; the one that stands before all."""

    items: list[SessionAnswer]
    next_cursor: str | None


class TraceAnswer(BaseModel):
    """Where something is, and how it came there. Payloads are never told."""

    kind: str = Field(description="message, uplink, push, command, device, user, trace, request or unknown")
    id: str
    trace_id: str | None
    verdict: VerdictAnswer
    facts: dict[str, str | int | bool | None] = Field(description="Of its kind; times are named ``…_at``")
    timeline: list[StepAnswer]
    receivers: list[ReceiverAnswer]
    receivers_more: int = Field(description="Receivers that are not listed")
    related: list[RelatedAnswer]
    sessions: list[SessionAnswer]
    kept_until: Time | None

    @classmethod
    def of(cls, found: Found) -> "TraceAnswer":
        return cls(
            kind=found.kind,
            id=found.id,
            trace_id=found.trace_id,
            verdict=VerdictAnswer.of(found.verdict),
            facts=dict(map(_fact, found.facts, found.facts.values())),
            timeline=list(map(StepAnswer.of, found.timeline)),
            receivers=list(map(ReceiverAnswer.of, found.receivers)),
            receivers_more=found.receivers_more,
            related=[RelatedAnswer(kind=one.kind, id=one.id, text=one.text) for one in found.related],
            sessions=list(map(SessionAnswer.of, found.sessions)),
            kept_until=_time(found.kept_until_ms),
        )


class DeviceMessageAnswer(BaseModel):
    """A message as a device has it."""

    message_id: str
    kind: str
    sender: str | None = Field(description="The device that sent it; null: the application")
    to: str | None
    sent_at: Time
    expires_at: Time
    state: Literal["waiting", "acked", "expired", "collapsed", "withdrawn", "missed"]
    at: Time | None = Field(description="When it ended")

    @classmethod
    def of(cls, message: ReceiverMessage, now_ms: int) -> "DeviceMessageAnswer":
        state: Any = "expired" if message.expires_at_ms <= now_ms else "waiting"
        if message.outcome is not None:
            state = message.outcome.name.lower()
        return cls(
            message_id=prefixed("msg", message.message_id),
            kind=message.kind,
            sender=message.sender or None,
            to=message.to or None,
            sent_at=rfc3339(message.sent_at_ms),
            expires_at=rfc3339(message.expires_at_ms),
            state=state,
            at=_time(message.at_ms or None),
        )


class DeviceMessages(BaseModel):
    """A device's newest messages, newest first: those that wait, and those that ended among the last 200,000."""

    items: list[DeviceMessageAnswer]
    next_cursor: None = None


def _time(at_ms: int | None) -> str | None:
    return None if at_ms is None else rfc3339(at_ms)


def _fact(name: str, value: str | int | bool | None) -> tuple[str, str | int | bool | None]:
    if not name.endswith(_AT_MS):
        return name, value
    return name.removesuffix("_ms"), rfc3339(value) if isinstance(value, int) else None
