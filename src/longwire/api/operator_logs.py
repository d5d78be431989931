"""``/v1/log-levels``: what each area of every process logs, for a while."""

import logging
from typing import Annotated

from fastapi import APIRouter, Path

from longwire.accounts.api_keys import Scope
from longwire.api.dependencies import Caller, ServicesHere
from longwire.api.doors import DoorRoute, operator_door
from longwire.api.shapes.logs import AREAS, LevelAnswer, LevelList, LevelRequest

router = APIRouter(prefix="/v1", route_class=DoorRoute, tags=["operations"])


@router.get("/log-levels", **operator_door(Scope.NODE_READ))
async def list_log_levels(services: ServicesHere) -> LevelList:
    """The base level, and the areas that log at one of their own."""
    base = logging.getLevelName(logging.getLogger().level).lower()
    items = [LevelAnswer.of(level) for level in await services.directives.levels()]
    return LevelList(base=base, areas=list(AREAS), items=items)


@router.put("/log-levels", **operator_door(Scope.NODE_WRITE, 409))
async def set_log_level(body: LevelRequest, caller: Caller, services: ServicesHere) -> LevelAnswer:
    """Has an area log at this level.

    Every process does so within three seconds, until ``for_s`` is over: at most a day. An area that has a level of
    its own gets the new one, and its time begins anew.
    """
    return LevelAnswer.of(await services.directives.set_level(body.area, body.level, body.for_s, caller.name))


@router.delete("/log-levels/{area}", status_code=204, **operator_door(Scope.NODE_WRITE, 404))
async def reset_log_level(area: Annotated[str, Path(pattern="^[a-z]{1,32}$")], services: ServicesHere) -> None:
    """Has an area log at the base level again; every process knows within three seconds."""
    await services.directives.reset_level(area)
