"""Commands as JSON: what is asked of a device, and what it replied."""

import base64
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, StringConstraints

from longwire.api.shapes import Time, _whole, rfc3339
from longwire.api.shapes.pushes import PayloadBody
from longwire.ids import prefixed
from longwire.operations_model import Command, CommandStatus

COMMAND_ID = "^cmd_[0-9a-f]{32}$"


class CommandBody(PayloadBody):
    """A method to call on the device."""

    method: Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,64}$")] = Field(examples=["lights.off"])
    timeout_ms: Annotated[int, Field(ge=100, le=60_000), BeforeValidator(_whole)] = Field(
        default=10_000, description="How long the device may take; 10,000 where it is not given"
    )
    mode: Literal["sync", "async"] = Field(
        default="sync", description="sync: the answer waits for the device's reply; async: it is 202 at once"
    )


class CommandAnswer(BaseModel):
    """A command, and what became of it."""

    command_id: str
    device_id: str
    method: str
    status: str = Field(json_schema_extra={"enum": [str(status) for status in CommandStatus]})
    payload: Any = Field(default=None, description="The device's reply where it is JSON")
    payload_b64: str | None = Field(default=None, description="The device's reply where it is not")
    reply_status: int | None = Field(description="As the device gave it; 0 is ok")
    detail: str
    is_late: bool = Field(description="Whether the reply came after its time, at most ten minutes")
    timeout_ms: int
    created_at: Time
    replied_at: Time | None

    @classmethod
    def of(cls, command: Command) -> "CommandAnswer":
        return cls(
            command_id=prefixed("cmd", command.command_id),
            device_id=command.device_id,
            method=command.method,
            status=command.status,
            reply_status=command.reply_status,
            detail=command.detail,
            is_late=command.is_late,
            timeout_ms=command.timeout_ms,
            created_at=rfc3339(command.created_at_ms),
            replied_at=None if command.replied_at_ms is None else rfc3339(command.replied_at_ms),
            **reply_members(command.reply),
        )


def reply_members(payload: bytes) -> dict[str, Any]:
    """``payload`` where the bytes are JSON that can be written again, else ``payload_b64``; neither for no bytes."""
    if not payload:
        return {}
    try:
        value = json.loads(payload.decode())
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return {"payload_b64": base64.b64encode(payload).decode()}
    return {"payload": value}
