"""The process's own metrics, under the names that Prometheus' clients give them.

Not their collector: it lists the folder of open files in the loop, which takes ten milliseconds of a node with 15,000
connections.
"""

import os
import resource
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

from prometheus_client.metrics_core import Metric

from longwire.app.metrics.families import counter, gauge, histogram
from longwire.gateway.lag import LoopWatch
from longwire.meters import UNIT_S

_FDS: Final = Path("/proc/self/fd")
_PAGE: Final = resource.getpagesize()
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_BOOTED_AT: Final = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def process_metrics(open_files: int) -> Iterator[Metric]:
    """Empty on a system without Linux' /proc."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return
    used = os.times()
    yield counter("process_cpu_seconds", "Processor time, of user and system.", used.user + used.system)
    yield gauge("process_resident_memory_bytes", "What the process has in memory.", int(fields[21]) * _PAGE)
    yield gauge("process_virtual_memory_bytes", "What it has addresses for.", int(fields[20]))
    yield gauge("process_start_time_seconds", "When it started, since the epoch.", _started_at(int(fields[19])))
    yield gauge("process_threads", "Its threads.", int(fields[17]))
    yield gauge("process_open_fds", "Its open files and connections.", open_files)
    yield gauge("process_max_fds", "How many it may have.", resource.getrlimit(resource.RLIMIT_NOFILE)[0])


@cache
def _started_at(ticks: int) -> float:
    return _BOOTED_AT + ticks / _TICKS_PER_S


def open_files_told() -> int:
    """How many files are open, from the kernel's own count (Linux 6.2); 0 where it does not tell."""
    try:
        return _FDS.stat().st_size
    except OSError:
        return 0


def count_open_files() -> int:
    """The same by counting; to be called in a thread."""
    try:
        return len(os.listdir(_FDS))  # noqa: PTH208 - half the time of iterdir
    except OSError:
        return 0


def loop_metrics(watch: LoopWatch) -> Iterator[Metric]:
    yield histogram(
        "longwire_loop_lag_seconds", "How late the loop was, looked at 100 times a second.", watch.lag, UNIT_S
    )
    yield histogram("longwire_gc_pause_seconds", "How long the garbage collector held it.", watch.pauses, UNIT_S)
