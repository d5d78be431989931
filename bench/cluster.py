"""A cluster to be measured: engines with the durability of production, kept for the whole run, and fresh processes.

Every figure comes with the CPU that each process spent on a message: two cores carry engines, nodes and generator.
"""

import atexit
import functools
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import cast

from bench.processes import ServerFailedError, ServerProcess, cpu_s
from bench.servers import CREATE_WITHIN_S, Endpoint, Longwire
from longwire.testing.cluster import Cluster, SharedEngines
from longwire.testing.engines import Engine, EngineFailed, EngineMissing
from longwire.testing.engines.process import family

TOKENS = "bench-tokens.csv"
_LEFT_TO_DO_S = 1.0
"""Presence, figures, copies of tokens: nobody tells when the last of it is written, and it is not the work's."""


@functools.cache
def engines() -> SharedEngines:
    """Started at the first call, stopped when the run ends. Raises ServerFailedError."""
    folder = tempfile.TemporaryDirectory(prefix="longwire-bench-")
    try:
        started = SharedEngines.start(Path(folder.name), durable=True)
    except (EngineFailed, EngineMissing) as failure:
        raise ServerFailedError(str(failure)) from failure
    atexit.register(folder.cleanup)
    for engine in started.all():
        atexit.register(engine.stop)
    return started


@dataclass
class Spent:
    """What every process of a cluster has spent since this was made; in µs."""

    cluster: Cluster
    at_first: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        self.at_first = self._now()

    def a_message(self, messages: float) -> dict[str, float]:
        """CPU µs a message, by process, and ``all``."""
        now = self._now()
        spent = {name: (now[name] - self.at_first.get(name, 0.0)) / max(1.0, messages) for name in now}
        return {**spent, "all": sum(spent.values())}

    def _now(self) -> dict[str, float]:
        parts: list[Engine] = [*self.cluster.processes(), *self.cluster.engines.all()]
        return {part.name: cpu_s(family(part.pid)) * 1e6 for part in parts if part.is_running}


def figures(spent: dict[str, float]) -> dict[str, float]:
    """Of one gateway, the mean of all, and of all processes together."""
    gateways = [cost for name, cost in spent.items() if name.startswith("gateway")]
    return {"gateway_cpu_us": fmean(gateways), "all_cpu_us": spent["all"]}


def told(spent: dict[str, float]) -> list[str]:
    """As a remark under the table."""
    parts = sorted((name, cost) for name, cost in spent.items() if cost >= 0.05 and name != "all")
    return ["CPU µs a message: " + ", ".join(f"{name} {cost:.1f}" for name, cost in parts)]


@contextmanager
def running(
    folder: Path, devices: int, *, gateways: int, apis: int = 1, routes: int = 0, sinks: int = 0
) -> Iterator[tuple[Cluster, Endpoint]]:
    """A fresh cluster with so many devices, and where the generator finds it: on every gateway a part of them."""
    try:
        with Cluster(folder, engines(), gateways=gateways, apis=apis, routes=routes, sinks=sinks) as cluster:
            tokens = _register(cluster, devices, folder / TOKENS)
            first = cluster.gateways[0]
            process = cast("ServerProcess", _Pid(first.pid))
            yield cluster, Endpoint(process, "native", first.port, tokens, cluster.http_url)
    except (EngineFailed, AssertionError) as failure:
        raise ServerFailedError(str(failure)[-2_000:]) from failure


def ports(cluster: Cluster) -> dict[str, object]:
    """The generator's option for all gateways."""
    return {"port": ",".join(str(gateway.port) for gateway in cluster.gateways)}


def settled(cluster: Cluster) -> None:
    """Waits until the route table has exactly the nodes' sessions, and what connects leave to be done is over."""
    cluster.routes_equal_nodes(120)
    time.sleep(_LEFT_TO_DO_S)


@dataclass(frozen=True)
class _Pid:
    """All that a generator wants of a process."""

    pid: int


def _register(cluster: Cluster, count: int, path: Path) -> Path:
    done = subprocess.run(
        [Longwire.start[0], "devices", "create", "--count", str(count), "--prefix", "dev-", "--tokens", str(path)],
        env={**os.environ, "LONGWIRE_URL": cluster.http_url, "LONGWIRE_API_KEY": cluster.credentials["api_key"]},
        capture_output=True,
        text=True,
        check=False,
        timeout=CREATE_WITHIN_S,
    )
    if done.returncode != 0:
        raise ServerFailedError(f"`longwire devices create` failed: {done.stderr.strip()[-500:]}")
    return path
