"""How a route's function gets at what its door found out."""

from typing import Annotated

from fastapi import Depends, Path, Request

from longwire.accounts.api_keys import Principal
from longwire.api.bodies import BodyStream
from longwire.api.problems import request_id_of
from longwire.api.services import Services
from longwire.api.shapes import NAME_PATTERN
from longwire.model import Credential
from longwire.traces import CALL, Call


async def services_of(request: Request) -> Services:
    """The services of this application."""
    services: Services = request.app.state.services
    return services


async def credential_of(request: Request) -> Credential:
    """The device that came through the device door."""
    credential: Credential = request.state.credential
    return credential


async def principal_of(request: Request) -> Principal:
    """The caller who came through the operators' door."""
    principal: Principal = request.state.principal
    return principal


def trace_of_call(request: Request) -> bytes:
    """The trace context of what a call makes: the caller's trace; without a ``traceparent``, with a malformed one or
    with several that of the request's id. Here it is decided whether it is sampled.
    """
    return _entered(request).trace


def own_trace_of_call(request: Request) -> bytes:
    """As ``trace_of_call``; b"" where the caller gave no trace of its own."""
    call = _entered(request)
    return call.trace if call.parent else b""


def _entered(request: Request) -> Call:
    call = CALL.get()
    if call is None:  # served without the shell
        given = request.headers.getlist("traceparent")
        call = Call(request_id_of(request), given[0] if len(given) == 1 else None)
    services: Services = request.app.state.services
    services.traces.enter_call(call)
    return call


async def large_body_of(request: Request) -> BodyStream:
    """The body of a route whose door says ``streams=True``."""
    body: BodyStream = request.state.body
    return body


ServicesHere = Annotated[Services, Depends(services_of)]
CallingDevice = Annotated[Credential, Depends(credential_of)]
Caller = Annotated[Principal, Depends(principal_of)]
LargeBody = Annotated[BodyStream, Depends(large_body_of)]
DevicePath = Annotated[str, Path(pattern=NAME_PATTERN)]
