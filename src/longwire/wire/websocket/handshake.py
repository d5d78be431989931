"""The WebSocket opening handshake, both ends (RFC 6455 §4), as a sans-I/O codec.

    server   bytes ──► ServerHandshake.feed ──► Request ──► accept_response │ refuse_response ──► bytes
    client   client_request ──► bytes      bytes ──► ClientHandshake.feed ──► Response

Version 13, no extension, no body. A request that is no valid handshake becomes a ``Refusal`` with the HTTP
status that says why; whether its path, origin and sub-protocols are welcome is the caller's to judge, and a
head that never ends is the caller's to time out. No argument can smuggle a line into what is written here.
"""

import base64
import hashlib
import http
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from longwire.errors import LocalProtocolError, RemoteProtocolError
from longwire.wire.websocket.frames import CLOSE_PROTOCOL_ERROR
from longwire.wire.websocket.head import (
    HeadError,
    HeadReader,
    has_member,
    is_token,
    join_head,
    list_members,
    split_head,
)

VERSION = "13"

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY_BYTES = 16
_REQUEST_LINE = re.compile(r"([^ ]+) ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])")
_KEY = re.compile(r"[0-9A-Za-z+/]{22}==")
_STATUS_LINE = re.compile(r"HTTP/1\.[0-9] ([1-5][0-9]{2})(?: .*)?")
_ORIGIN_FORM = re.compile(r"/[\x21\x22\x24-\x7e]*")
_ABSOLUTE_FORM = re.compile(r"(?i:https?|wss?)://[^/?#]+([^#]*)")
_HOST = re.compile(r"[0-9A-Za-z\[\]:._~!$&'()*+;=%-]+")
# What the handshake itself says, and what would give the request a body.
_OWN_HEADERS = frozenset(["connection", "content-length", "host", "origin", "transfer-encoding", "upgrade"])
_ERROR_PHRASES = {int(status): status.phrase for status in http.HTTPStatus if status >= 400}
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Request:
    """A client's valid opening handshake.

    ``path`` and ``query`` stand as they came, percent-encoded; ``query`` is without its ``?`` and may be
    empty. ``headers`` have lower-case names. ``origin`` is None for a client that is no browser.
    ``subprotocols``: what the client offers, its favourite first.
    """

    path: str
    query: str
    headers: dict[str, str]
    origin: str | None
    subprotocols: tuple[str, ...]
    key: str


class Refusal(NamedTuple):
    """Why a request is not taken up, as ``refuse_response`` takes it: HTTP status and a sentence."""

    status: int
    message: str


class Response(NamedTuple):
    """The head of a server's answer. ``subprotocol`` is None where the server chose none."""

    status: int
    headers: dict[str, str]
    subprotocol: str | None


class ServerHandshake:
    """Reads a client's opening handshake (RFC 6455 §4.2.1).

    In the end either ``feed`` gave a ``Request``, and ``trailing`` holds what the client already sent behind
    it (frames, for a ``Decoder``); or ``refusal`` says why not, and the connection ends with that answer.
    """

    __slots__ = ("_is_over", "_reader", "refusal", "trailing")

    def __init__(self) -> None:
        self.refusal: Refusal | None = None
        self.trailing = b""
        self._reader = HeadReader()
        self._is_over = False

    def feed(self, data: bytes) -> Request | None:
        """The request once its head is whole; None before, and for a refused one, whose bytes are let go.

        Raises ``LocalProtocolError`` when called again after a request: those bytes are frames.
        """
        if self.refusal is not None:
            return None
        if self._is_over:
            raise LocalProtocolError("handshake is over; what follows are frames")
        try:
            whole = self._reader.feed(data)
            if whole is None:
                return None
            request = _parse_request(whole[0])
        except HeadError as error:
            self.refusal = Refusal(error.status, str(error))
            return None
        self._is_over = True
        self.trailing = whole[1]
        return request


