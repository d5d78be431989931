"""``/v1/trace``: where is my message; and how a device connected, and what it was sent."""

from typing import Annotated

from fastapi import APIRouter, Query

from longwire.accounts.api_keys import Scope
from longwire.api.dependencies import Caller, DevicePath, ServicesHere
from longwire.api.doors import DoorRoute, operator_door
from longwire.api.problems import Code, FieldError, Problem
from longwire.api.services import Services
from longwire.api.shapes import NAME_PATTERN
from longwire.api.shapes.trace import DeviceMessageAnswer, DeviceMessages, SessionAnswer, SessionPage, TraceAnswer
from longwire.seeing.found import Found
from longwire.seeing.lookup import PushesHidden, Sight

router = APIRouter(prefix="/v1", route_class=DoorRoute, tags=["operations"])

_NARROWED = frozenset({"q", "message_id", "push_id"})
_UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"

_Question = Annotated[
    str | None,
    Query(
        pattern="^[\x21-\x7e]{1,128}$",
        description="An id of a message, push, command, device, user, trace or request; a UUID; a traceparent",
    ),
]
_MessageId = Annotated[str | None, Query(pattern=f"^((msg_)?[0-9a-f]{{32}}|{_UUID})$")]
_PushId = Annotated[str | None, Query(pattern="^psh_[0-9a-f]{32}$")]
_CommandId = Annotated[str | None, Query(pattern="^cmd_[0-9a-f]{32}$")]
_TraceId = Annotated[str | None, Query(pattern="^[0-9a-f]{32}$")]
_RequestId = Annotated[str | None, Query(pattern="^[\x21-\x7e]{1,64}$")]
_Name = Annotated[str | None, Query(pattern=NAME_PATTERN)]


@router.get("/trace", **operator_door(Scope.DEVICE_READ))
async def trace(
    services: ServicesHere,
    caller: Caller,
    q: _Question = None,
    message_id: _MessageId = None,
    push_id: _PushId = None,
    command_id: _CommandId = None,
    device_id: _Name = None,
    user: _Name = None,
    trace_id: _TraceId = None,
    request_id: _RequestId = None,
) -> TraceAnswer:
    """Where something is: a verdict in words, and its way step by step. Exactly one parameter says what.

    ``device_id`` beside ``q``, ``message_id`` or ``push_id`` narrows the answer to that device. What nobody knows, or
    what is kept no more, has a verdict, too. Pushes need the scope push:read; who called what is shown to admins.
    """
    asked: dict[str, str | None] = {
        "q": q,
        "message_id": message_id,
        "push_id": push_id,
        "command_id": command_id,
        "user": user,
        "trace_id": trace_id,
        "request_id": request_id,
    }
    given = {name: value for name, value in asked.items() if value is not None}
    if device_id is not None and (not given or not _NARROWED.issuperset(given)):
        given["device_id"] = device_id
    if len(given) != 1:
        raise _wrong(f"{len(given)} of {', '.join((*asked, 'device_id'))} are given; one says what is looked for")
    ((name, value),) = given.items()
    try:
        found = await _find(
            services, name, value, device_id, Sight(caller.has(Scope.PUSH_READ), caller.has(Scope.ADMIN))
        )
    except PushesHidden:
        scope = str(Scope.PUSH_READ)
        raise Problem(
            Code.SCOPE_MISSING, f"it is a push, and the key lacks the scope {scope}", more={"scope": scope}
        ) from None
    return TraceAnswer.of(found)


async def _find(services: Services, name: str, value: str, device_id: str | None, sight: Sight) -> Found:
    lookup = services.lookup
    match name:
        case "q":
            return await lookup.find(value, device_id, sight=sight)
        case "message_id":
            return await lookup.message(_number(value), device_id, sight=sight)
        case "push_id":
            return await lookup.push(_number(value), device_id, sight=sight)
        case "command_id":
            return await lookup.command(_number(value))
        case "device_id":
            return await lookup.device(value)
        case "user":
            return await lookup.user(value)
        case "trace_id":
            return await lookup.trace(_number(value), sight=sight)
    return await lookup.request(value, sight=sight)


@router.get("/devices/{device_id}/sessions", **operator_door(Scope.DEVICE_READ, 404))
async def list_sessions(
    device_id: DevicePath,
    services: ServicesHere,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(pattern="^[1-9][0-9]{0,17}$")] = None,
) -> SessionPage:
    """How the device was connected in the last seven days, newest first; the connection that stands is the first."""
    device = (await services.devices.find(device_id)).device
    spans, next_epoch = await services.lookup.sessions(device, int(cursor or 0), limit)
    items = list(map(SessionAnswer.of, spans))
    return SessionPage(items=items, next_cursor=None if next_epoch is None else str(next_epoch))


@router.get("/devices/{device_id}/messages", **operator_door(Scope.DEVICE_READ, 404))
async def list_device_messages(
    device_id: DevicePath, services: ServicesHere, limit: Annotated[int, Query(ge=1, le=500)] = 20
) -> DeviceMessages:
    """What the device was sent of late, newest first, and what became of it. One-to-one messages; no pushes."""
    device = (await services.devices.find(device_id)).device
    messages = await services.lookup.messages_of(device, limit)
    now_ms = services.clock.now_ms()
    return DeviceMessages(items=[DeviceMessageAnswer.of(message, now_ms) for message in messages])


def _number(text: str) -> bytes:
    """Of an id that its pattern let in."""
    return bytes.fromhex(text.rpartition("_")[2].replace("-", ""))


def _wrong(detail: str) -> Problem:
    return Problem(Code.INVALID_PARAMETER, detail, errors=[FieldError("?", Code.INVALID_PARAMETER, detail)])
