"""People: who signs in to the console, with which password and role, and the tokens of their sessions.

A password is kept as argon2, a session's token as SHA-256. A wrong password is rationed by name; a name nobody has
costs the same argon2 as one that somebody has, and is rationed alike, so that neither time nor answer tells which
names there are. One argon2 runs at a time and few wait for it. A token that was good is good for five seconds more:
disabling and signing out take that long to reach every process.
"""

import asyncio
import hashlib
import re
import secrets
import unicodedata
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import argon2
from argon2.exceptions import Argon2Error, InvalidHashError
from msgspec import Struct

from longwire.accounts.api_keys import Principal, Scope
from longwire.accounts.argon import new_hasher
from longwire.accounts.buckets import Buckets
from longwire.accounts.refusals import RefusalCode, Refused
from longwire.clock import Clock
from longwire.ids import new_secret
from longwire.ports.people import PeopleStore, Person, PersonSession

TOKEN_PREFIX: Final = "lws_"  # noqa: S105 - what tokens begin with
NAME_PATTERN: Final = r"^[a-z0-9._@-]{1,57}$"
"""Lower case: nobody is mistaken for somebody else. With ``person:`` before it a name fits where callers are kept."""
MIN_PASSWORD = 10
MAX_PASSWORD = 256

_NAME = re.compile(NAME_PATTERN)
_MAX_TOKEN_CHARACTERS = 64


class PersonRole(StrEnum):
    """What a person may do."""

    VIEWER = "viewer"
    """Sees everything but people, keys, webhooks and the audit."""
    OPERATOR = "operator"
    """Also sends, and changes devices and nodes."""
    ADMIN = "admin"
    """Everything."""


_READS = frozenset({Scope.PUSH_READ, Scope.DEVICE_READ, Scope.NODE_READ, Scope.STATS_READ})
SCOPES: Final[Mapping[str, frozenset[str]]] = {
    PersonRole.VIEWER: _READS,
    PersonRole.OPERATOR: _READS | {Scope.PUSH_WRITE, Scope.DEVICE_WRITE, Scope.NODE_WRITE},
    PersonRole.ADMIN: frozenset({Scope.ADMIN}),
}


class PeopleSettings(Struct, frozen=True):
    """How long sessions last, and how passwords are rationed."""

    session_s: int = 12 * 3_600
    idle_s: int = 2 * 3_600
    note_seen_s: int = 60
    remember_s: float = 5.0
    max_remembered: int = 4_096
    max_waiting: int = 32
    """Passwords that wait for argon2; above it whoever signs in is told to come back."""
    failures_per_s: float = 0.05
    failure_burst: int = 5


class WrongPassword(Refused):
    """Somebody did not sign in. ``person``: whose name it was, None for nobody's."""

    def __init__(self, person: Person | None) -> None:
        super().__init__(RefusalCode.AUTH_INVALID, "the name or the password is wrong, or the person is disabled")
        self.person = person


class Visitor(Principal, frozen=True):
    """A person who makes a call with the token of a session."""

    token_hash: bytes = b""
    person: str = ""
    role: str = ""
    expires_at_ms: int = 0
    must_change: bool = False


