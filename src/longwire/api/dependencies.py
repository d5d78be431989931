"""How a route's function gets at what its door found out."""

from typing import Annotated

from fastapi import Depends, Path, Request

from longwire.accounts.api_keys import Principal
from longwire.api.bodies import BodyStream
from longwire.api.services import Services
from longwire.api.shapes import NAME_PATTERN
from longwire.model import Credential
from longwire.wire.traces import trace_of


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
    """The trace context of the caller's ``traceparent``; b"" without one, with a malformed one, or with several."""
    given = request.headers.getlist("traceparent")
    return trace_of(given[0]) if len(given) == 1 else b""


async def large_body_of(request: Request) -> BodyStream:
    """The body of a route whose door says ``streams=True``."""
    body: BodyStream = request.state.body
    return body


ServicesHere = Annotated[Services, Depends(services_of)]
CallingDevice = Annotated[Credential, Depends(credential_of)]
Caller = Annotated[Principal, Depends(principal_of)]
LargeBody = Annotated[BodyStream, Depends(large_body_of)]
DevicePath = Annotated[str, Path(pattern=NAME_PATTERN)]
