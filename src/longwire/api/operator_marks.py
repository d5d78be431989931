"""``/v1/marks``: devices, users and pushes whose traces are told whole for a while."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from longwire.accounts.api_keys import Scope
from longwire.api.dependencies import Caller, ServicesHere
from longwire.api.doors import DoorRoute, operator_door
from longwire.api.shapes.marks import MarkAnswer, MarkPage, MarkRequest

router = APIRouter(prefix="/v1", route_class=DoorRoute, tags=["operations"])


_MARK_ID = "^mrk_[0-9a-f]{32}$"


@router.get("/marks", **operator_door(Scope.NODE_READ))
async def list_marks(
    services: ServicesHere,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(pattern=_MARK_ID)] = None,
) -> MarkPage:
    """The marks that stand, oldest first."""
    behind = [mark for mark in await services.directives.marks() if cursor is None or mark.mark_id > cursor]
    page = behind[:limit]
    next_cursor = page[-1].mark_id if len(behind) > limit else None
    return MarkPage(items=[MarkAnswer.of(mark) for mark in page], next_cursor=next_cursor)


@router.post("/marks", status_code=201, **operator_door(Scope.NODE_WRITE, 404, 409))
async def set_mark(body: MarkRequest, caller: Caller, services: ServicesHere) -> MarkAnswer:
    """Has every message of a device, a user or a push told hop by hop, in the log and to the traces' collector.

    Every process does so within three seconds, until ``for_s`` is over: at most 30 minutes. Marking what is marked
    already begins its time anew, under a new id. A mark on a push tells what happens to it from then on.
    """
    return MarkAnswer.of(await services.directives.mark(body.target, body.for_s, caller.name))


@router.delete("/marks/{mark_id}", status_code=204, **operator_door(Scope.NODE_WRITE, 404))
async def take_mark_away(mark_id: Annotated[str, Path(pattern=_MARK_ID)], services: ServicesHere) -> None:
    """Ends a mark; every process knows within three seconds."""
    await services.directives.unmark(mark_id)
