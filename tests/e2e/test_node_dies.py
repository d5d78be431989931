"""The node is killed in the middle and comes back: the devices end with every message, each once."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from longwire.client import Device


class Node:
    """``longwire dev`` in a process of its own, on ports that stay the same."""

    def __init__(self, folder: Path) -> None:
        held = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        self.port, self.http_port = (one.getsockname()[1] for one in held)
        for one in held:
            one.close()
        self.folder = folder
        self.log = folder.with_suffix(".log")
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    def credentials(self) -> dict[str, str]:
        found: dict[str, str] = json.loads((self.folder / "dev-credentials.json").read_text())
        return found

    def spawn(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "longwire.cli", "dev", "--data", str(self.folder)]
        command += ["--port", str(self.port), "--http-port", str(self.http_port)]
        with self.log.open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log)

    async def start(self) -> None:
        self.process = self.spawn()
        async with asyncio.timeout(30), httpx.AsyncClient() as http:
            while True:
                assert self.process.poll() is None, self.log.read_text()
                try:
                    if (await http.get(f"{self.url}/readyz")).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.05)

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def node(tmp_path) -> Iterator[Node]:
    node = Node(tmp_path / "data")
    yield node
    if node.process is not None and node.process.poll() is None:
        node.process.terminate()
        assert node.process.wait(15) == 0


@pytest.mark.parametrize("transport", ["tcp", "websocket"])
async def test_a_device_that_loses_its_node_mid_send_loses_and_repeats_nothing(node, tmp_path, transport) -> None:
    await node.start()
    keys = node.credentials()
    options = {"app_key": keys["app_key"], "app_secret": keys["app_secret"], "transport": transport}
    count = 400
    got: list[int] = []
    async with (
        Device(node.url, "receiver", state=tmp_path / "receiver.db", **options) as receiver,
        Device(node.url, "sender", state=tmp_path / "sender.db", **options) as sender,
    ):
        sends = [asyncio.create_task(sender.send("device:receiver", str(n), "n")) for n in range(count)]

        under_way = asyncio.Event()

        async def receive() -> None:
            while len(got) < count:
                got.append(int((await receiver.receive()).text()))
                if len(got) == count // 8:
                    under_way.set()

        receiving = asyncio.create_task(receive())
        async with asyncio.timeout(60):
            await under_way.wait()
        node.kill()
        await node.start()
        async with asyncio.timeout(120):
            await asyncio.gather(*sends)
            await receiving
        assert node.credentials()["app_key"] == keys["app_key"]
    assert got == list(range(count))
