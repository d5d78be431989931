"""The API in process on a real SQLite store: requests go through ASGI, sessions are pretended."""

import hmac
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import argon2
import httpx
import pytest

from longwire.accounts.api_keys import ApiKeys, Scope
from longwire.accounts.apps import Apps
from longwire.accounts.devices import Devices
from longwire.accounts.placement import Placement
from longwire.accounts.registration import Authenticate, Registration
from longwire.accounts.tokens import Tokens
from longwire.adapters.embedded.registry import EmbeddedRegistry
from longwire.adapters.sql.accounts import SqlAccounts
from longwire.adapters.sql.database import SqliteDatabase
from longwire.adapters.sql.uplink import SqlUplinkLog
from longwire.api import ApiSettings, Services, Unready, create_api
from longwire.model import Envelope, NodeInfo
from longwire.reasons import CloseCode, Status
from longwire.testing.clock import ManualClock

NODE = NodeInfo("n1~0a", "127.0.0.1", 7300, 7301, "ws://127.0.0.1:7300/ws")


class RecordingLink:
    """Closes the sessions that a test says there are."""

    def __init__(self) -> None:
        self.online: set[int] = set()
        self.closed: list[tuple[int, CloseCode]] = []

    async def close_session(self, device_no: int, code: CloseCode, reason: str) -> bool:
        self.closed.append((device_no, code))
        was_online = device_no in self.online
        self.online.discard(device_no)
        return was_online

    async def send(self, envelope: Envelope) -> Status:
        raise NotImplementedError


class Site:
    """An installation: its services, its application key, and clients with keys of any scopes."""

    def __init__(self, database: SqliteDatabase) -> None:
        self.database = database
        self.store = SqlAccounts(database)
        self.clock = ManualClock()
        self.uplink = SqlUplinkLog(database, self.clock)
        self.link = RecordingLink()
        self.registry = EmbeddedRegistry()
        self.unready: Unready | None = None
        self.settings = ApiSettings()
        self.authenticate: Authenticate | None = None
        hasher = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
        self.apps = Apps(self.store, self.clock, hasher)
        self.keys = ApiKeys(self.store, self.clock, hasher=hasher)
        self._clients: list[httpx.AsyncClient] = []
        self._nonces = itertools.count()

    def build(self) -> Any:
        """The application with the settings as they are now."""
        tokens, placement = Tokens(self.store, self.clock), Placement(self.registry)
        return create_api(
            Services(
                clock=self.clock,
                registration=Registration(
                    self.store, self.clock, self.apps, tokens, placement, authenticate=self.authenticate
                ),
                tokens=tokens,
                placement=placement,
                devices=Devices(self.store, self.clock, tokens, self.link),
                api_keys=self.keys,
                dead_letters=self.uplink,
                readiness=lambda: self.unready,
                settings=self.settings,
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
        self.app = await self.apps.create()
        await self.registry.register(NODE)

    async def stop(self) -> None:
        for client in self._clients:
            await client.aclose()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    database = SqliteDatabase(tmp_path)
    await database.start()
    site = Site(database)
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
