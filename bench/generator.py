"""lwload, the C load generator (bench/load): building it, running it, reading what it found.

One generator drives every server, so that a difference between two servers is never one between two generators.
"""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from bench.servers import Endpoint

LOAD = Path(__file__).resolve().parent / "load"
BUILD = LOAD / "build"
RUN_WITHIN_S = 300.0

Result = dict[str, object]

# What no server may do; and what the promises allow (at most once without a receipt, at least once with one) but a
# reader must know.
_NEVER = (
    "corrupt",
    "misrouted",
    "lost_confirmed",
    "out_of_order",
    "stray_receipts",
    "delivered_though_refused",
)
_TOLD = ("lost", "duplicates", "unanswered", "unsendable", "failed", "failed_connects", "foreign")


class GeneratorFailedError(Exception):
    """lwload could not do its work; the text is what it said."""


def build() -> None:
    """Builds the generators; raises GeneratorFailedError with the compiler's words."""
    done = subprocess.run(["make", "-C", str(LOAD)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise GeneratorFailedError(f"the load generator does not build (it needs gcc and make):\n{done.stderr}")


def has_tls() -> bool:
    """Whether lwload-tls could be built here."""
    return (BUILD / "lwload-tls").exists()


def _command(work: str, endpoint: Endpoint, connections: int, extra: dict[str, object]) -> list[str]:
    program = "lwload-tls" if endpoint.is_tls else "lwload"
    options: dict[str, object] = {
        "port": endpoint.port,
        "protocol": endpoint.protocol,
        "connections": connections,
        **extra,
    }
    if endpoint.tokens is not None:
        options["tokens"] = endpoint.tokens
    command = [str(BUILD / program), work]
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    return command


def run(work: str, endpoint: Endpoint, connections: int, **extra: object) -> Result:
    """Runs one work to its end. Raises GeneratorFailedError."""
    command = _command(work, endpoint, connections, extra)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=RUN_WITHIN_S)
    except subprocess.TimeoutExpired as late:
        raise GeneratorFailedError(f"lwload {work} did not end within {RUN_WITHIN_S:.0f} s") from late
    if done.returncode != 0:
        raise GeneratorFailedError(done.stderr.strip().partition("\n")[0])
    result: Result = json.loads(done.stdout)
    return result


@dataclass
class Held:
    """Connections that are up; `final` is filled in once they are let go."""

    connected: int
    connects_per_s: float
    _stdin: IO[str]
    final: Result = field(default_factory=dict)

    def begin_phase(self, name: str) -> None:
        """From now on the latencies that a `push` takes are of this phase."""
        self._stdin.write(f"{name}\n")
        self._stdin.flush()


@contextmanager
def held_idle(endpoint: Endpoint, connections: int, first: int = 0) -> Iterator[Held]:
    """Opens the connections, of the devices from `first` on, and keeps them alive but idle while the block lasts."""
    with _held("idle", endpoint, connections, {"first": first}) as held:
        yield held


@contextmanager
def held_returning(endpoint: Endpoint, connections: int, **extra: object) -> Iterator[Held]:
    """Idle connections that come back when they end, as devices do (load/work_return.c)."""
    with _held("return", endpoint, connections, extra) as held:
        yield held


@contextmanager
def held_fleet(endpoint: Endpoint, connections: int, **extra: object) -> Iterator[Held]:
    """Connected devices that acknowledge what comes while the block lasts, and write it down (load/work_push.c)."""
    with _held("push", endpoint, connections, extra) as held:
        yield held


@contextmanager
def _held(work: str, endpoint: Endpoint, connections: int, extra: dict[str, object]) -> Iterator[Held]:
    command = _command(work, endpoint, connections, extra)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as lwload:
        assert lwload.stdin is not None
        assert lwload.stdout is not None
        try:
            word, _, told = lwload.stdout.readline().partition(" ")
            if word != "READY":
                raise GeneratorFailedError(f"lwload {work} ended with {lwload.wait(10)} before it was ready")
            ready = json.loads(told)
            held = Held(ready["connected"], ready["rate_per_s"], lwload.stdin)
            yield held
            lwload.stdin.close()
            held.final = json.loads(lwload.stdout.readline())
            lwload.wait(30)
        finally:
            if lwload.poll() is None:
                lwload.kill()


def number(result: Result, *path: str) -> float:
    """A figure inside a result, such as `latency`, `p99_us`; not a number where nothing was measured."""
    value: object = result
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return float(value) if isinstance(value, int | float) else float("nan")


def faults(result: Result) -> tuple[list[str], list[str]]:
    """What the generator found wrong: (what no server may do, what a reader must know)."""
    never = [f"{name}: {result[name]}" for name in _NEVER if result.get(name)]
    told = [f"{name}: {result[name]}" for name in _TOLD if result.get(name)]
    answers = result.get("statuses")
    if isinstance(answers, dict):
        told += [f"HTTP {status}: {count}" for status, count in answers.items() if not status.startswith("2")]
    statuses = result.get("sent_statuses")
    if isinstance(statuses, dict):
        told += [f"SENT {status}: {count}" for status, count in statuses.items() if status != "0"]
    closes = result.get("closes")
    if isinstance(closes, dict):
        told += [f"closed {code}: {count}" for code, count in closes.items()]
    return never, told
