"""The API in process on a real SQLite store: requests go through ASGI, sessions are pretended."""

import asyncio
import hmac
import itertools
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import argon2
import httpx
import pytest
from pyroaring import BitMap
from sqlalchemy import Connection

from longwire.accounts.api_keys import ApiKeys, Scope
from longwire.accounts.apps import Apps
from longwire.accounts.devices import Devices
from longwire.accounts.directives import Directives
from longwire.accounts.groups import Groups
from longwire.accounts.imports import Imports
from longwire.accounts.people import People
from longwire.accounts.placement import Placement
from longwire.accounts.presence import Presence
from longwire.accounts.registration import Authenticate, Registration
from longwire.accounts.tags import Tags
from longwire.accounts.tokens import Tokens
from longwire.accounts.uploads import Uploads
from longwire.adapters.embedded.registry import EmbeddedRegistry
from longwire.adapters.embedded.routes import EmbeddedRoutes
from longwire.adapters.sql.accounts import SqlAccounts
from longwire.adapters.sql.audiences import SqlAudiences
from longwire.adapters.sql.audit import SqlAudit
from longwire.adapters.sql.commands import SqlCommands
from longwire.adapters.sql.directives import SqlDirectives
from longwire.adapters.sql.events import SqlEvents
from longwire.adapters.sql.idempotency import SqlIdempotency
from longwire.adapters.sql.imports import SqlImports
from longwire.adapters.sql.messages import SqlMessageStore
from longwire.adapters.sql.people import SqlPeople
from longwire.adapters.sql.presence import SqlPresence
from longwire.adapters.sql.push_minutes import SqlPushProgress
from longwire.adapters.sql.push_waiting import SqlPushWaiting
from longwire.adapters.sql.pushes import SqlPushes
from longwire.adapters.sql.sqlite import SqliteDatabase
from longwire.adapters.sql.trace_rows import SqlTraceRows
from longwire.adapters.sql.uplink import SqlUplinkLog
from longwire.adapters.sql.webhooks import SqlWebhooks
from longwire.api import ApiSettings, Services, Unready, create_api
from longwire.api.nodes import Nodes
from longwire.errors import StoreUnavailable
from longwire.histogram import Histogram
from longwire.limits import Limits
from longwire.model import Envelope, NodeInfo
from longwire.operations_model import NodeReport, SessionView
from longwire.ports.backlog import Backlog
from longwire.ports.link import Called, Sent
from longwire.push import Audiences, Messages, Pushes, Worker
from longwire.push.commands import Commands
from longwire.push_model import Broadcasted, BroadcastOrder, SegmentReceipts
from longwire.reasons import CloseCode, Status
from longwire.seeing.history import History
from longwire.seeing.lookup import Lookup
from longwire.testing.clock import ManualClock
from longwire.webhooks import Endpoints, PostSettings

NODE = NodeInfo("n1~0a", "127.0.0.1", 7300, 7301, "ws://127.0.0.1:7300/ws")


class RecordingLink:
    """Reaches the sessions that a test says there are; messages are committed for all that."""

    def __init__(self, messages: SqlMessageStore | None = None) -> None:
        self.messages = messages
        self.is_acking = False
        self.report_of: dict[str, NodeReport] = {}
        self.silent: set[str] = set()
        """Nodes that do not answer when they are told something."""
        self.told: list[tuple[object, ...]] = []
        """What nodes were told of draining and moving."""
        self.online: set[int] = set()
        self.closed: list[tuple[int, CloseCode]] = []
        self.sessions_of: dict[int, SessionView] = {}
        self.called: list[tuple[int, str, bytes, int]] = []
        self.traces: list[bytes] = []
        """The trace contexts of what they were asked."""
        self.reply: Called | None = None
        """What devices answer; None: what they were asked."""

    async def close_session(self, device_no: int, code: CloseCode, reason: str) -> bool:
        self.closed.append((device_no, code))
        was_online = device_no in self.online
        self.online.discard(device_no)
        return was_online

    async def sessions(self, device_nos: Sequence[int]) -> list[SessionView | None]:
        return [self.sessions_of.get(device_no) for device_no in device_nos]

    async def send(self, envelope: Envelope, wait_ack_s: float = 0.0) -> Sent:
        here = tuple(no for no in envelope.receivers if no in self.online)
        away = tuple(no for no in envelope.receivers if no not in self.online)
        if envelope.expires_at_ms <= envelope.sent_at_ms:
            return Sent(Status.OK if here else Status.OFFLINE, here)
        committed = asyncio.get_running_loop().create_future()
        assert self.messages is not None
        self.messages.commit(envelope, lambda _, done: committed.set_result(done.status))
        status = await committed
        if status is not Status.OK:
            return Sent(status)
        return Sent(status, here, away, here if wait_ack_s and self.is_acking else ())

    async def send_many(self, envelopes: Sequence[Envelope]) -> list[Sent]:
        return list(await asyncio.gather(*map(self.send, envelopes)))

    def number_of(self, device_id: str) -> int | None:
        return None

    async def broadcast(self, node_id: str, order: BroadcastOrder) -> Broadcasted:
        return Broadcasted(BitMap(order.receivers & BitMap(self.online)))

    async def end_push(self, push_no: int) -> list[SegmentReceipts]:
        return []

    async def catch_up(self, devices: BitMap) -> None: ...

    async def call(
        self, device_no: int, command_id: bytes, method: str, payload: bytes, timeout_ms: int, trace: bytes = b""
    ) -> Called:
        self.called.append((device_no, method, payload, timeout_ms))
        self.traces.append(trace)
        if self.reply is not None:
            return self.reply
        return Called(Status.OK, payload) if device_no in self.online else Called(Status.OFFLINE)

    async def report(self, node_id: str) -> NodeReport | None:
        return self.report_of.get(node_id)

    def session_count(self) -> int:
        return len(self.online)

    async def drain(self, node_id: str, within_s: float) -> bool:
        return self._tell(node_id, "drain", within_s)

    async def undrain(self, node_id: str) -> bool:
        return self._tell(node_id, "undrain")

    async def move(self, node_id: str, count: int, within_s: float) -> int:
        return count if self._tell(node_id, "move", count, within_s) else 0

    def _tell(self, node_id: str, *what: object) -> bool:
        if node_id in self.silent:
            raise StoreUnavailable(f"node {node_id} does not answer")
        self.told.append((node_id, *what))
        return True


