"""The works of the device port: what is done to a server, and which figures are read; and the list of all works."""

from pathlib import Path

from bench.api_works import API_WORKS
from bench.callbacks import longest_callback
from bench.cluster_works import CLUSTER_WORKS
from bench.generator import Result, held_idle, number, run
from bench.loop_held import longest_lateness
from bench.push_works import PUSH_WORKS
from bench.servers import Longwire, Server
from bench.work import Measured, Metric, Scale, Work

CPU = Metric("server_cpu_us", "server CPU µs a message", 1)


def _memory(server: Server, protocol: str, folder: Path, scale: Scale, tls: bool = False) -> Measured:
    """Two figures from three readings: empty, with the first few thousand, with all.

    Growth from empty to all is what the operator pays. It can flatter (connections move into heap that start-up left
    free) or accuse (first use of code and tables); from the first few thousand to all is what one more costs.
    """
    first, rest = scale.idle_first, scale.idle_connections - scale.idle_first
    with server.running(folder, protocol, tls) as endpoint:
        process = endpoint.process
        empty = process.settled_memory(at_least_s=scale.settle_s)
        with held_idle(endpoint, first) as one:
            some = process.settled_memory(at_least_s=scale.settle_s)
            with held_idle(endpoint, rest, first=first) as two:
                full = process.settled_memory(at_least_s=scale.settle_s)
        raw = [one.final, two.final]
    left = sum(number(result, "left") for result in raw)
    return Measured(
        {
            "bytes_per_connection": _bytes_each(full.pss_kb - empty.pss_kb, one.connected + two.connected),
            "bytes_per_further_connection": _bytes_each(full.pss_kb - some.pss_kb, two.connected),
            "rss_bytes_per_connection": _bytes_each(full.rss_kb - empty.rss_kb, one.connected + two.connected),
            "pss_empty_kb": empty.pss_kb,
            "pss_some_kb": some.pss_kb,
            "pss_full_kb": full.pss_kb,
        },
        raw,
        [] if left == scale.idle_connections else [f"only {left:.0f} connections were there to the end"],
    )


def _bytes_each(growth_kb: int, connections: int) -> float:
    return growth_kb * 1024 / connections if connections else float("nan")


def _memory_tls(server: Server, protocol: str, folder: Path, scale: Scale) -> Measured:
    return _memory(server, protocol, folder, scale, tls=True)


def _connect(server: Server, protocol: str, folder: Path, scale: Scale) -> Measured:
    with server.running(folder, protocol) as endpoint:
        result = run("connect", endpoint, scale.connects, connecting=server.connecting)
    return Measured(
        {
            "connects_per_s": number(result, "rate_per_s"),
            "p50_ms": number(result, "latency", "p50_us") / 1000,
            "p99_ms": number(result, "latency", "p99_us") / 1000,
        },
        [result],
    )


def _relay_options(scale: Scale, pid: int, receipt: bool, rate: int = 0) -> dict[str, object]:
    return {**scale.relay(receipt=receipt, rate=rate), "server_pid": pid}


def _relay(server: Server, protocol: str, folder: Path, scale: Scale) -> Measured:
    with server.running(folder, protocol) as endpoint:
        # A generator that sleeps whenever it is faster is woken by every write of the server, who pays for it: the
        # slower the server, the more. Nobody pays for one that polls on the core that is its own.
        options = {**_relay_options(scale, endpoint.process.pid, receipt=False), "spin": 1}
        result = run("relay", endpoint, scale.relay_connections, **options)
    return Measured(
        {
            "rate_per_s": number(result, "rate_per_s"),
            "server_cpu_us": number(result, "server_cpu_us_per_message"),
            "p99_ms": number(result, "latency", "p99_us") / 1000,
        },
        [result],
    )


def _relay_10k(server: Server, protocol: str, folder: Path, scale: Scale) -> Measured:
    with server.running(folder, protocol) as endpoint:
        options = _relay_options(scale, endpoint.process.pid, receipt=False, rate=scale.open_rate)
        result = run("relay", endpoint, scale.relay_connections, **options)
    return Measured(
        {
            "p50_us": number(result, "latency", "p50_us"),
            "p99_us": number(result, "latency", "p99_us"),
            "p999_us": number(result, "latency", "p999_us"),
            "rate_per_s": number(result, "rate_per_s"),
            "server_cpu_us": number(result, "server_cpu_us_per_message"),
            "generator_late_p99_us": number(result, "send_lag", "p99_us"),
        },
        [result],
        _falls_behind(result, scale.open_rate),
    )


