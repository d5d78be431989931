"""Receivers on real sockets that do as they are told, and a whole store with webhooks; time by hand."""

import asyncio
import json
import random
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from longwire.adapters.sql.events import SqlEvents
from longwire.adapters.sql.sqlite import SqliteDatabase
from longwire.adapters.sql.uplink import SqlUplinkLog
from longwire.adapters.sql.webhooks import SqlWebhooks
from longwire.model import UplinkRecord
from longwire.operations_model import Event, WebhookLetter
from longwire.testing import ManualClock
from longwire.webhooks import Endpoints, PostSettings, WebhookState

HANG_GUARD_S = 20.0
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
REFUSAL = b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"
HANG = b""


class Got(NamedTuple):
    """A request as it came."""

    head: str
    headers: dict[str, str]
    body: bytes

    @property
    def events(self) -> list[dict[str, Any]]:
        return json.loads(self.body)["events"]


class Receiver:
    """An HTTP server that answers what a test wants, byte by byte; OK where the test says nothing."""

    def __init__(self) -> None:
        self.got: list[Got] = []
        self.answers: deque[bytes] = deque()
        self.always: bytes | None = None
        self.connections = 0
        self.names: list[str | None] = []
        self.port = 0
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    async def start(self, port: int = 0, tls: ssl.SSLContext | None = None) -> "Receiver":
        if tls is not None:
            tls.sni_callback = lambda _socket, name, _context: self.names.append(name)
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await self._server.wait_closed()

    def url(self, host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}/hook?a=1"

    @property
    def told(self) -> list[dict[str, Any]]:
        """Every event of every request, in order."""
        return [event for got in self.got for event in got.events]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
                body = await reader.readexactly(int(headers["content-length"]))
                self.got.append(Got(head[0], headers, body))
                answer = self.answers.popleft() if self.answers else self.always if self.always is not None else OK
                writer.write(answer)
                if not answer.startswith(b"HTTP/1.1 2") and answer:
                    await writer.drain()
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


class World:
    """A store, its outbox, its uplink log, and the webhooks that are served from them."""

    def __init__(self, folder: Path, clock: ManualClock | None = None) -> None:
        self.folder = folder
        self.clock = clock or ManualClock()
        self.database = SqliteDatabase(folder)
        self.events = SqlEvents(self.database)
        self.uplink = SqlUplinkLog(self.database, self.clock, self.events)
        self.store = SqlWebhooks(self.database, self.events)
        self.endpoints = Endpoints(
            self.store,
            self.events,
            self.uplink,
            self.clock,
            PostSettings(allows_private=True, timeout_s=5.0),
            sleep=self.clock.sleep,
            randomness=random.Random(1),
        )

    async def start(self) -> "World":
        await self.database.start()
        await self.uplink.start()
        await self.store.start()
        await self.endpoints.start()
        return self

    async def stop(self) -> None:
        await self.endpoints.stop()
        await self.database.stop()

    async def restarted(self) -> "World":
        await self.stop()
        return await World(self.folder, self.clock).start()

    async def note(self, *numbers: int, kind: str = "push.acked") -> None:
        """Events in one transaction, in order."""
        events = [Event(kind, self.clock.now_ms(), 0, b'{"n":%d}' % number) for number in numbers]
        await self.database.write(lambda connection: self.events.note(connection, events))

    def send(self, number: int, payload: bytes = b"1") -> None:
        record = UplinkRecord(7, "d-7", number.to_bytes(16, "big"), "order", payload, self.clock.now_ms())
        self.uplink.append(record, lambda _record, _status: None)

    async def until(self, is_so: Callable[[], object], step_s: float = 0.0) -> None:
        """Waits for what sockets and threads do in their own time; the clock moves by ``step_s`` meanwhile."""
        async with asyncio.timeout(HANG_GUARD_S):
            while not is_so():
                await asyncio.sleep(0.001)
                if step_s and self.clock.sleepers:
                    self.clock.advance(step_s)

    async def idle(self, webhook_no: int) -> WebhookState:
        """The webhook's state once it has taken everything."""
        async with asyncio.timeout(HANG_GUARD_S):
            while (state := await self.endpoints.find(webhook_no)).waiting:
                await asyncio.sleep(0.001)
            return state

    async def letters(self, count: int, step_s: float = 300) -> Sequence[WebhookLetter]:
        """So many letters, newest first; the clock moves on until they are there."""
        async with asyncio.timeout(HANG_GUARD_S):
            while len(found := await self.endpoints.letters(0, 100)) < count:
                await asyncio.sleep(0.001)
                if self.clock.sleepers:
                    self.clock.advance(step_s)
            return found

    async def count(self, table: str) -> int:
        value: int = await self.database.read(lambda c: c.exec_driver_sql(f"SELECT COUNT(*) FROM {table}").scalar_one())
        return value