async def _to_loopback(host: str, port: int) -> list[str]:
    return ["127.0.0.1"]


class Site:
    """An installation: its services, its application key, and clients with keys of any scopes."""

    def __init__(self, database: SqliteDatabase, folder: Path) -> None:
        self.database = database
        self.store = SqlAccounts(database)
        self.clock = ManualClock()
        self.uplink = SqlUplinkLog(database, self.clock)
        self.messages = SqlMessageStore(database, self.clock, 1_000)
        self.link = RecordingLink(self.messages)
        self.push_waiting = SqlPushWaiting(database, self.clock)
        self.push_store = SqlPushes(database, self.clock, self.push_waiting)
        self.commands = SqlCommands(database)
        self.events = SqlEvents(database)
        self.webhooks = SqlWebhooks(database, self.events)
        self.drift = 0
        self.backlog: Backlog | None = None
        self.registry = EmbeddedRegistry()
        self.routes = EmbeddedRoutes(self.clock)
        self.sets = SqlAudiences(database)
        self.presence = SqlPresence(database)
        self.audit = SqlAudit(database)
        self.idempotency = SqlIdempotency(database)
        self.limits = Limits()
        self.imports = Imports(self.store, SqlImports(database), self.clock, self.limits, folder / "imports")
        self.asking = Commands(self.store, self.link, self.commands, self.clock, self.limits)
        posting = PostSettings(allows_private=True, lookup=_to_loopback)
        self.endpoints = Endpoints(self.webhooks, self.events, self.uplink, self.clock, posting, sleep=self.clock.sleep)
        self.unready: Unready | None = None
        self.settings = ApiSettings(stream_s=0.1, progress_every_s=0.005, stats_every_s=0.005)
        self.authenticate: Authenticate | None = None
        hasher = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
        self.apps = Apps(self.store, self.clock, hasher)
        self.keys = ApiKeys(self.store, self.clock, hasher=hasher)
        self.people = People(SqlPeople(database), self.clock, hasher=hasher)
        self._clients: list[httpx.AsyncClient] = []
        self._nonces = itertools.count()

    def build(self) -> Any:
        """The application with the settings as they are now."""
        tokens, placement = Tokens(self.store, self.clock), Placement(self.registry)
        nodes = Nodes(self.registry, self.link, self.routes, self.clock, lambda: self.drift)
        self.history = History(nodes.sample, lambda: self.backlog, self.clock)
        return create_api(
            Services(
                clock=self.clock,
                registration=Registration(
                    self.store, self.clock, self.apps, tokens, placement, authenticate=self.authenticate
                ),
                tokens=tokens,
                placement=placement,
                devices=Devices(self.store, self.clock, tokens, self.link, self.routes),
                api_keys=self.keys,
                people=self.people,
                directives=Directives(SqlDirectives(self.database), self.store, self.clock),
                dead_letters=self.uplink,
                readiness=lambda: self.unready,
                limits=self.limits,
                settings=self.settings,
                audit=self.audit,
                idempotency=self.idempotency,
                tags=Tags(self.store, self.sets, self.clock, self.limits),
                groups=Groups(self.store, self.sets, self.clock),
                presence=Presence(self.store, self.sets, self.link, self.presence),
                imports=self.imports,
                uploads=Uploads(self.sets, self.clock, self.limits),
                pushes=Pushes(
                    self.push_store,
                    Audiences(self.sets, self.push_store, self.clock, self.limits),
                    self.store,
                    self.routes,
                    self.registry,
                    self.link,
                    self.clock,
                    self.limits,
                ),
                messages=Messages(self.store, self.sets, self.push_store, self.link, self.clock, self.limits),
                commands=self.asking,
                webhooks=self.endpoints,
                nodes=nodes,
                history=self.history,
                lookup=Lookup(
                    SqlTraceRows(self.database),
                    self.push_store,
                    self.presence,
                    self.link,
                    self.store,
                    self.commands,
                    self.registry,
                    self.routes,
                    self.clock,
                ),
                push_progress=SqlPushProgress(self.database),
                uplink=self.uplink,
                message_store=self.messages,
                push_waiting=self.push_waiting,
            )
        )

    def client(
        self, authorization: str | None = None, address: str = "127.0.0.1", app: Any = None
    ) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app or self.build(), client=(address, 1))
        headers = {} if authorization is None else {"Authorization": authorization}
        client = httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers)
        self._clients.append(client)
        return client

    async def operator(self, *scopes: Scope, **more: Any) -> httpx.AsyncClient:
        _, text = await self.keys.create("test", scopes or [Scope.ADMIN])
        return self.client(f"Bearer {text}", **more)

    async def devices(self, *device_ids: str, **more: Any) -> list[int]:
        """Registers devices; their numbers."""
        items = [{"device_id": device_id, **more} for device_id in device_ids]
        assert (await (await self.operator()).post("/v1/devices/batch", json={"items": items})).status_code == 200
        return [device.device_no for device in await self.store.find_devices(device_ids) if device is not None]

    async def connect(self, *device_nos: int) -> None:
        """Gives the devices sessions."""
        await self.routes.attach(NODE.node_id, device_nos)
        self.link.online.update(device_nos)

    async def dispatch(self) -> None:
        """Has every push that waits for it written to who is online."""
        worker = Worker("w-1", self.push_store, self.routes, self.registry, self.link, self.clock)
        working = asyncio.ensure_future(worker.run())
        async with asyncio.timeout(5):
            while await self.database.read(_undone):
                await asyncio.sleep(0.002)
        await worker.stop()
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)

    async def acknowledge(self, push_id: str, *device_nos: int) -> None:
        """Merges the acknowledgements of the devices."""
        push = await self.push_store.find(bytes.fromhex(push_id[4:]), self.clock.now_ms())
        assert push is not None
        merged = asyncio.get_running_loop().create_future()
        latency = Histogram()
        for _ in device_nos:
            latency.add(12)
        receipts = SegmentReceipts(push.push_no, 0, BitMap(device_nos), BitMap(device_nos), latency)
        self.push_store.merge([receipts], lambda _, status: merged.set_result(status))
        assert await merged is Status.OK

    def registration(self, device_id: str = "d-1", **changed: Any) -> dict[str, Any]:
        """A registration's body as the API's page describes it, written from that page alone."""
        body = {
            "app_key": self.app.app_key,
            "device_id": device_id,
            "ts_ms": self.clock.now_ms(),
            "nonce": f"n-{next(self._nonces)}",
        }
        text = f"{device_id}\n{body['ts_ms']}\n{body['nonce']}"
        body["proof"] = hmac.digest(self.app.app_secret.encode(), text.encode(), "sha256").hex()
        return body | changed

    async def start(self) -> None:
        await self.uplink.start()
        await self.messages.start()
        await self.webhooks.start()
        self.app = await self.apps.create()
        await self.registry.register(NODE)

    async def stop(self) -> None:
        await self.asking.stop()
        await self.endpoints.stop()
        for client in self._clients:
            await client.aclose()


def _undone(connection: Connection) -> int:
    return connection.exec_driver_sql(
        "SELECT COUNT(*) FROM push_segments s JOIN pushes p ON p.push_no = s.push_no"
        " WHERE s.state < 2 AND p.status = 'sending'"
    ).scalar_one()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    database = SqliteDatabase(tmp_path)
    await database.start()
    site = Site(database, tmp_path)
    await site.start()
    yield site
    await site.stop()
    await database.stop()


@pytest.fixture
async def operator(site: Site) -> httpx.AsyncClient:
    """A client with a key for everything."""
    return await site.operator()


@pytest.fixture
def check_problem():
    """Checks that an answer is a problem with this status and code, whole and well-formed; gives its body."""

    def check(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
        assert (answer.status_code, answer.json().get("code")) == (status, code), answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        body: dict[str, Any] = answer.json()
        assert body["status"] == status
        assert body["title"]
        assert body["detail"]
        assert body["type"] == "about:blank"
        assert body["request_id"] == answer.headers["x-request-id"]
        assert ("www-authenticate" in answer.headers) == (status == 401)
        if status in (429, 503):
            assert answer.headers["retry-after"] == str(body["retry_after_s"])
            assert body["retry_after_s"] >= 1
        return body

    return check
