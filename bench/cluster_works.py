"""The works of a cluster on real engines: what each promises is in the issue that they came with, and in README.md."""

import random
import time
from pathlib import Path
from statistics import median

import uvloop

from bench import cluster
from bench.api import Api
from bench.generator import held_fleet, held_returning, number, run
from bench.processes import ServerFailedError
from bench.servers import Server
from bench.work import Measured, Metric, Scale, Work
from longwire.adapters.redis import RedisRoutes, connect
from longwire.testing.cluster import Mesh

_GATEWAY_US = Metric("gateway_cpu_us", "CPU µs a message, one gateway", 1)
_ALL_US = Metric("all_cpu_us", "of all processes", 1)
_ATTACHED_AT_A_TIME = 4_096


def _uplink(_server: Server, _protocol: str, folder: Path, scale: Scale) -> Measured:
    """Devices write to the application: SENT follows Kafka's delivery report."""
    with cluster.running(folder, scale.relay_connections, gateways=1) as (one, endpoint):
        spent = cluster.Spent(one)
        options = {**scale.relay(receipt=True), "to_application": 1, "server_pid": one.gateways[0].pid}
        result = run("relay", endpoint, scale.relay_connections, **options)
        cost = spent.a_message(number(result, "confirmed"))
    return Measured(
        {
            "confirmed_per_s": number(result, "confirmed_per_s"),
            "p99_ms": number(result, "receipt_latency", "p99_us") / 1000,
            **cluster.figures(cost),
        },
        [result],
        cluster.told(cost),
    )


def _attach(_server: Server, _protocol: str, folder: Path, scale: Scale) -> Measured:
    """CONNECTs to one node, their tokens known to Redis; the second time is measured."""
    with cluster.running(folder, scale.connects, gateways=1) as (one, endpoint):
        first = run("connect", endpoint, scale.connects, connecting=256)
        one.wait_until(lambda: one.nodes()[0]["connections"] == 0, "all have gone", 120)
        spent = cluster.Spent(one)
        result = run("connect", endpoint, scale.connects, connecting=256)
        cost = spent.a_message(scale.connects)
    return Measured(
        {
            "connects_per_s": number(result, "rate_per_s"),
            "p99_ms": number(result, "latency", "p99_us") / 1000,
            "cold_per_s": number(first, "rate_per_s"),
            **cluster.figures(cost),
        },
        [first, result],
        cluster.told(cost),
    )


def _relay(_server: Server, _protocol: str, folder: Path, scale: Scale) -> Measured:
    """Every device writes to one on the other node: saturated, then by schedule at what the budget asks for."""
    figures: dict[str, float] = {}
    raw, notes = [], []
    with cluster.running(folder, scale.relay_connections, gateways=2) as (two, endpoint):
        for name, rate in (("saturated", 0), ("paced", scale.cluster_rate)):
            spent = cluster.Spent(two)
            options = {**scale.relay(receipt=True, rate=rate), **cluster.ports(two)}
            result = run("relay", endpoint, scale.relay_connections, **options)
            cost = spent.a_message(number(result, "confirmed"))
            raw.append(result)
            if rate:
                figures |= {
                    "paced_sent_p99_ms": number(result, "receipt_latency", "p99_us") / 1000,
                    "paced_delivered_p50_ms": number(result, "latency", "p50_us") / 1000,
                    "paced_delivered_p99_ms": number(result, "latency", "p99_us") / 1000,
                }
            else:
                figures |= {
                    "confirmed_per_s": number(result, "confirmed_per_s"),
                    "delivered_per_s": number(result, "rate_per_s"),
                    **cluster.figures(cost),
                }
            notes += [f"{name}: {line}" for line in cluster.told(cost)]
    return Measured(figures, raw, notes)


def _push(_server: Server, _protocol: str, folder: Path, scale: Scale) -> Measured:
    """A push to devices on three nodes; each until the store has every acknowledgement."""
    with cluster.running(folder, scale.cluster_sessions, gateways=3, routes=1, sinks=1) as (three, endpoint):
        api = Api(three.http_url, three.credentials["api_key"])
        # In two generators: a process may often have no more than 20,000 open files.
        half = scale.cluster_sessions // 2
        options = {**cluster.ports(three), "connecting": 256}
        with (
            held_fleet(endpoint, half, **options) as fleet,
            held_fleet(endpoint, half, first=half, **options) as other,
        ):
            connected = fleet.connected + other.connected
            cluster.settled(three)
            spent = cluster.Spent(three)
            took = api.time_pushes(scale.pushes, connected, poll_s=0.05)
            cost = spent.a_message(scale.pushes * connected)
    return Measured(
        {
            "devices_per_s": connected / median(took),
            "slowest_s": max(took),
            **cluster.figures(cost),
        },
        [fleet.final, other.final],
        [*cluster.told(cost), *([] if connected == scale.cluster_sessions else ["not all were connected"])],
    )


def _whereabouts(_server: Server, _protocol: str, _folder: Path, scale: Scale) -> Measured:
    """Where 100,000 of a push's devices are: by id, and by segment as a push asks."""
    figures = uvloop.run(_look_up(cluster.engines().redis.url, scale.looked_up))
    return Measured(figures, [dict(figures)])


