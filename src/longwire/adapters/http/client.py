"""The calling side of the link: kept connections to the nodes, and one POST.

HTTP/1.1 by hand, on the parser that the server uses: a call costs 0.1 ms of the processor where httpx takes 1.1 and
httpcore 0.8, and a connection that the other side has closed is known to be closed before it is used.
"""

import asyncio
import logging
import ssl
from collections.abc import Collection
from pathlib import Path
from urllib.parse import urlsplit

import httptools

from longwire.adapters.http.wire import LINK_VERSION, MAX_BODY_BYTES, SCHEME, path_of, sign
from longwire.errors import StoreUnavailable
from longwire.meters import Meter
from longwire.model import NodeInfo

log = logging.getLogger(__name__)

CONNECTS_WITHIN_S = 1.0
# Below the time after which uvicorn closes an idle connection (5 s), so that none is closed while a call goes out.
_KEPT_IDLE_S = 3.0
_SAYS_AGAIN_S = 60.0
_NOT_DONE = frozenset({401, 404, 413, 421})


class LinkFailed(StoreUnavailable):
    """A node did not carry out a call, or did not say that it has."""

    def __init__(self, message: str, *, was_sent: bool) -> None:
        super().__init__(message)
        self.was_sent = was_sent
        """False: the node has certainly not begun it."""


class LinkClient:
    """Calls other nodes. One a process; made on the loop."""

    def __init__(self, secret: str, *, ca: Path | None = None, max_connections_per_node: int = 16) -> None:
        """``ca``: who signs the nodes' certificates; None: the machine's authorities. Raises OSError, ssl.SSLError."""
        self.times = Meter()
        self._secret = secret.encode()
        self._tls = None if ca is None else ssl.create_default_context(cafile=ca)
        self._max_connections = max_connections_per_node
        self._peers: dict[str, _Peer] = {}
        self._said: dict[str, float] = {}

    async def post(self, node: NodeInfo, name: str, body: bytes, within_s: float) -> bytes:
        """The answer's body. Raises LinkFailed. Cancelling it does not undo what the node does."""
        version = min(LINK_VERSION, node.link_version)
        signature = sign(self._secret, name, node.node_id, body)
        was_sent = False
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(within_s):
                peer = self._peer(node.internal_url)
                async with peer.room:
                    connection = await peer.connect()
                    was_sent = True
                    head = (
                        f"POST {path_of(name, version)} HTTP/1.1\r\nhost: {peer.host}\r\n"
                        f"authorization: {SCHEME}{signature}\r\nlongwire-node: {node.node_id}\r\n"
                        f"longwire-within-ms: {int(within_s * 1000)}\r\nlongwire-version: {version}\r\n"
                        f"content-type: application/msgpack\r\ncontent-length: {len(body)}\r\n\r\n"
                    )
                    try:
                        status, answer = await connection.ask(head.encode("ascii"), body)
                    finally:
                        peer.put_back(connection)
        except TimeoutError as error:
            self.times.failed()
            raise LinkFailed(
                f"node {node.node_id} has not answered {name} within {within_s:g} s", was_sent=was_sent
            ) from error
        except (OSError, ValueError) as error:
            self.times.failed()
            raise LinkFailed(
                f"node {node.node_id} at {node.internal_url} is not reached: {error or type(error).__name__}",
                was_sent=was_sent,
            ) from error
        if status == 200:
            self.times.note(asyncio.get_running_loop().time() - began)
            return answer
        self.times.failed()
        if status == 401:
            self._say_refused(node.node_id)
        detail = answer[:200].decode("utf-8", "replace")
        raise LinkFailed(
            f"node {node.node_id} answered {name} with {status}: {detail}", was_sent=status not in _NOT_DONE
        )

    def keep_only(self, urls: Collection[str]) -> None:
        """Closes the idle connections to all others."""
        for url in self._peers.keys() - urls:
            self._peers.pop(url).close()

    async def stop(self) -> None:
        """Closes the connections; calls that run fail."""
        self.keep_only(())

    def _peer(self, url: str) -> "_Peer":
        peer = self._peers.get(url)
        if peer is None:
            peer = self._peers[url] = _Peer(url, self._tls, self._max_connections)
        return peer

    def _say_refused(self, node_id: str) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._said.get(node_id, -_SAYS_AGAIN_S) >= _SAYS_AGAIN_S:
            self._said = {other: at for other, at in self._said.items() if now - at < _SAYS_AGAIN_S}
            self._said[node_id] = now
            log.error(
                "node %s refuses our cluster_secret; all processes need the same (setting cluster_secret)", node_id
            )


class _Peer:
    """The connections to one address."""

    def __init__(self, url: str, tls: ssl.SSLContext | None, max_connections: int) -> None:
        """Raises ValueError for an address that is none."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no http:// or https:// address (internal_url)")
        self.host = parts.netloc
        self.room = asyncio.Semaphore(max_connections)
        self._address = (parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))
        self._tls = (tls or ssl.create_default_context()) if parts.scheme == "https" else None
        self._idle: list[_Connection] = []
        self._is_closed = False

    async def connect(self) -> "_Connection":
        """A connection that stands, kept or new. Raises OSError, TimeoutError."""
        loop = asyncio.get_running_loop()
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open and loop.time() - connection.idle_since < _KEPT_IDLE_S:
                return connection
            connection.close()
        async with asyncio.timeout(CONNECTS_WITHIN_S):
            _, connection = await loop.create_connection(_Connection, *self._address, ssl=self._tls)
        return connection

    def put_back(self, connection: "_Connection") -> None:
        if connection.is_free and not self._is_closed:
            connection.idle_since = asyncio.get_running_loop().time()
            self._idle.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        self._is_closed = True
        for connection in self._idle:
            connection.close()
        self._idle.clear()


class _Connection(asyncio.Protocol):
    """One call at a time."""

    def __init__(self) -> None:
        self.idle_since = 0.0
        self.is_open = False
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._pieces: list[bytes] = []
        self._bytes = 0

    @property
    def is_free(self) -> bool:
        """Whether another call may go out: it is open, and its last answer has come whole."""
        return self.is_open and self._answer is None

    async def ask(self, head: bytes, body: bytes) -> tuple[int, bytes]:
        """The answer's status and body. Raises OSError. Of use no more where this is cancelled or raises."""
        assert self._transport is not None
        if not self.is_open:
            raise ConnectionResetError("it closed the connection")
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.writelines((head, body))
        return await self._answer

    def close(self) -> None:
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        if self._answer is None:
            self.close()  # nothing was asked
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(ConnectionError(f"its answer is no HTTP: {error}"))

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(ConnectionResetError(f"it closed the connection{f': {error}' if error else ''}"))

    def _fail(self, error: OSError) -> None:
        self.close()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)

    # httptools

    def on_message_begin(self) -> None:
        self._pieces.clear()
        self._bytes = 0

    def on_body(self, piece: bytes) -> None:
        self._bytes += len(piece)
        if self._bytes > MAX_BODY_BYTES:
            self._fail(ConnectionError(f"its answer has more than {MAX_BODY_BYTES} bytes"))
            return
        self._pieces.append(piece)

    def on_message_complete(self) -> None:
        answer, self._answer = self._answer, None
        if not self._parser.should_keep_alive():
            self.close()
        if answer is not None and not answer.done():
            answer.set_result((self._parser.get_status_code(), b"".join(self._pieces)))
        self._pieces.clear()
