"""``/metrics``: plain attributes of the parts, read when somebody scrapes, in Prometheus' formats.

Nothing on the way of a message knows of this, nothing goes through connections, and no label has a value that comes
from outside: how long a scrape takes does not depend on how many devices there are.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, GCCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from starlette.types import Receive, Scope, Send

from longwire import __version__
from longwire.api.services import Readiness
from longwire.api.shell import Tally
from longwire.app.metrics.engines import backlog_metrics, engine_metrics
from longwire.app.metrics.families import gauge
from longwire.app.metrics.node import link_metrics, node_metrics
from longwire.app.metrics.process import count_open_files, loop_metrics, open_files_told, process_metrics
from longwire.app.metrics.roles import (
    http_metrics,
    log_metrics,
    push_metrics,
    sink_metrics,
    trace_metrics,
    webhook_metrics,
)
from longwire.gateway.lag import LoopWatch

if TYPE_CHECKING:
    from longwire.app.build import System

Parts = Callable[[], Iterator[Metric]]

_KEPT_S: Final = 0.5
_OPEN: Final = "application/openmetrics-text"
# Not the library's choice by the header: it answers with the version that the header names, whatever that is.
_ENCODINGS: Final[Mapping[str, Callable[[CollectorRegistry], bytes]]] = {
    CONTENT_TYPE_PLAIN_0_0_4: generate_latest,
    f"{_OPEN}; version=1.0.0; charset=utf-8": openmetrics.generate_latest,
}


class ProcessCollector(Collector):
    """The metrics that every process has, and those of its parts."""

    def __init__(self, roles: Iterable[str], readiness: Readiness, watch: LoopWatch, parts: Parts) -> None:
        self.open_files = 0
        self._roles = ",".join(sorted(roles))
        self._readiness = readiness
        self._watch = watch
        self._parts = parts

    def describe(self) -> list[Metric]:
        """Nothing in advance: registering would else collect once."""
        return []

    def collect(self) -> Iterator[Metric]:
        info = GaugeMetricFamily("longwire_build_info", "Always 1.", labels=("version", "roles"))
        info.add_metric((__version__, self._roles), 1)
        yield info
        yield gauge("longwire_ready", "Whether the process takes work (/readyz).", self._readiness() is None)
        yield from self._parts()
        yield from log_metrics()
        yield from loop_metrics(self._watch)
        yield from process_metrics(self.open_files)


class MetricsApp:
    """The page, as an ASGI application; kept for half a second, so that a second scraper costs nothing."""

    def __init__(self, collector: ProcessCollector) -> None:
        self._collector = collector
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(collector)
        GCCollector(self._registry)
        self._pages: dict[str, tuple[float, bytes]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            await _answer(send, 405, b"text/plain; charset=utf-8", b"only GET\n", [(b"allow", b"GET, HEAD")])
            return
        accepted = ",".join(value.decode("latin-1") for key, value in scope["headers"] if key == b"accept")
        content_type = next(one for one in _ENCODINGS if one.startswith(_OPEN) == (_OPEN in accepted))
        at, page = self._pages.get(content_type, (float("-inf"), b""))
        if time.monotonic() - at > _KEPT_S:
            self._collector.open_files = open_files_told() or await asyncio.to_thread(count_open_files)
            page = _ENCODINGS[content_type](self._registry)
            self._pages[content_type] = time.monotonic(), page
        body = b"" if scope["method"] == "HEAD" else page
        await _answer(send, 200, content_type.encode("latin-1"), body, [])


def create_metrics(
    system: "System", readiness: Readiness, watch: LoopWatch, tally: Callable[[], Tally | None]
) -> MetricsApp:
    """``readiness``: why the process takes no work. ``watch``: what looks at its loop. ``tally``: of its HTTP port."""
    parts = partial(_parts_of, system, tally)
    return MetricsApp(ProcessCollector(system.settings.roles, readiness, watch, parts))


def create_bare_metrics(role: str, readiness: Readiness, watch: LoopWatch) -> MetricsApp:
    """Of a process without engines: what every process has."""
    return MetricsApp(ProcessCollector((role,), readiness, watch, lambda: iter(())))


def _parts_of(system: "System", tally: Callable[[], Tally | None]) -> Iterator[Metric]:
    if system.node is not None:
        yield from node_metrics(system.node.facts)
    if system.courier is not None:
        yield from link_metrics(system.courier)
    yield from engine_metrics(system.engines, system.link_client)
    if system.worker is not None:
        yield from push_metrics(system.worker, system.check)
    if system.backlog is not None and system.backlog.leads() and system.backlog.latest is not None:
        yield from backlog_metrics(system.backlog.latest)
    if system.sink is not None:
        yield from sink_metrics(system.sink)
    if system.webhooks is not None:
        yield from webhook_metrics(system.webhooks)
    answered = tally()
    if answered is not None:
        yield from http_metrics(answered)
    yield from trace_metrics(system.traces)


async def _answer(
    send: Send, status: int, content_type: bytes, body: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    head = [(b"content-type", content_type), (b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})
