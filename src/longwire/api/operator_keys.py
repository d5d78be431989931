"""``/v1/keys`` and ``/v1/limits``: who may call, and what this installation grants."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from longwire.accounts.api_keys import Scope
from longwire.accounts.devices import MAX_BATCH
from longwire.accounts.tags import MAX_TAGS
from longwire.api.dependencies import ServicesHere
from longwire.api.doors import DoorRoute, operator_door
from longwire.api.shapes import (
    ApiLimits,
    KeyAnswer,
    KeyPage,
    KeyRequest,
    LimitsAnswer,
    NewKeyAnswer,
)
from longwire.push.messages import MAX_BATCH as MAX_MESSAGES

router = APIRouter(prefix="/v1", route_class=DoorRoute)

_KEY_ID = "^key_[0-9a-f]{32}$"


@router.get("/keys", tags=["keys"], **operator_door(Scope.ADMIN))
async def list_keys(
    services: ServicesHere,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(pattern=_KEY_ID)] = None,
) -> KeyPage:
    """The API keys, newest first, ended ones too. Their secrets are not kept and cannot be shown."""
    keys = await services.api_keys.all_keys()
    behind = [key for key in keys if cursor is None or key.key_id < cursor]
    page = behind[:limit]
    next_cursor = page[-1].key_id if len(behind) > limit else None
    return KeyPage(items=[KeyAnswer.of(key) for key in page], next_cursor=next_cursor)


@router.post("/keys", status_code=201, tags=["keys"], **operator_door(Scope.ADMIN, tells_secrets=True))
async def create_key(body: KeyRequest, services: ServicesHere) -> NewKeyAnswer:
    """Makes an API key. ``key`` is told only in this answer."""
    key, text = await services.api_keys.create(body.name, [Scope(scope) for scope in body.scopes])
    return NewKeyAnswer(**KeyAnswer.of(key).model_dump(), key=text)


@router.delete("/keys/{key_id}", status_code=204, tags=["keys"], **operator_door(Scope.ADMIN, 404))
async def revoke_key(key_id: Annotated[str, Path(pattern=_KEY_ID)], services: ServicesHere) -> None:
    """Ends an API key at once."""
    await services.api_keys.revoke(key_id)


@router.get("/limits", tags=["operations"], **operator_door(Scope.STATS_READ))
async def get_limits(services: ServicesHere) -> LimitsAnswer:
    """The bounds that hold here."""
    settings = services.settings
    return LimitsAnswer(
        api=ApiLimits(
            calls_per_s=settings.calls_per_s,
            call_burst=settings.call_burst,
            max_body_bytes=settings.max_body_bytes,
            max_batch=MAX_BATCH,
            max_tags_per_device=MAX_TAGS,
            max_message_batch=MAX_MESSAGES,
            max_upload_bytes=settings.max_upload_bytes,
            max_streams=settings.max_streams,
        ),
        device=services.limits,
    )
