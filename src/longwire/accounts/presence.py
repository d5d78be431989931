"""Presence: who is connected now, and how everybody else was last seen.

The live session is asked of the node that holds it; when a session ends, its node notes how. Of both the version
rises with every change, so that observers can put what they see in order.
"""

from collections.abc import Sequence
from typing import NamedTuple

from longwire.accounts.devices import Unresolved
from longwire.accounts.refusals import RefusalCode, Refused
from longwire.operations_model import LastSession, SessionView
from longwire.ports.accounts import AccountStore
from longwire.ports.audiences import AudienceStore
from longwire.ports.link import Link
from longwire.ports.presence import PresenceStore


class Seen(NamedTuple):
    """A device's live session, or None; and how the one before it ended, or None."""

    device_id: str
    session: SessionView | None
    last: LastSession | None


class Presence:
    """The operator's calls. Each raises StoreUnavailable."""

    def __init__(self, accounts: AccountStore, sets: AudienceStore, link: Link, store: PresenceStore) -> None:
        self._accounts = accounts
        self._sets = sets
        self._link = link
        self._store = store

    async def of(self, device_id: str) -> Seen:
        """One device's presence. Raises Refused (not-found)."""
        seen, _ = await self.query([device_id])
        if not seen:
            raise Refused(RefusalCode.NOT_FOUND, f"there is no device {device_id}")
        return seen[0]

    async def query(self, device_ids: Sequence[str]) -> tuple[list[Seen], Unresolved]:
        """The presence of those devices that are registered, in their order; and which are not."""
        names = list(dict.fromkeys(device_ids))
        numbers = await self._sets.numbers_of(names)
        known = [(name, number) for name, number in zip(names, numbers, strict=True) if number is not None]
        # The store first: a session that begins meanwhile is seen, and one that ends is not forgotten.
        last = await self._store.last_sessions([number for _, number in known])
        sessions = await self._link.sessions([number for _, number in known])
        seen = [Seen(name, session, ended) for (name, _), session, ended in zip(known, sessions, last, strict=True)]
        return seen, Unresolved.of([name for name, number in zip(names, numbers, strict=True) if number is None])
