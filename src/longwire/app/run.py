"""A process from start to stop: two ordered lists of steps, of which each role has its own.

start: engines ─► node listens ─► internal port ─► node is listed ─► sink, push worker, webhooks … ─► HTTP ─► ready
stop:  not ready ─► node (devices moved or told, flushed) ─► HTTP, sink, push worker, webhooks ─► the link ─► engines
"""

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import NamedTuple

from longwire.api import Unready, create_api, create_internal_api
from longwire.api.shell import Tally
from longwire.app import logs
from longwire.app.build import System, build
from longwire.app.engines import Job, StartFailed
from longwire.app.http_server import HttpServer
from longwire.app.metrics import MetricsApp, create_metrics
from longwire.app.settings import Settings, flag_of
from longwire.application import Longwire
from longwire.errors import RegistryUnavailable
from longwire.gateway.lag import LoopWatch
from longwire.gateway.node import Node
from longwire.net.listener import tls_context

__all__ = ["Addresses", "OnStarted", "Process", "StartFailed"]

log = logging.getLogger(__name__)

_SINK_STOPS_WITHIN_S = 4.0
_LISTED_AGAIN_S = 1.0
_FORCED = 130


class Addresses(NamedTuple):
    """Where a running process is reached; None for what its roles have no port for."""

    device_address: str | None
    device_tls_address: str | None
    http_url: str | None
    internal_url: str | None


OnStarted = Callable[[System, Addresses], Awaitable[None]]
"""Called when everything listens, before the process says that it is ready."""


class Process:
    """One process of Longwire on the running loop."""

    def __init__(self, settings: Settings, application: Longwire) -> None:
        """Raises StartFailed."""
        self._unready: Unready | None = Unready("overloaded", "the process starts")
        self.system = build(settings, application, self.readiness)
        logs.name_node(self.system.node_id)
        self._tally: Tally | None = None
        self._watch = LoopWatch() if self.system.node is None else self.system.node.watch
        self._public: HttpServer | None = None
        self._internal: HttpServer | None = None
        self._sink: asyncio.Task[None] | None = None
        self._others: list[asyncio.Task[None]] = []
        self._has_to_stop = asyncio.Event()
        self._failed = False
        self._is_up = False

    def readiness(self) -> Unready | None:
        """What ``/readyz`` answers."""
        return self._unready or self.system.engines.unready()

    async def start(self, on_started: OnStarted | None = None) -> Addresses:
        """Brings everything up. Raises what kept it from starting; nothing runs then."""
        system = self.system
        await system.engines.start()
        self._is_up = True
        if system.otlp is not None:
            system.otlp.start()
        try:
            if system.node is not None:
                await self._listen(system.node)
            self._bind()
            if self._internal is not None:
                await self._internal.start()
            if system.node is not None:
                await self._list(system.node)
            self._others = [self._run(job) for job in self._jobs()]
            if system.sink is not None:
                self._sink = self._run(Job("the sink", system.sink.run))
            if system.webhooks is not None and not system.engines.is_shared:
                await system.webhooks.start()
            if self._public is not None:
                await self._public.start()
            addresses = self._addresses()
            if on_started is not None:
                await on_started(system, addresses)
        except BaseException:
            await self.stop()
            raise
        # What the start itself held the loop for is nobody's wait.
        self._watch.start()
        self._unready = None
        return addresses

    def heed_signals(self) -> None:
        """From here on SIGTERM and SIGINT end ``run``, also one that comes during ``start``.

        A second SIGTERM is for who does not want to wait until devices have moved. A second SIGINT ends the process
        on the spot; what it had confirmed is on disk.
        """
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._told_to_stop)
        loop.add_signal_handler(signal.SIGINT, self._interrupted)

    def _told_to_stop(self) -> None:
        if self._has_to_stop.is_set() and self.system.node is not None:
            self.system.node.hurry()
        self._has_to_stop.set()

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
        """Takes everything down in order, within ten seconds; of a cluster's node once its devices have moved."""
        self._unready = Unready("draining", "the process stops")
        if not self._is_up:
            return
        self._is_up = False
        system = self.system
        if system.node is not None:
            await system.node.stop(system.settings.drain_s if system.engines.is_shared else 0.0)
        parts = (self._public, system.worker, system.webhooks, system.commands)
        await asyncio.gather(self._stop_sink(), *(part.stop() for part in parts if part is not None))
        for task in self._others:
            task.cancel()
        await asyncio.gather(*self._others, return_exceptions=True)
        self._watch.stop()
        system.application.unbind()
        await self._close_link()
        await system.engines.stop()

    # -- the steps -----------------------------------------------------------------------------------------------

    async def _listen(self, node: Node) -> None:
        settings = self.system.settings
        _check_certificate("certificate", settings)
        try:
            await node.listen()
        except OSError as error:
            # The node takes its plain port first.
            raise _unbindable(settings, "tls_port" if node.port_number else "port", error) from error

    async def _list(self, node: Node) -> None:
        """From here on the node is chosen for devices, and other nodes reach it."""
        while True:
            try:
                await node.register(self._internal_url() or "")
            except RegistryUnavailable as error:
                log.warning("the node is not listed yet: %s", error)
                await asyncio.sleep(_LISTED_AGAIN_S)
            else:
                return

    def _bind(self) -> None:
        """Takes the HTTP ports, before anybody is told of this process."""
        system, settings = self.system, self.system.settings
        if settings.internal_port is not None:
            _check_certificate("internal_certificate", settings)
            with names_setting(settings, "internal_port"):
                self._internal = HttpServer(
                    create_internal_api(self.readiness, system.link_server, self._metrics()),
                    settings.internal_address,
                    settings.internal_port,
                    certificate=settings.internal_certificate,
                    certificate_key=settings.internal_certificate_key,
                )
        if system.api is not None:
            with names_setting(settings, "http_port"):
                api = create_api(system.api)
                self._tally = api.state.tally
                self._public = HttpServer(
                    api,
                    settings.host,
                    settings.http_port,
                    settings.trusted_proxies or (),
                    on_stop=api.state.streams.end,
                )

    def _metrics(self) -> MetricsApp:
        return create_metrics(self.system, self.readiness, self._watch, lambda: self._tally)

    def _internal_url(self) -> str | None:
        """Where the internal port is reached."""
        settings = self.system.settings
        if settings.internal_url is not None or self._internal is None:
            return settings.internal_url
        scheme = "http" if settings.internal_certificate is None else "https"
        return f"{scheme}://{settings.internal_address}:{self._internal.port}"

    async def _close_link(self) -> None:
        """Ends what other nodes ask of this one, then what it asks of them."""
        system = self.system
        for part in (system.link_server, self._internal, system.courier, system.http_link, system.link_client):
            if part is not None:
                await part.stop()
        if system.otlp is not None:
            await asyncio.to_thread(system.otlp.stop)

    def _jobs(self) -> Iterator[Job]:
        """What runs beside the node, the sink and HTTP, by the roles."""
        system = self.system
        yield from system.engines.jobs
        yield Job("marks and log levels", system.directives.run)
        if system.worker is not None:
            yield Job("the push worker", system.worker.run)
        if system.schedule is not None:
            yield Job("the schedule of pushes", system.schedule.run)
        if system.check is not None:
            yield Job("the check of counts", system.check.run)
        if system.sweeper is not None:
            yield Job("the sweeper", system.sweeper.run)
        if system.route_sweep is not None:
            yield Job("the sweep of routes", system.route_sweep.run)
        if system.imports is not None:
            yield Job("imports", system.imports.run)
        if system.backlog is not None:
            yield Job("the count of what waits", system.backlog.run)
        if system.history is not None:
            yield Job("the history of numbers", system.history.run)
        if system.webhooks is not None and system.sink is not None and system.engines.is_shared:
            yield Job("webhooks", system.webhooks.run)

    async def _stop_sink(self) -> None:
        if self._sink is None or self._sink.done() or self.system.sink is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SINK_STOPS_WITHIN_S):
                await self.system.sink.stop()
        self._sink.cancel()
        await asyncio.gather(self._sink, return_exceptions=True)

    def _run(self, job: Job) -> asyncio.Task[None]:
        """Starts what runs as long as the process."""
        task = asyncio.get_running_loop().create_task(job.run(), name=job.name)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            # Work would pile up undone: better that whoever supervises the process sees it.
            error = task.exception()
            is_told = isinstance(error, StartFailed)
            told = f": {error}" if is_told else ""
            log.critical("%s failed; the process stops%s", task.get_name(), told, exc_info=None if is_told else error)
            self._failed = True
            self._has_to_stop.set()

    def _addresses(self) -> Addresses:
        node, settings = self.system.node, self.system.settings
        host = settings.public_host or settings.host
        return Addresses(
            None if node is None else f"{host}:{node.port_number}",
            None if node is None or node.tls_port_number is None else f"{host}:{node.tls_port_number}",
            None if self._public is None else f"http://{host}:{self._public.port}",
            self._internal_url(),
        )


