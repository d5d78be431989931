"""Who this device is to the system, and which node it shall go to: API §2 from the device's side.

    have a token? ── no ─► refresh token? ── yes ─► POST /token ── 401 ─┐
         │yes                    └── no ─► POST /register ◄─────────────┘
         ▼                                       │ 401, 403: CredentialsRefused
    GET /node?avoid= ── 401 ─► as without a token
         └── the api does not answer ─► the node it named last

``HttpAccount`` talks to the api. ``GivenAccount`` was given a token and an address and talks to nobody.
"""

import contextlib
import hashlib
import hmac
import secrets
from asyncio import Future, Semaphore, get_running_loop
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Protocol, TypeVar
from weakref import WeakKeyDictionary

import httpx
import msgspec
from msgspec import Struct

from longwire.client.errors import ClientError
from longwire.client.storage import Storage, done_sets
from longwire.client.timers import Timers

T = TypeVar("T")

_HTTP_TIMEOUT = httpx.Timeout(10.0, pool=None)
# The pool of httpx looks through all who wait at each event: two thousand devices that share a client would
# hold the loop for minutes. They queue here instead, and the connections are kept alive.
_CALLS_AT_A_TIME = 16
_turns: WeakKeyDictionary[httpx.AsyncClient, Semaphore] = WeakKeyDictionary()
_SKEW_WORTH_MENDING_MS = 30_000


class Node(Struct, frozen=True):
    """A node as the api names it (API §2)."""

    node_id: str
    host: str
    port: int
    tls_port: int | None = None
    ws_url: str = ""


class Unavailable(ClientError):
    """The api has no answer for us now; the attempt counts as one that failed."""

    def __init__(self, message: str, retry_after_ms: int = 0) -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms


class CredentialsRefused(ClientError):
    """No token can be had with what this device knows."""


class Account(Protocol):
    """Where tokens and nodes come from."""

    token: str
    backoff_ms: tuple[int, int] | None
    """What the api asks of its devices: base and maximum."""

    def load(self, values: Mapping[str, str]) -> None:
        """Takes what the storage kept."""
        ...

    async def locate(self, avoid: str) -> Node:
        """Sees to a token and names a node, if possible not ``avoid``.

        Raises Unavailable (try later) and CredentialsRefused (do not).
        """
        ...

    def renewed(self, token: str, expires_in_s: int) -> None:
        """Takes the token that a node gave over the live connection."""
        ...

    def forget_token(self) -> bool:
        """The token is of no use; returns whether there is a way to another one."""
        ...

    def use_token(self, token: str) -> None:
        """Takes a token from the application."""
        ...


class GivenAccount:
    """A token and an address that someone provisioned; RENEW is the only way to another token."""

    def __init__(self, token: str, node: Node, storage: Storage, timers: Timers) -> None:
        self.token = token
        self.backoff_ms: tuple[int, int] | None = None
        self._node = node
        self._storage = storage
        self._timers = timers
        self._given = _fingerprint(token)

    def load(self, values: Mapping[str, str]) -> None:
        # A token kept from RENEW is newer than the one it grew from, and from no other.
        if values.get("given") == self._given and values.get("token"):
            self.token = values["token"]

    async def locate(self, avoid: str) -> Node:
        if not self.token:
            raise CredentialsRefused("the token was refused and there is no way to another one")
        return self._node

    def renewed(self, token: str, expires_in_s: int) -> None:
        self.token = token
        self._storage.keep("given", self._given)
        self._storage.keep("token", token)

    def forget_token(self) -> bool:
        self.token = ""
        self._storage.keep("token", "")
        return False

    def use_token(self, token: str) -> None:
        self.token = token
        self._given = _fingerprint(token)


class _Backoff(Struct, frozen=True):
    base_ms: int = 1_000
    max_ms: int = 120_000


class _LogIn(Struct, frozen=True):
    """The answer to /register and /token, as far as a device needs it."""

    token: str
    node: Node | None = None
    expires_in_s: int = 0
    refresh_token: str | None = None
    backoff: _Backoff = _Backoff()


