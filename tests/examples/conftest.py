"""Loads an example afresh for each test, as `longwire serve` would from the root of the repository."""

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from longwire.application import Longwire, Result, call, load
from longwire.testing.services import MemoryServices, context

ROOT = Path(__file__).parents[2]


class Running:
    """An example's application with the devices that talk to it."""

    def __init__(self, app: Longwire, services: MemoryServices) -> None:
        self.app = app
        self.services = services
        app.bind(services)

    async def send(
        self, device_id: str, kind: str, body: object = b"", message_id: bytes = b"", attempt: int = 1
    ) -> Result:
        """What a device sends to the application; the same id again is the same message."""
        handler = self.app.find_uplink(kind)
        assert handler is not None
        ctx = context(kind, self.services, device_id=device_id, message_id=message_id, attempt=attempt)
        return await call(handler, _bytes(body), ctx)

    async def request(self, device_id: str, method: str, body: object) -> Result:
        handler = self.app.find_request(method)
        assert handler is not None
        return await call(handler, _bytes(body), context(method, self.services, device_id=device_id))

    def received(self, device_id: str) -> list[tuple[str, object]]:
        """The kinds and bodies that went to a device."""
        sent = self.services.sent_to(f"device:{device_id}")
        return [(message.kind, msgspec.json.decode(message.payload)) for message in sent]


Start = Callable[[str, MemoryServices], Running]
Sender = Callable[..., Awaitable[Result]]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Start:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def start_example(name: str, services: MemoryServices) -> Running:
        sys.modules.pop(name.partition(":")[0], None)
        return Running(load(name), services)

    return start_example


def _bytes(body: object) -> bytes:
    return body if isinstance(body, bytes) else msgspec.json.encode(body)
