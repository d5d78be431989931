"""``/v1/audience-uploads``: long lists of device ids, for pushes to name."""

from fastapi import APIRouter, Request

from longwire.accounts.api_keys import Scope
from longwire.api.dependencies import LargeBody, ServicesHere
from longwire.api.doors import DoorRoute, operator_door
from longwire.api.problems import Code, Problem
from longwire.api.shapes.registry import UploadAnswer

router = APIRouter(prefix="/v1/audience-uploads", route_class=DoorRoute, tags=["pushes"])

_MEDIA_TYPE = "text/plain"
_TAKE = operator_door(Scope.PUSH_WRITE, 422, streams=True)
_TAKE["openapi_extra"]["requestBody"] = {
    "required": True,
    "content": {_MEDIA_TYPE: {"schema": {"type": "string"}}},
}


@router.post("", status_code=201, **_TAKE)
async def upload_audience(request: Request, body: LargeBody, services: ServicesHere) -> UploadAnswer:
    """Keeps up to a million device ids, one a line of plain text, for a day. Ids that are not registered are told."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _MEDIA_TYPE:
        raise Problem(Code.INVALID_PARAMETER, f"the body's Content-Type is not {_MEDIA_TYPE}")
    return UploadAnswer.of(await services.uploads.take(body))
