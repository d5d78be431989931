"""A whole node in the test's own process: real sockets on port 0, a real SQLite store, time by hand."""

import asyncio
from dataclasses import replace
from pathlib import Path

from pyroaring import BitMap
from raw_peer import NATIVE, Peer

from longwire.accounts.tokens import Tokens, TokenSettings, hash_of
from longwire.adapters.embedded.receipts import EmbeddedReceipts
from longwire.adapters.embedded.registry import EmbeddedRegistry
from longwire.adapters.embedded.routes import EmbeddedRoutes
from longwire.adapters.sql.accounts import SqlAccounts
from longwire.adapters.sql.audiences import SqlAudiences
from longwire.adapters.sql.commands import SqlCommands
from longwire.adapters.sql.messages import SqlMessageStore
from longwire.adapters.sql.presence import SqlPresence
from longwire.adapters.sql.push_waiting import SqlPushWaiting
from longwire.adapters.sql.pushes import SqlPushes
from longwire.adapters.sql.sqlite import SqliteDatabase
from longwire.adapters.sql.uplink import SqlUplinkLog
from longwire.app.services import HandlerServices
from longwire.application import Longwire
from longwire.gateway.node import Engines, Node, NodeSettings
from longwire.ids import new_message_id
from longwire.limits import Limits
from longwire.model import Device
from longwire.ports.accounts import NewDevice
from longwire.push.messages import Messages
from longwire.push_model import (
    Audience,
    Broadcasted,
    BroadcastOrder,
    Claim,
    Dispatched,
    Members,
    NewPush,
    Priority,
    Push,
    PushMessage,
    PushStats,
)
from longwire.testing import ManualClock
from longwire.traces import NO_TRACES

HANG_GUARD_S = 20.0
TOKEN_TTL_S = 86_400


