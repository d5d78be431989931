"""Who is signed in: the cookie's digest to the token of /v1, in this process's memory and nowhere else.

A console that starts again knows nobody: everybody signs in again.
"""

import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

COOKIE = "lw_console"
_MAX_SESSIONS = 2_000
_MAX_COOKIE_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A person's session of /v1."""

    token: str
    name: str
    role: str
    scopes: frozenset[str]
    ends_at_s: float
    """Unix time."""
    must_change_password: bool = False

    def __repr__(self) -> str:
        return f"SignedIn(name={self.name!r}, role={self.role!r})"


class Sessions:
    """The sessions of one console; at most 2,000, the oldest go."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._known: dict[bytes, SignedIn] = {}

    def open(self, person: SignedIn) -> str:
        """The cookie's value: 256 random bits, new at every sign-in."""
        value = secrets.token_urlsafe(32)
        if len(self._known) >= _MAX_SESSIONS:
            now = self._now()
            self._known = {key: one for key, one in self._known.items() if one.ends_at_s > now}
            while len(self._known) >= _MAX_SESSIONS:
                del self._known[next(iter(self._known))]
        self._known[_digest(value)] = person
        return value

    def find(self, value: str) -> SignedIn | None:
        """Who has this cookie; None for nobody, or whose session has ended."""
        if not value or len(value) > _MAX_COOKIE_CHARACTERS:
            return None
        person = self._known.get(_digest(value))
        if person is not None and person.ends_at_s <= self._now():
            self.close(value)
            return None
        return person

    def replace(self, value: str, person: SignedIn) -> None:
        """The same cookie, other rights: the password was changed."""
        self._known[_digest(value)] = person

    def close(self, value: str) -> SignedIn | None:
        """Forgets it; who it was."""
        return self._known.pop(_digest(value), None)


def _digest(value: str) -> bytes:
    # By its digest: finding it tells nothing by time.
    return hashlib.sha256(value.encode("utf-8", "surrogatepass")).digest()
