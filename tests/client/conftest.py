"""What the SDK's tests share: time by hand, a node and an api that behave, devices that meet them."""

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from client_fake_node import Backend, FakeNode
from client_manual_time import ManualTimers

from longwire.client import Device, OutboxLimits


@pytest.fixture
def clock() -> ManualTimers:
    return ManualTimers()


@pytest.fixture
def backend() -> Backend:
    return Backend()


@pytest.fixture
async def node(backend: Backend) -> AsyncIterator[FakeNode]:
    async with FakeNode(backend) as fake:
        yield fake


@pytest.fixture
async def second_node(backend: Backend) -> AsyncIterator[FakeNode]:
    async with FakeNode(backend, "n2") as fake:
        yield fake


@pytest.fixture(params=["tcp", "websocket"])
def transport(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
async def devices() -> AsyncIterator[AsyncExitStack]:
    """What is entered here is closed when the test is over."""
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def make_device(node: FakeNode, clock: ManualTimers) -> Callable[..., Device]:
    """A device with a token for the fake node, on the manual clock, as fast as it can."""

    def make(device_id: str = "d-1", **settings: object) -> Device:
        settings.setdefault("outbox", OutboxLimits(per_s=0))
        settings = {"token": "t0k", "address": node.address, "timers": clock, "rng": Random(1)} | settings
        return Device(device_id=device_id, **settings)

    return make
