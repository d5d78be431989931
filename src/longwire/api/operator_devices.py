"""``/v1/devices``: the registry of devices, for operators and business backends."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Response

from longwire.accounts.api_keys import Scope
from longwire.accounts.devices import DeviceView, Provision
from longwire.accounts.refusals import Refused
from longwire.api.dependencies import DevicePath, ServicesHere
from longwire.api.doors import DoorRoute, operator_door
from longwire.api.provisioning import check_item, refused_item
from longwire.api.shapes import (
    NAME_PATTERN,
    BatchAnswer,
    BatchProvision,
    BatchRefusal,
    BatchRequest,
    CutOffAnswer,
    DeviceAnswer,
    DevicePage,
    DisconnectRequest,
    UserRequest,
)
from longwire.api.shapes.registry import AnyTag, DeviceChangeRequest, TagChangeRequest, TagsRequest
from longwire.ports.accounts import DeviceFilter
from longwire.reasons import CloseCode

router = APIRouter(prefix="/v1/devices", route_class=DoorRoute, tags=["devices"])

_SLICE = 250
"""Items handled in one go: about 1 ms of the loop."""

_READ = operator_door(Scope.DEVICE_READ, 404)
_WRITE = operator_door(Scope.DEVICE_WRITE, 404)


@router.post("/batch", **operator_door(Scope.DEVICE_WRITE, tells_secrets=True), response_model=BatchAnswer)
async def provision(body: BatchRequest, services: ServicesHere) -> Response:
    """Registers up to 1,000 devices and gives each a token. An item that cannot be says why; the others are done.

    A device that is registered gets a further token, the user and tags named here, and a refresh token if it has
    none, as after a revocation.
    """
    seen: set[str] = set()
    results: list[BatchProvision | BatchRefusal | None] = []
    wanted: list[Provision] = []
    for index, item in enumerate(body.items):
        if index % _SLICE == 0:
            await asyncio.sleep(0)
        problem = check_item(index, item, seen)
        if problem is None:
            seen.add(item.device_id)
            wanted.append(Provision(item.device_id, item.user, tuple(item.tags)))
            results.append(None)
        else:
            results.append(BatchRefusal(device_id=item.device_id[:64], problem=problem))
    provisioned = iter(await services.devices.provision(wanted) if wanted else ())
    for index, result in enumerate(results):
        if index % _SLICE == 0:
            await asyncio.sleep(0)
        if result is None:
            done = next(provisioned)
            if isinstance(done, Refused):
                results[index] = BatchRefusal(device_id=body.items[index].device_id, problem=refused_item(index, done))
                continue
            results[index] = BatchProvision.model_construct(
                device_id=done.device.device_id,
                token=done.token,
                expires_in_s=services.tokens.expires_in_s(done.expires_at_ms),
                refresh_token=done.refresh_token,
                created=done.is_new,
            )
    # Written here: FastAPI would check every item once more, which holds the loop longer than all the rest.
    answer = BatchAnswer.model_construct(items=results)
    return Response(answer.model_dump_json(), media_type="application/json")


@router.get("", **operator_door(Scope.DEVICE_READ))
async def list_devices(
    services: ServicesHere,
    user: Annotated[str | None, Query(pattern=NAME_PATTERN)] = None,
    tag: Annotated[AnyTag | None, Query()] = None,
    group: Annotated[str | None, Query(pattern=NAME_PATTERN)] = None,
    online: bool | None = None,
    q: Annotated[str | None, Query(pattern=NAME_PATTERN, description="how the device id begins")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(pattern="^[1-9][0-9]{0,17}$")] = None,
) -> DevicePage:
    """The registered devices that meet everything that is asked for, newest first."""
    wanted = DeviceFilter(user=user, tag=tag, group=group, prefix=q or "")
    views, next_no = await services.devices.page(int(cursor or 0), limit, wanted, online)
    items = [DeviceAnswer.of(view) for view in views]
    return DevicePage(items=items, next_cursor=None if next_no is None else str(next_no))


@router.get("/{device_id}", **_READ)
async def get_device(device_id: DevicePath, services: ServicesHere) -> DeviceAnswer:
    """One device."""
    return DeviceAnswer.of(await services.devices.find(device_id))


@router.patch("/{device_id}", **_WRITE)
async def change_device(device_id: DevicePath, body: DeviceChangeRequest, services: ServicesHere) -> DeviceAnswer:
    """Changes what is named; ``user`` null makes it nobody's."""
    if body.tags is not None:
        await services.tags.change(device_id, body.tags.add, body.tags.remove)
    return DeviceAnswer.of(await services.devices.change(device_id, body.change()))


@router.delete("/{device_id}", status_code=204, **_WRITE)
async def delete_device(device_id: DevicePath, services: ServicesHere) -> None:
    """Forgets a device: closes its session, ends its tokens, empties its inbox."""
    await services.devices.delete(device_id)


@router.put("/{device_id}/user", **_WRITE)
async def set_user(device_id: DevicePath, body: UserRequest, services: ServicesHere) -> DeviceAnswer:
    """Makes the device one of a user's, or with null of nobody's."""
    return DeviceAnswer.of(await services.devices.set_user(device_id, body.user))


@router.put("/{device_id}/tags", **_WRITE)
async def replace_tags(device_id: DevicePath, body: TagsRequest, services: ServicesHere) -> DeviceAnswer:
    """Gives the device exactly these tags of its own; those of the system stay."""
    return DeviceAnswer.of(await services.tags.replace(device_id, body.tags))


@router.patch("/{device_id}/tags", **_WRITE)
async def change_tags(device_id: DevicePath, body: TagChangeRequest, services: ServicesHere) -> DeviceAnswer:
    """Gives and takes tags; one that stands in both is given."""
    return DeviceAnswer.of(await services.tags.change(device_id, body.add, body.remove))


@router.post("/{device_id}/revoke", **_WRITE)
async def revoke(device_id: DevicePath, services: ServicesHere) -> CutOffAnswer:
    """Ends the device's tokens and its refresh token, and closes its session (4102)."""
    view, was_online = await services.devices.revoke(device_id)
    return _cut_off(view, was_online)


@router.post("/{device_id}/disable", **_WRITE)
async def disable(device_id: DevicePath, services: ServicesHere) -> CutOffAnswer:
    """Keeps the device out until it is enabled again, and closes its session (4102)."""
    view, was_online = await services.devices.set_disabled(device_id, True)
    return _cut_off(view, was_online)


@router.post("/{device_id}/enable", **_WRITE)
async def enable(device_id: DevicePath, services: ServicesHere) -> CutOffAnswer:
    """Lets a disabled device in again, with the tokens it has."""
    view, was_online = await services.devices.set_disabled(device_id, False)
    return _cut_off(view, was_online)


@router.post("/{device_id}/disconnect", **_WRITE)
async def disconnect(
    device_id: DevicePath, services: ServicesHere, body: DisconnectRequest | None = None
) -> CutOffAnswer:
    """Closes the device's session, by default with 4101 (kicked). Without a session nothing is closed.

    With ``ban_s`` its tokens do not connect for so long (4103, banned); ``ban_s`` 0 ends a ban.
    """
    wanted = body or DisconnectRequest()
    default = CloseCode.BANNED if wanted.ban_s else CloseCode.KICKED
    code = default if wanted.code is None else CloseCode(wanted.code)
    view, was_online = await services.devices.disconnect(device_id, code, wanted.ban_s)
    return _cut_off(view, was_online)


def _cut_off(view: DeviceView, was_online: bool) -> CutOffAnswer:
    return CutOffAnswer(**DeviceAnswer.of(view).model_dump(), disconnected=was_online)