class _NodeAnswer(Struct, frozen=True):
    """The answer to /node."""

    node: Node


class HttpAccount:
    """An account that the api keeps. Not safe for concurrent calls: one attachment uses it."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        base_url: str,
        device_id: str,
        *,
        app_key: str,
        app_secret: str,
        credentials: str,
        token: str,
        about: Mapping[str, str],
        storage: Storage,
        timers: Timers,
    ) -> None:
        self.token = token
        self.backoff_ms: tuple[int, int] | None = None
        self._http = http
        self._base_url = base_url.rstrip("/")
        self._device_id = device_id
        self._app_key = app_key
        self._app_secret = app_secret
        self._credentials = credentials
        self._about = dict(about)
        self._storage = storage
        self._timers = timers
        self._given = _fingerprint(token)
        self._refresh_token = ""
        self._expires_at_ms = 0
        self._node: Node | None = None
        self._skew_ms = 0

    def load(self, values: Mapping[str, str]) -> None:
        if values.get("given", "") == self._given:
            self.token = values.get("token", "") or self.token
            self._expires_at_ms = int(values.get("expires_at_ms", "0"))
        self._refresh_token = values.get("refresh_token", "")
        with contextlib.suppress(msgspec.DecodeError):
            self._node = msgspec.json.decode(values.get("node", ""), type=Node)

    async def locate(self, avoid: str) -> Node:
        if not self.token or 0 < self._expires_at_ms <= self._timers.now_ms():
            node = await self._log_in()
            if node is not None and node.node_id != avoid:
                return node
        try:
            return await self._ask_node(avoid)
        except _Unauthorized:
            self.forget_token()
        node = await self._log_in()
        return node if node is not None else await self._ask_node("")

    def renewed(self, token: str, expires_in_s: int) -> None:
        self.token = token
        self._expires_at_ms = self._timers.now_ms() + expires_in_s * 1000 if expires_in_s > 0 else 0
        self._storage.keep("given", self._given)
        self._storage.keep("token", token)
        self._storage.keep("expires_at_ms", str(self._expires_at_ms))

    def forget_token(self) -> bool:
        self.token = ""
        self._expires_at_ms = 0
        self._storage.keep("token", "")
        return bool(self._refresh_token or self._app_secret or self._credentials)

    def use_token(self, token: str) -> None:
        self.token = token
        self._given = _fingerprint(token)
        self._expires_at_ms = 0

    async def _ask_node(self, avoid: str) -> Node:
        try:
            answer = await self._call("GET", "node", params={"avoid": avoid} if avoid else None)
        except _Unanswered:
            if self._node is None:
                raise
            return self._node  # the api may be away while its nodes live
        if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE and avoid:
            return await self._ask_node("")  # the only node there is may be the one to avoid
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            raise _Unauthorized
        node = _decode(_expect(answer), _NodeAnswer).node
        self._keep_node(node)
        return node

    async def _log_in(self) -> Node | None:
        if self._refresh_token:
            answer = await self._call("POST", "token", json={"refresh_token": self._refresh_token})
            if answer.status_code != httpx.codes.UNAUTHORIZED:
                return await self._take(_decode(_expect(answer), _LogIn))
            self._refresh_token = ""
        if not self._app_secret and not self._credentials:
            raise CredentialsRefused("the token was refused and there is nothing to register with")
        answer = await self._register()
        if answer.status_code == httpx.codes.UNAUTHORIZED and self._set_clock(answer):
            answer = await self._register()
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            raise CredentialsRefused(f"registration was refused: {_problem(answer)}")
        return await self._take(_decode(_expect(answer), _LogIn))

    async def _register(self) -> httpx.Response:
        ts_ms = self._timers.now_ms() + self._skew_ms
        nonce = secrets.token_hex(16)
        body: dict[str, object] = {
            "app_key": self._app_key,
            "device_id": self._device_id,
            "ts_ms": ts_ms,
            "nonce": nonce,
            **self._about,
        }
        if self._app_secret:
            body["proof"] = proof(self._app_secret, self._device_id, ts_ms, nonce)
        if self._credentials:
            body["credentials"] = self._credentials
        if self._refresh_token:
            body["refresh_token"] = self._refresh_token
        return await self._call("POST", "register", json=body)

    def _set_clock(self, answer: httpx.Response) -> bool:
        """Whether our clock is off by the answer's Date, which may be why the proof was refused."""
        try:
            date = parsedate_to_datetime(answer.headers["date"])
        except (KeyError, ValueError):
            return False
        skew_ms = int(date.timestamp() * 1000) - self._timers.now_ms()
        was_off = abs(skew_ms - self._skew_ms) > _SKEW_WORTH_MENDING_MS
        self._skew_ms = skew_ms
        return was_off

    async def _take(self, answer: _LogIn) -> Node | None:
        self.renewed(answer.token, answer.expires_in_s)
        self.backoff_ms = (answer.backoff.base_ms, answer.backoff.max_ms)
        if answer.node is not None:
            self._keep_node(answer.node)
        if answer.refresh_token:
            self._refresh_token = answer.refresh_token
            # A refresh token that a crash loses may lock the device out: it is on disk before it is needed.
            kept: Future[None] = get_running_loop().create_future()
            self._storage.keep("refresh_token", answer.refresh_token, done_sets(kept))
            await kept
        return answer.node

    def _keep_node(self, node: Node) -> None:
        if node != self._node:
            self._node = node
            self._storage.keep("node", msgspec.json.encode(node).decode())

    async def _call(
        self, method: str, path: str, json: object = None, params: Mapping[str, str] | None = None
    ) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}"} if method == "GET" else None
        url = f"{self._base_url}/device/v1/{path}"
        try:
            async with _turns.setdefault(self._http, Semaphore(_CALLS_AT_A_TIME)):
                answer = await self._http.request(
                    method, url, json=json, params=params, headers=headers, timeout=_HTTP_TIMEOUT
                )
        except httpx.HTTPError as error:
            raise _Unanswered(f"{method} {url}: {error or type(error).__name__}") from error
        if answer.status_code >= 500 and answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
            raise _Unanswered(f"{method} {url}: {answer.status_code}", _retry_after_ms(answer))
        return answer


