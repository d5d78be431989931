"""Metrics of what is no node: push worker, sink, webhooks, HTTP, traces, logs."""

from collections.abc import Iterator

from prometheus_client.metrics_core import Metric

from longwire.api.shell import Tally
from longwire.app import logs
from longwire.app.metrics.families import counter, counter_by_two, gauge, histogram
from longwire.meters import UNIT_S
from longwire.push.check import Check
from longwire.push.worker import Worker
from longwire.sink import Sink
from longwire.traces import Traces
from longwire.webhooks import Endpoints


def push_metrics(worker: Worker, check: Check | None) -> Iterator[Metric]:
    yield counter(
        "longwire_push_segments_dispatched", "Segments that this worker has written to their end.", worker.segments
    )
    yield counter("longwire_push_attempts_failed", "Attempts at a segment that failed.", worker.failed_attempts)
    if check is not None:
        yield gauge("longwire_push_count_drift", "Pushes whose numbers did not add up, since the start.", check.drift)


def sink_metrics(sink: Sink) -> Iterator[Metric]:
    counts = sink.counts
    yield counter(
        "longwire_sink_records",
        "Messages of devices: handled, retried calls, buried as dead letters.",
        {"handled": counts.handled, "retried": counts.retried, "buried": counts.buried},
        "outcome",
    )
    yield gauge("longwire_sink_waiting_records", "Read and not done.", sink.waiting)
    yield gauge("longwire_sink_lag_seconds", "The age of the oldest that is read and not done.", sink.lag_ms / 1000)


def webhook_metrics(webhooks: Endpoints) -> Iterator[Metric]:
    posts = webhooks.posts
    yield counter(
        "longwire_webhook_posts",
        "POSTs to webhooks, by whether they were taken.",
        {"taken": posts.times.total, "failed": posts.failures},
        "outcome",
    )
    yield histogram("longwire_webhook_seconds", "POSTs that were taken.", posts.times, UNIT_S)


def http_metrics(tally: Tally) -> Iterator[Metric]:
    yield counter_by_two(
        "longwire_http_requests",
        "Calls of the HTTP port: of devices, of operators, and others (health, documents).",
        tally.counts,
        ("door", "status"),
    )
    yield histogram(
        "longwire_http_request_seconds",
        "From a call's head to its answer's end.",
        tally.times,
        UNIT_S,
        "door",
    )


def log_metrics() -> Iterator[Metric]:
    if logs.handler is not None:
        yield counter("longwire_log_events", "Lines that the process logged.", logs.handler.counts, "level")


def trace_metrics(traces: Traces) -> Iterator[Metric]:
    yield counter("longwire_traces_told", "Hops of traced messages that were told.", traces.told)
    yield counter("longwire_traces_dropped", "Hops that were not told, for there were too many.", traces.dropped)
    marks = traces.marks
    yield gauge("longwire_marks", "Devices and pushes marked to be traced.", len(marks.devices) + len(marks.pushes))
