"""Copies of what tokens prove, near the gateways, so that connects cost the store next to nothing (DESIGN §9)."""

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from longwire.errors import StoreUnavailable
from longwire.model import Credential


class TokenCheck(Protocol):
    """What CONNECT needs of accounts; ports.accounts.AccountStore is one, too."""

    async def check_tokens(
        self, token_hashes: Sequence[bytes], now_ms: int
    ) -> Sequence[Credential | StoreUnavailable | None]:
        """What each token proves; None for one that was never given out, or whose device is deleted.

        StoreUnavailable for one of which nothing is known and that cannot be looked up now: its device is told to
        come back. Raises StoreUnavailable where that holds for all.
        """
        ...


class TokenCopy(Struct, frozen=True, gc=False):
    """What is kept of a token."""

    credential: Credential | None
    """None: barred. The token or its device changed lately, and the store alone may say what it proves."""
    age_ms: int
    """Since the store confirmed it; by the clock of the engine that keeps it, so that nodes' clocks do not matter."""


class TokenCopies(Protocol):
    """Every call raises StoreUnavailable; each may be repeated."""

    async def get_many(self, token_hashes: Sequence[bytes]) -> list[TokenCopy | None]:
        """The copy of each token; None where there is none."""
        ...

    async def put_many(self, confirmed: Sequence[tuple[bytes, Credential, bool]]) -> None:
        """Keeps (hash, credential, is_fresh) as the store told them. Not fresh: of unbounded age from the start.

        A barred token is left as it is: what the store said may be from before the change.
        """
        ...

    async def bar(self, token_hashes: Sequence[bytes], for_s: int) -> None:
        """Drops the copies of these, and takes none for so long."""
        ...
