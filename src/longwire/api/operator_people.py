"""``/v1/sessions`` and ``/v1/people``: people who sign in, and who they are."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request

from longwire.accounts.api_keys import Principal, Scope
from longwire.accounts.people import NAME_PATTERN, PersonRole, Visitor, WrongPassword
from longwire.accounts.refusals import RefusalCode, Refused
from longwire.api.dependencies import Caller, ServicesHere
from longwire.api.doors import DoorRoute, address_door, operator_door, person_door
from longwire.api.problems import request_id_of
from longwire.api.services import Services
from longwire.api.shapes.people import (
    NewPersonAnswer,
    NewSessionAnswer,
    OneTimePassword,
    PasswordRequest,
    PersonAnswer,
    PersonChange,
    PersonName,
    PersonPage,
    PersonRequest,
    SessionAnswer,
    SessionRequest,
)
from longwire.operations_model import AuditEntry

router = APIRouter(prefix="/v1", route_class=DoorRoute, tags=["people"])

PersonPath = Annotated[str, Path(pattern=NAME_PATTERN)]


@router.post("/sessions", status_code=201, **address_door())
async def sign_in(body: SessionRequest, request: Request, services: ServicesHere) -> NewSessionAnswer:
    """Signs a person in. ``token`` is told only in this answer and ends after 12 hours, or two without a call."""
    name = body.name.lower()
    try:
        token, visitor = await services.people.log_in(name, body.password)
    except WrongPassword as wrong:
        if wrong.person is not None:  # what is no name may well be a password in the wrong field
            _note(services, request, name, 401)
        raise
    _note(services, request, name, 201)
    return NewSessionAnswer(**SessionAnswer.of(visitor).model_dump(), token=token)


@router.get("/sessions/current", **person_door())
async def own_session(caller: Caller) -> SessionAnswer:
    """Who the caller is, and what they may do."""
    return SessionAnswer.of(_visitor(caller))


@router.delete("/sessions/current", status_code=204, **person_door())
async def sign_out(caller: Caller, services: ServicesHere) -> None:
    """Ends the caller's session."""
    await services.people.log_out(_visitor(caller))


@router.post("/sessions/current/password", status_code=204, **person_door())
async def change_own_password(body: PasswordRequest, caller: Caller, services: ServicesHere) -> None:
    """Replaces the caller's password, and ends their other sessions."""
    await services.people.change_password(_visitor(caller), body.password, body.new_password)


@router.get("/people", **operator_door(Scope.ADMIN))
async def list_people(
    services: ServicesHere,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[PersonName | None, Query()] = None,
) -> PersonPage:
    """Who may sign in, by name."""
    behind = [one for one in await services.people.all_people() if cursor is None or one.name > cursor]
    page = behind[:limit]
    return PersonPage(
        items=[PersonAnswer.of(one) for one in page],
        next_cursor=page[-1].name if len(behind) > limit else None,
    )


@router.post("/people", status_code=201, **operator_door(Scope.ADMIN, tells_secrets=True))
async def add_person(body: PersonRequest, services: ServicesHere) -> NewPersonAnswer:
    """Adds a person. ``one_time_password`` is told only in this answer, and replaced at the first sign-in."""
    person, password = await services.people.create(body.name, PersonRole(body.role))
    return NewPersonAnswer(**PersonAnswer.of(person).model_dump(), one_time_password=password)


@router.patch("/people/{name}", **operator_door(Scope.ADMIN, 404, 409))
async def change_person(name: PersonPath, body: PersonChange, caller: Caller, services: ServicesHere) -> PersonAnswer:
    """Gives a person another role, or disables them, which ends their sessions within five seconds."""
    _check_other(caller, name)
    role = None if body.role is None else PersonRole(body.role)
    return PersonAnswer.of(await services.people.change(name, role, body.is_disabled))


@router.delete("/people/{name}", status_code=204, **operator_door(Scope.ADMIN, 404, 409))
async def remove_person(name: PersonPath, caller: Caller, services: ServicesHere) -> None:
    """Forgets a person, and ends their sessions."""
    _check_other(caller, name)
    await services.people.delete(name)


@router.post("/people/{name}/password", **operator_door(Scope.ADMIN, 404, 409, tells_secrets=True))
async def reset_password(name: PersonPath, caller: Caller, services: ServicesHere) -> OneTimePassword:
    """Gives a person a new one-time password, and ends their sessions."""
    _check_other(caller, name)
    return OneTimePassword(name=name, one_time_password=await services.people.reset_password(name))


def _visitor(caller: Principal) -> Visitor:
    assert isinstance(caller, Visitor)
    return caller


def _check_other(caller: Principal, name: str) -> None:
    """So the last admin stays one."""
    if caller.name == f"person:{name}":
        raise Refused(RefusalCode.STATE_CONFLICT, "that is you: another admin has to do it")


def _note(services: Services, request: Request, name: str, status: int) -> None:
    services.audit.append(
        AuditEntry(
            at_ms=services.clock.now_ms(),
            caller=f"person:{name}",
            action="POST /v1/sessions",
            target=name,
            status=status,
            request_id=request_id_of(request),
        )
    )