def _check_certificate(name: str, settings: Settings) -> None:
    """Raises StartFailed where a certificate and its key do not load, which TLS would tell later and worse."""
    certificate, key = getattr(settings, name), getattr(settings, f"{name}_key")
    if certificate is None:
        return
    try:
        tls_context(str(certificate), None if key is None else str(key))
    except OSError as error:  # ssl.SSLError is one
        with_key = "" if key is None else f" with {name}_key {key}"
        raise StartFailed(f"{name} {certificate}{with_key} does not load: {error}") from error


@contextlib.contextmanager
def names_setting(settings: Settings, name: str) -> Iterator[None]:
    """Raises StartFailed for a port that cannot be had, with what to do about it."""
    try:
        yield
    except OSError as error:
        raise _unbindable(settings, name, error) from error


def _unbindable(settings: Settings, name: str, error: OSError) -> StartFailed:
    """What to do about a port that cannot be had."""
    is_internal = name == "internal_port" and settings.internal_host is not None
    host, host_name = (settings.internal_host, "internal_host") if is_internal else (settings.host, "host")
    if name == "console_port" and settings.console_host is not None:
        host, host_name = settings.console_host, "console_host"
    port, flag = getattr(settings, name), flag_of(name)
    # From Python 3.13 on asyncio's own loop says "could not bind on any address", without a number.
    if isinstance(error, socket.gaierror) or error.errno in (errno.EADDRNOTAVAIL, None):
        return StartFailed(f"host {host} (setting {host_name}) is no address of this machine")
    if error.errno == errno.EADDRINUSE:
        why = "is in use by another program"
    elif error.errno in (errno.EACCES, errno.EPERM):
        why = "may not be taken by this user"
    else:
        why = f"cannot be had: {error.strerror or error}"
    return StartFailed(f"port {port} on {host} (setting {name}) {why}; choose another with {flag}, or 0 for a free one")