class People:
    """Makes and changes people, and checks their passwords and tokens."""

    def __init__(
        self,
        store: PeopleStore,
        clock: Clock,
        settings: PeopleSettings | None = None,
        hasher: argon2.PasswordHasher | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings or PeopleSettings()
        self._hasher = hasher or new_hasher()
        self._nobodys_hash = ""
        self._known: dict[bytes, tuple[Visitor, float]] = {}
        self._failures = Buckets(
            self._settings.failures_per_s, self._settings.failure_burst, clock.monotonic, max_names=4_096
        )
        self._turn = asyncio.Semaphore(1)
        self._waiting = 0

    async def all_people(self) -> list[Person]:
        """By name. Raises StoreUnavailable, as every call here."""
        return await self._store.all_people()

    async def create(self, name: str, role: PersonRole, *, is_one_time: bool = True) -> tuple[Person, str]:
        """A new person and their password, which nobody can be told again. ``is_one_time``: they have to replace it.

        Raises Refused (invalid-parameter for the name, already-exists).
        """
        if _NAME.fullmatch(name) is None:
            raise Refused(RefusalCode.INVALID_PARAMETER, "a name is 1-57 characters of a-z 0-9 . _ @ -")
        password = _new_password()
        now_ms = self._clock.now_ms()
        person = Person(0, name, role, await self._hash(password), now_ms, now_ms, must_change=is_one_time)
        if not await self._store.add(person):
            raise Refused(RefusalCode.ALREADY_EXISTS, f"there is a person called {name} already")
        return person, password

    async def change(self, name: str, role: PersonRole | None, is_disabled: bool | None) -> Person:
        """Gives another role, disables (which ends the sessions) or enables; None leaves. Raises Refused."""
        person = await self._store.change(name, role, is_disabled)
        self._forget(name)
        if person is None:
            raise _nobody(name)
        return person

    async def reset_password(self, name: str) -> str:
        """A new one-time password; ends the person's sessions. Raises Refused (not-found)."""
        password = _new_password()
        is_set = await self._store.set_password(name, await self._hash(password), True, self._clock.now_ms())
        self._forget(name)
        if not is_set:
            raise _nobody(name)
        return password

    async def change_password(self, visitor: Visitor, old: str, new: str) -> None:
        """A person's own; ends their other sessions. Raises Refused (invalid-parameter, rate-limited)."""
        if not MIN_PASSWORD <= len(new) <= MAX_PASSWORD:
            raise Refused(RefusalCode.INVALID_PARAMETER, f"a password has {MIN_PASSWORD} to {MAX_PASSWORD} characters")
        if _normal(new) == _normal(old) or _normal(new).lower() == visitor.person.encode():
            raise Refused(RefusalCode.INVALID_PARAMETER, "the new password is the old one, or the name")
        try:
            await self._check(visitor.person, old)
        except WrongPassword:  # not a 401: that would say that the session has ended
            raise Refused(RefusalCode.INVALID_PARAMETER, "the present password is wrong") from None
        new_hash = await self._hash(new)
        keeps = visitor.token_hash
        await self._store.set_password(visitor.person, new_hash, False, self._clock.now_ms(), keeps)
        self._forget(visitor.person)

    async def delete(self, name: str) -> None:
        """Forgets a person and ends their sessions. Raises Refused (not-found)."""
        is_gone = await self._store.delete(name)
        self._forget(name)
        if not is_gone:
            raise _nobody(name)

    async def is_right(self, name: str, password: str) -> bool:
        """Whether this signs in. Raises Refused (rate-limited)."""
        try:
            await self._check(name, password)
        except WrongPassword:
            return False
        return True

    async def log_in(self, name: str, password: str) -> tuple[str, Visitor]:
        """A new session: its token, which is told here alone. Raises WrongPassword, Refused (rate-limited)."""
        person = await self._check(name, password)
        now_ms = self._clock.now_ms()
        token = TOKEN_PREFIX + new_secret()
        session = PersonSession(
            _digest(token), person.person_no, now_ms, now_ms, now_ms + self._settings.session_s * 1000
        )
        await self._store.open_session(session)
        return token, _visitor(session, person)

    async def authenticate(self, token: str) -> Visitor:
        """Whose session this is. Raises Refused (auth-invalid)."""
        digest = _digest(token) if len(token) <= _MAX_TOKEN_CHARACTERS else b""
        known = self._known.get(digest)
        if known is not None and known[1] > self._clock.monotonic():
            return known[0]
        self._known.pop(digest, None)
        found = await self._store.session(digest) if digest else None
        now_ms = self._clock.now_ms()
        if found is None or self._has_ended(*found, now_ms):
            raise Refused(RefusalCode.AUTH_INVALID, "the session has ended: sign in again")
        session, person = found
        if now_ms - session.seen_at_ms >= self._settings.note_seen_s * 1000:
            await self._store.seen(digest, now_ms)
        visitor = _visitor(session, person)
        if len(self._known) >= self._settings.max_remembered:
            del self._known[next(iter(self._known))]
        self._known[digest] = (visitor, self._clock.monotonic() + self._settings.remember_s)
        return visitor

    async def log_out(self, visitor: Visitor) -> None:
        """Ends the session: here at once, in other processes within ``remember_s``."""
        await self._store.close_session(visitor.token_hash)
        self._known.pop(visitor.token_hash, None)

    def _has_ended(self, session: PersonSession, person: Person, now_ms: int) -> bool:
        idle_ms = self._settings.idle_s * 1000
        return person.is_disabled or now_ms >= min(session.expires_at_ms, session.seen_at_ms + idle_ms)

    async def _check(self, name: str, password: str) -> Person:
        """The person whose password this is."""
        if _NAME.fullmatch(name) is None or len(password) > MAX_PASSWORD:
            raise WrongPassword(None)
        if self._waiting >= self._settings.max_waiting:
            raise Refused(RefusalCode.RATE_LIMITED, f"{self._waiting} people sign in already", 1.0)
        self._waiting += 1
        try:
            async with self._turn:
                wait_s = self._failures.wait_s(name)
                if wait_s:
                    raise Refused(RefusalCode.RATE_LIMITED, "too many wrong passwords for this name", wait_s)
                person = await self._store.find(name)
                kept = person.password_hash if person is not None else await self._hash_of_nobody()
                is_right = await asyncio.to_thread(self._is_right, kept, password)
                if person is None or person.is_disabled or not is_right:
                    self._failures.take(name)
                    raise WrongPassword(person)
                return person
        finally:
            self._waiting -= 1

    async def _hash_of_nobody(self) -> str:
        self._nobodys_hash = self._nobodys_hash or await self._hash(new_secret())
        return self._nobodys_hash

    async def _hash(self, password: str) -> str:
        return await asyncio.to_thread(self._hasher.hash, _normal(password))

    def _is_right(self, kept: str, password: str) -> bool:
        try:
            return self._hasher.verify(kept, _normal(password))
        except (Argon2Error, InvalidHashError):
            return False

    def _forget(self, name: str) -> None:
        self._known = {digest: known for digest, known in self._known.items() if known[0].person != name}


def _visitor(session: PersonSession, person: Person) -> Visitor:
    return Visitor(
        name=f"person:{person.name}",
        # Who has a one-time password may replace it, and nothing else.
        scopes=frozenset() if person.must_change else SCOPES.get(person.role, frozenset()),
        token_hash=session.token_hash,
        person=person.name,
        role=person.role,
        expires_at_ms=session.expires_at_ms,
        must_change=person.must_change,
    )


def _nobody(name: str) -> Refused:
    return Refused(RefusalCode.NOT_FOUND, f"there is no person called {name}")


def _new_password() -> str:
    return secrets.token_urlsafe(12)


def _normal(password: str) -> bytes:
    """One spelling of what may be typed in several (NIST SP 800-63B §3.1.1.2: NFKC)."""
    return unicodedata.normalize("NFKC", password).encode("utf-8", "surrogatepass")


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
