"""``/v1/devices/{device_id}/inbox``: what waits for a device: messages of its own first, then pushes."""

from typing import Annotated

from fastapi import APIRouter, Query

from longwire.accounts.api_keys import Scope
from longwire.api.dependencies import DevicePath, ServicesHere
from longwire.api.doors import DoorRoute, operator_door
from longwire.api.shapes.messages import EmptiedAnswer, InboxPage, WaitingAnswer
from longwire.model import InboxQuery
from longwire.push_model import PushQuery

router = APIRouter(prefix="/v1/devices/{device_id}/inbox", route_class=DoorRoute, tags=["messages"])


@router.get("", **operator_door(Scope.DEVICE_READ, 404))
async def get_inbox(
    device_id: DevicePath,
    services: ServicesHere,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(pattern="^[mp](?:0|[1-9][0-9]{0,17})$")] = None,
) -> InboxPage:
    """What waits for the device, oldest first: messages, then pushes. What is on its way and not acknowledged waits."""
    device_no = (await services.devices.find(device_id)).device.device_no
    is_in_messages, after = cursor is None or cursor.startswith("m"), int(cursor[1:]) if cursor else 0
    items: list[WaitingAnswer] = []
    now_ms = services.clock.now_ms()
    if is_in_messages:
        query = InboxQuery(device_no, after, limit + 1)
        found = (await services.message_store.waiting([query], now_ms))[0]
        items = [WaitingAnswer.of_message(waiting) for waiting in found[:limit]]
        if len(found) > limit:
            return InboxPage(items=items, next_cursor=f"m{found[limit - 1].seq}")
        after = 0
    room = limit - len(items)
    numbers = (await services.push_waiting.waiting([PushQuery(device_no, after, room + 1)], now_ms))[0]
    pushes = await services.push_waiting.messages(numbers[:room], now_ms)
    items += [WaitingAnswer.of_push(push) for push in pushes if push is not None]
    is_more = len(numbers) > room
    return InboxPage(items=items, next_cursor=f"p{numbers[room - 1] if room else 0}" if is_more else None)


@router.delete("", **operator_door(Scope.DEVICE_WRITE, 404))
async def empty_inbox(device_id: DevicePath, services: ServicesHere) -> EmptiedAnswer:
    """Takes all messages out of the device's inbox: they end as withdrawn. Pushes are not touched."""
    device_no = (await services.devices.find(device_id)).device.device_no
    return EmptiedAnswer(withdrawn=await services.message_store.empty_inbox(device_no))
