"""Metrics of the engines a process stands on, as it sees them."""

from collections.abc import Iterator

from prometheus_client.metrics_core import Metric

from longwire.adapters.http import LinkClient
from longwire.app.engines import EngineSet
from longwire.app.metrics.families import counter, gauge, histogram
from longwire.meters import UNIT_S
from longwire.ports.backlog import Backlog


def engine_metrics(engines: EngineSet, link: LinkClient | None) -> Iterator[Metric]:
    """Round trips, failures, and who answers."""
    meters = dict(engines.meters)
    if link is not None:
        meters["link"] = link.times
    yield histogram(
        "longwire_engine_request_seconds",
        "Round trips that ended well; of sql_commit a group's, of link a call of another node.",
        {name: meter.times for name, meter in meters.items()},
        UNIT_S,
        "engine",
    )
    yield counter(
        "longwire_engine_failures",
        "Calls that failed or had no answer in time.",
        {name: meter.failures for name, meter in meters.items()},
        "engine",
    )
    yield gauge(
        "longwire_engine_up",
        "Whether the engine answered last.",
        {name: up() for name, up in engines.up.items()},
        "engine",
    )


def backlog_metrics(found: Backlog) -> Iterator[Metric]:
    """What waits in the store; of one process of a cluster alone."""
    age_s = 0.0 if found.oldest_ms is None else max(0, found.at_ms - found.oldest_ms) / 1000
    yield gauge("longwire_inbox_messages", "Messages that devices have not acknowledged, to 1,000,001.", found.inbox)
    yield gauge("longwire_inbox_oldest_seconds", "The age of the oldest of them.", age_s)
    yield gauge("longwire_push_pending_devices", "Devices that live pushes wait for, to 1,000,001.", found.push_pending)
    yield gauge(
        "longwire_webhook_events", "Events that some webhook has not taken, to 1,000,001.", found.webhook_events
    )
    yield gauge("longwire_dead_letters", "Dead letters that were not replayed, to 1,000,001.", found.dead_letters)
