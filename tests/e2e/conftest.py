"""A whole process of Longwire in the test's loop, reached through its public doors only."""

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "gateway"))

from longwire.accounts.api_keys import Scope
from longwire.app.run import Process
from longwire.app.settings import load
from longwire.application import Longwire
from longwire.client import Device
from longwire.testing.process import NodeProcess


class Running(NamedTuple):
    """A process and what a client needs to reach it."""

    process: Process
    http_url: str
    app_key: str
    app_secret: str
    api: httpx.AsyncClient

    def device(self, device_id: str, **options: object) -> Device:
        return Device(self.http_url, device_id, app_key=self.app_key, app_secret=self.app_secret, **options)


@pytest.fixture
async def start(tmp_path) -> AsyncIterator[Callable[..., object]]:
    """``await start(app, **flags)``: a running process; all are stopped at the end."""
    running: list[Running] = []

    async def begin(app: Longwire | None = None, **flags: object) -> Running:
        folder = tmp_path / f"data-{len(running)}"
        values = {"data_dir": folder, "port": 0, "http_port": 0, "reregister": "allow"} | flags
        settings, _ = load({**values}, {}, None)
        settings = settings.model_copy(update={"internal_port": None})
        process = Process(settings, app or Longwire())
        addresses = await process.start()
        new_app = await process.system.apps.create()
        _, key = await process.system.api_keys.create("test", [Scope.ADMIN])
        api = httpx.AsyncClient(base_url=addresses.http_url, headers={"Authorization": f"Bearer {key}"})
        running.append(Running(process, addresses.http_url, new_app.app_key, new_app.app_secret, api))
        return running[-1]

    yield begin
    for one in running:
        await one.api.aclose()
        await one.process.stop()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcess]:
    """``longwire dev`` in a process of its own, which must stop well."""
    node = NodeProcess(tmp_path / "data")
    node.start()
    yield node
    if node.is_alive:
        assert node.stop() == 0, node.log.read_text(errors="replace")