class _Unanswered(Unavailable):
    """The api could not be reached or failed; its nodes may be well."""


class _Unauthorized(ClientError):
    """401: the token is not, or no longer, one."""


def proof(app_secret: str, device_id: str, ts_ms: int, nonce: str) -> str:
    """What a registration proves the app key with (API §2)."""
    text = f"{device_id}\n{ts_ms}\n{nonce}"
    return hmac.new(app_secret.encode(), text.encode(), hashlib.sha256).hexdigest()


def _fingerprint(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest() if token else ""


def _expect(answer: httpx.Response) -> httpx.Response:
    if answer.status_code == httpx.codes.FORBIDDEN:
        raise CredentialsRefused(_problem(answer))
    if not answer.is_success:
        raise Unavailable(f"{answer.request.url.path}: {_problem(answer)}", _retry_after_ms(answer))
    return answer


def _problem(answer: httpx.Response) -> str:
    """An RFC 9457 problem in a few words, or what there is."""
    try:
        problem = msgspec.json.decode(answer.content, type=dict[str, object])
    except msgspec.DecodeError:
        return f"status {answer.status_code}"
    words = problem.get("detail") or problem.get("title") or ""
    return f"status {answer.status_code} {problem.get('code', '')} {words}".strip()


def _decode(answer: httpx.Response, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(answer.content, type=kind)
    except msgspec.DecodeError as error:
        raise Unavailable(f"{answer.request.url.path}: {error}") from error


def _retry_after_ms(answer: httpx.Response) -> int:
    """Retry-After in its two forms (RFC 9110 §10.2.3); 0 where there is none that makes sense."""
    text = answer.headers.get("retry-after", "")
    try:
        if text.isdigit():
            return min(int(text), 86_400) * 1000
        wait = parsedate_to_datetime(text) - datetime.now(UTC)
        return max(0, int(wait.total_seconds() * 1000))
    except (ValueError, TypeError):
        return 0
