"""``/v1/messages``: to one device or user, now. Called by the thousand, see doors.PlainRoute.

With an Idempotency-Key the message's id follows from the key, so that the store knows a repeat whatever happened to
the first answer.
"""

import msgspec
from fastapi import APIRouter, Request, Response

from longwire.accounts.api_keys import Scope
from longwire.accounts.refusals import Refused
from longwire.api.dependencies import trace_of_call
from longwire.api.doors import PlainRoute, operator_door
from longwire.api.idempotency import keeping_of
from longwire.api.problems import Code, FieldError, Problem
from longwire.api.services import Services
from longwire.api.shapes.messages import (
    MessageAnswer,
    MessageBatch,
    MessageBatchAnswer,
    MessageItem,
    MessageRequest,
)
from longwire.ids import new_message_ids, prefixed
from longwire.limits import MAX_TTL_S
from longwire.push.messages import Sent, Wanted

router = APIRouter(prefix="/v1/messages", route_class=PlainRoute, tags=["messages"])

_PREFIX = "msg"
_JSON = "application/json"
_encode = msgspec.json.Encoder().encode


@router.post(
    "",
    status_code=202,
    response_model=MessageAnswer,
    response_model_exclude_unset=True,
    **operator_door(Scope.PUSH_WRITE, 404, 409, 422),
)
async def send_message(request: Request, body: MessageRequest) -> Response:
    """Sends a message to one device or to all devices of a user; it is durable when this answers.

    ``acked`` is there with ``wait_ack_ms``: whether everybody acknowledged within that time. With ``ttl_s`` 0 and
    nobody online: 409 device-offline.
    """
    services: Services = request.app.state.services
    wanted = _wanted(body, _ids(request, 1)[0], "#", trace_of_call(request))
    wait_ms = body.wait_ack_ms
    sent = await services.messages.send(
        wanted.to,
        wanted.kind,
        wanted.payload,
        message_id=wanted.message_id,
        ttl_s=wanted.ttl_s,
        collapse_key=wanted.collapse_key,
        trace=wanted.trace,
        wait_ack_s=wait_ms / 1000,
    )
    if refusal := sent.refusal:
        raise refusal
    answer = _accepted(sent)
    if wait_ms:
        answer["acked"] = bool(sent.is_acked)
    return Response(_encode(answer), 202, media_type=_JSON)


@router.post(
    "/batch",
    response_model=MessageBatchAnswer,
    response_model_exclude_unset=True,
    **operator_door(Scope.PUSH_WRITE, 409, 422),
)
async def send_messages(request: Request, body: MessageBatch) -> Response:
    """Sends up to 500 different messages. One that cannot be sent says why; the others are sent."""
    services: Services = request.app.state.services
    items = body.items
    ids = _ids(request, len(items))
    trace = trace_of_call(request)
    wanted = [_wanted(item, ids[index], f"#/items/{index}", trace) for index, item in enumerate(items)]
    sent = await services.messages.send_many(wanted)
    answers = [_accepted(one) if (refusal := one.refusal) is None else _refused(refusal) for one in sent]
    return Response(_encode({"items": answers}), 200, media_type=_JSON)


def _ids(request: Request, count: int) -> list[bytes]:
    """The messages' ids: those that follow from the call's key, or new ones."""
    keeping = keeping_of(request)
    return new_message_ids(count) if keeping is None else [keeping.derived_id(index) for index in range(count)]


def _wanted(item: MessageItem, message_id: bytes, where: str, trace: bytes) -> Wanted:
    ttl_s = -1 if item.ttl_s is None else item.ttl_s
    if not -1 <= ttl_s <= MAX_TTL_S or (ttl_s == -1 and item.ttl_s is not None):
        raise _problem(Code.TTL_OUT_OF_RANGE, f"{where}/ttl_s", f"{item.ttl_s} is not 0 to {MAX_TTL_S}")
    try:
        payload = item.payload_bytes()
    except ValueError as fault:
        raise _problem(Code.INVALID_PARAMETER, f"{where}/payload", str(fault)) from None
    return Wanted(item.target(), item.kind, payload, message_id, ttl_s, item.collapse_key, trace)


def _accepted(sent: Sent) -> dict[str, object]:
    return {
        "message_id": prefixed(_PREFIX, sent.message_id),
        "delivered_to": sent.delivered_to,
        "queued_for": sent.queued_for,
    }


def _refused(refusal: Refused) -> dict[str, object]:
    problem: dict[str, object] = {"code": refusal.code, "detail": str(refusal), **refusal.more}
    if refusal.retry_after_s is not None:
        problem["retry_after_s"] = max(1, round(refusal.retry_after_s))
    return {"problem": problem}


def _problem(code: Code, pointer: str, fault: str) -> Problem:
    return Problem(code, f"{pointer}: {fault}", errors=[FieldError(pointer, code, fault)])
