"""``/v1/groups``: groups and their members."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from longwire.accounts.api_keys import Scope
from longwire.accounts.groups import Member
from longwire.api.dependencies import ServicesHere
from longwire.api.doors import DoorRoute, operator_door
from longwire.api.shapes import NAME_PATTERN
from longwire.api.shapes.registry import (
    GroupAnswer,
    GroupPage,
    GroupRequest,
    MemberAnswer,
    MemberBody,
    MemberPage,
    MembersAnswer,
    MembersRequest,
    Unresolved,
)

router = APIRouter(prefix="/v1/groups", route_class=DoorRoute, tags=["groups"])

GroupPath = Annotated[str, Path(pattern=NAME_PATTERN)]
_MEMBER_CURSOR = r"^(d[1-9][0-9]{0,9}|u[A-Za-z0-9._:@-]{1,64})$"


@router.get("", **operator_door(Scope.DEVICE_READ))
async def list_groups(
    services: ServicesHere,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(pattern=NAME_PATTERN)] = None,
) -> GroupPage:
    """The groups, by id."""
    found, next_cursor = await services.groups.page(cursor or "", limit)
    return GroupPage(items=[GroupAnswer.of(group) for group in found], next_cursor=next_cursor)


@router.post("", status_code=201, **operator_door(Scope.DEVICE_WRITE, 409))
async def create_group(body: GroupRequest, services: ServicesHere) -> GroupAnswer:
    """Makes a group without members."""
    return GroupAnswer.of(await services.groups.create(body.group_id, body.name))


@router.get("/{group_id}", **operator_door(Scope.DEVICE_READ, 404))
async def get_group(group_id: GroupPath, services: ServicesHere) -> GroupAnswer:
    """One group."""
    return GroupAnswer.of(await services.groups.find(group_id))


@router.delete("/{group_id}", status_code=204, **operator_door(Scope.DEVICE_WRITE, 404))
async def delete_group(group_id: GroupPath, services: ServicesHere) -> None:
    """Forgets a group; its members stay, and what was sent to it goes on."""
    await services.groups.delete(group_id)


@router.get("/{group_id}/members", **operator_door(Scope.DEVICE_READ, 404))
async def list_members(
    group_id: GroupPath,
    services: ServicesHere,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(pattern=_MEMBER_CURSOR)] = None,
) -> MemberPage:
    """Devices that are members by themselves, then users whose devices all are."""
    found, next_cursor = await services.groups.members(group_id, cursor or "", limit)
    return MemberPage(items=[MemberAnswer.of(member) for member in found], next_cursor=next_cursor)


@router.post("/{group_id}/members", **operator_door(Scope.DEVICE_WRITE, 404))
async def change_members(group_id: GroupPath, body: MembersRequest, services: ServicesHere) -> MembersAnswer:
    """Takes up to 1,000 members in and up to 1,000 out. Devices that are not registered are told."""
    changed = await services.groups.change_members(group_id, _members(body.add), _members(body.remove))
    return MembersAnswer(added=changed.added, removed=changed.removed, unresolved=Unresolved.of(changed.unresolved))


def _members(wanted: list[MemberBody]) -> list[Member]:
    return [Member(member.device, member.user) for member in wanted]
