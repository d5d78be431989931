"""``/v1/stats``: what the system holds and does now, in sums and by node."""

from collections.abc import Callable

from fastapi import APIRouter, Request, Response

from longwire.accounts.api_keys import Scope
from longwire.api.dependencies import ServicesHere
from longwire.api.doors import DoorRoute, operator_door
from longwire.api.services import Services
from longwire.api.shapes import rfc3339
from longwire.api.shapes.operations import NodeShare, NodeStats, SystemStats, node_stats
from longwire.api.shapes.pushes import LatencyAnswer
from longwire.api.streams import Look, Streams, stream_response

router = APIRouter(prefix="/v1/stats", route_class=DoorRoute, tags=["operations"])

_STREAM = operator_door(Scope.STATS_READ)
_STREAM["responses"][200] = stream_response("sums", "progress")


@router.get("", **operator_door(Scope.STATS_READ))
async def get_stats(services: ServicesHere) -> SystemStats:
    """Sums over the nodes, and each node's share. Rates come with the second look."""
    return await _stats(services)


@router.get("/stream", response_class=Response, **_STREAM)
async def watch_stats(request: Request, services: ServicesHere) -> Response:
    """The same as Server-Sent Events, one a second."""

    async def look() -> Look:
        return Look((await _stats(services)).model_dump_json())

    streams: Streams = request.app.state.streams
    return streams.watch(look, services.settings.stats_every_s)


async def _stats(services: Services) -> SystemStats:
    shares = [
        NodeShare(node_id=view.info.node_id, **node_stats(view).model_dump())
        for view in await services.nodes.all_nodes()
    ]

    def added(of: Callable[[NodeStats], float | None]) -> float | None:
        known = [value for share in shares if (value := of(share)) is not None]
        return round(sum(known), 1) if known else None

    def highest(of: Callable[[LatencyAnswer], float | None]) -> float | None:
        return max((value for share in shares if (value := of(share.ack_latency_ms)) is not None), default=None)

    def whole(of: Callable[[NodeStats], int | None]) -> int:
        return sum(of(share) or 0 for share in shares)

    return SystemStats(
        at=rfc3339(services.clock.now_ms()),
        online=services.nodes.sessions(),
        push_count_drift=services.nodes.drift(),
        connections=whole(lambda share: share.connections),
        connects_per_s=added(lambda share: share.connects_per_s),
        uplink_per_s=added(lambda share: share.uplink_per_s),
        downlink_per_s=added(lambda share: share.downlink_per_s),
        acks_per_s=added(lambda share: share.acks_per_s),
        ack_latency_ms=LatencyAnswer(
            p50=highest(lambda found: found.p50),
            p95=highest(lambda found: found.p95),
            p99=highest(lambda found: found.p99),
        ),
        queued_bytes=whole(lambda share: share.queued_bytes),
        nodes=shares,
    )
