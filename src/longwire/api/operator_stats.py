"""``/v1/stats``: what the system holds and does, in sums and by node: now, and over the last day."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from longwire.accounts.api_keys import Scope
from longwire.api.dependencies import ServicesHere
from longwire.api.doors import DoorRoute, operator_door
from longwire.api.nodes import added_up, slowest
from longwire.api.services import Services
from longwire.api.shapes import rfc3339
from longwire.api.shapes.operations import (
    BacklogAnswer,
    HistoryAnswer,
    NodeShare,
    NoticeAnswer,
    SystemStats,
    node_stats,
)
from longwire.api.shapes.pushes import latency_answer
from longwire.api.streams import Look, Streams, stream_response
from longwire.seeing.attention import NodeSeen, notices
from longwire.seeing.history import FINE_SPAN_S, LONGEST_SPAN_S

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


@router.get("/history", **operator_door(Scope.STATS_READ))
async def get_history(
    services: ServicesHere,
    span_s: Annotated[int, Query(ge=60, le=LONGEST_SPAN_S, description="How far back, in seconds")] = FINE_SPAN_S,
) -> HistoryAnswer:
    """How the numbers went, in at most 450 steps, as far as this process has run. A day at most: metrics keep more."""
    return HistoryAnswer.of(services.history.span(span_s), services.history.began_ms)


async def _stats(services: Services) -> SystemStats:
    views, now_ms = await services.nodes.all_nodes(), services.clock.now_ms()
    rates, backlog, unready = added_up(views), services.history.backlog(), services.readiness()
    shares = [NodeShare(node_id=view.info.node_id, **node_stats(view).model_dump()) for view in views]
    seen = [NodeSeen(v.info, v.report, v.rates.shed, v.rates.slow, v.drifts_s) for v in views]
    found = notices(seen, backlog, None if unready is None else unready.detail, services.nodes.drift())
    return SystemStats(
        at=rfc3339(now_ms),
        online=services.nodes.sessions(),
        push_count_drift=services.nodes.drift(),
        connections=sum(share.connections or 0 for share in shares),
        connects_per_s=rates.connects,
        uplink_per_s=rates.uplink,
        downlink_per_s=rates.downlink,
        acks_per_s=rates.acks,
        ack_latency_ms=latency_answer(slowest(views, "ack_latency_ms")),
        queued_bytes=sum(share.queued_bytes or 0 for share in shares),
        closes_per_s=rates.closes,
        closes_by_reason=dict(rates.closes_by_reason),
        up_bytes_per_s=rates.bytes_in,
        down_bytes_per_s=rates.bytes_out,
        shed_per_s=rates.shed,
        slow_per_s=rates.slow,
        recent_ack_latency_ms=latency_answer(slowest(views, "recent_ack_latency_ms")),
        backlog=None if backlog is None else BacklogAnswer.of(backlog, now_ms),
        attention=[NoticeAnswer(**notice._asdict()) for notice in found],
        nodes=shares,
    )
