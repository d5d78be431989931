"""``/livez`` and ``/readyz``: for whoever starts, watches and balances the process. No key, no version."""

from fastapi import APIRouter, Request

from longwire.api.doors import DoorRoute, open_door
from longwire.api.problems import Code, Problem
from longwire.api.services import Readiness
from longwire.api.shapes import HealthAnswer

RETRY_AFTER_S = 1.0

router = APIRouter(route_class=DoorRoute, tags=["health"])


@router.get("/livez", **open_door())
async def livez() -> HealthAnswer:
    """The process lives: its loop answers."""
    return HealthAnswer(status="live")


@router.get("/readyz", **open_door())
async def readyz(request: Request) -> HealthAnswer:
    """The process takes work; 503 while it starts or drains."""
    readiness: Readiness = request.app.state.readiness
    unready = readiness()
    if unready is not None:
        raise Problem(Code(unready.code), unready.detail, retry_after_s=RETRY_AFTER_S)
    return HealthAnswer(status="ready")
