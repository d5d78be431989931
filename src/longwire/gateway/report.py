"""What a node says of itself when it is asked."""

import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from longwire.clock import Clock
from longwire.gateway.broadcasts import Broadcasts
from longwire.gateway.counters import Counters
from longwire.gateway.drain import Drain
from longwire.gateway.hub import Hub
from longwire.gateway.lag import LoopWatch
from longwire.gateway.load import CpuShare
from longwire.gateway.reconcile import Reconcile
from longwire.gateway.session import Session
from longwire.histogram import Histogram
from longwire.limits import Limits
from longwire.net.connection import DevicePort
from longwire.operations_model import NodeReport
from longwire.ports.across import Across
from longwire.ports.messages import MessageStore
from longwire.ports.uplink import UplinkWriter
from longwire.reasons import CloseCode

_PERCENTILES = (0.5, 0.95, 0.99)
_RECENT_S = 30.0
_MARK_EACH_S = 5.0


class Reporter:
    """Looks at the node and at its process. Counts are since the start; shares are since the look before."""

    def __init__(
        self,
        node_id: str,
        hub: Hub,
        counters: Counters,
        port: DevicePort[Session],
        watch: LoopWatch,
        broadcasts: Broadcasts,
        messages: MessageStore,
        uplink: UplinkWriter,
        drain: Drain,
        reconcile: Reconcile,
        across: Across | None,
        clock: Clock,
        limits: Limits,
    ) -> None:
        self._node_id = node_id
        self._hub = hub
        self._counters = counters
        self._port = port
        self._watch = watch
        self._broadcasts = broadcasts
        self._messages = messages
        self._uplink = uplink
        self._drain = drain
        self._reconcile = reconcile
        self._across = across
        self._limits = limits
        self._cpu = CpuShare(clock)
        self._recent = _Recent(broadcasts.latency, clock)

    def look(self) -> NodeReport:
        """The node as it is now."""
        counters, port, latency = self._counters, self._port, self._broadcasts.latency
        p50, p95, p99 = (latency.percentile_ms(share) for share in _PERCENTILES)
        return NodeReport(
            node_id=self._node_id,
            connections=len(self._hub),
            max_connections=self._limits.max_connections,
            connects=counters.connects,
            uplink=counters.sends,
            downlink=counters.delivered + counters.pushes + counters.broadcast_written + counters.catch_up_written,
            acks=counters.acks + counters.broadcast_acks,
            cpu_share=self._cpu.look(),
            memory_bytes=_memory_bytes(),
            loop_late_ms=round(self._watch.recent_s * 1000, 1),
            longest_pause_ms=round(self._watch.longest_pause_s * 1000, 1),
            queued_bytes=self._messages.queued_bytes + self._uplink.queued_bytes,
            ack_latency_ms=(p50, p95, p99),
            drain=self._drain.state(),
            route_drift=self._reconcile.drift,
            repaired=self._reconcile.repaired,
            behind=0 if self._across is None else len(self._across.behind),
            link_queued_bytes=0 if self._across is None else self._across.queued_bytes,
            closes=dict(counters.closes),
            bytes_in=port.bytes_in,
            bytes_out=port.bytes_out,
            shed=counters.shed,
            slow=counters.closes[CloseCode.SLOW_CONSUMER.label],
            recent_ack_latency_ms=self._recent.look(),
        )


class _Recent:
    """Percentiles of what a histogram gained in the last half minute, from marks of its counts at looks."""

    def __init__(self, latency: Histogram, clock: Clock) -> None:
        self._latency = latency
        self._clock = clock
        self._marks: deque[tuple[float, Sequence[int]]] = deque([(clock.monotonic(), latency.counts[:])])

    def look(self) -> tuple[float | None, float | None, float | None]:
        """p50, p95 and p99; each None where nothing was added."""
        now, marks = self._clock.monotonic(), self._marks
        if now - marks[-1][0] >= _MARK_EACH_S:
            marks.append((now, self._latency.counts[:]))
        while len(marks) > 1 and now - marks[1][0] >= _RECENT_S:
            marks.popleft()
        gained = Histogram([count - before for count, before in zip(self._latency.counts, marks[0][1], strict=True)])
        p50, p95, p99 = (gained.percentile_ms(share) for share in _PERCENTILES)
        return p50, p95, p99


def _memory_bytes() -> int:
    """What the process has in memory; 0 on a system that does not tell the way Linux does."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
