"""Pushes as JSON (API §3): what a caller wants, and what became of it."""

import base64
import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from msgspec.structs import asdict
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)

from longwire.api.shapes import DeviceId, Time, UserName, _Request, _whole, rfc3339
from longwire.api.shapes.registry import Unresolved
from longwire.ids import prefixed
from longwire.limits import MAX_KIND_CHARACTERS, MAX_TTL_S
from longwire.ports.push_progress import Course, Minute
from longwire.push.audience import PUSH_PREFIX
from longwire.push.pushes import PushOrder, PushView, RecipientDetail, RecipientView, Validation
from longwire.push_model import Audience, Priority, PushStatus, TagExpression

PUSH_ID = "^psh_[0-9a-f]{32}$"
MAX_COLLAPSE_KEY_CHARACTERS = 255
DEFAULT_TTL_S = 86_400
_MAX_RATE_PER_S = 1_000_000
_MAX_LISTED = 10
_MINUTE_MS = 60_000
_MOST_STEPS = 240
_RESERVED_KIND = "longwire."
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Compact, as it travels; what JSON has no word for (1e999) is refused.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def _own_kind(kind: str) -> str:
    if kind.startswith(_RESERVED_KIND):
        raise ValueError(f"begins with {_RESERVED_KIND}, which is the system's own")
    return kind


def moment(value: object) -> int:
    """Milliseconds since the epoch of an RFC 3339 text."""
    text = value.upper() if isinstance(value, str) else ""
    if _RFC3339.fullmatch(text) is None:
        raise ValueError("is not RFC 3339, such as 2026-01-31T18:00:00Z")
    try:
        return round((datetime.fromisoformat(text) - _EPOCH).total_seconds() * 1000)
    except (ValueError, OverflowError) as error:
        raise ValueError(str(error)) from None


Kind = Annotated[
    str,
    StringConstraints(pattern=rf"^[^\x00-\x1f\x7f]{{1,{MAX_KIND_CHARACTERS}}}$"),
    AfterValidator(_own_kind),
    Field(json_schema_extra={"not": {"pattern": r"^longwire\."}}),
]
CollapseKey = Annotated[str, StringConstraints(pattern=rf"^[^\x00-\x1f\x7f]{{0,{MAX_COLLAPSE_KEY_CHARACTERS}}}$")]
Base64 = Annotated[str, StringConstraints(pattern=r"^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$")]
TtlS = Annotated[
    int,
    BeforeValidator(_whole),
    # Refused as 422 where it is out of range, see operator_pushes.
    Field(json_schema_extra={"minimum": 0, "maximum": MAX_TTL_S}),
]
Rate = Annotated[int, Field(ge=1, le=_MAX_RATE_PER_S), BeforeValidator(_whole)]
SendAt = Annotated[int, BeforeValidator(moment), WithJsonSchema({"type": "string", "format": "date-time"})]
TagName = Annotated[str, StringConstraints(pattern=r"^(?:[A-Za-z0-9._:@=/-]{1,64}|sys:[^\x00-\x1f\x7f]{1,76})$")]
GroupId = DeviceId
UploadId = Annotated[str, StringConstraints(pattern=r"^upl_[0-9a-f]{32}$")]


class _Given(_Request):
    """A model of which only fields that are given count; null is none of them."""

    def given(self) -> list[str]:
        return sorted(self.model_fields_set)


def only_given(**more: Any) -> Callable[[dict[str, Any]], None]:
    """Takes the defaults out of a model's schema, where what is not given is not there; adds ``more``."""

    def change(schema: dict[str, Any]) -> None:
        for described in schema["properties"].values():
            described.pop("default", None)
        schema.update(more)

    return change


