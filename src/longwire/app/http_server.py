"""The HTTP ports: uvicorn on the process's own loop, started and stopped by us."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI

_BACKLOG = 2_048
_GRACE_S = 2


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the process's affair, not the HTTP server's."""
        yield


class HttpServer:
    """One HTTP port. ``port`` is the number that was bound, also where 0 was asked for."""

    def __init__(self, api: FastAPI, host: str, port: int) -> None:
        self._socket = socket.create_server((host, port), backlog=_BACKLOG)
        self.port: int = self._socket.getsockname()[1]
        self._server = _Server(
            uvicorn.Config(
                api,
                http="httptools",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=_GRACE_S,
            )
        )
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Serves from here on."""
        self._task = asyncio.get_running_loop().create_task(self._server.serve(sockets=[self._socket]))
        while not self._server.started:
            if self._task.done():
                await self._task
                raise RuntimeError("the HTTP server ended while it started")
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        """Lets running calls end, for a moment, then closes."""
        self._server.should_exit = True
        if self._task is None:
            self._socket.close()
        else:
            await self._task
