"""A gateway node's metrics."""

from collections.abc import Iterator

from prometheus_client.metrics_core import Metric

from longwire.adapters.http import Courier
from longwire.app.metrics.families import counter, gauge, histogram
from longwire.gateway.facts import NodeFacts
from longwire.net.connection import Flavour
from longwire.reasons import CloseCode, Status

_TRANSPORTS = {
    "native": Flavour.NATIVE,
    "websocket": Flavour.WEBSOCKET_BINARY,
    "websocket_json": Flavour.WEBSOCKET_JSON,
}
_REASONS = (*(code.label for code in CloseCode), "peer")
_REFUSALS = tuple(status.label for status in Status if not status.is_success)
_MS = 0.001


def node_metrics(facts: NodeFacts) -> Iterator[Metric]:
    """Everything that a node counts."""
    yield from _connections(facts)
    yield from _messages(facts)
    yield from _queues(facts)


def _connections(facts: NodeFacts) -> Iterator[Metric]:
    counters, port = facts.counters, facts.port
    connected = {name: counters.connected[flavour] for name, flavour in _TRANSPORTS.items()}
    closes = {reason: counters.closes[reason] for reason in _REASONS}
    yield gauge("longwire_connections", "Devices with a session here.", connected, "transport")
    yield gauge(
        "longwire_connections_open", "Open connections, those that have not proved themselves too.", len(port.open)
    )
    yield gauge(
        "longwire_connections_limit", "Connections that the node takes (max_connections).", facts.limits.max_connections
    )
    yield counter("longwire_connects", "Sessions that began.", counters.connects)
    yield counter("longwire_closes", "Connections that ended, by why; peer: the device went.", closes, "reason")
    yield counter("longwire_connections_shed", "Connections that admission turned away.", counters.shed)
    yield counter(
        "longwire_slow_consumer_closes",
        "Connections closed because the device did not read.",
        counters.closes[CloseCode.SLOW_CONSUMER.label],
    )
    yield counter(
        "longwire_proxy_refusals", "Connections without the PROXY header they must begin with.", port.proxy_refusals
    )
    yield gauge(
        "longwire_unauthenticated_bytes",
        "Bytes held for connections that have not proved themselves.",
        port.unauthenticated_bytes,
    )
    yield counter("longwire_received_bytes", "Bytes from devices, without TLS.", port.bytes_in)
    yield counter("longwire_written_bytes", "Bytes to devices, without TLS.", port.bytes_out)
    yield histogram("longwire_handshake_seconds", "From CONNECT to CONNECTED.", counters.handshake_ms, _MS)


def _messages(facts: NodeFacts) -> Iterator[Metric]:
    counters = facts.counters
    yield counter("longwire_uplink_messages", "Messages that devices sent.", counters.sends)
    yield counter(
        "longwire_uplink_refused_messages",
        "Of those, refused, by status.",
        {status: counters.refused[status] for status in _REFUSALS},
        "status",
    )
    yield counter(
        "longwire_downlink_messages",
        "Messages written to devices.",
        {
            "reliable": counters.delivered,
            "once": counters.pushes,
            "broadcast": counters.broadcast_written,
            "catch_up": counters.catch_up_written,
            "command": counters.commands,
        },
        "kind",
    )
    yield counter(
        "longwire_downlink_dropped_messages",
        "Not written because the device does not read; broadcast_skipped comes once it has.",
        {"slow_consumer": counters.dropped, "broadcast_skipped": counters.broadcast_skipped},
        "reason",
    )
    yield counter(
        "longwire_redelivered_messages", "Reliable messages written again to the same session.", counters.repeated
    )
    yield counter(
        "longwire_acks",
        "Acknowledgements; stray: of what was not written to that device.",
        {"message": counters.acks, "broadcast": counters.broadcast_acks, "stray": counters.stray_acks},
        "kind",
    )
    yield histogram(
        "longwire_ack_latency_seconds",
        "From a message's writing to its acknowledgement.",
        facts.broadcasts.latency,
        _MS,
    )
    yield histogram(
        "longwire_receipt_latency_seconds", "From a device's SEND to its receipt, committed.", counters.sent_ms, _MS
    )


def _queues(facts: NodeFacts) -> Iterator[Metric]:
    drain = facts.drain
    yield gauge(
        "longwire_commit_queue_bytes",
        "Accepted and not committed.",
        {"messages": facts.messages.queued_bytes, "uplink": facts.uplink.queued_bytes},
        "store",
    )
    yield gauge(
        "longwire_commit_queue_limit_bytes",
        "Of both stores together; above it messages are refused.",
        facts.limits.max_commit_queue_bytes,
    )
    yield gauge(
        "longwire_fan_out_queue_bytes", "Messages to many, not begun to be written.", facts.fan_out.waiting_bytes
    )
    yield gauge("longwire_broadcasts", "Pushes with acknowledgements outstanding.", len(facts.broadcasts))
    yield counter(
        "longwire_receipts_refused",
        "Writes of acknowledgements that the store did not take; they are tried again.",
        facts.counters.receipts_refused,
    )
    yield gauge(
        "longwire_drain_sessions_left", "Sessions of a node that is drained.", len(facts.hub) if drain.is_on else 0
    )
    if facts.across is not None:
        yield gauge(
            "longwire_route_drift", "Routes that differed from the sessions at the last look.", facts.reconcile.drift
        )
        yield counter("longwire_routes_repaired", "Routes that were put right.", facts.reconcile.repaired)


def link_metrics(courier: Courier) -> Iterator[Metric]:
    """What a process carries to other nodes."""
    yield gauge("longwire_link_queue_bytes", "Messages on their way to other nodes.", courier.queued_bytes)
    yield gauge(
        "longwire_link_behind_devices",
        "Devices whose nodes are still to be told to look into the inboxes.",
        len(courier.behind),
    )
    yield counter(
        "longwire_link_messages",
        "Messages times receivers: forwarded to a node, corrected (the device had moved), nudged (its node was told to"
        " read the store), dropped (at most once).",
        {
            "forwarded": courier.forwarded,
            "corrected": courier.corrected,
            "nudged": courier.nudged,
            "dropped": courier.dropped,
        },
        "outcome",
    )
