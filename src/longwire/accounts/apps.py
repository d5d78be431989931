"""Applications: the key and secret that an application's devices register with, and its master secret."""

import asyncio
from typing import NamedTuple

import argon2

from longwire.accounts.argon import new_hasher
from longwire.clock import Clock
from longwire.ids import new_message_id, new_secret, prefixed
from longwire.ports.accounts import AccountStore, App

_REMEMBERED_S = 60.0
_MAX_REMEMBERED = 1_024


class NewApp(NamedTuple):
    """An application as it is told to its owner, once; the store keeps only a hash of the master secret."""

    app_key: str
    app_secret: str
    master_secret: str

    def __repr__(self) -> str:
        return f"NewApp(app_key={self.app_key!r})"


class Apps:
    """Makes applications and finds them; what was found is remembered for a minute."""

    def __init__(self, store: AccountStore, clock: Clock, hasher: argon2.PasswordHasher | None = None) -> None:
        self._store = store
        self._clock = clock
        self._hasher = hasher or new_hasher()
        self._found: dict[str, tuple[App, float]] = {}

    async def create(self) -> NewApp:
        """A new application with secrets of its own. Raises StoreUnavailable."""
        app = NewApp(prefixed("app", new_message_id()), new_secret(), new_secret())
        master_hash = await asyncio.to_thread(self._hasher.hash, app.master_secret)
        await self._store.add_app(App(app.app_key, app.app_secret, master_hash))
        return app

    async def find(self, app_key: str) -> App | None:
        """The application of this key. Raises StoreUnavailable."""
        now = self._clock.monotonic()
        remembered = self._found.get(app_key)
        if remembered is not None and remembered[1] > now:
            return remembered[0]
        app = await self._store.find_app(app_key)
        if app is None:
            self._found.pop(app_key, None)
            return None
        if len(self._found) >= _MAX_REMEMBERED:
            self._found.clear()
        self._found[app_key] = (app, now + _REMEMBERED_S)
        return app