async def _look_up(url: str, count: int) -> dict[str, float]:
    server = connect(url, timeout_s=10.0)
    routes = RedisRoutes(server, f"bench{time.monotonic_ns()}")
    everybody = list(range(1, 3 * count + 1))
    for at in range(0, len(everybody), _ATTACHED_AT_A_TIME):
        await routes.attach(f"node~{at % 3}", everybody[at : at + _ATTACHED_AT_A_TIME])
    wanted = random.sample(everybody, count)
    began = time.perf_counter()
    found = await routes.find(wanted)
    by_id_ms = (time.perf_counter() - began) * 1000
    if not all(found):
        raise ServerFailedError(f"{found.count(None)} of {count} routes were not found")
    began = time.perf_counter()
    for segment in sorted({device_no >> 16 for device_no in everybody[:count]}):
        await routes.whereabouts(segment)
    by_segment_ms = (time.perf_counter() - began) * 1000
    await server.aclose()
    return {"by_id_ms": by_id_ms, "by_segment_ms": by_segment_ms}


def _kill(_server: Server, _protocol: str, folder: Path, scale: Scale) -> Measured:
    """kill -9 of one of three nodes; most devices are idle ones of the generator, some are the SDK's and write."""
    idle = scale.killed_sessions - scale.talking_sessions
    with (
        cluster.running(folder, idle, gateways=3, routes=1, sinks=1) as (three, endpoint),
        held_returning(endpoint, idle, **cluster.ports(three), connecting=256) as held,
        Mesh(three, scale.talking_sessions, is_provisioned=True) as mesh,
    ):
        three.routes_equal_nodes(120)
        victim = three.node_id(three.gateways[0])
        with mesh.talking(200):
            mesh.wait_talked(500)
            talkers = sum(device.node_id == victim for device in mesh.devices)
            began = time.monotonic()
            three.gateways[0].kill()
            three.wait_until(
                lambda: (
                    len(mesh.connects_since(began)) >= talkers
                    and sum(node["connections"] or 0 for node in three.nodes() if node["node_id"] != victim)
                    >= scale.killed_sessions
                ),
                "all are back",
                120,
            )
            talkers_back_s = max((when for when, _ in mesh.connects), default=began) - began
        three.routes_equal_nodes(120)
        exact_s = time.monotonic() - began
        mesh.check(120.0, in_order=False)
    back_s = number(held.final, "back_s")
    return Measured(
        {
            "back_s": max(back_s, talkers_back_s),
            "exact_s": exact_s,
            "were_there": number(held.final, "lost") + talkers,
        },
        [held.final, {"confirmed": len(mesh.confirmed), "got": len(mesh.got), "talkers_back_s": talkers_back_s}],
    )


CLUSTER_WORKS = (
    Work(
        "cluster-uplink",
        "uplink to Kafka, 128 B, SENT after the delivery report, one node",
        (
            Metric("confirmed_per_s", "confirmed/s", higher_is_better=True),
            Metric("p99_ms", "SENT p99 ms", 1),
            _GATEWAY_US,
            _ALL_US,
        ),
        ("longwire",),
        "native",
        _uplink,
        "≥ 20,000/s",
    ),
    Work(
        "cluster-attach",
        "connect and authenticate on one node, route set in Redis, tokens known there",
        (
            Metric("connects_per_s", "connects/s", higher_is_better=True),
            Metric("p99_ms", "p99 ms", 1),
            Metric("cold_per_s", "connects/s with tokens from SQL", higher_is_better=True),
            _GATEWAY_US,
            _ALL_US,
        ),
        ("longwire",),
        "native",
        _attach,
        "≥ 15,000/s, p99 ≤ 50 ms",
    ),
    Work(
        "cluster-relay",
        "device on one node to device on the other, durable (MariaDB, flush at each commit); then 3,000/s by schedule",
        (
            Metric("confirmed_per_s", "confirmed/s", higher_is_better=True),
            Metric("delivered_per_s", "delivered/s", higher_is_better=True),
            Metric("paced_sent_p99_ms", "SENT p99 ms (3,000/s)", 1),
            Metric("paced_delivered_p99_ms", "delivered p99 ms (3,000/s)", 1),
            Metric("paced_delivered_p50_ms", "p50 ms", 1),
            _GATEWAY_US,
            _ALL_US,
        ),
        ("longwire",),
        "native",
        _relay,
        "≥ 3,000/s",
    ),
    Work(
        "cluster-push",
        "push to 30,000 devices on three nodes: posted, written, acknowledged, stored",
        (
            Metric("devices_per_s", "devices/s, POST to the last stored ack", higher_is_better=True),
            Metric("slowest_s", "the slowest push, s", 2),
            _GATEWAY_US,
            _ALL_US,
        ),
        ("longwire",),
        "native",
        _push,
        "≥ 20,000/s",
    ),
    Work(
        "cluster-whereabouts",
        "where 100,000 of 300,000 devices are, asked of Redis",
        (Metric("by_id_ms", "by id, ms", 1), Metric("by_segment_ms", "as many by segment, as a push asks, ms", 1)),
        ("longwire",),
        "native",
        _whereabouts,
        "≤ 300 ms",
    ),
    Work(
        "cluster-kill",
        "kill -9 of one of three nodes with 5,000 sessions each, which write to each other",
        (
            Metric("back_s", "until all are back, s", 1),
            Metric("exact_s", "until the routes are exact, s", 1),
            Metric("were_there", "sessions on the killed node", higher_is_better=True),
        ),
        ("longwire",),
        "native",
        _kill,
        "≤ 20 s",
    ),
)
