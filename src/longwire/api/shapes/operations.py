"""Operations as JSON: nodes, sums over them, the audit, and what devices sent."""

import base64
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from msgspec.structs import asdict
from pydantic import BaseModel, BeforeValidator, Field

from longwire.api.nodes import NodeMoves, NodeView
from longwire.api.shapes import Time, _Request, _whole, rfc3339
from longwire.api.shapes.pushes import LatencyAnswer, latency_answer
from longwire.ids import prefixed
from longwire.model import UplinkRecord
from longwire.operations_model import AuditEntry, DrainState
from longwire.ports.backlog import Backlog
from longwire.seeing.history import Span

_UNKNOWN = (None, None, None)


class NodeStats(BaseModel):
    """What a node holds and does; null where it does not answer. Rates come with the second look."""

    connections: int | None
    connects_per_s: float | None
    uplink_per_s: float | None = Field(description="Messages that devices sent")
    downlink_per_s: float | None = Field(description="Messages that were written to devices")
    acks_per_s: float | None
    ack_latency_ms: LatencyAnswer = Field(description="From a message's write until its acknowledgement")
    queued_bytes: int | None = Field(description="Accepted and not committed yet")
    closes_per_s: float | None
    closes_by_reason: dict[str, float] = Field(
        description="A second, by the label of the close reason; ``peer`` where the device went by itself"
    )
    up_bytes_per_s: float | None
    down_bytes_per_s: float | None
    shed_per_s: float | None = Field(description="Connections turned away for load")
    slow_per_s: float | None = Field(description="Connections closed because the device did not read")
    recent_ack_latency_ms: LatencyAnswer = Field(description="As ack_latency_ms, of the last half minute only")


class DrainAnswer(BaseModel):
    """How far the leaving of a node's devices has come."""

    began_at: Time
    within_s: float
    sessions: int = Field(description="At the beginning, that were to leave")
    left: int = Field(description="Of those that are to leave, here still")
    told: int = Field(description="Who was sent MOVE")
    closed: int = Field(description="Who was closed, for they had not gone by themselves")
    eta_s: float | None = Field(description="Until nobody is left, at the rate of the last seconds")

    @classmethod
    def of(cls, drain: DrainState) -> "DrainAnswer":
        return cls(
            began_at=rfc3339(drain.began_at_ms),
            within_s=drain.within_s,
            sessions=drain.sessions,
            left=drain.left,
            told=drain.told,
            closed=drain.closed,
            eta_s=drain.eta_s,
        )


class NodeAnswer(NodeStats):
    """A node that lives."""

    node_id: str
    state: str = Field(
        description="``live``; ``moving``: some of its devices are sent elsewhere; ``draining``: all are; ``drained``;"
        " ``stopping``: all are, and the process ends then; ``silent``: it is listed and does not answer",
        examples=["live"],
    )
    host: str
    port: int
    tls_port: int | None
    ws_url: str
    is_draining: bool
    max_connections: int | None
    cpu_share: float | None = Field(description="Of one core")
    memory_bytes: int | None
    loop_late_ms: float | None
    longest_pause_ms: float | None = Field(description="Of the garbage collector")
    routed: int | None = Field(description="Devices that the route table says are here; null where it does not answer")
    drift: int | None = Field(description="connections less routed; other than 0 for moments only")
    repaired: int | None = Field(description="Routes that the node put right in the table, since its start")
    behind: int | None = Field(description="Devices whose messages could not be carried to their node yet")
    link_queued_bytes: int | None = Field(description="What waits to go to other nodes")
    drain: DrainAnswer | None = Field(description="null where nobody is to leave")

    @classmethod
    def of(cls, view: NodeView, routed: int | None) -> "NodeAnswer":
        info, said = view.info, _said(view)
        drain = None if view.report is None else view.report.drain
        state = "silent" if view.report is None else "live" if drain is None else drain.state
        return cls(
            **node_stats(view).model_dump(),
            node_id=info.node_id,
            state="draining" if state == "live" and info.is_draining else state,
            host=info.host,
            port=info.port,
            tls_port=info.tls_port,
            ws_url=info.ws_url,
            is_draining=info.is_draining or (drain is not None and drain.state != "moving"),
            max_connections=said.get("max_connections"),
            cpu_share=said.get("cpu_share"),
            memory_bytes=said.get("memory_bytes"),
            loop_late_ms=said.get("loop_late_ms"),
            longest_pause_ms=said.get("longest_pause_ms"),
            routed=routed,
            drift=said["connections"] - routed if said and routed is not None else None,
            repaired=said.get("repaired"),
            behind=said.get("behind"),
            link_queued_bytes=said.get("link_queued_bytes"),
            drain=None if drain is None else DrainAnswer.of(drain),
        )


class NodePage(BaseModel):
    """The nodes that live, by id."""

    items: list[NodeAnswer]
    next_cursor: str | None


class WithinBody(_Request):
    """How long devices are given to go elsewhere."""

    within_s: Annotated[int, Field(ge=1, le=3_600), BeforeValidator(_whole)] = 60


class MovesAnswer(BaseModel):
    """What a rebalance does at a node."""

    node_id: str
    connections: int
    target: int = Field(description="Its share, by weight, of all connections")
    moving: int | None = Field(description="How many of its devices it tells to move; null where it does not answer")


class RebalanceAnswer(BaseModel):
    """What a rebalance does, node by node."""

    moves: list[MovesAnswer]

    @classmethod
    def of(cls, moves: Sequence[NodeMoves]) -> "RebalanceAnswer":
        return cls(moves=[MovesAnswer(**one._asdict()) for one in moves])


