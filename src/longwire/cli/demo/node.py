"""What the demo runs against: a node of its own, or a Longwire that somebody else has started."""

import asyncio
import contextlib
import os
import secrets
import signal
import sys
import tempfile
from pathlib import Path
from typing import Protocol

import httpx
import msgspec

from longwire.cli import credentials
from longwire.cli.credentials import Credentials
from longwire.cli.text import Failure
from longwire.client import ClientError, Device

_READY_WITHIN_S = 30.0
_LOOK_EVERY_S = 0.05
_STOPS_WITHIN_S = 15.0
_TAIL_CHARACTERS = 2_000


class Target(Protocol):
    """A running Longwire with the demo's application."""

    credentials: Credentials
    """``http_url, app_key, app_secret, api_key``."""
    name: str
    run: str
    """Part of the names of devices and tags; "" where there are no others beside the demo's."""

    @property
    def http_url(self) -> str: ...

    async def start(self) -> None:
        """Sees to it that it is ready. Raises Failure."""
        ...

    async def died(self) -> None:
        """Raises Failure when it ends although nobody asked it to; else never returns."""
        ...

    def memory_bytes(self) -> int | None:
        """What it holds of the machine's memory; None where that cannot be seen."""
        ...

    async def handled(self, device: Device, kind: str, sent: set[bytes]) -> int:
        """How many of these messages the application was given, as the other side counts; -1 where it does not say."""
        ...

    async def close(self) -> None:
        """Ends what the demo has started, and takes away what it kept."""
        ...


class Elsewhere:
    """One that runs already, and which other devices may use beside the demo's."""

    name = "elsewhere"

    def __init__(self, http_url: str, api_key: str, app_key: str, app_secret: str) -> None:
        self.credentials: Credentials = {
            "http_url": http_url.rstrip("/"),
            "api_key": api_key,
            "app_key": app_key,
            "app_secret": app_secret,
        }
        self.run = secrets.token_hex(3)
        self.name = self.http_url

    @property
    def http_url(self) -> str:
        return self.credentials["http_url"]

    async def start(self) -> None:
        try:
            async with self._client() as client:
                answer = await client.get("/readyz")
        except httpx.HTTPError as error:
            raise Failure(f"{self.http_url}: {error or type(error).__name__}") from None
        if answer.is_error:
            raise Failure(f"{self.http_url} is not ready: {answer.text[:200]}")

    async def died(self) -> None:
        await asyncio.Event().wait()

    def memory_bytes(self) -> None:
        return None

    async def handled(self, device: Device, kind: str, sent: set[bytes]) -> int:
        """What the sink has stored. Processes of the application count each for itself."""
        found: set[bytes] = set()
        cursor: str | None = None
        async with self._client() as client:
            while True:
                params = {"kind": kind, "limit": "500"} | ({"cursor": cursor} if cursor else {})
                answer = await client.get("/v1/uplink", params=params)
                if answer.is_error:
                    return -1
                page = answer.json()
                found |= {bytes.fromhex(item["message_id"].removeprefix("msg_")) for item in page["items"]}
                cursor = page["next_cursor"]
                if cursor is None or sent <= found:
                    return len(sent & found)

    async def close(self) -> None: ...

    def _client(self) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {self.credentials['api_key']}"}
        return httpx.AsyncClient(
            base_url=self.http_url, headers=headers, timeout=30.0, verify=self.http_url.startswith("https:")
        )


class Node:
    """``longwire dev`` as anybody would start it: a process and its folder. ``close`` leaves nothing of either."""

    name = "one node"
    run = ""

    def __init__(self) -> None:
        self.credentials: Credentials = {}
        self._folder = tempfile.TemporaryDirectory(prefix="longwire-demo-")
        self.data = Path(self._folder.name) / "data"
        self._log = Path(self._folder.name) / "node.log"
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def http_url(self) -> str:
        return self.credentials["http_url"]

    async def start(self) -> None:
        """Starts it and waits until it is ready. Raises Failure."""
        await self._spawn()
        died = asyncio.ensure_future(self.died())
        ready = asyncio.ensure_future(self._ready())
        try:
            await asyncio.wait((died, ready), timeout=_READY_WITHIN_S, return_when=asyncio.FIRST_COMPLETED)
            if died.done():
                await died
            if not ready.done():
                raise Failure(f"the node was not ready within {_READY_WITHIN_S:g} s:\n{self._tail()}")
            self.credentials = await ready
        finally:
            for task in (died, ready):
                task.cancel()
            await asyncio.gather(died, ready, return_exceptions=True)

    async def stop(self) -> int:
        """Asks it to end (SIGTERM); the exit status."""
        process = self._process
        assert process is not None
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(_STOPS_WITHIN_S):
            return await process.wait()

    async def died(self) -> None:
        """Raises Failure when the process ends although nobody asked it to."""
        assert self._process is not None
        status = await self._process.wait()
        raise Failure(f"the node ended with status {status}:\n{self._tail()}")

    def memory_bytes(self) -> int:
        """What the process holds of the machine's memory."""
        for line in Path(f"/proc/{self.pid}/smaps_rollup").read_text("ascii").splitlines():
            if line.startswith("Rss:"):
                return int(line.split()[1]) * 1024
        raise Failure(f"/proc/{self.pid}/smaps_rollup does not say how much memory the node holds")

    async def handled(self, device: Device, kind: str, sent: set[bytes]) -> int:
        """What the application itself counts."""
        try:
            reply = await device.request("demo.account", b"")
            return msgspec.json.decode(reply.payload, type=dict[str, int])["readings"]
        except ClientError:
            return -1

    async def _spawn(self) -> None:
        # The environment and the working folder of whoever runs the demo may hold settings of a node of theirs.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LONGWIRE_")}
        environment["LONGWIRE_LOG_FORMAT"] = "text"  # its end is shown to a person, where it dies
        command = [sys.executable, "-m", "longwire.cli.demo.process", "dev", "longwire.cli.demo.application:app"]
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                *("--data", str(self.data), "--port", "0", "--http-port", "0"),
                cwd=self._folder.name,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the demo, which then stops the node
            )

    async def _ready(self) -> Credentials:
        async with httpx.AsyncClient(verify=False) as client:  # noqa: S501 - plain HTTP on loopback
            while True:
                found = credentials.find(self.data)
                if found is not None:
                    with contextlib.suppress(httpx.HTTPError):
                        if (await client.get(f"{found[0]['http_url']}/readyz")).is_success:
                            return found[0]
                await asyncio.sleep(_LOOK_EVERY_S)

    async def close(self) -> None:
        """Ends what still runs, and takes everything away that it kept."""
        process = self._process
        if process is not None and process.returncode is None:
            try:
                await self.stop()
            finally:
                if process.returncode is None:
                    with contextlib.suppress(ProcessLookupError):
                        process.kill()
                    await process.wait()
        self._folder.cleanup()

    def _tail(self) -> str:
        try:
            return self._log.read_text("utf-8", "replace")[-_TAIL_CHARACTERS:].strip()
        except OSError:
            return ""
