"""``/v1/audit``: who did what through the operators' door."""

from typing import Annotated

from fastapi import APIRouter, Query

from longwire.accounts.api_keys import Scope
from longwire.api.dependencies import ServicesHere
from longwire.api.doors import DoorRoute, operator_door
from longwire.api.shapes.operations import AuditAnswer, AuditPage

router = APIRouter(prefix="/v1/audit", route_class=DoorRoute, tags=["operations"])


@router.get("", **operator_door(Scope.ADMIN))
async def list_audit(
    services: ServicesHere,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(pattern="^aud_[1-9][0-9]{0,17}$")] = None,
) -> AuditPage:
    """Writes through this door, newest first, refused ones too; without single messages. Kept for 90 days."""
    found = await services.audit.entries(0 if cursor is None else int(cursor.partition("_")[2]), limit + 1)
    items = [AuditAnswer.of(entry) for entry in found[:limit]]
    return AuditPage(items=items, next_cursor=items[-1].id if len(found) > limit else None)
