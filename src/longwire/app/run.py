"""A process from start to stop: two ordered lists of steps.

start: store ─► sink, sweeper ─► node ─► HTTP ─► first keys ─► ready
stop:  not ready ─► node (devices told, flushed) ─► HTTP, sink ─► store
"""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from longwire.api import Unready, create_api, create_internal_api
from longwire.app.build import System, build
from longwire.app.http_server import HttpServer
from longwire.app.settings import Settings
from longwire.application import Longwire

log = logging.getLogger(__name__)

_SINK_STOPS_WITHIN_S = 4.0


class Addresses(NamedTuple):
    """Where a running process is reached."""

    device_address: str
    device_tls_address: str | None
    http_url: str
    internal_url: str | None


OnStarted = Callable[[System, Addresses], Awaitable[None]]
"""Called when everything listens, before the process says that it is ready."""


class Process:
    """One process of Longwire on the running loop."""

    def __init__(self, settings: Settings, application: Longwire) -> None:
        self._unready: Unready | None = Unready("overloaded", "the process starts")
        self.system = build(settings, application, self.readiness)
        self._servers: list[HttpServer] = []
        self._sink: asyncio.Task[None] | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._has_to_stop = asyncio.Event()
        self._failed = False

    def readiness(self) -> Unready | None:
        """What ``/readyz`` answers."""
        if self._unready is None and not self.system.database.is_writable:
            return Unready("store-unavailable", "the store does not take writes")
        return self._unready

    async def start(self, on_started: OnStarted | None = None) -> Addresses:
        """Brings everything up. Raises what kept it from starting; nothing runs then."""
        system, settings = self.system, self.system.settings
        loop = asyncio.get_running_loop()
        await system.database.start()
        try:
            await system.messages.start()
            await system.uplink.start()
            await system.node.start()
            public = HttpServer(create_api(system.api), settings.host, settings.http_port)
            self._servers.append(public)
            internal = None
            if settings.internal_port is not None:
                internal = HttpServer(create_internal_api(self.readiness), settings.host, settings.internal_port)
                self._servers.append(internal)
            for server in self._servers:
                await server.start()
            self._sink = loop.create_task(system.sink.run())
            self._sink.add_done_callback(self._sink_ended)
            self._sweeper = loop.create_task(system.sweeper.run())
            addresses = self._addresses(public, internal)
            if on_started is not None:
                await on_started(system, addresses)
        except BaseException:
            await self.stop()
            raise
        self._unready = None
        return addresses

    async def run(self) -> int:
        """Serves until SIGTERM or SIGINT, or until a part fails; the exit status."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._has_to_stop.set)
        await self._has_to_stop.wait()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        await self.stop()
        return 1 if self._failed else 0

    async def stop(self) -> None:
        """Takes everything down in order, within ten seconds."""
        self._unready = Unready("draining", "the process stops")
        system = self.system
        await system.node.stop()
        await asyncio.gather(*(server.stop() for server in self._servers), self._stop_sink())
        if self._sweeper is not None:
            self._sweeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeper
        system.application.unbind()
        await system.database.stop()

    async def _stop_sink(self) -> None:
        if self._sink is None or self._sink.done():
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SINK_STOPS_WITHIN_S):
                await self.system.sink.stop()
        self._sink.cancel()
        await asyncio.gather(self._sink, return_exceptions=True)

    def _sink_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            # Messages of devices would pile up unhandled: better that whoever supervises the process sees it.
            log.critical("the sink failed; the process stops", exc_info=task.exception())
            self._failed = True
            self._has_to_stop.set()

    def _addresses(self, public: HttpServer, internal: HttpServer | None) -> Addresses:
        node, host = self.system.node, self.system.settings.public_host or self.system.settings.host
        return Addresses(
            f"{host}:{node.port_number}",
            None if node.tls_port_number is None else f"{host}:{node.tls_port_number}",
            f"http://{host}:{public.port}",
            None if internal is None else f"http://{host}:{internal.port}",
        )
