"""Messages to one device or user as JSON, and what waits for a device."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from longwire.api.shapes import DeviceId, Time, UserName, _Request, _whole, rfc3339
from longwire.api.shapes.pushes import CollapseKey, Kind, PayloadBody, TtlS, only_given
from longwire.ids import prefixed
from longwire.model import Waiting
from longwire.push.audience import PUSH_PREFIX
from longwire.push.messages import MAX_BATCH
from longwire.push_model import LivePush

_MAX_WAIT_MS = 30_000


class TargetBody(_Request):
    """One device, or all devices of one user."""

    model_config = ConfigDict(json_schema_extra=only_given(minProperties=1, maxProperties=1))

    device: DeviceId = Field(default="")
    user: UserName = Field(default="")

    @model_validator(mode="after")
    def _check(self) -> "TargetBody":
        if len(self.model_fields_set) != 1:
            raise ValueError("is not exactly one of device, user")
        return self

    def text(self) -> str:
        return f"device:{self.device}" if self.device else f"user:{self.user}"


TargetText = Annotated[str, StringConstraints(pattern=r"^(?:device|user):[A-Za-z0-9._:@-]{1,64}$")]


class MessageItem(PayloadBody):
    """A message to one device or user."""

    to: TargetText | TargetBody = Field(examples=["device:d-1", {"user": "ann"}])
    kind: Kind
    ttl_s: TtlS | None = Field(default=None, description="null: a day; 0: only who is online now")
    collapse_key: CollapseKey = Field(default="", description="Takes the place of what waits under this key")

    def target(self) -> str:
        return self.to if isinstance(self.to, str) else self.to.text()


class MessageRequest(MessageItem):
    """A message that is to be sent now."""

    wait_ack_ms: Annotated[int, Field(ge=0, le=_MAX_WAIT_MS), BeforeValidator(_whole)] = Field(
        default=0, description="How long the call waits for the acknowledgements; 0: it does not"
    )


class MessageBatch(_Request):
    """Different messages, each with its own outcome."""

    items: Annotated[list[MessageItem], Field(min_length=1, max_length=MAX_BATCH)]


class MessageAnswer(BaseModel):
    """A message that was accepted: durable, and on its way to who is online."""

    message_id: str
    delivered_to: list[str] = Field(description="Devices with a session")
    queued_for: list[str] = Field(description="Devices that get it when they come back")
    acked: bool = Field(default=False, description="With wait_ack_ms: whether every receiver acknowledged it in time")


class MessageProblem(BaseModel):
    """Why a message was not accepted."""

    code: str
    detail: str
    retry_after_s: int | None = None
    limit: int | None = None
    actual: int | None = None


class MessageRefusal(BaseModel):
    """A message that was not accepted."""

    problem: MessageProblem


class MessageBatchAnswer(BaseModel):
    """What became of each message, in their order."""

    items: list[MessageAnswer | MessageRefusal]


class WaitingAnswer(BaseModel):
    """Something that waits for a device."""

    source: Literal["message", "push"]
    message_id: str
    push_id: str | None
    kind: str
    sender: str | None = Field(description="The device that sent it; null: the application")
    to: str | None
    payload_bytes: int
    collapse_key: str
    sent_at: Time
    expires_at: Time

    @classmethod
    def of_message(cls, waiting: Waiting) -> "WaitingAnswer":
        return cls._of(waiting, waiting.expires_at_ms, source="message", push_id=None)

    @classmethod
    def of_push(cls, push: LivePush) -> "WaitingAnswer":
        push_id = None if push.message.sender else prefixed(PUSH_PREFIX, push.message.message_id)
        return cls._of(push.message, push.expires_at_ms, source="push", push_id=push_id)

    @classmethod
    def _of(cls, message: Any, expires_at_ms: int, **more: Any) -> "WaitingAnswer":
        return cls(
            message_id=prefixed("msg", message.message_id),
            kind=message.kind,
            sender=message.sender or None,
            to=message.to or None,
            payload_bytes=len(message.payload),
            collapse_key=message.collapse_key,
            sent_at=rfc3339(message.sent_at_ms),
            expires_at=rfc3339(expires_at_ms),
            **more,
        )


class InboxPage(BaseModel):
    """What waits for a device, oldest first: messages, then pushes."""

    items: list[WaitingAnswer]
    next_cursor: str | None


class EmptiedAnswer(BaseModel):
    """How many messages were taken out of the inbox."""

    withdrawn: int
