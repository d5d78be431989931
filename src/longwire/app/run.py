"""A process from start to stop: two ordered lists of steps.

start: store ─► node ─► sink, push worker, webhooks, … ─► HTTP ─► first keys ─► ready
stop:  not ready ─► node (devices told, flushed) ─► HTTP, sink, push worker, webhooks ─► the rest ─► store
"""

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from functools import partial
from typing import NamedTuple

from longwire.api import Unready, create_api, create_internal_api
from longwire.app.build import System, build
from longwire.app.http_server import HttpServer
from longwire.app.settings import Settings, flag_of
from longwire.application import Longwire
from longwire.errors import LongwireError
from longwire.net.listener import tls_context

log = logging.getLogger(__name__)

_SINK_STOPS_WITHIN_S = 4.0
_FORCED = 130


class StartFailed(LongwireError):
    """The process could not start as it is set; the message names the setting."""


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
        self._others: list[asyncio.Task[None]] = []
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
        await system.database.start()
        try:
            await system.messages.start()
            await system.uplink.start()
            await system.webhook_store.start()
            await system.push_store.start()
            await self._start_node()
            self._sink = self._run("the sink", system.sink.run())
            self._others = [
                self._run("the push worker", system.worker.run()),
                self._run("the schedule of pushes", system.schedule.run()),
                self._run("the check of counts", system.check.run()),
                self._run("the hints of what waits", system.push_waiting.run()),
                self._run("imports", system.imports.run()),
                self._run("the sweeper", system.sweeper.run()),
            ]
            await system.webhooks.start()
            with _names_setting(settings, "http_port"):
                public = HttpServer(create_api(system.api), settings.host, settings.http_port)
            self._servers.append(public)
            internal = None
            if settings.internal_port is not None:
                with _names_setting(settings, "internal_port"):
                    internal = HttpServer(create_internal_api(self.readiness), settings.host, settings.internal_port)
                self._servers.append(internal)
            for server in self._servers:
                await server.start()
            addresses = self._addresses(public, internal)
            if on_started is not None:
                await on_started(system, addresses)
        except BaseException:
            await self.stop()
            raise
        # What the start itself held the loop for is nobody's wait.
        system.node.watch.start()
        self._unready = None
        return addresses

    def heed_signals(self) -> None:
        """From here on SIGTERM and SIGINT end ``run``, also one that comes during ``start``.

        A second SIGINT ends the process on the spot; what it had confirmed is on disk.
        """
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._has_to_stop.set)
        loop.add_signal_handler(signal.SIGINT, self._interrupted)

    def _interrupted(self) -> None:
        if self._has_to_stop.is_set():
            sys.stderr.write("stopped at once\n")
            sys.stderr.flush()
            os._exit(_FORCED)
        self._has_to_stop.set()

    async def run(self) -> int:
        """Serves until a signal that is heeded, or until a part fails; then stops. The exit status."""
        await self._has_to_stop.wait()
        await self.stop()
        return 1 if self._failed else 0

    async def stop(self) -> None:
        """Takes everything down in order, within ten seconds."""
        self._unready = Unready("draining", "the process stops")
        system = self.system
        await system.node.stop()
        await asyncio.gather(
            *(server.stop() for server in self._servers),
            self._stop_sink(),
            system.worker.stop(),
            system.webhooks.stop(),
            system.commands.stop(),
        )
        for task in self._others:
            task.cancel()
        await asyncio.gather(*self._others, return_exceptions=True)
        system.application.unbind()
        await system.database.stop()

    async def _start_node(self) -> None:
        node, settings = self.system.node, self.system.settings
        if settings.certificate is not None:
            key = settings.certificate_key
            try:
                tls_context(str(settings.certificate), None if key is None else str(key))
            except OSError as error:  # ssl.SSLError is one
                with_key = "" if key is None else f" with certificate_key {key}"
                raise StartFailed(f"certificate {settings.certificate}{with_key} does not load: {error}") from error
        try:
            await node.start()
        except OSError as error:
            # The node takes its plain port first.
            raise _unbindable(settings, "tls_port" if node.port_number else "port", error) from error

    async def _stop_sink(self) -> None:
        if self._sink is None or self._sink.done():
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SINK_STOPS_WITHIN_S):
                await self.system.sink.stop()
        self._sink.cancel()
        await asyncio.gather(self._sink, return_exceptions=True)

    def _run(self, name: str, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Starts what runs as long as the process."""
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(partial(self._ended, name))
        return task

    def _ended(self, name: str, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            # Work would pile up undone: better that whoever supervises the process sees it.
            log.critical("%s failed; the process stops", name, exc_info=task.exception())
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


@contextlib.contextmanager
def _names_setting(settings: Settings, name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _unbindable(settings, name, error) from error


def _unbindable(settings: Settings, name: str, error: OSError) -> StartFailed:
    """What to do about a port that cannot be had."""
    port, host, flag = getattr(settings, name), settings.host, flag_of(name)
    # From Python 3.13 on asyncio's own loop says "could not bind on any address", without a number.
    if isinstance(error, socket.gaierror) or error.errno in (errno.EADDRNOTAVAIL, None):
        return StartFailed(f"host {host} (setting host) is no address of this machine")
    if error.errno == errno.EADDRINUSE:
        why = "is in use by another program"
    elif error.errno in (errno.EACCES, errno.EPERM):
        why = "may not be taken by this user"
    else:
        why = f"cannot be had: {error.strerror or error}"
    return StartFailed(f"port {port} on {host} (setting {name}) {why}; choose another with {flag}, or 0 for a free one")
