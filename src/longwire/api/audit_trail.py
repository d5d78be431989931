"""The audit trail: every write through the operators' door, done or refused, with who, what, on what and how it ended.

Single messages and batches of them are left out: they are traffic, and their store knows them.
"""

from fastapi import Request, Response

from longwire.api.idempotency import Handle
from longwire.api.problems import request_id_of, status_of
from longwire.api.services import Services
from longwire.api.shell import AUDITED_KEY
from longwire.operations_model import AuditEntry

_MAX_ACTION_CHARACTERS = 128
_MAX_TARGET_CHARACTERS = 128


async def audited(request: Request, template: str, handle: Handle) -> Response:
    """Does what ``handle`` does, and notes it. ``template``: the route's path."""
    request.scope[AUDITED_KEY] = True
    try:
        answer = await handle(request)
    except Exception as error:
        _note(request, template, status_of(error), "")
        raise
    _note(request, template, answer.status_code, answer.headers.get("location", ""))
    return answer


def _note(request: Request, template: str, status: int, location: str) -> None:
    services: Services = request.app.state.services
    # What a call made is named by its Location; what it changed, by its path.
    target = ",".join(map(str, request.path_params.values())) or location.rpartition("/")[2]
    services.audit.append(
        AuditEntry(
            at_ms=services.clock.now_ms(),
            caller=request.state.principal.name,
            action=f"{request.method} {template}"[:_MAX_ACTION_CHARACTERS],
            target=target[:_MAX_TARGET_CHARACTERS],
            status=status,
            request_id=request_id_of(request),
        )
    )