def _parse_request(head: bytes) -> Request:
    """The request of a whole head. Raises ``HeadError`` with the status to refuse it with."""
    line, headers = split_head(head)
    match = _REQUEST_LINE.fullmatch(line)
    if match is None or not is_token(match[1]):
        raise HeadError(400, "request line is malformed")
    if match[3] != "1" or match[4] == "0":
        raise HeadError(505, "HTTP/1.1 is required")
    if match[1] != "GET":
        raise HeadError(405, "method is not GET")
    path, query = _split_target(match[2])
    if not _HOST.fullmatch(headers.get("host", "")):
        raise HeadError(400, "header host is missing or malformed")
    if "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
        # Its bytes would be taken for frames.
        raise HeadError(400, "request has a body")
    if not has_member(headers.get("upgrade", ""), "websocket"):
        raise HeadError(426, "header upgrade does not ask for websocket")
    if not has_member(headers.get("connection", ""), "upgrade"):
        raise HeadError(400, "header connection does not name upgrade")
    if headers.get("sec-websocket-version") != VERSION:
        raise HeadError(426, f"header sec-websocket-version is not {VERSION}")
    key = headers.get("sec-websocket-key", "")
    if not _KEY.fullmatch(key):
        raise HeadError(400, f"header sec-websocket-key is not {_KEY_BYTES} bytes of base64")
    subprotocols = tuple(list_members(headers.get("sec-websocket-protocol", "")))
    if not all(map(is_token, subprotocols)):
        raise HeadError(400, "header sec-websocket-protocol is malformed")
    return Request(path, query, headers, headers.get("origin"), subprotocols, key)


def _split_target(target: str) -> tuple[str, str]:
    """Path and query of a request target in origin form or absolute form (RFC 9112 §3.2)."""
    absolute = _ABSOLUTE_FORM.fullmatch(target)
    if absolute is not None:
        target = absolute[1] if absolute[1].startswith("/") else "/" + absolute[1]
    if not _ORIGIN_FORM.fullmatch(target):
        raise HeadError(400, "request target is malformed")
    path, _, query = target.partition("?")
    return path, query


def accept_response(request: Request, subprotocol: str | None) -> bytes:
    """The answer that opens the connection: 101, ``subprotocol`` chosen of those offered, no extension.

    Raises ``LocalProtocolError`` for a sub-protocol that the client did not offer (RFC 6455 §4.2.2).
    """
    headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": _accept(request.key)}
    if subprotocol is not None:
        if subprotocol not in request.subprotocols:
            raise LocalProtocolError(f"sub-protocol {subprotocol!r} was not offered")
        headers["Sec-WebSocket-Protocol"] = subprotocol
    return join_head("HTTP/1.1 101 Switching Protocols", headers)


