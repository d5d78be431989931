"""``/v1/uplink``: what devices sent to the application."""

from typing import Annotated

from fastapi import APIRouter, Query

from longwire.accounts.api_keys import Scope
from longwire.api.dependencies import ServicesHere
from longwire.api.doors import DoorRoute, operator_door
from longwire.api.shapes import NAME_PATTERN
from longwire.api.shapes.operations import UplinkAnswer, UplinkPage
from longwire.api.shapes.pushes import SendAt

router = APIRouter(prefix="/v1/uplink", route_class=DoorRoute, tags=["operations"])


@router.get("", **operator_door(Scope.STATS_READ, 404))
async def list_uplink(
    services: ServicesHere,
    device: Annotated[str | None, Query(pattern=NAME_PATTERN, description="Of this device alone")] = None,
    kind: Annotated[str | None, Query(min_length=1, max_length=64, description="Of this kind alone")] = None,
    since: Annotated[SendAt | None, Query(description="Not older than this")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(pattern="^[1-9][0-9]{0,17}$")] = None,
) -> UplinkPage:
    """Messages of devices to the application, newest first, as long as the log keeps them.

    A call looks at 10,000 messages at most: a page may hold fewer than asked for, even none, and there is more
    behind it while ``next_cursor`` is not null.
    """
    device_no = None if device is None else (await services.devices.find(device)).device.device_no
    found, next_no = await services.uplink.records(int(cursor or 0), device_no, kind, since or 0, limit)
    items = [UplinkAnswer.of(record) for record in found]
    return UplinkPage(items=items, next_cursor=None if next_no is None else str(next_no))
