"""A Redis server or Cluster: batches of calls in one round trip, scripts, deadlines, and what to do when it is away.

Calls go out as one pipeline (a Cluster's: one for each of its servers), scripts by their hash; a server that does not
know a script (it restarted, or somebody flushed them) is sent its text. Each call may be carried out twice, for one
that met a closed connection is repeated once. A server that did not answer is away until it answers a probe: who calls
meanwhile is told at once, so that an outage costs nobody its deadline but those who saw it begin.
"""

import asyncio
import hashlib
import time
from collections.abc import Sequence
from importlib import resources
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import NoScriptError, RedisClusterException, RedisError
from redis.exceptions import TimeoutError as NotAnswered

from longwire.errors import StoreUnavailable
from longwire.meters import Meter

MAX_IN_FLIGHT = 32
"""Pipelines under way at a time, and so connections to a server."""
_PROBE_EVERY_S = 0.25
# Of a call's time; on a Cluster those who answered are told before the whole call is over.
_ANSWER_SHARE = 0.75
_REFRESH_EVERY_S = 1.0
_CLUSTER = "+cluster"
# In the place of a server's name: a slot that none has.
_NOBODY = "?"
# A Cluster's are no RedisErrors; OSError: also a name that does not resolve.
_FAILURES = (RedisError, RedisClusterException, OSError)


class Script:
    """A Lua script of this package."""

    __slots__ = ("sha", "text")

    def __init__(self, name: str) -> None:
        self.text = (resources.files(__package__) / "lua" / f"{name}.lua").read_text()
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


class Call(NamedTuple):
    """A script, or a command by its name, on keys of one slot."""

    command: Script | str
    keys: Sequence[str | bytes]
    arguments: Sequence[str | bytes | int] = ()


class _Away(NamedTuple):
    probe: asyncio.Task[None]
    why: str


def connect(url: str, timeout_s: float = 2.0) -> "RedisServer":
    """The Redis of a URL; nothing is connected yet. Raises ValueError for a URL that names none.

    ``redis://[user:password@]host:port[/db]``, ``rediss://`` with TLS, and either with ``+cluster`` for a Cluster, of
    which the URL names any server. ``timeout_s``: how long a call may take in all.
    """
    parts = urlsplit(url)
    scheme = parts.scheme.removesuffix(_CLUSTER)
    if scheme not in ("redis", "rediss") or not parts.hostname:
        raise ValueError(
            f"{_masked(url)!r} is not a Redis URL; redis://host:port/0, rediss:// with TLS, redis+cluster:// a Cluster"
        )
    plain = urlunsplit(parts._replace(scheme=scheme))
    options: dict[str, Any] = {
        "socket_connect_timeout": timeout_s / 2,
        "socket_timeout": timeout_s * _ANSWER_SHARE,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
    }
    client: Redis | RedisCluster
    if parts.scheme.endswith(_CLUSTER):
        client = RedisCluster.from_url(plain, require_full_coverage=False, **options)
    else:
        client = Redis.from_url(plain, **options)
    return RedisServer(client, _masked(url), timeout_s)


