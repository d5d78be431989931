"""The route table in Redis: attaches a second with their times, and a push's look-up of 100,000 devices.

    python bench/redis_routes.py                    # one server
    python bench/redis_routes.py --cluster          # a Cluster of three
    python bench/redis_routes.py --devices 1000000 --repeats 5

Attaches are issued as a node's connects come: batches of at most 256 devices, ``--in-flight`` of them at a time, first
unpaced (what it can take), then paced at ``--rate`` (what a connect waits). Beside it, the peer: the same count of
single HSETs by redis-benchmark with the same pipeline depth.
"""

import argparse
import asyncio
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import uvloop

from longwire.adapters.redis import RedisRoutes, connect
from longwire.testing.engines import Redis, RedisCluster

BATCH = 256


async def attach_all(routes: RedisRoutes, device_nos: list[int], in_flight: int) -> tuple[float, list[float]]:
    """Devices a second, and the times of the batches in ms."""
    batches = [device_nos[at : at + BATCH] for at in range(0, len(device_nos), BATCH)]
    times: list[float] = []

    async def node() -> None:
        while batches:
            batch = batches.pop()
            began = time.perf_counter()
            await routes.attach("bench~1", batch)
            times.append((time.perf_counter() - began) * 1000)

    began = time.perf_counter()
    await asyncio.gather(*(node() for _ in range(in_flight)))
    return len(device_nos) / (time.perf_counter() - began), times


async def attach_paced(routes: RedisRoutes, device_nos: list[int], rate: int, seconds: float) -> list[float]:
    """The times of attaches that come at this rate, in groups of what 2 ms bring, in ms."""
    loop = asyncio.get_running_loop()
    size = max(1, rate // 500)
    times: list[float] = []
    tasks = []

    async def one(batch: list[int], due: float) -> None:
        await routes.attach("bench~2", batch)
        times.append((loop.time() - due) * 1000)

    began = loop.time()
    for number in range(int(seconds * 500)):
        due = began + number / 500
        await asyncio.sleep(max(0.0, due - loop.time()))
        tasks.append(asyncio.create_task(one(random.sample(device_nos, size), due)))
    await asyncio.gather(*tasks)
    return times


async def measure(arguments: argparse.Namespace, url: str) -> None:
    server = connect(url, timeout_s=10.0)
    routes = RedisRoutes(server, "bench")
    everybody = list(range(1, arguments.devices + 1))
    random.shuffle(everybody)
    for repeat in range(arguments.repeats):
        rate, times = await attach_all(routes, everybody, arguments.in_flight)
        print(f"attach, unpaced      {rate:>10,.0f}/s   a batch of {BATCH}: {quantiles(times)}")
        times = await attach_paced(routes, everybody, arguments.rate, 5.0)
        print(f"attach, {arguments.rate:,}/s paced                {quantiles(times)}")
        wanted = random.sample(everybody, min(100_000, len(everybody)))
        began = time.perf_counter()
        found = await routes.find(wanted)
        took = (time.perf_counter() - began) * 1000
        assert all(found)
        print(f"find, {len(wanted):,} of {len(everybody):,}: {took:.0f} ms")
        near = sorted(everybody)[:100_000]
        began = time.perf_counter()
        await routes.find(near)
        print(f"find, {len(near):,} side by side: {(time.perf_counter() - began) * 1000:.0f} ms")
        began = time.perf_counter()
        for segment in {device_no >> 16 for device_no in near}:
            await routes.whereabouts(segment)
        print(f"whereabouts of the same: {(time.perf_counter() - began) * 1000:.1f} ms")
        began = time.perf_counter()
        count = sum([await routes.count(node) for node in await routes.nodes()])
        assert count == len(everybody), count
        print(f"count: {(time.perf_counter() - began) * 1000:.1f} ms; repeat {repeat + 1} of {arguments.repeats}")
    await server.aclose()


def quantiles(times: list[float]) -> str:
    points = statistics.quantiles(times, n=100)
    return f"p50 {points[49]:.1f} ms, p99 {points[98]:.1f} ms, max {max(times):.1f} ms"


def peer(port: int, count: int) -> None:
    command = ["redis-benchmark", "-p", str(port), "-n", str(count), "-c", "1", "-P", "256", "-r", "1000000", "-q"]
    subprocess.run([*command, "hset", "peer:__rand_int__", "1", "bench~1|1764000000000"], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=200_000)
    parser.add_argument("--in-flight", type=int, default=4, help="batches of 256 at a time")
    parser.add_argument("--rate", type=int, default=15_000, help="attaches a second, paced")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--cluster", action="store_true", help="a Cluster of three masters")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="longwire-bench-"))
    try:
        if arguments.cluster:
            with RedisCluster(folder, keeps_data=False) as cluster:
                uvloop.run(measure(arguments, cluster.url.replace("redis:", "redis+cluster:")))
        else:
            with Redis(folder, keeps_data=False) as redis:
                uvloop.run(measure(arguments, redis.url))
                peer(redis.port, arguments.devices)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
