"""``/v1/pushes``: a message to one, some or all, and what became of it."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from longwire.accounts.api_keys import Scope
from longwire.api.dependencies import Caller, DevicePath, ServicesHere, own_trace_of_call, trace_of_call
from longwire.api.doors import DoorRoute, operator_door
from longwire.api.idempotency import keeping_of
from longwire.api.problems import Code, FieldError, Problem
from longwire.api.shapes.pushes import (
    PUSH_ID,
    CourseAnswer,
    PushAnswer,
    PushBody,
    PushPage,
    RateBody,
    RecipientAnswer,
    RecipientDetailAnswer,
    RecipientPage,
    RetryBody,
    ValidationAnswer,
)
from longwire.api.streams import Look, Streams, stream_response
from longwire.push.audience import Resolved
from longwire.push.pushes import PushOrder, view_of
from longwire.push_model import KeptAnswer, Push, PushStatus, RecipientState

router = APIRouter(prefix="/v1", route_class=DoorRoute, tags=["pushes"])

PushPath = Annotated[str, Path(pattern=PUSH_ID)]
_CURSOR = Query(pattern="^[1-9][0-9]{0,17}$", description="``next_cursor`` of the page before")
_READ = operator_door(Scope.PUSH_READ, 404)
_STEER = operator_door(Scope.PUSH_WRITE, 404, 409)
_EVENTS = operator_door(Scope.PUSH_READ, 404)
_EVENTS["responses"][200] = stream_response("push", "progress", "end")


@router.post("/pushes", status_code=202, response_model=PushAnswer, **operator_door(Scope.PUSH_WRITE, 404, 409, 422))
async def create_push(body: PushBody, request: Request, services: ServicesHere, caller: Caller) -> Response:
    """Sends a message to an audience. The push is durable when this answers, with everybody it is for.

    A device that is meant several ways gets one copy. Names that mean nobody are told in ``unresolved``; where none
    means anybody, that is 422 no-target. A tag that nobody has is no error: the push is completed at once.
    """
    kept = _Answer(request, services.clock.now_ms())
    await services.pushes.create(_order(body, caller.name, trace_of_call(request)), kept)
    return kept.response


@router.post("/pushes/validate", response_model=ValidationAnswer, **operator_door(Scope.PUSH_READ, 404, 422))
async def validate_push(body: PushBody, services: ServicesHere, caller: Caller) -> ValidationAnswer:
    """Refuses as a push would, and tells how many devices it would be for, and how many are online. Sends nothing."""
    return ValidationAnswer.of(await services.pushes.validate(_order(body, caller.name)))


@router.get("/pushes", **operator_door(Scope.PUSH_READ))
async def list_pushes(
    services: ServicesHere,
    status: Annotated[PushStatus | None, Query(description="Only those in this status")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, _CURSOR] = None,
) -> PushPage:
    """Pushes, newest first."""
    views, next_no = await services.pushes.page(int(cursor or 0), limit, status)
    items = [PushAnswer.of(view, is_short=True) for view in views]
    return PushPage(items=items, next_cursor=None if next_no is None else str(next_no))


@router.get("/pushes/{push_id}", **_READ)
async def get_push(push_id: PushPath, services: ServicesHere) -> PushAnswer:
    """A push as it is now."""
    return PushAnswer.of(await services.pushes.find(_id(push_id)))


@router.get("/pushes/{push_id}/events", response_class=Response, **_EVENTS)
async def watch_push(push_id: PushPath, request: Request, services: ServicesHere) -> Response:
    """The push as Server-Sent Events: ``progress`` whenever it has changed, ``end`` once it is over."""
    number = _id(push_id)
    await services.pushes.find(number)

    async def look() -> Look:
        view = await services.pushes.find(number)
        return Look(PushAnswer.of(view, is_short=True).model_dump_json(), view.is_ended)

    streams: Streams = request.app.state.streams
    return streams.watch(look, services.settings.progress_every_s)


@router.get("/pushes/{push_id}/progress", **_READ)
async def get_progress(push_id: PushPath, services: ServicesHere) -> CourseAnswer:
    """How a push went over time, by the minute; kept for 7 days after its end."""
    course = await services.push_progress.of(_id(push_id))
    if course is None:
        raise Problem(Code.NOT_FOUND, f"there is no push {push_id}")
    return CourseAnswer.of(course)


@router.get("/pushes/{push_id}/recipients", **_READ)
async def list_recipients(
    push_id: PushPath,
    services: ServicesHere,
    state: Annotated[RecipientState, Query(description="Those in this state")] = RecipientState.PENDING,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, _CURSOR] = None,
) -> RecipientPage:
    """The devices of a push that are in a state. Kept for 7 days after its end."""
    views, next_no = await services.pushes.recipients(_id(push_id), state, int(cursor or 0), limit)
    items = [RecipientAnswer.of(view) for view in views]
    return RecipientPage(items=items, next_cursor=None if next_no is None else str(next_no))


@router.get("/pushes/{push_id}/recipients/{device_id}", **_READ)
async def get_recipient(push_id: PushPath, device_id: DevicePath, services: ServicesHere) -> RecipientDetailAnswer:
    """What became of a push at one device, and why."""
    return RecipientDetailAnswer.of(await services.pushes.recipient(_id(push_id), device_id))


@router.post("/pushes/{push_id}/cancel", **_STEER)
async def cancel_push(push_id: PushPath, services: ServicesHere) -> PushAnswer:
    """Ends a push: nobody is written to any more when this answers. Repeating it is no error."""
    return PushAnswer.of(await services.pushes.cancel(_id(push_id)))


@router.post("/pushes/{push_id}/withdraw", **_STEER)
async def withdraw_push(push_id: PushPath, services: ServicesHere) -> PushAnswer:
    """Ends a push and takes it back: devices that have it are told to drop it. Repeating it is no error."""
    return PushAnswer.of(await services.pushes.withdraw(_id(push_id)))


@router.post("/pushes/{push_id}/pause", **_STEER)
async def pause_push(push_id: PushPath, services: ServicesHere) -> PushAnswer:
    """Stops sending for now; the time to live runs on."""
    return PushAnswer.of(await services.pushes.pause(_id(push_id)))


@router.post("/pushes/{push_id}/resume", **_STEER)
async def resume_push(push_id: PushPath, services: ServicesHere) -> PushAnswer:
    """Goes on with a push that was paused."""
    return PushAnswer.of(await services.pushes.resume(_id(push_id)))


@router.patch("/pushes/{push_id}", **_STEER)
async def change_push(push_id: PushPath, body: RateBody, services: ServicesHere) -> PushAnswer:
    """Changes how fast a push is sent, also while it is."""
    return PushAnswer.of(await services.pushes.set_rate(_id(push_id), body.rate_per_s))


@router.post(
    "/pushes/{push_id}/retry",
    status_code=202,
    response_model=PushAnswer,
    **operator_door(Scope.PUSH_WRITE, 404, 409, 422),
)
async def retry_push(
    push_id: PushPath, request: Request, services: ServicesHere, caller: Caller, body: RetryBody | None = None
) -> Response:
    """Sends a push that has ended again, as a new one, to the devices for which it failed or expired."""
    states = frozenset(map(RecipientState, (body or RetryBody()).states))
    kept = _Answer(request, services.clock.now_ms())
    await services.pushes.retry(_id(push_id), states, kept, caller.name, own_trace_of_call(request))
    return kept.response


class _Answer:
    """Makes the answer to a new push before that is committed, so that both are kept together (push.Answering)."""

    def __init__(self, request: Request, now_ms: int) -> None:
        self._keeping = keeping_of(request)
        self._now_ms = now_ms
        self.response = Response()

    def __call__(self, push: Push, _resolved: Resolved) -> KeptAnswer | None:
        answer = PushAnswer.of(view_of(push, self._now_ms))
        body, location = answer.model_dump_json().encode(), f"/v1/pushes/{answer.id}"
        self.response = Response(body, 202, {"Location": location}, "application/json")
        return None if self._keeping is None else self._keeping.answer(202, body, self._now_ms, location)


def _order(body: PushBody, caller: str, trace: bytes = b"") -> PushOrder:
    try:
        return body.order(caller, trace)
    except ValueError as fault:
        error = FieldError("#/message/payload", Code.INVALID_PARAMETER, str(fault))
        raise Problem(Code.INVALID_PARAMETER, f"#/message/payload: {fault}", errors=[error]) from None


def _id(push_id: str) -> bytes:
    return bytes.fromhex(push_id.partition("_")[2])