class House:
    """The node and what it stands on. ``limits`` and ``app`` are as the test wants them."""

    def __init__(self, folder: Path, limits: Limits, app: Longwire, clock: ManualClock | None = None) -> None:
        self.folder, self.limits, self.app = folder, limits, app
        self.clock = clock or ManualClock()
        self.database = SqliteDatabase(folder)
        self.accounts = SqlAccounts(self.database)
        self.messages = SqlMessageStore(self.database, self.clock, limits.max_inbox)
        self.uplink = SqlUplinkLog(self.database, self.clock)
        self.waiting = SqlPushWaiting(self.database, self.clock)
        self.pushes = SqlPushes(self.database, self.clock, self.waiting, max_live=limits.max_live_pushes)
        self.routes = EmbeddedRoutes(self.clock)
        self.registry = EmbeddedRegistry()
        self.tokens = Tokens(self.accounts, self.clock, TokenSettings(TOKEN_TTL_S))
        self.sets = SqlAudiences(self.database)
        self.presence = SqlPresence(self.database)
        self.commands = SqlCommands(self.database)
        self.engines = Engines(
            accounts=self.accounts,
            messages=self.messages,
            uplink=self.uplink,
            routes=self.routes,
            registry=self.registry,
            pushes=self.pushes,
            push_waiting=self.waiting,
            receipts=EmbeddedReceipts(self.pushes),
            sets=self.sets,
            presence=self.presence,
            commands=self.commands,
        )
        self.settings = NodeSettings("n1~0001", port=0, tls_port=0)
        self.traces = NO_TRACES
        """Set before the start."""
        self.devices: dict[str, Device] = {}
        self.peers: list[Peer] = []
        self.node: Node

    async def start(self) -> "House":
        await self.database.start()
        await self.messages.start()
        await self.uplink.start()
        await self.online_hints()
        self.node = Node(self.settings, self.engines, self.tokens, self.app, self.clock, self.limits, self.traces)
        told = Messages(self.accounts, self.sets, self.pushes, self.node, self.clock, self.limits, self.traces)
        self.app.bind(HandlerServices(self.accounts, told))
        await self.node.start()
        return self

    async def stop(self) -> None:
        for peer in self.peers:
            peer.close()
        await self.node.stop()
        self.app.unbind()
        await self.database.stop()
        for peer in self.peers:
            peer.writer.transport.abort()

    def with_settings(self, **changed: object) -> None:
        """Before the start: other settings of the node."""
        self.settings = replace(self.settings, **changed)  # type: ignore[arg-type]

    def with_engines(self, **changed: object) -> None:
        """Before the start: an engine that has bad days."""
        self.engines = replace(self.engines, **changed)  # type: ignore[arg-type]

    async def register(self, *device_ids: str, user: str | None = None, ttl_s: int = TOKEN_TTL_S) -> None:
        """Devices whose tokens are ``t-`` and their id."""
        now_ms = self.clock.now_ms()
        wanted = [NewDevice(i, hash_of(f"t-{i}"), now_ms + ttl_s * 1000, None, user) for i in device_ids]
        for device, _ in await self.accounts.register(wanted, now_ms):
            self.devices[device.device_id] = device

    def no_of(self, device_id: str) -> int:
        return self.devices[device_id].device_no

    async def peer(self, flavour: str = NATIVE, **how: object) -> Peer:
        """A connection that has said nothing yet."""
        peer = await Peer.open(self.node.port_number, flavour, **how)  # type: ignore[arg-type]
        self.peers.append(peer)
        return peer

    async def device(self, device_id: str, flavour: str = NATIVE, **more: object) -> Peer:
        """A registered device with a session; registers it where it is not yet."""
        if device_id not in self.devices:
            await self.register(device_id)
        peer = await self.peer(flavour)
        await peer.connect(device_id, **more)
        return peer

    async def group(self, group_id: str, *device_ids: str, users: tuple[str, ...] = ()) -> None:
        """A group of these; registers the devices that are not yet."""
        await self.register(*(i for i in device_ids if i not in self.devices))
        await self.sets.add_group(group_id, group_id, self.clock.now_ms())
        members = Members(tuple(self.no_of(i) for i in device_ids), users)
        assert await self.sets.change_members(group_id, members, Members(), self.clock.now_ms())

    # Pushes, as the push room would send them

    async def push(
        self,
        *device_ids: str,
        payload: bytes = b'"news"',
        kind: str = "news",
        ttl_s: int = 86_400,
        priority: Priority = Priority.NORMAL,
        rate_per_s: int | None = None,
        trace: bytes = b"",
        is_sent: bool = True,
    ) -> Push:
        """A push that is kept, and where ``is_sent`` written to who is online."""
        now_ms = self.clock.now_ms()
        message_id = new_message_id()
        new = NewPush(
            message_id,
            Audience(devices=device_ids),
            PushMessage(message_id, kind, payload, now_ms, trace=trace),
            now_ms,
            now_ms + (ttl_s * 1000 or 5_000),
            priority=priority,
            ttl_s=ttl_s,
            rate_per_s=rate_per_s,
        )
        push, _ = await self.pushes.create(new, BitMap([self.no_of(i) for i in device_ids]))
        if is_sent:
            await self.dispatch()
        return push

    async def dispatch(self) -> list[Broadcasted]:
        """Has the node write every segment that waits for it, and notes what it wrote."""
        claims = await self.pushes.claim("w", 100, 30_000, self.clock.now_ms())
        return [await self.carry_out(claim) for claim in claims]

    async def carry_out(self, claim: Claim) -> Broadcasted:
        done = await self.node.broadcast(self.node.node_id, self.order_of(claim))
        now_ms = self.clock.now_ms()
        await self.pushes.dispatched(
            Dispatched(
                claim.push_no,
                claim.segment,
                claim.lease_no,
                done.written,
                len(done.written),
                claim.targets.max(),
                len(claim.targets),
                True,
                now_ms + 30_000,
            ),
            now_ms,
        )
        return done

    def order_of(self, claim: Claim) -> BroadcastOrder:
        return BroadcastOrder(
            claim.push_no,
            claim.segment,
            claim.lease_no,
            claim.message,
            claim.expires_at_ms - self.clock.now_ms(),
            claim.priority,
            claim.targets,
        )

    async def stats(self, push: Push) -> PushStats:
        found = await self.pushes.find(push.new.push_id, self.clock.now_ms())
        assert found is not None
        return found.stats

    async def online_hints(self) -> None:
        """The hints of waiting pushes are exact: of the first segment, which has all devices here."""
        self.waiting.changed([0])
        await self.waiting.rebuild()

    async def pass_time(self, seconds: float) -> None:
        """Moves the clock on as time would, a second at most a step, and lets the wheel see each."""
        while seconds > 0:
            step = min(seconds, 1.0)
            seconds -= step
            self.clock.advance(step)
            self.turn_wheel()
            await asyncio.sleep(0)

    def turn_wheel(self) -> None:
        timer = self.node._timer
        assert timer is not None
        timer.cancel()
        self.node._tick()

    async def settled(self) -> None:
        """Everything that was handed to the store is committed and told, and nobody reads inboxes any more."""
        async with asyncio.timeout(HANG_GUARD_S):
            for _ in range(2):
                await self.database.write(lambda _connection: None)
                await self.database.read(lambda _connection: None)
                while self.node._delivery._is_reading or self.node._tasks._running:
                    await asyncio.sleep(0.001)

    async def hears_nothing(self, *peers: Peer) -> None:
        """None of the peers is told anything, however long it waits."""
        for peer in peers:
            await peer.ping()
        await self.settled()
        for peer in peers:
            await peer.ping()
            assert not peer.frames, list(peer.frames)

    async def until(self, is_so: object) -> None:
        """Waits for something that another party does in its own time."""
        assert callable(is_so)
        async with asyncio.timeout(HANG_GUARD_S):
            while not is_so():
                await asyncio.sleep(0.001)

    async def inbox(self, device_id: str) -> list[int]:
        """The places that wait in the device's inbox."""
        no = self.no_of(device_id)
        rows = await self.database.read(
            lambda c: c.exec_driver_sql("SELECT seq FROM inbox WHERE device_no = ? ORDER BY seq", (no,)).fetchall()
        )
        return [seq for (seq,) in rows]

    async def count(self, table: str) -> int:
        value: int = await self.database.read(lambda c: c.exec_driver_sql(f"SELECT COUNT(*) FROM {table}").scalar_one())
        return value