def _relay_durable(server: Server, protocol: str, folder: Path, scale: Scale) -> Measured:
    """A fresh server for each half: the backlog and the checkpoints of a saturated one are not the paced one's."""
    with server.running(folder / "saturated", protocol) as endpoint:
        options = _relay_options(scale, endpoint.process.pid, receipt=True)
        saturated = run("relay", endpoint, scale.relay_connections, **options)
    with server.running(folder / "paced", protocol) as endpoint:
        options = _relay_options(scale, endpoint.process.pid, receipt=True, rate=scale.durable_rate)
        paced = run("relay", endpoint, scale.relay_connections, **options)
    return Measured(
        {
            "confirmed_per_s": number(saturated, "confirmed_per_s"),
            "server_cpu_us": number(saturated, "server_cpu_us_per_message"),
            "paced_sent_p50_ms": number(paced, "receipt_latency", "p50_us") / 1000,
            "paced_sent_p99_ms": number(paced, "receipt_latency", "p99_us") / 1000,
            "paced_delivered_p99_ms": number(paced, "latency", "p99_us") / 1000,
        },
        [saturated, paced],
        _falls_behind(paced, scale.durable_rate)
        + (["keeps nothing on disk: not the same promise"] if server.is_durable is False else []),
    )


def _falls_behind(result: Result, rate: int) -> list[str]:
    achieved = number(result, "rate_per_s")
    return [] if achieved >= 0.98 * rate else [f"only {achieved:,.0f} of {rate:,} messages a second arrived in time"]


def _loop_held(server: Server, protocol: str, folder: Path, scale: Scale) -> Measured:
    """All that a node has to do, one after another in one process; then what held its loop longest."""
    if isinstance(server, Longwire):
        server = server.with_timed_callbacks()
    with server.running(folder, protocol) as endpoint:
        pid, connections = endpoint.process.pid, scale.relay_connections
        raw = [
            run("connect", endpoint, scale.connects, connecting=server.connecting),
            run("relay", endpoint, connections, **_relay_options(scale, pid, receipt=False)),
            run("relay", endpoint, connections, **_relay_options(scale, pid, receipt=True)),
        ]
        log = endpoint.process.log
    longest, lateness = longest_callback(log), longest_lateness(log)
    if longest is None or lateness is None:
        return Measured({}, raw, ["the server did not tell what held its loop"])
    return Measured(
        {"callback_ms": longest.ms, "collector_ms": lateness.collector_ms, "late_ms": lateness.timer_ms},
        raw,
        [f"longest: {longest.name}"],
    )


_MEMORY = (
    Metric("bytes_per_connection", "bytes a connection (Pss)"),
    Metric("bytes_per_further_connection", "bytes a further one (Pss)"),
    Metric("rss_bytes_per_connection", "bytes a connection (RSS)"),
)
_ALL = ("longwire", "mosquitto", "bare-epoll")

WORKS = (
    Work("memory-tcp", "an idle authenticated connection", _MEMORY, _ALL, "native", _memory, "≤ 2,560 bytes"),
    Work(
        "memory-websocket",
        "an idle authenticated WebSocket connection",
        _MEMORY,
        ("longwire",),
        "websocket",
        _memory,
    ),
    Work(
        "memory-tls",
        "an idle authenticated TLS connection",
        _MEMORY,
        ("longwire", "mosquitto"),
        "native",
        _memory_tls,
        needs_tls=True,
    ),
    Work(
        "connect",
        "connect and authenticate",
        (
            Metric("connects_per_s", "connects/s", higher_is_better=True),
            Metric("p50_ms", "p50 ms", 1),
            Metric("p99_ms", "p99 ms", 1),
        ),
        _ALL,
        "native",
        _connect,
        "≥ 15,000/s",
    ),
    Work(
        "relay",
        "device to device, no receipt, saturated",
        (Metric("rate_per_s", "messages/s", higher_is_better=True), CPU, Metric("p99_ms", "p99 ms", 1)),
        _ALL,
        "native",
        _relay,
        "≥ 0.9 × Mosquitto's QoS 0",
    ),
    Work(
        "relay-10k",
        "device to device, no receipt, 10,000/s by schedule",
        (
            Metric("p99_us", "p99 µs"),
            Metric("p50_us", "p50 µs"),
            Metric("p999_us", "p99.9 µs"),
            Metric("generator_late_p99_us", "of which generator late, p99 µs"),
            CPU,
        ),
        _ALL,
        "native",
        _relay_10k,
    ),
    Work(
        "relay-durable",
        "device to device, SENT and ACK; saturated, and 5,000/s by schedule",
        (
            Metric("confirmed_per_s", "confirmed/s", higher_is_better=True),
            CPU,
            Metric("paced_sent_p50_ms", "SENT p50 ms (5,000/s)", 2),
            Metric("paced_sent_p99_ms", "SENT p99 ms (5,000/s)", 2),
            Metric("paced_delivered_p99_ms", "delivered p99 ms (5,000/s)", 2),
        ),
        _ALL,
        "native",
        _relay_durable,
        "≥ 10,000/s, p99 ≤ 50 ms at half of it",
    ),
    Work(
        "loop-held",
        "the longest that one callback held the node's loop: connects, relay, durable relay",
        (
            Metric("callback_ms", "longest callback, ms", 1),
            Metric("collector_ms", "the collector's longest pause, ms", 1),
            Metric("late_ms", "a timer's longest lateness, ms", 1),
        ),
        ("longwire",),
        "native",
        _loop_held,
        "≤ 50 ms, collector included",
    ),
    *PUSH_WORKS,
    *API_WORKS,
    *CLUSTER_WORKS,
)
