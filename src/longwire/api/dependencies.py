"""How a route's function gets at what its door found out."""

from typing import Annotated

from fastapi import Depends, Path, Request

from longwire.api.services import Services
from longwire.api.shapes import NAME_PATTERN
from longwire.model import Credential


async def services_of(request: Request) -> Services:
    """The services of this application."""
    services: Services = request.app.state.services
    return services


async def credential_of(request: Request) -> Credential:
    """The device that came through the device door."""
    credential: Credential = request.state.credential
    return credential


ServicesHere = Annotated[Services, Depends(services_of)]
CallingDevice = Annotated[Credential, Depends(credential_of)]
DevicePath = Annotated[str, Path(pattern=NAME_PATTERN)]
