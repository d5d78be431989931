"""Copies of what tokens prove, in Redis: ``lw:{t3f}:<hash>`` → when the store confirmed it, and the credential.

64 hash tags, so that a batch of connects is a script a tag on a Cluster, and one script on a single server. The age of
a copy is told by Redis's clock alone. About 250 bytes a token.
"""

from collections.abc import Sequence

import msgspec

from longwire.adapters.redis.server import Call, RedisServer, Script
from longwire.model import Credential
from longwire.ports.tokens import TokenCopy

KEPT_S = 86_400
"""So long a copy is kept without being confirmed, for connects while the store is away."""
_TAGS = 64
_BARRED = -2
_NEVER = -1

_GET = Script("token_get")
_PUT = Script("token_put")
_BAR = Script("token_bar")

_Kept = tuple[int, str, int, bool, bool, int, str | None, int]
_decoder = msgspec.msgpack.Decoder(_Kept)


class RedisTokens:
    """ports.tokens.TokenCopies in Redis."""

    def __init__(self, server: RedisServer, prefix: str = "lw") -> None:
        self._server = server
        self._prefix = prefix

    async def get_many(self, token_hashes: Sequence[bytes]) -> list[TokenCopy | None]:
        groups = self._groups(token_hashes)
        results = await self._server.run([Call(_GET, self._keys(token_hashes, group)) for group in groups])
        found: list[TokenCopy | None] = [None] * len(token_hashes)
        for group, flat in zip(groups, results, strict=True):
            for at, age_ms, kept in zip(group, flat[::2], flat[1::2], strict=True):
                found[at] = _copy(age_ms, kept)
        return found

    async def put_many(self, confirmed: Sequence[tuple[bytes, Credential, bool]]) -> None:
        hashes = [token_hash for token_hash, _, _ in confirmed]
        calls = []
        for group in self._groups(hashes):
            arguments: list[int | bytes] = [KEPT_S * 1000]
            for at in group:
                _, credential, is_fresh = confirmed[at]
                arguments += (int(is_fresh), msgspec.msgpack.encode(msgspec.structs.astuple(credential)))
            calls.append(Call(_PUT, self._keys(hashes, group), arguments))
        await self._server.run(calls)

    async def bar(self, token_hashes: Sequence[bytes], for_s: int) -> None:
        groups = self._groups(token_hashes)
        await self._server.run([Call(_BAR, self._keys(token_hashes, group), [for_s]) for group in groups])

    def _groups(self, token_hashes: Sequence[bytes]) -> list[list[int]]:
        """Places of the hashes that one script may have: all, or on a Cluster those of one tag."""
        if not token_hashes:
            return []
        if not self._server.is_cluster:
            return [list(range(len(token_hashes)))]
        found: dict[int, list[int]] = {}
        for at, token_hash in enumerate(token_hashes):
            found.setdefault(token_hash[0] % _TAGS, []).append(at)
        return list(found.values())

    def _keys(self, token_hashes: Sequence[bytes], group: Sequence[int]) -> list[bytes]:
        return [
            b"%b:{t%02x}:%b" % (self._prefix.encode(), token_hashes[at][0] % _TAGS, token_hashes[at]) for at in group
        ]


def _copy(age_ms: int, kept: bytes) -> TokenCopy | None:
    if age_ms == _BARRED:
        return TokenCopy(None, 0)
    if age_ms == _NEVER:
        return None
    try:
        return TokenCopy(Credential(*_decoder.decode(kept)), age_ms)
    except msgspec.MsgspecError:
        return None  # of another release
