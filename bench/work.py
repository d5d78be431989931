"""What a work is: a function from a fresh server to figures and the generator's raw results.

The first metric of a work is its headline: ratios between servers are of that one.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.generator import Result, has_tls
from bench.servers import BareEpoll, Custom, Server


@dataclass(frozen=True)
class Scale:
    """How much of everything."""

    idle_connections: int = 15_000
    idle_first: int = 3_000  # of these, opened before the rest: see _memory
    connects: int = 15_000
    relay_connections: int = 2_000
    in_flight: int = 1_000
    payload_bytes: int = 128
    seconds: float = 10.0
    warmup_s: float = 3.0
    settle_s: float = 4.0
    open_rate: int = 10_000
    durable_rate: int = 5_000
    fan_out_receivers: int = 5_000
    push_sessions: int = 15_000
    pushes: int = 5  # one after another, then as many at once
    posts: int = 40
    posts_per_s: float = 2.0
    talkers: int = 200  # of the sessions, those who write to each other while a broadcast runs
    one_to_one_rate: int = 1_000
    callers: int = 16
    batch_callers: int = 4
    batch: int = 500
    registered: int = 1_000_000
    live_pushes: int = 1_000
    away: int = 1_000  # devices of those pushes that never acknowledge: so that the pushes live
    cluster_rate: int = 3_000
    cluster_sessions: int = 30_000
    killed_sessions: int = 15_000  # on three nodes
    talking_sessions: int = 300  # of them, those that write to each other
    looked_up: int = 100_000
    connect_turns: int = 3  # with and without them, alternated

    @property
    def devices(self) -> int:
        return max(
            self.idle_connections,
            self.connects,
            self.relay_connections,
            self.push_sessions,
            self.fan_out_receivers + 1,
        )

    def relay(self, *, receipt: bool, rate: int = 0) -> dict[str, object]:
        """The generator's options of a relay: saturated, or by a schedule of so many messages a second."""
        options: dict[str, object] = {
            "payload": self.payload_bytes,
            "in_flight": self.in_flight,
            "receipt": int(receipt),
            "seconds": self.seconds,
            "warmup": self.warmup_s,
        }
        return {**options, "rate": rate} if rate else options


QUICK = Scale(
    idle_connections=2_000,
    idle_first=500,
    connects=2_000,
    relay_connections=500,
    in_flight=250,
    seconds=2,
    warmup_s=1,
    settle_s=2,
    fan_out_receivers=1_500,
    push_sessions=2_000,
    pushes=2,
    posts=6,
    talkers=100,
    one_to_one_rate=500,
    registered=50_000,
    live_pushes=50,
    away=200,
    connect_turns=1,
    cluster_rate=500,
    cluster_sessions=3_000,
    killed_sessions=600,
    talking_sessions=60,
    looked_up=10_000,
)


@dataclass(frozen=True)
class Metric:
    """One figure: `key` in the JSON, `label` in the table."""

    key: str
    label: str
    digits: int = 0
    higher_is_better: bool = False


@dataclass
class Measured:
    """What one run of a work on one server gave."""

    figures: dict[str, float]
    raw: list[Result] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Work:
    """One work, and the servers that take part in it."""

    name: str
    title: str
    metrics: tuple[Metric, ...]
    servers: tuple[str, ...]
    protocol: str  # Longwire's; peers use the one they have
    measure: Callable[[Server, str, Path, Scale], Measured]
    budget: str = ""
    needs_tls: bool = False

    def protocol_for(self, server: Server) -> str | None:
        """What `server` speaks in this work; None when it takes no part."""
        # A server given on the command line joins where the bare relay does: where any native server can.
        if server.name not in self.servers and not (isinstance(server, Custom) and BareEpoll.name in self.servers):
            return None
        if self.needs_tls and not (server.offers_tls() and has_tls()):
            return None
        if self.protocol == "native" and server.protocols == {"mqtt"}:
            return "mqtt"
        return self.protocol if self.protocol in server.protocols else None