def _masked(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


class RedisServer:
    """What the adapters of this package share. ``connect`` makes one; close it with ``aclose``."""

    def __init__(self, client: "Redis | RedisCluster", name: str, timeout_s: float) -> None:
        self.client = client
        self.name = name
        self.times = Meter()
        """Of pipelines."""
        self.is_cluster = isinstance(client, RedisCluster)
        self._timeout_s = timeout_s
        self.answers_within_s = timeout_s * _ANSWER_SHARE
        """So long a call that was sent waits for its answer."""
        self._in_flight = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._away: dict[str, _Away] = {}
        """By server of the Cluster; "" stands for the only one, or for all."""
        self._refreshed_at = 0.0

    @property
    def is_away(self) -> bool:
        """Whether nothing answers; a Cluster of which some servers do is not away."""
        return "" in self._away

    async def aclose(self) -> None:
        """Closes every connection."""
        probes = [away.probe for away in self._away.values()]
        for probe in probes:
            probe.cancel()
        await asyncio.gather(*probes, return_exceptions=True)
        await self.client.aclose()

    async def ping(self) -> None:
        """Raises StoreUnavailable where Redis does not answer."""
        await self.run([Call("SISMEMBER", ["ping"], ["ping"])])

    async def run(self, calls: Sequence[Call]) -> list[Any]:
        """What each call gives, in one round trip. Raises StoreUnavailable where any fails."""
        results = await self.try_run(calls)
        for result in results:
            if isinstance(result, StoreUnavailable):
                raise result
        return results

    async def try_run(self, calls: Sequence[Call]) -> list[Any]:
        """As ``run``, with a StoreUnavailable in the place of what a call gives that fails."""
        if not calls:
            return []
        results: list[Any] = [None] * len(calls)
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout_s), self._in_flight:
                await self._attempt(calls, results, range(len(calls)))
        except (*_FAILURES, TimeoutError) as error:
            # It failed as a whole: whatever has no result has this one.
            self._note_away("", error)
            results = [error if result is None else result for result in results]
        if any(isinstance(result, Exception) for result in results):
            self.times.failed()
        else:
            self.times.note(time.monotonic() - began)
        return [
            StoreUnavailable(f"Redis {self.name}: {str(result) or type(result).__name__}")
            if isinstance(result, Exception)
            else result
            for result in results
        ]

    async def _attempt(self, calls: Sequence[Call], results: list[Any], wanted: Sequence[int]) -> None:
        asked = await self._not_away(calls, results, wanted)
        await self._send(calls, results, asked, is_known=True)
        unknown = [at for at in asked if isinstance(results[at], NoScriptError)]
        await self._send(calls, results, unknown, is_known=False)
        broken = [at for at in asked if isinstance(results[at], NotConnected)]
        if broken:
            # The connections of a server that restarted are found closed one by one; all are opened anew.
            await self._disconnect(calls, broken)
            await self._send(calls, results, broken, is_known=True)
            unknown = [at for at in broken if isinstance(results[at], NoScriptError)]
            await self._send(calls, results, unknown, is_known=False)
        for at in asked:
            if isinstance(results[at], (NotConnected, NotAnswered, OSError)):
                self._note_away(self._place(calls[at]), results[at])

    async def _send(self, calls: Sequence[Call], results: list[Any], wanted: Sequence[int], is_known: bool) -> None:
        if not wanted:
            return
        pipeline: Any = self.client.pipeline(transaction=False)
        for at in wanted:
            command, keys, arguments = calls[at]
            if not isinstance(command, Script):
                pipeline.execute_command(command, *keys, *arguments)
            elif is_known:
                pipeline.execute_command("EVALSHA", command.sha, len(keys), *keys, *arguments)
            else:
                pipeline.execute_command("EVAL", command.text, len(keys), *keys, *arguments)
        try:
            found = await pipeline.execute(raise_on_error=False)
        except NotConnected as error:
            found = [error] * len(wanted)
        for at, result in zip(wanted, found, strict=True):
            results[at] = result

    # -- servers that are away -----------------------------------------------------------------------------------

    async def _not_away(self, calls: Sequence[Call], results: list[Any], wanted: Sequence[int]) -> Sequence[int]:
        if not self._away:
            return wanted
        asked = []
        for at in wanted:
            away = self._away.get("") or self._away.get(self._place(calls[at]))
            if away is None:
                asked.append(at)
            else:
                results[at] = NotConnected(f"away: {away.why}")
        await asyncio.sleep(0)  # who tries again and again does not hold the loop
        return asked

    def _note_away(self, place: str, error: Exception) -> None:
        if place not in self._away:
            probe = asyncio.create_task(self._probe(place), name="probing Redis")
            self._away[place] = _Away(probe, str(error) or type(error).__name__)

    async def _probe(self, place: str) -> None:
        """Until the server answers, or the Cluster knows it no more."""
        is_away = True
        while is_away:
            await asyncio.sleep(_PROBE_EVERY_S)
            try:
                async with asyncio.timeout(self.answers_within_s):
                    await self._ping(place)
                is_away = False
            except (*_FAILURES, TimeoutError):
                continue
        del self._away[place]

    async def _ping(self, place: str) -> None:
        node: Any = self.client
        if not isinstance(self.client, RedisCluster):
            await node.execute_command("PING")
            return
        if place in ("", _NOBODY):
            await self.client.nodes_manager.initialize()
            return
        await self._refresh()
        node = self.client.get_node(node_name=place)
        if node is not None:
            await node.execute_command("PING")

    def _place(self, call: Call) -> str:
        if not isinstance(self.client, RedisCluster):
            return ""
        key = call.keys[0]
        try:
            node = self.client.get_node_from_key(key)  # type: ignore[arg-type]  # bytes do as well
        except _FAILURES:
            return _NOBODY  # a slot that no server has
        return _NOBODY if node is None else node.name

    async def _disconnect(self, calls: Sequence[Call], broken: Sequence[int]) -> None:
        if isinstance(self.client, RedisCluster):
            places = {self._place(calls[at]) for at in broken}
            for node in self.client.get_nodes():
                if node.name in places:
                    await node.disconnect_free_connections()
            await self._refresh()
        else:
            await self.client.connection_pool.disconnect(inuse_connections=False)

    async def _refresh(self) -> None:
        """Asks the Cluster who has which slots; another may have taken over."""
        now = time.monotonic()
        if isinstance(self.client, RedisCluster) and now - self._refreshed_at > _REFRESH_EVERY_S:
            self._refreshed_at = now
            await self.client.nodes_manager.initialize()
