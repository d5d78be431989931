"""API keys: who calls ``/v1``, and what for.

A key is printed once, as ``lwk_<id>_<secret>``; the store keeps argon2 of the secret. A check that succeeded is
remembered by SHA-256 for a minute, so that calls do not pay for argon2. A check that fails is not remembered:
instead only one runs at a time, few wait for it, and each key's failures are rationed, so that whoever sends
rubbish burns at most one core, for a moment. A key nobody has costs no argon2 at all.
"""

import asyncio
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import argon2
from argon2.exceptions import Argon2Error, InvalidHashError
from msgspec import Struct

from longwire.accounts.argon import new_hasher
from longwire.accounts.buckets import Buckets
from longwire.accounts.refusals import RefusalCode, Refused
from longwire.clock import Clock
from longwire.ids import new_message_id, new_secret, prefixed
from longwire.ports.accounts import AccountStore, ApiKey

_KEY_PREFIX = "lwk"
_MAX_SECRET_CHARACTERS = 512
_NAME = re.compile(r"[\x21-\x7e]{1,64}")


class Scope(StrEnum):
    """What a key may do. ADMIN includes the others: who may make keys may make any."""

    PUSH_WRITE = "push:write"
    PUSH_READ = "push:read"
    DEVICE_WRITE = "device:write"
    DEVICE_READ = "device:read"
    NODE_READ = "node:read"
    NODE_WRITE = "node:write"
    STATS_READ = "stats:read"
    ADMIN = "admin"


ALL_SCOPES = frozenset(Scope)


class Principal(Struct, frozen=True):
    """Who makes a call: an API key, or an application by its master secret."""

    name: str
    """The key's id, or the application's key."""
    scopes: frozenset[str]

    def has(self, scope: Scope) -> bool:
        """Whether calls that need ``scope`` are allowed."""
        return scope in self.scopes or Scope.ADMIN in self.scopes


@dataclass(frozen=True, slots=True)
class ApiKeySettings:
    """How checks are remembered and rationed."""

    remember_s: float = 60.0
    max_remembered: int = 4_096
    max_waiting: int = 64
    """Checks that wait for argon2; above it a call is told to come back."""
    failures_per_s: float = 0.2
    failure_burst: int = 10
    """Failed checks of one key: after so many at once, further ones are rationed."""


class ApiKeys:
    """Makes, checks and ends API keys."""

    def __init__(
        self,
        store: AccountStore,
        clock: Clock,
        settings: ApiKeySettings | None = None,
        hasher: argon2.PasswordHasher | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings or ApiKeySettings()
        self._hasher = hasher or new_hasher()
        self._verified: dict[bytes, tuple[Principal, float]] = {}
        self._failures = Buckets(
            self._settings.failures_per_s, self._settings.failure_burst, clock.monotonic, max_names=4_096
        )
        self._turn = asyncio.Semaphore(1)
        self._waiting = 0
        self._revocations = 0

    async def create(self, name: str, scopes: Iterable[Scope]) -> tuple[ApiKey, str]:
        """A new key, and its text, which nobody can be told again. Raises StoreUnavailable."""
        number = new_message_id()
        secret = new_secret()
        secret_hash = await asyncio.to_thread(self._hasher.hash, secret)
        key = ApiKey(prefixed("key", number), name, secret_hash, frozenset(map(str, scopes)), self._clock.now_ms())
        await self._store.add_key(key)
        return key, f"{_KEY_PREFIX}_{number.hex()}_{secret}"

    async def all_keys(self) -> list[ApiKey]:
        """Every key, newest first, ended ones too. Raises StoreUnavailable."""
        return await self._store.list_keys()

    async def revoke(self, key_id: str) -> None:
        """Ends a key: here at once, in other processes within ``remember_s``.

        Raises Refused (not-found) where none of this id lives, and StoreUnavailable.
        """
        is_ended = await self._store.revoke_key(key_id, self._clock.now_ms())
        self._revocations += 1
        self._verified = {digest: known for digest, known in self._verified.items() if known[0].name != key_id}
        if not is_ended:
            raise Refused(RefusalCode.NOT_FOUND, f"there is no live key {key_id}")

    async def authenticate_key(self, text: str) -> Principal:
        """Whose key this is. Raises Refused (auth-invalid, rate-limited) and StoreUnavailable."""
        prefix, _, rest = text.partition("_")
        number, _, secret = rest.partition("_")
        if prefix != _KEY_PREFIX or not secret:
            raise Refused(RefusalCode.AUTH_INVALID, "that is not an API key")
        return await self._authenticate(f"key_{number}", secret)

    async def authenticate_app(self, app_key: str, master_secret: str) -> Principal:
        """The application whose master secret this is, with every scope. Raises as ``authenticate_key``."""
        return await self._authenticate(app_key, master_secret)

    async def _authenticate(self, name: str, secret: str) -> Principal:
        if _NAME.fullmatch(name) is None or len(secret) > _MAX_SECRET_CHARACTERS:
            raise Refused(RefusalCode.AUTH_INVALID, "that is not a key")
        digest = hashlib.sha256(f"{name}\0{secret}".encode("utf-8", "surrogatepass")).digest()
        known = self._verified.get(digest)
        now = self._clock.monotonic()
        if known is not None and known[1] > now:
            return known[0]
        if self._waiting >= self._settings.max_waiting:
            raise Refused(RefusalCode.RATE_LIMITED, f"{self._waiting} checks of keys wait already", 1.0)
        self._waiting += 1
        try:
            async with self._turn:
                return await self._check(name, secret, digest, was_verified=known is not None)
        finally:
            self._waiting -= 1

    async def _check(self, name: str, secret: str, digest: bytes, *, was_verified: bool) -> Principal:
        known = self._verified.get(digest)
        if known is not None and known[1] > self._clock.monotonic():
            return known[0]
        revocations = self._revocations
        found = await self._find(name)
        if found is None:
            self._verified.pop(digest, None)
            raise Refused(RefusalCode.AUTH_INVALID, "key is unknown, wrong or revoked")
        secret_hash, principal = found
        wait_s = 0.0 if was_verified else self._failures.wait_s(name)
        if wait_s:
            raise Refused(RefusalCode.RATE_LIMITED, "too many wrong secrets for this key", wait_s)
        if not await asyncio.to_thread(self._is_right, secret_hash, secret):
            self._failures.take(name)
            raise Refused(RefusalCode.AUTH_INVALID, "key is unknown, wrong or revoked")
        if revocations == self._revocations:  # else it may be this one that ended meanwhile
            self._remember(digest, principal)
        return principal

    async def _find(self, name: str) -> tuple[str, Principal] | None:
        if name.startswith("key_"):
            key = await self._store.find_key(name)
            if key is None or key.revoked_at_ms is not None:
                return None
            return key.secret_hash, Principal(key.key_id, key.scopes)
        app = await self._store.find_app(name)
        return None if app is None else (app.master_hash, Principal(app.app_key, ALL_SCOPES))

    def _is_right(self, secret_hash: str, secret: str) -> bool:
        try:
            return self._hasher.verify(secret_hash, secret)
        except (Argon2Error, InvalidHashError, UnicodeEncodeError):
            return False

    def _remember(self, digest: bytes, principal: Principal) -> None:
        self._verified.pop(digest, None)
        if len(self._verified) >= self._settings.max_remembered:
            del self._verified[next(iter(self._verified))]
        self._verified[digest] = (principal, self._clock.monotonic() + self._settings.remember_s)