class TagsBody(_Request):
    """One of ``any`` (where it names some), and all of ``all``, and none of ``none``; not ``none`` alone."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": ["any"], "properties": {"any": {"minItems": 1}}},
                {"required": ["all"], "properties": {"all": {"minItems": 1}}},
            ]
        }
    )

    any: list[TagName] = Field(default=[])
    all: list[TagName] = Field(default=[])
    none: list[TagName] = Field(default=[])

    @model_validator(mode="after")
    def _check(self) -> "TagsBody":
        if not self.any and not self.all:
            raise ValueError("names no tag in any or all: none stands only beside one of them")
        return self


class AudienceBody(_Given):
    """Whom a push is for: exactly one of the fields. Lists hold at most 1,000 names (20 groups, 50 tags)."""

    model_config = ConfigDict(
        json_schema_extra=only_given(
            minProperties=1,
            maxProperties=1,
            examples=[{"tags": {"any": ["beijing", "shanghai"], "all": ["vip"], "none": ["muted"]}}],
        )
    )

    all: Literal[True] = Field(default=True, description="Everyone who is registered")
    # Longer lists are refused as 422 by the service.
    devices: list[DeviceId] = Field(default=[], min_length=1, json_schema_extra={"maxItems": 1_000})
    users: list[UserName] = Field(
        default=[], min_length=1, json_schema_extra={"maxItems": 1_000}, description="Users, each with all devices"
    )
    groups: list[GroupId] = Field(default=[], min_length=1, json_schema_extra={"maxItems": 20})
    tags: TagsBody = Field(default=None)  # type: ignore[assignment]
    upload: UploadId = Field(default="", description="A list that was sent before to /v1/audience-uploads")

    @model_validator(mode="after")
    def _check(self) -> "AudienceBody":
        if len(self.model_fields_set) != 1:
            raise ValueError("is not exactly one of all, devices, users, groups, tags, upload")
        return self

    def audience(self) -> Audience:
        """The audience as the services take it."""
        given = self.given()[0]
        if given == "all":
            return Audience(everyone=True)
        if given == "tags":
            tags = self.tags
            return Audience(tags=TagExpression(tuple(tags.any), tuple(tags.all), tuple(tags.none)))
        if given == "upload":
            return Audience(upload=self.upload)
        return Audience(devices=tuple(self.devices), users=tuple(self.users), groups=tuple(self.groups))


class PayloadBody(_Given):
    """A payload: any JSON value, or bytes as base64, or nothing."""

    model_config = ConfigDict(json_schema_extra=only_given(**{"not": {"required": ["payload", "payload_b64"]}}))

    payload: Any = Field(default=None, description="Any JSON value; travels as its compact UTF-8 text")
    payload_b64: Base64 = Field(default="", description="Any bytes, instead of payload")

    @model_validator(mode="after")
    def _check(self) -> "PayloadBody":
        if {"payload", "payload_b64"} <= self.model_fields_set:
            raise ValueError("has both payload and payload_b64")
        return self

    def payload_bytes(self) -> bytes:
        """The payload as it travels. Raises ValueError for numbers that JSON cannot write."""
        if "payload" in self.model_fields_set:
            return _encode(self.payload).encode()
        return base64.b64decode(self.payload_b64)


class MessageBody(PayloadBody):
    """What the devices get."""

    kind: Kind = Field(default="message", description="What the application knows it by", examples=["news"])


class OptionsBody(_Request):
    """How it is sent."""

    ttl_s: TtlS | None = Field(default=None, description="How long it is worth delivering; 0: only who is online now")
    priority: Literal["high", "normal", "low"] = "normal"
    collapse_key: CollapseKey = Field(default="", description="Takes the place of earlier pushes with this key")
    send_at: SendAt | None = Field(default=None, description="When it begins, at most 30 days ahead; null: now")
    rate_per_s: Rate | None = Field(default=None, description="Devices a second at most; null: as fast as it goes")


class PushBody(_Request):
    """A push that a caller wants."""

    audience: AudienceBody
    message: MessageBody
    options: OptionsBody = OptionsBody()

    def order(self, caller: str, trace: bytes = b"") -> PushOrder:
        """The order as the service takes it. Raises ValueError as ``payload_bytes``."""
        options = self.options
        return PushOrder(
            audience=self.audience.audience(),
            kind=self.message.kind,
            payload=self.message.payload_bytes(),
            ttl_s=DEFAULT_TTL_S if options.ttl_s is None else options.ttl_s,
            priority=Priority[options.priority.upper()],
            collapse_key=options.collapse_key,
            send_at_ms=options.send_at,
            rate_per_s=options.rate_per_s,
            trace=trace,
            caller=caller,
        )


class RateBody(_Request):
    """A new rate; null: as fast as it goes."""

    rate_per_s: Rate | None


class RetryBody(_Request):
    """Whom to send it to again."""

    states: list[Literal["failed", "expired"]] = Field(default=["failed", "expired"], min_length=1, max_length=2)


class ProgressAnswer(BaseModel):
    """How far a push is on its way to the devices. ``dispatched`` ones were written to, or found to be away."""

    targeted: int
    dispatched: int
    percent: float
    rate_per_s: float | None
    eta_s: float | None


class LatencyAnswer(BaseModel):
    """Percentiles; null where nothing was acknowledged."""

    p50: float | None
    p95: float | None
    p99: float | None


class StatsAnswer(BaseModel):
    """targeted = acked + expired + failed + collapsed + canceled + withdrawn + pending, always."""

    targeted: int
    online_at_send: int
    written: int
    acked: int
    expired: int
    failed: int
    collapsed: int
    canceled: int
    withdrawn: int
    pending: int
    latency_ms: LatencyAnswer = Field(description="From the first write to the segment until the acknowledgement")


class PushAnswer(BaseModel):
    """A push and what became of it."""

    id: str = Field(examples=["psh_019abf4e80007c2f9d0c8d3b5f1e6a70"])
    status: str = Field(json_schema_extra={"enum": [str(status) for status in PushStatus]})
    audience: dict[str, Any] = Field(description="As it was given; lists and event streams show ten names of a kind")
    message_id: str
    kind: str
    payload_bytes: int
    priority: str
    collapse_key: str
    ttl_s: int
    created_at: Time
    created_by: str
    send_at: Time | None
    started_at: Time | None
    expires_at: Time
    ended_at: Time | None
    rate_per_s: int | None
    unresolved: Unresolved | None
    retry_of: str | None
    failure: str | None
    progress: ProgressAnswer
    stats: StatsAnswer

    @classmethod
    def of(cls, view: PushView, *, is_short: bool = False) -> "PushAnswer":
        push, progress = view.push, view.progress
        new = push.new
        return cls(
            id=prefixed(PUSH_PREFIX, new.push_id),
            status=push.status,
            audience=_audience(new.audience, _MAX_LISTED if is_short else None),
            message_id=prefixed("msg", new.message.message_id),
            kind=new.message.kind,
            payload_bytes=len(new.message.payload),
            priority=new.priority.name.lower(),
            collapse_key=new.message.collapse_key,
            ttl_s=new.ttl_s,
            created_at=rfc3339(new.created_at_ms),
            created_by=new.caller,
            send_at=_time(new.send_at_ms),
            started_at=_time(push.started_at_ms),
            expires_at=rfc3339(new.expires_at_ms),
            ended_at=_time(push.ended_at_ms),
            rate_per_s=push.rate_per_s,
            unresolved=_unresolved(new.unresolved, new.unresolved_sample),
            retry_of=new.audience.retry_of or None,
            failure=push.failure or None,
            progress=ProgressAnswer(**asdict(progress)),
            stats=StatsAnswer(**asdict(push.stats), latency_ms=latency_answer(push.latency_ms)),
        )


class PushPage(BaseModel):
    """Pushes, newest first."""

    items: list[PushAnswer]
    next_cursor: str | None


class BucketAnswer(BaseModel):
    """How many acknowledgements took less than ``below_ms``, and not less than the bucket before."""

    below_ms: int
    count: int


class CourseAnswer(BaseModel):
    """How a push went. Over all steps, written and acked add up to those of its stats."""

    step_s: int
    at: list[Time] = Field(description="When each step begins; steps in which nothing happened stand, too")
    written: list[int]
    acked: list[int]
    latency_buckets: list[BucketAnswer] = Field(
        description="From the first write to the segment until the acknowledgement, by doubling bounds"
    )
    reasons: dict[str, int] = Field(description="Why devices failed, and how many")

    @classmethod
    def of(cls, course: Course) -> "CourseAnswer":
        at_ms, written, acked, step_ms = _steps(course.minutes)
        return cls(
            step_s=step_ms // 1000,
            at=list(map(rfc3339, at_ms)),
            written=written,
            acked=acked,
            latency_buckets=[
                BucketAnswer(below_ms=below_ms, count=count) for below_ms, count in course.latency.octaves()
            ],
            reasons=course.reasons,
        )


class ValidationAnswer(BaseModel):
    """What a push would be; nothing was sent."""

    valid: Literal[True]
    targeted: int
    online: int
    payload_bytes: int
    warnings: list[str]
    unresolved: Unresolved | None

    @classmethod
    def of(cls, found: Validation) -> "ValidationAnswer":
        return cls(
            valid=True,
            targeted=found.targeted,
            online=found.online,
            payload_bytes=found.payload_bytes,
            warnings=list(found.warnings),
            unresolved=_unresolved(found.unresolved, found.unresolved_sample),
        )


class RecipientAnswer(BaseModel):
    """A device of a push. ``device_id`` null: it was deleted since. ``reason``: why it failed, null otherwise."""

    device_id: str | None
    state: str
    reason: str | None = None

    @classmethod
    def of(cls, view: RecipientView) -> "RecipientAnswer":
        return cls(device_id=view.device_id, state=view.state, reason=view.reason or None)


class RecipientPage(BaseModel):
    """Devices in a state, in the order of their registration."""

    items: list[RecipientAnswer]
    next_cursor: str | None


class StepAnswer(BaseModel):
    """Something that happened to a push, or will."""

    event: str
    at: Time


class RecipientDetailAnswer(BaseModel):
    """What became of one device, and why."""

    device_id: str
    in_audience: bool
    state: str | None
    written: bool
    reason: str | None
    timeline: list[StepAnswer]
    verdict: str

    @classmethod
    def of(cls, found: RecipientDetail) -> "RecipientDetailAnswer":
        return cls(
            device_id=found.device_id,
            in_audience=found.in_audience,
            state=found.state,
            written=found.is_written,
            reason=found.reason or None,
            timeline=[StepAnswer(event=step.what, at=rfc3339(step.at_ms)) for step in found.timeline],
            verdict=found.verdict,
        )


def _steps(minutes: Sequence[Minute]) -> tuple[list[int], list[int], list[int], int]:
    """Minutes in at most ``_MOST_STEPS`` even steps from the first until the last: begins, written, acked, length."""
    if not minutes:
        return [], [], [], _MINUTE_MS
    begin, end = minutes[0].at_ms, minutes[-1].at_ms + _MINUTE_MS
    step_ms = -(-(end - begin) // (_MOST_STEPS * _MINUTE_MS)) * _MINUTE_MS
    at_ms = list(range(begin, end, step_ms))
    written, acked = [0] * len(at_ms), [0] * len(at_ms)
    for minute in minutes:
        step = (minute.at_ms - begin) // step_ms
        written[step] += minute.written
        acked[step] += minute.acked
    return at_ms, written, acked, step_ms


def latency_answer(latency_ms: tuple[float | None, float | None, float | None]) -> LatencyAnswer:
    """Percentiles 50, 95 and 99."""
    p50, p95, p99 = latency_ms
    return LatencyAnswer(p50=p50, p95=p95, p99=p99)


def _audience(audience: Audience, most: int | None) -> dict[str, Any]:
    """The audience as a caller writes it; what only the system makes, in the same manner."""
    if audience.everyone:
        return {"all": True}
    if audience.tags is not None:
        tags = audience.tags
        return {"tags": {"any": list(tags.any), "all": list(tags.all), "none": list(tags.none)}}
    if audience.retry_of:
        return {"retry_of": audience.retry_of, "states": list(map(str, audience.states))}
    told = asdict(audience)
    return {
        name: list(told[name][:most]) if isinstance(told[name], tuple) else told[name]
        for name in ("devices", "users", "groups", "upload", "notice_of", "sent_to_group")
        if told[name]
    }


def _unresolved(count: int, sample: Sequence[str]) -> Unresolved | None:
    return Unresolved(count=count, sample=list(sample)) if count else None


def _time(at_ms: int | None) -> str | None:
    return None if at_ms is None else rfc3339(at_ms)
