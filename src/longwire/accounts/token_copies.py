"""Connects are checked against copies near the gateways; the store is asked for what they do not know (DESIGN §9).

    copy confirmed within a minute ─► that
    older, none, barred            ─► the store, all of a batch in one query ─► copied again
    the store is away              ─► the older copy; for what is not known: come back later, never a refusal

A change of a device or its tokens bars their copies, for longer than anything that was read before it can be on its
way. Missed messages are told from the store alone: a copy of a credential with some is never fresh.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from longwire.clock import Clock
from longwire.errors import StoreUnavailable
from longwire.model import Credential
from longwire.ports.tokens import TokenCheck, TokenCopies, TokenCopy

log = logging.getLogger(__name__)

FRESH_MS = 60_000
"""So long a copy holds without asking the store."""
CHANGED_FOR_S = 120
"""How long copies are barred behind a change that may be undone: a device disabled, banned, given to another user."""
REVOKED_FOR_S = 86_400
"""How long behind a revocation; with the store away, nothing must bring such a token back."""
_STORE_WITHIN_S = 2.0
_STORE_AWAY_S = 1.0
_RETRY_EVERY_S = 1.0
_MAX_PENDING = 100_000

Checked = Credential | StoreUnavailable | None


class CheckedTokens:
    """ports.tokens.TokenCheck over a store and the copies of what it says."""

    def __init__(
        self,
        store: TokenCheck,
        copies: TokenCopies,
        clock: Clock,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._copies = copies
        self._clock = clock
        self._sleep = sleep
        self._store_away_until = 0.0
        self._pending: dict[bytes, int] = {}
        """Hash → for how long it is to be barred, until the copies have taken it."""

    async def check_tokens(self, token_hashes: Sequence[bytes], now_ms: int) -> list[Checked]:
        copies: list[TokenCopy | None] = [None] * len(token_hashes)
        try:
            copies = await self._copies.get_many(token_hashes)
        except StoreUnavailable as error:
            log.warning("tokens are checked in the store alone: %s", error)
        found: list[Checked] = [None if copy is None else copy.credential for copy in copies]
        asked = [at for at, copy in enumerate(copies) if not self._is_fresh(token_hashes[at], copy)]
        if asked:
            hashes = [token_hashes[at] for at in asked]
            for at, told in zip(asked, await self._ask_store(hashes, now_ms), strict=True):
                is_told = not isinstance(told, StoreUnavailable)
                if is_told or found[at] is None or token_hashes[at] in self._pending:
                    found[at] = told
        return found

    def _is_fresh(self, token_hash: bytes, copy: TokenCopy | None) -> bool:
        if copy is None or copy.credential is None or token_hash in self._pending:
            return False
        return copy.age_ms < FRESH_MS

    async def _ask_store(self, hashes: Sequence[bytes], now_ms: int) -> Sequence[Checked]:
        if self._clock.monotonic() < self._store_away_until:
            return [StoreUnavailable("the store did not answer just now")] * len(hashes)
        try:
            async with asyncio.timeout(_STORE_WITHIN_S):
                told = await self._store.check_tokens(hashes, now_ms)
        except (StoreUnavailable, TimeoutError) as error:
            log.warning("tokens are checked against copies alone: %s", error or "the store does not answer")
            self._store_away_until = self._clock.monotonic() + _STORE_AWAY_S
            return [StoreUnavailable("the store does not answer")] * len(hashes)
        await self._copy(hashes, told)
        return told

    async def _copy(self, hashes: Sequence[bytes], told: Sequence[Checked]) -> None:
        confirmed = [
            (token_hash, msgspec.structs.replace(credential, missed=0), credential.missed == 0)
            for token_hash, credential in zip(hashes, told, strict=True)
            if isinstance(credential, Credential)
        ]
        try:
            await self._copies.put_many(confirmed)
        except StoreUnavailable as error:
            log.warning("%d tokens are not copied: %s", len(confirmed), error)

    # -- changes -------------------------------------------------------------------------------------------------

    async def bar(self, token_hashes: Sequence[bytes], for_s: int) -> None:
        """Behind a change in the store: from now on it alone says what these prove. Tried until the copies take it.

        With ``run`` under way. A process that dies before they do leaves copies that hold for FRESH_MS at most while
        the store answers.
        """
        for token_hash in token_hashes:
            self._pending[token_hash] = max(for_s, self._pending.get(token_hash, 0))
        while len(self._pending) > _MAX_PENDING:
            del self._pending[next(iter(self._pending))]
        try:
            await self._bar_pending()
        except StoreUnavailable as error:
            log.warning("%d changed tokens are not barred yet: %s", len(self._pending), error)

    async def run(self) -> None:
        """Until it is cancelled: tries again what the copies did not take."""
        while True:
            await self._sleep(_RETRY_EVERY_S)
            try:
                await self._bar_pending()
            except StoreUnavailable:
                continue  # it was said when it began

    async def _bar_pending(self) -> None:
        for for_s in sorted(set(self._pending.values())):
            hashes = [token_hash for token_hash, wanted in self._pending.items() if wanted == for_s]
            await self._copies.bar(hashes, for_s)
            for token_hash in hashes:
                if self._pending.get(token_hash) == for_s:
                    del self._pending[token_hash]
