"""Redis: of a Cluster, each of its servers that holds slots."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

from redis.asyncio.cluster import RedisCluster
from redis.exceptions import RedisClusterException, RedisError

from longwire.adapters.redis import RedisServer, connect
from longwire.app.doctor.engines import answered, away, skew, version_of
from longwire.app.doctor.report import Finding, failure, ok, unknown, warning
from longwire.app.settings import Settings
from longwire.errors import StoreUnavailable

AREA = "Redis"
_LEAST = (6, 2)
_FULL = 0.8
_MB = 1 << 20


async def look(settings: Settings) -> list[Finding]:
    """Every check of it."""
    assert settings.redis_url is not None
    try:
        server = connect(settings.redis_url.get_secret_value(), settings.redis_timeout_s)
    except ValueError as error:
        return [failure(AREA, "redis_url", str(error), "set redis_url")]
    try:
        async with asyncio.timeout(3 * settings.redis_timeout_s + 1):
            return await _look(server)
    except (RedisError, RedisClusterException, StoreUnavailable, OSError, TimeoutError) as error:
        why = str(error) or type(error).__name__
        return [away(AREA, "redis_url", server.name, why, "devices are refused meanwhile")]
    finally:
        await server.aclose()


async def _look(server: RedisServer) -> list[Finding]:
    began = time.perf_counter()
    if not isinstance(server.client, RedisCluster):
        return await _one(server.client, AREA, server.name, began)
    await server.client.initialize()
    state = await server.client.execute_command("CLUSTER INFO", target_nodes=server.client.get_random_node())
    servers = server.client.get_primaries()
    found = [cluster_state(state, len(servers))]
    for node in servers:
        found += await _one(node, f"{AREA} {node.name}", node.name, time.perf_counter())
    return found


async def _one(client: Any, area: str, place: str, began: float) -> list[Finding]:
    """``client``: what can ``execute_command`` on the one server."""
    await client.execute_command("PING")
    found = [answered(area, place, began)]
    before = time.time()
    seconds, microseconds = await client.execute_command("TIME")
    found.append(skew(area, int(seconds) + int(microseconds) / 1e6, before, time.time()))
    try:
        info = _read(await client.execute_command("INFO"))
    except RedisError as error:
        return [*found, unknown(area, "settings", f"INFO is refused: {error}", "allow this user INFO")]
    return [*found, *judged(area, info)]


def judged(area: str, info: dict[str, str]) -> Iterator[Finding]:
    """What INFO says of one server."""
    yield version_of(area, "Redis", tuple(map(int, info["redis_version"].split(".")[:3])), _LEAST)
    if info.get("role") != "master":
        yield failure(area, "role", "a replica, which takes no writes", "name the master in redis_url")
    yield policy(area, info)
    yield room(area, info)
    yield persistence(area, info)


def policy(area: str, info: dict[str, str]) -> Finding:
    name = "maxmemory-policy"
    chosen, most = info.get("maxmemory_policy", "?"), int(info.get("maxmemory", 0))
    if chosen == "noeviction":
        return ok(area, name, chosen)
    fact = f"{chosen}, {f'from {most // _MB:,} MB on' if most else 'though without a maxmemory'}"
    advice = "routes of devices that are online would be thrown away"
    return (failure if most else warning)(area, name, fact, advice, "redis-cli config set maxmemory-policy noeviction")


def room(area: str, info: dict[str, str]) -> Finding:
    name = "memory"
    used, most = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    fact = f"{used / _MB:,.0f} MB in use, " + (f"maxmemory {most / _MB:,.0f} MB" if most else "no maxmemory")
    if not most or used < _FULL * most:
        return ok(area, name, fact)
    return warning(area, name, fact, "a full Redis refuses routes, and so devices: raise maxmemory")


def persistence(area: str, info: dict[str, str]) -> Finding:
    name = "persistence"
    kept = "an append-only file" if info.get("aof_enabled") == "1" else "none, or snapshots"
    if info.get("rdb_last_bgsave_status") == "err" or info.get("aof_last_write_status") == "err":
        return failure(
            area,
            name,
            f"{kept}; the last write to its disk failed, and it may refuse all others",
            "make room, or do without: nothing that Longwire keeps there needs a disk",
            "redis-cli config set save ''",
        )
    return ok(area, name, f"{kept}; Longwire needs none")


def cluster_state(text: object, servers: int) -> Finding:
    """``text``: the answer to CLUSTER INFO, read or not."""
    info = text if isinstance(text, dict) else _read(text)
    fact = f"{info.get('cluster_state')}, {servers} servers, {info.get('cluster_slots_assigned')} of 16384 slots"
    if info.get("cluster_state") == "ok":
        return ok(AREA, "cluster", fact)
    return failure(AREA, "cluster", fact, "devices whose slots are gone are refused", "redis-cli --cluster check")


def _read(text: object) -> dict[str, str]:
    """The lines ``name:value`` of an answer, which the client may have read already."""
    if isinstance(text, dict):
        return {str(name): str(value) for name, value in text.items()}
    lines = text.decode() if isinstance(text, bytes) else str(text)
    pairs = (line.partition(":") for line in lines.splitlines() if not line.startswith("#"))
    return {name: value.strip() for name, _, value in pairs if name}
