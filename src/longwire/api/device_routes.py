"""``/device/v1``: what a device does before it connects: register, refresh its token, ask for a node.

Whole fleets register and refresh at once: these two are plain routes (doors.PlainRoute).
"""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from longwire.accounts.registration import Claim
from longwire.api.dependencies import CallingDevice, ServicesHere
from longwire.api.doors import DoorRoute, PlainRoute, address_door, device_door
from longwire.api.services import Services
from longwire.api.shapes import (
    Backoff,
    Heartbeat,
    NodeAnswer,
    NodeChoice,
    RegisterAnswer,
    RegisterRequest,
    TokenAnswer,
    TokenRequest,
)

router = APIRouter(prefix="/device/v1", route_class=DoorRoute, tags=["devices' door"])
plain_router = APIRouter(prefix="/device/v1", route_class=PlainRoute, tags=["devices' door"])

_REGISTER = address_door()
_REGISTER["responses"][200] = {"model": RegisterAnswer, "description": "The device was known"}


@plain_router.post("/register", status_code=201, response_model=RegisterAnswer, **_REGISTER)
async def register(request: Request, body: RegisterRequest) -> Response:
    """Registers a device (201), or gives a known one that proves itself a further token (200)."""
    services: Services = request.app.state.services
    claim = Claim(
        body.app_key,
        body.device_id,
        body.ts_ms,
        body.nonce,
        body.proof,
        body.refresh_token,
        body.platform,
        body.app_version,
        body.credentials,
    )
    registered = await services.registration.register(claim)
    settings, limits = services.settings, services.limits
    answer = RegisterAnswer(
        device_id=registered.device.device_id,
        token=registered.token,
        expires_in_s=services.tokens.expires_in_s(registered.expires_at_ms),
        refresh_token=registered.refresh_token,
        node=NodeAnswer.of(registered.node),
        backoff=Backoff(base_ms=settings.backoff_base_ms, max_ms=settings.backoff_max_ms),
        heartbeat=Heartbeat(
            default_s=settings.default_heartbeat_s, min_s=limits.heartbeat_min_s, max_s=limits.heartbeat_max_s
        ),
        server_time_ms=services.clock.now_ms(),
    )
    return _json(answer, 201 if registered.is_new else 200)


@plain_router.post("/token", response_model=TokenAnswer, **address_door())
async def refresh(request: Request, body: TokenRequest) -> Response:
    """A further token for a device that has its refresh token; 401: register again."""
    services: Services = request.app.state.services
    services.placement.check()  # first: where there is no node, no token is issued
    device, issued = await services.tokens.refresh(body.refresh_token)
    node = services.placement.choose(device.device_id)
    answer = TokenAnswer(
        device_id=device.device_id,
        token=issued.token,
        expires_in_s=services.tokens.expires_in_s(issued.expires_at_ms),
        node=NodeAnswer.of(node),
        server_time_ms=services.clock.now_ms(),
    )
    return _json(answer, 200)


def _json(answer: TokenAnswer, status: int) -> Response:
    return Response(answer.model_dump_json(), status, media_type="application/json")


@router.get("/node", **device_door())
async def choose_node(
    services: ServicesHere,
    device: CallingDevice,
    avoid: Annotated[str | None, Query(max_length=64, description="A node that could not be reached")] = None,
) -> NodeChoice:
    """A node to connect to; another one than ``avoid`` as long as there is another."""
    return NodeChoice(node=NodeAnswer.of(services.placement.choose(device.device_id, avoid)))
