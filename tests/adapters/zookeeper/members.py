"""Processes of a cluster, as far as ZooKeeper sees them: each with a session and a registry of its own."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from kazoo.client import KazooClient

from longwire.adapters.zookeeper.client import ZooKeeperClient
from longwire.adapters.zookeeper.registry import ZooKeeperRegistry
from longwire.clock import SystemClock
from longwire.model import NodeInfo
from longwire.testing.engines import ZooKeeper


@dataclass
class Member:
    """One process with its session."""

    client: ZooKeeperClient
    registry: ZooKeeperRegistry

    @property
    def ids(self) -> set[str]:
        return {node.node_id for node in self.registry.nodes()}

    def lose_session(self) -> None:
        """Has ZooKeeper end the session, as if the process had been silent for longer than its timeout."""
        thief = KazooClient(self.client.hosts, client_id=self.client._kazoo.client_id)
        thief.start()
        thief.stop()
        thief.close()


@asynccontextmanager
async def joined(hosts: str, base: str, session_timeout_s: float, confirm_after_s: float) -> AsyncIterator[Member]:
    client = ZooKeeperClient(hosts, session_timeout_s=session_timeout_s, connect_within_s=10.0)
    registry = ZooKeeperRegistry(client, SystemClock(), base=base, confirm_after_s=confirm_after_s)
    await client.start()
    try:
        await registry.start()
        yield Member(client, registry)
    finally:
        await registry.stop()
        await client.stop()


@dataclass
class Cluster:
    """Members join; all leave with the test."""

    engine: ZooKeeper
    base: str
    stack: AsyncExitStack

    async def join(self, *, session_timeout_s: float = 1.0, confirm_after_s: float = 0.5) -> Member:
        return await self.stack.enter_async_context(
            joined(self.engine.hosts, self.base, session_timeout_s, confirm_after_s)
        )


async def until(holds: Callable[[], object], within_s: float = 15.0) -> None:
    """Waits until ``holds()``; fails after ``within_s``."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "it does not come to hold"
        await asyncio.sleep(0.01)


def node(node_id: str, **figures: object) -> NodeInfo:
    return NodeInfo(node_id, "h", 7300, None, "ws://h:7300/ws", **figures)  # type: ignore[arg-type]
