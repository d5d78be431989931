"""Hops as spans of OpenTelemetry, sent to a collector by OTLP over HTTP. Needs the extra ``otel``.

    hop ─► at most 4,096 that wait ─► one thread: batches of at most 512, or what a second brought ─► collector

Nobody waits for the collector: what finds the queue full, or is in a batch that the collector does not take, is
dropped and counted, and once a minute a line says so.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from longwire import __version__
from longwire.traces import Hop

log = logging.getLogger(__name__)

_MOST_WAITING = 4_096
_BATCH = 512
_EVERY_S = 1.0
_EXPORT_WITHIN_S = 5.0
_WARN_EVERY_S = 60.0
_PATH = "/v1/traces"
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_SCOPE = InstrumentationScope("longwire", __version__)


class OtlpTell:
    """Takes hops on the loop, and sends them on a thread of its own between ``start`` and ``stop``."""

    def __init__(self, url: str, headers: Mapping[str, str], resource: Mapping[str, str]) -> None:
        """``url``: where the collector listens; without a path it is asked at ``/v1/traces``."""
        if urlsplit(url).path in ("", "/"):
            url = url.rstrip("/") + _PATH
        # Its own lines say less than ours, one for each batch.
        logging.getLogger("opentelemetry.exporter.otlp").setLevel(logging.CRITICAL)
        self._exporter = OTLPSpanExporter(url, headers=dict(headers), timeout=_EXPORT_WITHIN_S)
        self._resource = Resource(dict(resource))
        self._waiting: deque[Hop] = deque()
        self._is_due = threading.Event()
        self._is_stopping = False
        self._thread: threading.Thread | None = None
        self._refused = 0
        """Hops that found the queue full; written by the loop alone."""
        self._failed = 0
        """Hops that the collector did not take; written by the thread alone."""
        self._warned_at = float("-inf")
        self.sent = 0

    @property
    def dropped(self) -> int:
        """Hops that will never be sent."""
        return self._refused + self._failed

    def __call__(self, hop: Hop) -> None:
        if len(self._waiting) >= _MOST_WAITING:
            self._refused += 1
            return
        self._waiting.append(hop)
        if len(self._waiting) == _BATCH:
            self._is_due.set()

    def start(self) -> None:
        """Sends from here on."""
        self._thread = threading.Thread(target=self._run, name="longwire-otlp", daemon=True)
        self._thread.start()

    def stop(self, within_s: float = 2.0) -> None:
        """Sends what waits, for so long at the most; the rest is dropped. Blocks; takes no more hops."""
        self._is_stopping = True
        self._is_due.set()
        if self._thread is not None:
            self._thread.join(within_s)
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def _run(self) -> None:
        while True:
            self._is_due.wait(_EVERY_S)
            self._is_due.clear()
            while self._waiting:
                self._send([self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))])
            if self._is_stopping:
                return

    def _send(self, hops: Sequence[Hop]) -> None:
        try:
            is_taken = self._exporter.export([self._span(hop) for hop in hops]) is SpanExportResult.SUCCESS
        except Exception:
            log.exception("spans were not sent")
            is_taken = False
        if is_taken:
            self.sent += len(hops)
            return
        self._failed += len(hops)
        if time.monotonic() - self._warned_at >= _WARN_EVERY_S:
            self._warned_at = time.monotonic()
            log.warning("the collector of traces (setting otlp_url) does not take spans; %d are dropped", self.dropped)

    def _span(self, hop: Hop) -> ReadableSpan:
        trace_id = int.from_bytes(hop.trace[:16])
        return ReadableSpan(
            name=hop.name,
            context=SpanContext(trace_id, int.from_bytes(hop.span), is_remote=False, trace_flags=_SAMPLED),
            parent=SpanContext(trace_id, int.from_bytes(hop.parent), is_remote=True) if any(hop.parent) else None,
            resource=self._resource,
            attributes={f"longwire.{name}": value for name, value in hop.facts},
            kind=SpanKind[hop.kind.upper()],
            status=Status(StatusCode.ERROR if hop.is_error else StatusCode.UNSET),
            start_time=hop.began_ns,
            end_time=hop.ended_ns,
            instrumentation_scope=_SCOPE,
        )
