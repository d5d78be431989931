"""``/v1/device-imports``: devices registered from files, in the background."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from msgspec.structs import replace

from longwire.accounts.api_keys import Scope
from longwire.accounts.import_lines import CSV, NDJSON
from longwire.accounts.imports import IMPORT_PREFIX, RUNNING
from longwire.api.dependencies import LargeBody, ServicesHere
from longwire.api.doors import DoorRoute, operator_door
from longwire.api.problems import Code, Problem
from longwire.api.shapes.registry import ImportAnswer, ImportPage
from longwire.api.streams import Look, Streams, stream_response
from longwire.ids import prefixed

router = APIRouter(prefix="/v1/device-imports", route_class=DoorRoute, tags=["devices"])

_IMPORT_ID = f"^{IMPORT_PREFIX}_[0-9a-f]{{32}}$"
_FORMATS = {"text/csv": CSV, "application/x-ndjson": NDJSON}
_EVENTS = operator_door(Scope.DEVICE_READ, 404)
_EVENTS["responses"][200] = stream_response("import", "progress", "end")
_TAKE = operator_door(Scope.DEVICE_WRITE, streams=True)
_TAKE["openapi_extra"]["requestBody"] = {
    "required": True,
    "content": {media_type: {"schema": {"type": "string", "pattern": r"\S"}} for media_type in _FORMATS},
}


@router.post("", status_code=202, **_TAKE)
async def import_devices(request: Request, body: LargeBody, response: Response, services: ServicesHere) -> ImportAnswer:
    """Registers up to a million devices: CSV with a header, or an object of JSON a line.

    Columns or fields: ``device_id``, and where they are known ``user``, ``tags``, ``platform``, ``app_version``. In
    CSV tags are separated by blanks. Devices get no token: the first to register as one of them becomes it. Lines that
    cannot be are told in the resource; the others are done.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    form = _FORMATS.get(media_type)
    if form is None:
        raise Problem(Code.INVALID_PARAMETER, f"the body's Content-Type is none of {', '.join(_FORMATS)}")
    job = await services.imports.take(body, form)
    response.headers["Location"] = f"/v1/device-imports/{prefixed(IMPORT_PREFIX, job.import_id)}"
    return ImportAnswer.of(job)


@router.get("", **operator_door(Scope.DEVICE_READ))
async def list_imports(
    services: ServicesHere,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(pattern=_IMPORT_ID)] = None,
) -> ImportPage:
    """The imports, newest first, without what is wrong with their lines. They are kept for 7 days after their end."""
    found, next_id = await services.imports.page(b"" if cursor is None else _number(cursor), limit)
    return ImportPage(
        items=[ImportAnswer.of(replace(job, errors=())) for job in found],
        next_cursor=None if next_id is None else prefixed(IMPORT_PREFIX, next_id),
    )


@router.get("/{import_id}", **operator_door(Scope.DEVICE_READ, 404))
async def get_import(import_id: Annotated[str, Path(pattern=_IMPORT_ID)], services: ServicesHere) -> ImportAnswer:
    """How far an import is, and what is wrong with its lines."""
    return ImportAnswer.of(await services.imports.find(_number(import_id)))


@router.get("/{import_id}/events", response_class=Response, **_EVENTS)
async def watch_import(
    import_id: Annotated[str, Path(pattern=_IMPORT_ID)], request: Request, services: ServicesHere
) -> Response:
    """The import as Server-Sent Events: ``progress`` whenever it has changed, ``end`` once it is over."""
    number = _number(import_id)
    await services.imports.find(number)

    async def look() -> Look:
        job = await services.imports.find(number)
        return Look(ImportAnswer.of(replace(job, errors=())).model_dump_json(), job.status != RUNNING)

    streams: Streams = request.app.state.streams
    return streams.watch(look, services.settings.progress_every_s)


def _number(import_id: str) -> bytes:
    return bytes.fromhex(import_id.partition("_")[2])
