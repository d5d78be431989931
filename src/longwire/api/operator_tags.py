"""``/v1/tags``: which tags there are, and who has them."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from longwire.accounts.api_keys import Scope
from longwire.api.dependencies import ServicesHere
from longwire.api.doors import DoorRoute, operator_door
from longwire.api.shapes.registry import (
    OwnTag,
    TagAnswer,
    TagDevicesAnswer,
    TagDevicesRequest,
    TagPage,
    TagPrefix,
    Unresolved,
)

router = APIRouter(prefix="/v1/tags", route_class=DoorRoute, tags=["tags"])


@router.get("", **operator_door(Scope.DEVICE_READ))
async def list_tags(
    services: ServicesHere,
    prefix: Annotated[TagPrefix, Query()] = "",
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[TagPrefix, Query()] = "",
) -> TagPage:
    """Tags that devices have, by name, with their counts; those of the system begin ``sys:``."""
    found, next_cursor = await services.tags.page(prefix, cursor, limit)
    return TagPage(items=[TagAnswer.of(count) for count in found], next_cursor=next_cursor)


@router.post("/{tag:path}/devices", **operator_door(Scope.DEVICE_WRITE))
async def change_tag(
    tag: Annotated[OwnTag, Path()], body: TagDevicesRequest, services: ServicesHere
) -> TagDevicesAnswer:
    """Gives a tag to up to 1,000 devices and takes it from up to 1,000. Ids that are not registered are told."""
    added, removed, unresolved, refused = await services.tags.change_devices(tag, body.add, body.remove)
    return TagDevicesAnswer(added=added, removed=removed, unresolved=Unresolved.of(unresolved), refused=refused)