def refuse_response(status: int, message: str, *, retry_after_s: int | None = None) -> bytes:
    """A whole HTTP answer that refuses the handshake and ends the connection: ``message`` as plain text.

    426 names the protocol and version that this endpoint speaks (RFC 6455 §4.4, RFC 9110 §15.5.22), 405 the
    method. Raises ``LocalProtocolError`` for a status that is no HTTP error.
    """
    if status not in _ERROR_PHRASES:
        raise LocalProtocolError(f"{status} is not the status of an HTTP error")
    body = f"{message}\n".encode(errors="replace")
    headers = {
        "Content-Type": "text/plain; charset=utf-8",
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    if status == http.HTTPStatus.UPGRADE_REQUIRED:
        headers |= {"Upgrade": "websocket", "Connection": "Upgrade, close", "Sec-WebSocket-Version": VERSION}
    elif status == http.HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = "GET"
    if retry_after_s is not None:
        headers["Retry-After"] = str(retry_after_s)
    return join_head(f"HTTP/1.1 {status} {_ERROR_PHRASES[status]}", headers) + body


def new_key() -> str:
    """A fresh ``Sec-WebSocket-Key``: 16 random bytes in base64 (RFC 6455 §4.1)."""
    return base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode()


def client_request(
    host: str,
    path: str,
    key: str,
    subprotocols: Sequence[str] = (),
    origin: str | None = None,
    headers: Mapping[str, str] = _NO_HEADERS,
) -> bytes:
    """A client's opening handshake (RFC 6455 §4.1).

    ``host`` is the authority, with its port where that is not the scheme's own; ``path`` includes the query
    and is percent-encoded already; ``headers`` come on top. Raises ``LocalProtocolError`` for an argument
    that does not fit its place, or a header that the handshake itself writes.
    """
    if not _HOST.fullmatch(host):
        raise LocalProtocolError(f"{host!r} is no host")
    if not _ORIGIN_FORM.fullmatch(path):
        raise LocalProtocolError(f"{path!r} is no path of a request")
    if not _KEY.fullmatch(key):
        raise LocalProtocolError(f"key is not {_KEY_BYTES} bytes of base64")
    if not all(map(is_token, subprotocols)) or len(set(subprotocols)) != len(subprotocols):
        raise LocalProtocolError(f"sub-protocols {list(subprotocols)} are not distinct tokens")
    own = {
        "Host": host,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": key,
        "Sec-WebSocket-Version": VERSION,
    }
    if subprotocols:
        own["Sec-WebSocket-Protocol"] = ", ".join(subprotocols)
    if origin is not None:
        own["Origin"] = origin
    for name in headers:
        if name.lower() in _OWN_HEADERS or name.lower().startswith("sec-websocket-"):
            raise LocalProtocolError(f"header {name} is the handshake's own")
    return join_head(f"GET {path} HTTP/1.1", own | dict(headers))


class ClientHandshake:
    """Reads a server's answer to ``client_request`` (RFC 6455 §4.1, the second list).

    ``answer`` is the head of the answer once it is whole and readable, a refusal's too (503 and its
    ``retry-after``). ``feed`` gives it out only where it opens the connection; where it does not, ``fault``
    says why. ``trailing``: what stands behind the head: frames, or the beginning of a refusal's body.
    """

    __slots__ = ("_accept", "_is_over", "_reader", "_subprotocols", "answer", "fault", "trailing")

    def __init__(self, key: str, subprotocols: Sequence[str] = ()) -> None:
        self.answer: Response | None = None
        self.fault: RemoteProtocolError | None = None
        self.trailing = b""
        self._accept = _accept(key)
        self._subprotocols = tuple(subprotocols)
        self._reader = HeadReader()
        self._is_over = False

    def feed(self, data: bytes) -> Response | None:
        """The response once its head is whole; None before, and with ``fault`` set where it opens nothing.

        Raises ``LocalProtocolError`` when called again after a response: those bytes are frames.
        """
        if self.fault is not None:
            return None
        if self._is_over:
            raise LocalProtocolError("handshake is over; what follows are frames")
        try:
            whole = self._reader.feed(data)
            if whole is None:
                return None
            line, headers = split_head(whole[0])
        except HeadError as error:
            self.fault = RemoteProtocolError(CLOSE_PROTOCOL_ERROR, f"answer to the handshake: {error}")
            return None
        self._is_over = True
        self.trailing = whole[1]
        fault = self._judge(line, headers)
        if fault is not None:
            self.fault = RemoteProtocolError(CLOSE_PROTOCOL_ERROR, fault)
            return None
        return self.answer

    def _judge(self, line: str, headers: dict[str, str]) -> str | None:
        """What is wrong with an answer, None if it opens the connection. Sets ``answer``."""
        status_line = _STATUS_LINE.fullmatch(line)
        if status_line is None:
            return "answer to the handshake is not HTTP/1.1"
        subprotocol = headers.get("sec-websocket-protocol")
        self.answer = Response(int(status_line[1]), headers, subprotocol)
        if self.answer.status != http.HTTPStatus.SWITCHING_PROTOCOLS:
            return f"handshake was answered with status {self.answer.status}, not 101"
        if headers.get("upgrade", "").lower() != "websocket":
            return "header upgrade of the answer is not websocket"
        if not has_member(headers.get("connection", ""), "upgrade"):
            return "header connection of the answer does not name upgrade"
        if headers.get("sec-websocket-accept") != self._accept:
            return "header sec-websocket-accept does not answer the key"
        if headers.get("sec-websocket-extensions"):
            return "answer names an extension and none was offered"
        if subprotocol is not None and subprotocol not in self._subprotocols:
            return "answer names a sub-protocol that was not offered"
        return None


def _accept(key: str) -> str:
    """``Sec-WebSocket-Accept`` for a key (RFC 6455 §4.2.2, 5.4)."""
    return base64.b64encode(hashlib.sha1((key + _GUID).encode(), usedforsecurity=False).digest()).decode()
