"""``/v1/audit``: who did what through the operators' door."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BeforeValidator

from longwire.accounts.api_keys import Scope
from longwire.api.dependencies import ServicesHere
from longwire.api.doors import DoorRoute, operator_door
from longwire.api.shapes.operations import AuditAnswer, AuditPage
from longwire.api.shapes.pushes import moment

router = APIRouter(prefix="/v1/audit", route_class=DoorRoute, tags=["operations"])

_TIME = {"type": "string", "format": "date-time"}


@router.get("", **operator_door(Scope.ADMIN))
async def list_audit(
    services: ServicesHere,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(pattern="^aud_[1-9][0-9]{0,17}$")] = None,
    caller: Annotated[str, Query(pattern=r"^[\x21-\x7e]{0,64}$")] = "",
    action: Annotated[str, Query(pattern=r"^[\x20-\x7e]{0,128}$")] = "",
    since: Annotated[int, BeforeValidator(moment), Query(json_schema_extra=_TIME)] = 0,
) -> AuditPage:
    """Writes through this door and sign-ins, newest first, refused ones too; without single messages. Kept for 90 days.

    ``caller``: a key's id, or `person:` and a name. ``action``: what the action begins with, such as
    `POST /v1/pushes`. ``since``: from this time on.
    """
    found = await services.audit.entries(
        0 if cursor is None else int(cursor.partition("_")[2]),
        limit + 1,
        caller=caller,
        action=action,
        since_ms=since,
    )
    items = [AuditAnswer.of(entry) for entry in found[:limit]]
    return AuditPage(items=items, next_cursor=items[-1].id if len(found) > limit else None)
