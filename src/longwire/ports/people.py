"""The store of people: who signs in to the console, and their sessions."""

from typing import Protocol

from msgspec import Struct


class Person(Struct, frozen=True):
    """Somebody who signs in with a password; ``password_hash`` is argon2."""

    person_no: int
    """0 for one that is not stored yet."""
    name: str
    role: str
    password_hash: str
    created_at_ms: int
    changed_at_ms: int
    """When the password was set."""
    last_login_ms: int | None = None
    is_disabled: bool = False
    must_change: bool = False
    """The password is a one-time password: it has to be replaced before anything else is allowed."""

    def __repr__(self) -> str:
        return f"Person(name={self.name!r}, role={self.role!r})"


class PersonSession(Struct, frozen=True):
    """One sign-in. ``token_hash`` is the SHA-256 digest of its token."""

    token_hash: bytes
    person_no: int
    created_at_ms: int
    seen_at_ms: int
    expires_at_ms: int


class PeopleStore(Protocol):
    """Every call is durable when it returns, and raises StoreUnavailable where the store does not answer."""

    async def add(self, person: Person) -> bool:
        """False where there is one of this name: nothing was kept then."""
        ...

    async def all_people(self) -> list[Person]:
        """By name."""
        ...

    async def find(self, name: str) -> Person | None: ...

    async def change(self, name: str, role: str | None, is_disabled: bool | None) -> Person | None:
        """What is None stays. Ends the sessions of a person who is disabled. None: there is nobody of this name."""
        ...

    async def set_password(
        self, name: str, password_hash: str, must_change: bool, now_ms: int, keeps: bytes = b""
    ) -> bool:
        """Ends every session of theirs but ``keeps``. False: there is nobody of this name."""
        ...

    async def delete(self, name: str) -> bool:
        """With the person's sessions. False: there is nobody of this name."""
        ...

    async def open_session(self, session: PersonSession) -> None:
        """Also notes when the person signed in last."""
        ...

    async def session(self, token_hash: bytes) -> tuple[PersonSession, Person] | None:
        """An ended one, too, until it is swept."""
        ...

    async def seen(self, token_hash: bytes, now_ms: int) -> None:
        """The session was used."""
        ...

    async def close_session(self, token_hash: bytes) -> None:
        """Nothing happens where there is none."""
        ...
