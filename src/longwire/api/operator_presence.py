"""Presence: ``/v1/devices/{id}/presence`` and ``/v1/presence/query``."""

from fastapi import APIRouter

from longwire.accounts.api_keys import Scope
from longwire.api.dependencies import DevicePath, ServicesHere
from longwire.api.doors import DoorRoute, operator_door
from longwire.api.shapes.registry import PresenceAnswer, PresenceList, PresenceQuery, Unresolved

router = APIRouter(prefix="/v1", route_class=DoorRoute, tags=["presence"])


@router.get("/devices/{device_id}/presence", **operator_door(Scope.DEVICE_READ, 404))
async def get_presence(device_id: DevicePath, services: ServicesHere) -> PresenceAnswer:
    """Whether a device is connected, where and since when, and how its last session ended."""
    return PresenceAnswer.of(await services.presence.of(device_id))


@router.post("/presence/query", **operator_door(Scope.DEVICE_READ))
async def query_presence(body: PresenceQuery, services: ServicesHere) -> PresenceList:
    """The same of up to 1,000 devices at once. Ids that are not registered are told."""
    seen, unresolved = await services.presence.query(body.devices)
    return PresenceList(items=[PresenceAnswer.of(one) for one in seen], unresolved=Unresolved.of(unresolved))
