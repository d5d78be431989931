"""``/v1/devices/{device_id}/commands`` and ``/v1/commands``: calls of a device's methods."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from longwire.accounts.api_keys import Scope
from longwire.api.dependencies import DevicePath, ServicesHere, trace_of_call
from longwire.api.doors import DoorRoute, operator_door
from longwire.api.idempotency import derived_id
from longwire.api.problems import Code, Problem
from longwire.api.shapes.commands import COMMAND_ID, CommandAnswer, CommandBody
from longwire.push.commands import CommandMode

router = APIRouter(prefix="/v1", route_class=DoorRoute, tags=["commands"])

CommandPath = Annotated[str, Path(pattern=COMMAND_ID)]

_RUN = operator_door(Scope.DEVICE_WRITE, 404, 409, 422, 504)
_RUN["responses"][202] = {"model": CommandAnswer, "description": "Asked; Location is where the reply will be"}


@router.post("/devices/{device_id}/commands", **_RUN)
async def run_command(
    device_id: DevicePath, body: CommandBody, services: ServicesHere, request: Request, response: Response
) -> CommandAnswer:
    """Calls a method of a device that is online. With ``sync`` the answer is its reply.

    504 ``command-timeout``: the outcome is unknown, and ``command_id`` is in the answer; a reply that comes within ten
    minutes is kept and marked. A repeat under the same Idempotency-Key asks the device once.
    """
    try:
        payload = body.payload_bytes()
    except ValueError as error:
        raise Problem(Code.INVALID_PARAMETER, f"#/payload: {error}") from None
    mode = CommandMode(body.mode)
    command = await services.commands.run(
        device_id,
        body.method,
        payload,
        body.timeout_ms,
        mode,
        command_id=derived_id(request),
        trace=trace_of_call(request),
    )
    answer = CommandAnswer.of(command)
    if mode is CommandMode.ASYNC:
        response.status_code = 202
        response.headers["Location"] = f"/v1/commands/{answer.command_id}"
    return answer


@router.get("/commands/{command_id}", **operator_door(Scope.DEVICE_READ, 404))
async def get_command(command_id: CommandPath, services: ServicesHere) -> CommandAnswer:
    """A command of the last seven days, with its reply, late or not."""
    return CommandAnswer.of(await services.commands.find(bytes.fromhex(command_id.partition("_")[2])))
