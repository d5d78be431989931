"""The services on a real SQLite store in a fresh folder, with a clock that only a test moves."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import argon2
import pytest

from longwire.accounts.api_keys import ApiKeys, ApiKeySettings
from longwire.accounts.apps import Apps, NewApp
from longwire.accounts.devices import Devices
from longwire.accounts.placement import Placement
from longwire.accounts.registration import Claim, Registration, proof_of
from longwire.accounts.tokens import Tokens
from longwire.adapters.embedded.registry import EmbeddedRegistry
from longwire.adapters.sql.accounts import SqlAccounts
from longwire.adapters.sql.sqlite import SqliteDatabase
from longwire.model import Envelope, NodeInfo
from longwire.reasons import CloseCode, Status
from longwire.testing.clock import ManualClock


class RecordingLink:
    """A link that has sessions for the devices it is told of, and remembers what it closed."""

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


class CountingHasher(argon2.PasswordHasher):
    """Argon2 at its cheapest, which counts its checks."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.checks = 0

    def verify(self, *arguments: str | bytes) -> bool:
        self.checks += 1
        return super().verify(*arguments)


@dataclass
class House:
    """Everything a test of the services needs."""

    store: SqlAccounts
    database: SqliteDatabase
    clock: ManualClock
    app: NewApp
    apps: Apps
    link: RecordingLink = field(default_factory=RecordingLink)
    registry: EmbeddedRegistry = field(default_factory=EmbeddedRegistry)
    hasher: CountingHasher = field(default_factory=CountingHasher)

    def __post_init__(self) -> None:
        self.tokens = Tokens(self.store, self.clock)
        self.placement = Placement(self.registry)
        self.devices = Devices(self.store, self.clock, self.tokens, self.link)
        self.keys = ApiKeys(self.store, self.clock, ApiKeySettings(), self.hasher)
        self.registration = self.registering()

    def registering(self, **changed: object) -> Registration:
        return Registration(self.store, self.clock, self.apps, self.tokens, self.placement, **changed)  # type: ignore[arg-type]

    def claim(self, device_id: str = "d-1", nonce: str = "n-1", **changed: object) -> Claim:
        ts_ms = changed.pop("ts_ms", self.clock.now_ms())
        assert isinstance(ts_ms, int)
        proof = proof_of(self.app.app_secret, device_id, ts_ms, nonce)
        return Claim(
            **{  # type: ignore[arg-type]
                "app_key": self.app.app_key,
                "device_id": device_id,
                "ts_ms": ts_ms,
                "nonce": nonce,
                "proof": proof,
                **changed,
            }
        )


NODE = NodeInfo("n1~0a", "127.0.0.1", 7300, None, "ws://127.0.0.1:7300/ws")


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    database = SqliteDatabase(tmp_path)
    await database.start()
    store, clock = SqlAccounts(database), ManualClock()
    apps = Apps(store, clock, CountingHasher())
    house = House(store, database, clock, await apps.create(), apps)
    await house.registry.register(NODE)
    yield house
    await database.stop()
