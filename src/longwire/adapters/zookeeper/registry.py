"""The registry in ZooKeeper: ``<base>/nodes/<node_id>``, ephemeral, JSON of NodeInfo.

    watches ──► reader ──► View ──► nodes()          update, register, leave ──► writer ──► ZooKeeper

The reader and the writer are one task each, so neither does two things at once; all state belongs to the loop. A
change is read because ZooKeeper's watch told of it: nothing polls. Each connection, new session or not, begins with
reading everything and writing the nodes of this process again.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine

import msgspec

from longwire.adapters.node_list import NodeList
from longwire.adapters.zookeeper.client import NodeExists, NoNode, ZooKeeperClient
from longwire.adapters.zookeeper.view import View
from longwire.clock import Clock
from longwire.errors import RegistryUnavailable
from longwire.model import NodeInfo

log = logging.getLogger(__name__)

_AGAIN_AFTER_S = 1.0
_REGISTERS_WITHIN_S = 10.0
_LEAVES_WITHIN_S = 2.0
# A listing that is read just before the time is up confirms nothing.
_CONFIRM_SLACK_S = 0.05

_decode = msgspec.json.Decoder(NodeInfo).decode


class ZooKeeperRegistry:
    """ports.registry.Registry on ZooKeeper; the client is started before it and stopped after it."""

    def __init__(
        self, client: ZooKeeperClient, clock: Clock, *, base: str = "/longwire", confirm_after_s: float = 5.0
    ) -> None:
        self._client = client
        self._clock = clock
        self._path = f"{base}/nodes"
        self._confirm_after_s = confirm_after_s
        self._view = View(clock.monotonic, confirm_after_s)
        self._list = NodeList()
        self._own: dict[str, NodeInfo] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._stale_since_ms: int | None = clock.now_ms()
        # The reader's: what to read, and what was read.
        self._unread = asyncio.Event()
        self._is_listed = False
        self._names: set[str] = set()
        self._read: dict[str, NodeInfo | None] = {}
        self._listing = client.watch(self._listing_changed)
        self._figures = client.watch(self._node_changed)
        self._confirming: asyncio.TimerHandle | None = None
        # The writer's: by id what is to be written, None: deleted.
        self._unwritten: dict[str, NodeInfo | None] = {}
        self._to_write = asyncio.Event()
        self._written: dict[str, list[asyncio.Future[None]]] = {}
        self._made: set[str] = set()
        self._left: set[str] = set()
        client.on_state(self._connection_changed)

    async def start(self) -> None:
        """Reads the list. Raises RegistryUnavailable."""
        await self._look()
        self._tasks = [
            asyncio.create_task(self._each_time(self._unread, self._look), name="the nodes' reader"),
            asyncio.create_task(self._each_time(self._to_write, self._write), name="the nodes' writer"),
        ]

    async def stop(self) -> None:
        """Stops watching and writing; what is registered goes with the client's session."""
        if self._confirming is not None:
            self._confirming.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    # -- ports.registry.Registry -------------------------------------------------------------------------------------

    async def register(self, node: NodeInfo) -> None:
        self._left.discard(node.node_id)
        self._want(node.node_id, node)
        if not await self._is_written(node.node_id, _REGISTERS_WITHIN_S):
            self._forget(node.node_id)
            raise RegistryUnavailable(
                f"ZooKeeper at {self._client.hosts} did not list node {node.node_id} within {_REGISTERS_WITHIN_S:g} s"
            )

    def update(self, node: NodeInfo) -> None:
        if node.node_id in self._own:
            self._own[node.node_id] = self._view.nodes[node.node_id] = node
            self._want(node.node_id, node)
            self._list.show(self._view.nodes)

    async def leave(self, node_id: str) -> None:
        if node_id not in self._own:
            return
        self._forget(node_id)
        if not await self._is_written(node_id, _LEAVES_WITHIN_S):
            log.warning("ZooKeeper is away; node %s is off the list once its session has ended", node_id)

    def nodes(self) -> list[NodeInfo]:
        return self._list.nodes

    @property
    def stale_since_ms(self) -> int | None:
        return self._stale_since_ms

    def on_change(self, callback: Callable[[], None]) -> None:
        self._list.on_change(callback)

    # -- what ZooKeeper tells ----------------------------------------------------------------------------------------

    def _connection_changed(self) -> None:
        self._is_listed = False
        self._read.clear()
        self._made.clear()
        if self._client.is_connected:
            self._view.interrupted()
            self._unwritten = {**self._own, **self._unwritten}
            self._unread.set()
            self._to_write.set()
        elif self._stale_since_ms is None:
            self._stale_since_ms = self._clock.now_ms()
            log.warning("ZooKeeper is away; the %d nodes last known stay listed", len(self._list.nodes))

    def _listing_changed(self, _path: str) -> None:
        self._is_listed = False
        self._unread.set()

    def _node_changed(self, path: str) -> None:
        self._read.pop(path.rpartition("/")[2], None)
        self._unread.set()

    # -- reading -----------------------------------------------------------------------------------------------------

    async def _look(self) -> None:
        """Reads what is not known or has changed, and takes it. Raises RegistryUnavailable."""
        if not self._is_listed:
            await self._read_names()
        await asyncio.gather(*(self._read_node(name) for name in list(self._names) if name not in self._read))
        if not self._is_listed:
            return  # it changed meanwhile, and is read again
        names, known = self._names, self._view.nodes
        listed = {name: self._read.get(name) or known.get(name) for name in names - self._left}
        self._read = {name: node for name, node in self._read.items() if name in names}
        for node_id in self._own.keys() - names - self._unwritten.keys():
            self._made.discard(node_id)  # somebody has deleted it
            self._want(node_id, self._own[node_id])
        self._view.take({name: node for name, node in listed.items() if node is not None}, self._own)
        self._stale_since_ms = None
        self._list.show(self._view.nodes)
        if self._view.is_doubting and self._confirming is None:
            wait_s = self._confirm_after_s + _CONFIRM_SLACK_S
            self._confirming = asyncio.get_running_loop().call_later(wait_s, self._confirm)

    async def _read_names(self) -> None:
        """Reads who is listed; a change while it is read has it read again."""
        self._is_listed = True
        try:
            try:
                names = await self._client.call("get_children", self._path, watch=self._listing)
            except NoNode:
                await self._client.call("ensure_path", self._path)
                names = await self._client.call("get_children", self._path, watch=self._listing)
        except RegistryUnavailable:
            self._is_listed = False
            raise
        self._names = set(names)

    async def _read_node(self, name: str) -> None:
        """Reads one node into ``_read``; a change while it is read takes it out again, by its watch."""
        self._read[name] = None
        try:
            data, _ = await self._client.call("get", f"{self._path}/{name}", watch=self._figures)
        except NoNode:  # it went since it was listed, of which the listing's watch tells
            self._read.pop(name, None)
            self._names.discard(name)
            return
        except RegistryUnavailable:
            self._read.pop(name, None)
            raise
        node = _node_of(name, data)
        if name in self._read:
            self._read[name] = node

    def _confirm(self) -> None:
        """Has the list read again, whether or not a watch tells of anything."""
        self._confirming = None
        self._is_listed = False
        self._unread.set()

    # -- writing -----------------------------------------------------------------------------------------------------

    def _want(self, node_id: str, node: NodeInfo | None) -> None:
        self._unwritten[node_id] = node
        self._to_write.set()

    def _forget(self, node_id: str) -> None:
        self._own.pop(node_id, None)
        self._view.nodes.pop(node_id, None)
        self._left.add(node_id)
        self._want(node_id, None)
        self._list.show(self._view.nodes)

    async def _is_written(self, node_id: str, within_s: float) -> bool:
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._written.setdefault(node_id, []).append(written)
        try:
            async with asyncio.timeout(within_s):
                await written
        except TimeoutError:
            return False
        return True

    async def _write(self) -> None:
        """Writes what waits to be written. Raises RegistryUnavailable."""
        for node_id, node in list(self._unwritten.items()):
            if node is None:
                await self._delete(node_id)
            else:
                await self._put(node)
            if self._unwritten.get(node_id) is not node:
                continue  # something newer waits
            del self._unwritten[node_id]
            if node is not None:
                self._own[node_id] = self._view.nodes[node_id] = node
                self._list.show(self._view.nodes)
            for written in self._written.pop(node_id, ()):
                if not written.done():
                    written.set_result(None)
        if self._unwritten:
            self._to_write.set()

    async def _put(self, node: NodeInfo) -> None:
        path, data = f"{self._path}/{node.node_id}", msgspec.json.encode(node)
        if node.node_id in self._made:
            try:
                await self._client.call("set", path, data)
            except NoNode:
                self._made.discard(node.node_id)
            else:
                return
        try:
            await self._client.call("create", path, data, ephemeral=True, makepath=True)
        except NodeExists:
            stat = await self._client.call("exists", path)
            if stat is not None and stat.ephemeralOwner == self._client.session_id:
                await self._client.call("set", path, data)
            else:  # of a session that is about to end, and would take the node with it
                await self._delete(node.node_id)
                await self._client.call("create", path, data, ephemeral=True, makepath=True)
        self._made.add(node.node_id)

    async def _delete(self, node_id: str) -> None:
        with contextlib.suppress(NoNode):
            await self._client.call("delete", f"{self._path}/{node_id}")

    # -- tasks -------------------------------------------------------------------------------------------------------

    async def _each_time(self, event: asyncio.Event, work: Callable[[], Coroutine[None, None, None]]) -> None:
        """Does ``work`` whenever ``event`` is set; again a little later where ZooKeeper was away."""
        while True:
            await event.wait()
            event.clear()
            try:
                await work()
            except RegistryUnavailable as error:
                log.debug("%s", error)
                if self._client.is_connected:
                    await asyncio.sleep(_AGAIN_AFTER_S)
                    event.set()  # else the next connection sets it
            except Exception:
                log.exception("the registry's work failed")
                await asyncio.sleep(_AGAIN_AFTER_S)
                event.set()


def _node_of(name: str, data: bytes) -> NodeInfo | None:
    try:
        node = _decode(data)
    except msgspec.DecodeError as error:
        log.warning("nodes/%s in ZooKeeper does not say what a node says: %s", name, error)
        return None
    if node.node_id != name:
        log.warning("nodes/%s in ZooKeeper says that it is %s", name, node.node_id)
        return None
    return node
