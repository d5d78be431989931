"""The works of pushes: fan-out, acknowledged pushes, how long a POST takes, what a broadcast does to others."""

import math
import time
from pathlib import Path
from statistics import median

from bench.api import Api, api_of, devices_of
from bench.generator import Result, held_fleet, number, run
from bench.servers import Server
from bench.work import Measured, Metric, Scale, Work

GROUP = "bench"
# Beside a broadcast the polls are to weigh nothing.
SELDOM_S = 0.05


def _fan_out(server: Server, protocol: str, folder: Path, scale: Scale, in_flight: int) -> Measured:
    connections = scale.fan_out_receivers + 1  # and the one who writes
    with server.running(folder, protocol) as endpoint:
        if endpoint.data is not None:
            api_of(endpoint).make_group(GROUP, devices_of(endpoint, connections))
        result = run(
            "fanout",
            endpoint,
            connections,
            group=GROUP,
            in_flight=in_flight,
            payload=scale.payload_bytes,
            seconds=scale.seconds,
            warmup=scale.warmup_s,
            server_pid=endpoint.process.pid,
            spin=1,
        )
    return Measured(
        {
            "deliveries_per_s": number(result, "deliveries_per_s"),
            "server_cpu_us": number(result, "server_cpu_us_per_delivery"),
            "p50_ms": number(result, "latency", "p50_us") / 1000,
            "p99_ms": number(result, "latency", "p99_us") / 1000,
        },
        [result],
    )


def _fan_out_1(server: Server, protocol: str, folder: Path, scale: Scale) -> Measured:
    return _fan_out(server, protocol, folder, scale, in_flight=1)


def _fan_out_8(server: Server, protocol: str, folder: Path, scale: Scale) -> Measured:
    return _fan_out(server, protocol, folder, scale, in_flight=8)


def _push_acked(server: Server, protocol: str, folder: Path, scale: Scale) -> Measured:
    """One push after another, each until the store has every acknowledgement; then as many posted at once."""
    with server.running(folder, protocol) as endpoint:
        api, process = api_of(endpoint), endpoint.process
        with held_fleet(endpoint, scale.push_sessions) as fleet:
            cpu_s = process.cpu_s()
            took = api.time_pushes(scale.pushes, fleet.connected)
            began = time.monotonic()
            posted = [api.push_to_all(f"together {at}") for at in range(scale.pushes)]
            together_s = max(api.wait_until_acked(push_id, fleet.connected) for push_id in posted) - began
            cpu_s = process.cpu_s() - cpu_s
        result = fleet.final
    acked = 2 * scale.pushes * fleet.connected
    return Measured(
        {
            "devices_per_s": fleet.connected / median(took),
            "together_per_s": scale.pushes * fleet.connected / together_s,
            "last_got_it_ms": _spread_ms(result),
            "server_cpu_us": cpu_s * 1e6 / acked,
        },
        [result],
        _unequal(result, 2 * scale.pushes, fleet.connected),
    )


def _pushes_in(result: Result) -> list[dict[str, int]]:
    found = result["pushes"]
    assert isinstance(found, list)
    return found


def _spread_ms(result: Result) -> float:
    """From the first device that got a push to the last, median of the pushes that were sent alone."""
    pushes = _pushes_in(result)
    alone = pushes[: len(pushes) // 2]
    return median((push["last_us"] - push["first_us"]) / 1000 for push in alone) if alone else math.nan


def _unequal(result: Result, pushes: int, devices: int) -> list[str]:
    """A remark where the devices do not hold what the counters say."""
    found = _pushes_in(result)
    if len(found) == pushes and all(push["devices"] == devices for push in found):
        return []
    short = sum(push["devices"] != devices for push in found)
    return [f"the fleet saw {len(found)} of {pushes} pushes, {short} of them not on each device"]


def _push_post(server: Server, protocol: str, folder: Path, scale: Scale) -> Measured:
    """How long POST takes: each behind the acknowledgements of the one before, then by a schedule that overlaps."""
    with server.running(folder, protocol) as endpoint:
        api = api_of(endpoint)
        with held_fleet(endpoint, scale.push_sessions) as fleet:
            alone = []
            for at in range(scale.posts):
                began = time.monotonic()
                push_id = api.push_to_all(f"alone {at}")
                alone.append(time.monotonic() - began)
                api.wait_until_acked(push_id, fleet.connected)
            paced = _paced_posts(api, scale, fleet.connected)
        result = fleet.final
    return Measured(
        {
            "p95_ms": _percentile(alone, 95) * 1000,
            "p50_ms": _percentile(alone, 50) * 1000,
            "paced_p95_ms": _percentile(paced, 95) * 1000,
        },
        [result],
        _unequal(result, 2 * scale.posts, fleet.connected),
    )


def _paced_posts(api: Api, scale: Scale, devices: int) -> list[float]:
    """Posts by a fixed schedule; the time of each runs from when it was due."""
    began, took, last = time.monotonic(), list[float](), ""
    for at in range(scale.posts):
        due = began + at / scale.posts_per_s
        time.sleep(max(0.0, due - time.monotonic()))
        last = api.push_to_all(f"paced {at}")
        took.append(time.monotonic() - due)
    api.wait_until_acked(last, devices)
    return took


def _percentile(values: list[float], percent: float) -> float:
    """Never rounded down."""
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]


