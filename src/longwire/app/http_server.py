"""The HTTP ports: uvicorn on the process's own loop, started and stopped by us."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_BACKLOG = 2_048
_GRACE_S = 2
_HEAD_WITHIN_S = 10.0
_MAX_HEAD_BYTES = 65_536
_TOO_SLOW = "408 Request Timeout"
_TOO_LARGE = "431 Request Header Fields Too Large"


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the process's affair, not the HTTP server's."""
        yield


class BoundedHeadProtocol(HttpToolsProtocol):
    """Uvicorn's protocol with a bound on a request's head, in time and in bytes; the parser itself has none.

    The body's bounds are the API's (api/shell.py, api/bodies.py).
    """

    head_within_s = _HEAD_WITHIN_S
    max_head_bytes = _MAX_HEAD_BYTES

    _is_in_head = False
    _head_bytes = 0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        was_in_head = self._is_in_head
        super().data_received(data)
        # The bytes that a head begins with are not counted: the end of a body may stand before them.
        if was_in_head and self._is_in_head:
            self._head_bytes += len(data)
            if self._head_bytes > self.max_head_bytes:
                self._turn_away(_TOO_LARGE)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_head = True
        self._head_bytes = 0
        if self._deadline is None:
            self._await_head()

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._forget_deadline()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_deadline()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._deadline = self.loop.call_later(self.head_within_s, self._turn_away, _TOO_SLOW)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _turn_away(self, status: str) -> None:
        if not self.transport.is_closing():
            self.transport.write(f"HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".encode())
            self.transport.close()


class HttpServer:
    """One HTTP port. ``port`` is the number that was bound, also where 0 was asked for.

    Of ``trusted_proxies`` (addresses, networks) X-Forwarded-For and -Proto are believed: the client is the last in
    the list who is none of them. ``Forwarded`` is not read: a proxy that does not write it hands a client's own on.
    """

    def __init__(
        self,
        api: ASGIApp,
        host: str,
        port: int,
        trusted_proxies: Collection[str] = (),
        *,
        certificate: Path | None = None,
        certificate_key: Path | None = None,
        on_stop: Callable[[], None] | None = None,
        has_sockets: bool = False,
    ) -> None:
        """Binds. ``certificate``: a PEM chain, and with it TLS. ``on_stop`` ends the calls that would not end by
        themselves. ``has_sockets``: the application takes WebSockets, and has a lifespan. Raises OSError."""
        self._on_stop = on_stop
        self._socket = socket.create_server((host, port), backlog=_BACKLOG)
        # For what it accepts; uvloop sets it by itself, asyncio does not on a socket made like this.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port: int = self._socket.getsockname()[1]
        self._server = _Server(
            uvicorn.Config(
                api,
                http=BoundedHeadProtocol,
                ws="websockets-sansio" if has_sockets else "none",
                lifespan="on" if has_sockets else "off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=bool(trusted_proxies),
                forwarded_allow_ips=list(trusted_proxies),
                timeout_graceful_shutdown=_GRACE_S,
                ssl_certfile=certificate,
                ssl_keyfile=certificate_key,
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
        if self._on_stop is not None:
            self._on_stop()
        self._server.should_exit = True
        if self._task is None:
            self._socket.close()
        else:
            await self._task
