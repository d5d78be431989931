"""A process in the test's loop: what is up when, what keeps it from starting, and how it goes."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from longwire.app.run import Addresses, Process, StartFailed
from longwire.app.settings import load
from longwire.application import Longwire
from longwire.errors import LongwireError

Start = Callable[..., Awaitable[tuple[Process, Addresses]]]


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Callable[..., Process]]:
    """Builds processes on one data folder and free ports; those that were started are stopped."""
    made: list[Process] = []

    def build(**flags: Any) -> Process:
        own = {"data_dir": tmp_path / "data", "port": 0, "http_port": 0, "internal_port": 0}
        made.append(Process(load(own | flags, {}).settings, Longwire()))
        return made[-1]

    yield build
    for process in made:
        await process.stop()


@pytest.fixture
def taken() -> Any:
    """A port that another program listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


async def get(url: str) -> int:
    async with httpx.AsyncClient(verify=False) as client:
        return (await client.get(url)).status_code


async def test_when_start_returns_every_port_answers(make) -> None:
    process = make()
    addresses = await process.start()
    assert await get(f"{addresses.http_url}/readyz") == 200
    assert await get(f"{addresses.internal_url}/readyz") == 200
    _, writer = await asyncio.open_connection(*addresses.device_address.split(":"))
    writer.close()
    await writer.wait_closed()
    await process.stop()
    for url in (addresses.http_url, addresses.internal_url):
        with pytest.raises(httpx.ConnectError):
            await get(f"{url}/readyz")


async def test_what_is_to_be_done_at_start_is_done_before_the_process_says_that_it_is_ready(make) -> None:
    seen: list[int] = []

    async def on_started(_system: object, addresses: Addresses) -> None:
        seen.append(await get(f"{addresses.http_url}/readyz"))
        seen.append(await get(f"{addresses.http_url}/livez"))

    process = make()
    addresses = await process.start(on_started)
    seen.append(await get(f"{addresses.http_url}/readyz"))
    assert seen == [503, 200, 200]


@pytest.mark.parametrize("name", ["port", "http_port", "internal_port"])
async def test_a_port_in_use_is_told_with_its_setting_and_nothing_stays_behind(make, taken: int, name: str) -> None:
    process = make(**{name: taken})
    with pytest.raises(StartFailed) as caught:
        await process.start()
    assert f"port {taken} on 127.0.0.1 (setting {name}) is in use" in str(caught.value)
    assert f"--{name.replace('_', '-')}" in str(caught.value)
    await make().start()


async def test_a_host_that_is_not_here_is_told_with_its_setting(make) -> None:
    with pytest.raises(StartFailed, match=r"host 192\.0\.2\.1 \(setting host\) is no address of this machine"):
        await make(host="192.0.2.1").start()


async def test_a_certificate_that_does_not_load_is_named(make, tmp_path: Path) -> None:
    broken = tmp_path / "broken.pem"
    broken.touch()
    for path in (tmp_path / "gone.pem", broken):
        with pytest.raises(StartFailed, match=f"certificate {path} does not load"):
            await make(certificate=path).start()


async def test_a_data_folder_has_one_process_at_a_time(make, tmp_path: Path) -> None:
    process = make()
    await process.start()
    with pytest.raises(LongwireError, match=f"data folder {tmp_path / 'data'} is in use"):
        await make().start()
    await process.stop()
    await make().start()


async def test_a_failure_at_start_leaves_nothing_running(make) -> None:
    reached: list[Addresses] = []

    async def fail(_system: object, addresses: Addresses) -> None:
        reached.append(addresses)
        raise RuntimeError("no disk")

    with pytest.raises(RuntimeError, match="no disk"):
        await make().start(fail)
    with pytest.raises(httpx.ConnectError):
        await get(f"{reached[0].http_url}/livez")
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*reached[0].device_address.split(":"))


async def test_a_sink_that_fails_ends_the_process_with_status_1(make, monkeypatch, caplog) -> None:
    process = make()

    async def fail() -> None:
        raise RuntimeError("the log is broken")

    monkeypatch.setattr(process.system.sink, "run", fail)
    with caplog.at_level(logging.CRITICAL):
        await process.start()
        async with asyncio.timeout(10):
            assert await process.run() == 1
    assert "the sink failed" in caplog.text
    with contextlib.suppress(RuntimeError):
        await process.stop()