class NodeShare(NodeStats):
    """A node's part of the sums."""

    node_id: str


class BacklogAnswer(BaseModel):
    """What waits in the stores, as last counted; a count ends at a million."""

    at: Time
    inbox: int = Field(description="Messages that devices have not acknowledged")
    inbox_oldest_s: float | None = Field(description="How long the oldest of them has waited")
    push_pending: int = Field(description="Devices that live pushes wait for")
    webhook_events: int
    dead_letters: int

    @classmethod
    def of(cls, found: Backlog, now_ms: int) -> "BacklogAnswer":
        oldest_s = None if found.oldest_ms is None else max(0.0, round((now_ms - found.oldest_ms) / 1000, 1))
        return cls(
            at=rfc3339(found.at_ms),
            inbox=found.inbox,
            inbox_oldest_s=oldest_s,
            push_pending=found.push_pending,
            webhook_events=found.webhook_events,
            dead_letters=found.dead_letters,
        )


class NoticeAnswer(BaseModel):
    """Something that needs attention."""

    level: Literal["warning", "critical"]
    code: str = Field(examples=["node-silent"])
    text: str
    node_id: str | None


class SystemStats(NodeStats):
    """Sums over the nodes that answer; of latencies, the highest."""

    at: Time
    online: int = Field(description="Devices with a session")
    push_count_drift: int = Field(description="Counts of pushes that were found not to add up; 0, always")
    backlog: BacklogAnswer | None = Field(description="null until it was counted, each half minute")
    attention: list[NoticeAnswer] = Field(description="The critical first; empty: all is well")
    nodes: list[NodeShare]


class HistoryAnswer(BaseModel):
    """Numbers over time, one for each of ``at``; null where they are unknown."""

    since: Time = Field(description="When this process began to count")
    step_s: int
    at: list[Time] = Field(description="When each step begins")
    online: list[float | None]
    connects: list[float | None] = Field(description="A second, as all that follow but latencies and inbox")
    closes: list[float | None]
    up: list[float | None] = Field(description="Messages that devices sent")
    down: list[float | None] = Field(description="Messages that were written to devices")
    acks: list[float | None]
    p50: list[float | None] = Field(description="Latency of acknowledgements, in milliseconds; a step's highest")
    p95: list[float | None]
    p99: list[float | None]
    inbox: list[float | None] = Field(description="Messages that devices have not acknowledged")
    closes_by_reason: dict[str, list[float | None]]

    @classmethod
    def of(cls, span: Span, began_ms: int) -> "HistoryAnswer":
        return cls(
            since=rfc3339(began_ms),
            step_s=span.step_s,
            at=[rfc3339(at_ms) for at_ms in span.at_ms],
            closes_by_reason=span.closes_by_reason,
            **span.values,
        )


class AuditAnswer(BaseModel):
    """Who did what, on what, and how it ended."""

    id: str
    at: Time
    caller: str = Field(description="The key's id, the application's key, or ``person:`` and a name")
    action: str = Field(examples=["POST /v1/pushes/{push_id}/cancel"])
    target: str
    status: int
    request_id: str

    @classmethod
    def of(cls, entry: AuditEntry) -> "AuditAnswer":
        return cls(
            id=f"aud_{entry.audit_no}",
            at=rfc3339(entry.at_ms),
            caller=entry.caller,
            action=entry.action,
            target=entry.target,
            status=entry.status,
            request_id=entry.request_id,
        )


class AuditPage(BaseModel):
    """The audit, newest first."""

    items: list[AuditAnswer]
    next_cursor: str | None


class UplinkAnswer(BaseModel):
    """A message that a device sent to the application."""

    device_id: str
    message_id: str
    kind: str
    payload_b64: str
    sent_at: Time
    trace_id: str | None

    @classmethod
    def of(cls, record: UplinkRecord) -> "UplinkAnswer":
        return cls(
            device_id=record.device_id,
            message_id=prefixed("msg", record.message_id),
            kind=record.kind,
            payload_b64=base64.b64encode(record.payload).decode(),
            sent_at=rfc3339(record.sent_at_ms),
            trace_id=record.trace[:16].hex() or None,
        )


class UplinkPage(BaseModel):
    """Messages of devices, newest first. A page may hold fewer than asked for, and there is more behind it."""

    items: list[UplinkAnswer]
    next_cursor: str | None


def node_stats(view: NodeView) -> NodeStats:
    """What the node holds and does."""
    said, rates = _said(view), view.rates
    return NodeStats(
        connections=said.get("connections"),
        connects_per_s=rates.connects,
        uplink_per_s=rates.uplink,
        downlink_per_s=rates.downlink,
        acks_per_s=rates.acks,
        ack_latency_ms=latency_answer(said.get("ack_latency_ms", _UNKNOWN)),
        queued_bytes=said.get("queued_bytes"),
        closes_per_s=rates.closes,
        closes_by_reason=dict(rates.closes_by_reason),
        up_bytes_per_s=rates.bytes_in,
        down_bytes_per_s=rates.bytes_out,
        shed_per_s=rates.shed,
        slow_per_s=rates.slow,
        recent_ack_latency_ms=latency_answer(said.get("recent_ack_latency_ms", _UNKNOWN)),
    )


def _said(view: NodeView) -> dict[str, Any]:
    """What the node says of itself; empty where it does not answer."""
    return {} if view.report is None else asdict(view.report)
