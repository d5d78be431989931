"""The demo's node: ``longwire dev`` as anybody would start it, in a process and a folder of its own."""

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from pathlib import Path

import httpx

from longwire.cli import credentials
from longwire.cli.credentials import Credentials
from longwire.cli.text import Failure

_READY_WITHIN_S = 30.0
_LOOK_EVERY_S = 0.05
_STOPS_WITHIN_S = 15.0
_TAIL_CHARACTERS = 2_000


class Node:
    """The process and its folder. ``close`` leaves nothing of either."""

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

    async def _spawn(self) -> None:
        # The environment and the working folder of whoever runs the demo may hold settings of a node of theirs.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LONGWIRE_")}
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