def _relay_under_push(server: Server, protocol: str, folder: Path, scale: Scale) -> Measured:
    """A few devices write to each other by a schedule: first alone, then while pushes to all follow each other.

    They have a generator of their own: what waits in the other one's thousands of sockets is not the server's doing.
    """
    most = scale.push_sessions - scale.talkers
    with server.running(folder, protocol) as endpoint:
        api = api_of(endpoint)
        options = {"rate": scale.one_to_one_rate, "payload": scale.payload_bytes}
        with (
            held_fleet(endpoint, most, first=scale.talkers) as others,
            held_fleet(endpoint, scale.talkers, **options) as talkers,
        ):
            time.sleep(scale.warmup_s)
            talkers.begin_phase("quiet")
            time.sleep(scale.seconds)
            talkers.begin_phase("push")
            ends, pushes = time.monotonic() + scale.seconds, 0
            while time.monotonic() < ends:
                push_id = api.push_to_all(f"beside {pushes}")
                api.wait_until_acked(push_id, others.connected + talkers.connected, poll_s=SELDOM_S)
                pushes += 1
            talkers.begin_phase("after")
    result = talkers.final
    return Measured(
        {
            "push_p99_ms": number(result, "relay", "phases", "push", "latency", "p99_us") / 1000,
            "push_p50_ms": number(result, "relay", "phases", "push", "latency", "p50_us") / 1000,
            "quiet_p99_ms": number(result, "relay", "phases", "quiet", "latency", "p99_us") / 1000,
            "generator_late_p99_ms": number(result, "relay", "phases", "push", "send_lag", "p99_us") / 1000,
            "pushes": pushes,
        },
        [result, others.final],
        _unequal(result, pushes, talkers.connected) + _unequal(others.final, pushes, others.connected),
    )


_FAN_OUT = (
    Metric("deliveries_per_s", "deliveries/s", higher_is_better=True),
    Metric("server_cpu_us", "server CPU µs a delivery", 2),
    Metric("p50_ms", "p50 ms", 1),
    Metric("p99_ms", "p99 ms", 1),
)

PUSH_WORKS = (
    Work(
        "fanout-1",
        "one device to a group of 5,000, no receipt, one message in flight",
        _FAN_OUT,
        ("longwire", "mosquitto", "bare-epoll"),
        "native",
        _fan_out_1,
        "≥ 200,000/s, ≥ 3 × Mosquitto's QoS 0",
    ),
    Work(
        "fanout-8",
        "one device to a group of 5,000, no receipt, eight messages in flight",
        _FAN_OUT,
        ("longwire", "mosquitto", "bare-epoll"),
        "native",
        _fan_out_8,
        "≥ 700,000/s",
    ),
    Work(
        "push-acked",
        "push to 15,000 sessions: posted, written, acknowledged, stored",
        (
            Metric("devices_per_s", "devices/s, POST to the last stored ack", higher_is_better=True),
            Metric("together_per_s", "devices/s, five pushes at once", higher_is_better=True),
            Metric("last_got_it_ms", "first to last device that gets it, ms"),
            Metric("server_cpu_us", "server CPU µs a device", 1),
        ),
        ("longwire",),
        "native",
        _push_acked,
        "≥ 40,000/s",
    ),
    Work(
        "push-post",
        "POST /v1/pushes to all, 15,000 devices connected",
        (
            Metric("p95_ms", "p95 ms, behind the acks of the one before", 1),
            Metric("p50_ms", "p50 ms", 1),
            Metric("paced_p95_ms", "p95 ms, two a second", 1),
        ),
        ("longwire",),
        "native",
        _push_post,
        "p95 ≤ 50 ms",
    ),
    Work(
        "relay-under-push",
        "200 devices write to each other, 1,000/s, while pushes to 15,000 follow each other",
        (
            Metric("push_p99_ms", "p99 ms during the pushes", 1),
            Metric("push_p50_ms", "p50 ms during the pushes", 2),
            Metric("quiet_p99_ms", "p99 ms before them", 2),
            Metric("generator_late_p99_ms", "of which generator late, p99 ms", 2),
            Metric("pushes", "pushes", higher_is_better=True),
        ),
        ("longwire",),
        "native",
        _relay_under_push,
        "p99 ≤ 25 ms",
    ),
)
