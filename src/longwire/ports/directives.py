"""The store of directives: what operators asked every process to do for a while."""

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

MARK, LEVEL = "mark", "level"
"""The kinds of directives."""


class Directive(Struct, frozen=True):
    """One row. At most one of a kind and name stands at a time."""

    kind: str
    name: str
    """Of a mark its target, ``device:ID``, ``user:NAME`` or ``push:psh_…``; of a level its area."""
    value: str
    """Of a mark its id, 32 hex digits; of a level the level."""
    caller: str
    created_at_ms: int
    until_ms: int
    """From then on it does nothing."""


class DirectiveStore(Protocol):
    """Every call is durable when it returns, and raises StoreUnavailable where the store does not answer."""

    async def put(self, directive: Directive, limit: int) -> bool:
        """In place of the one of its kind and name. False: ``limit`` others of its kind live; nothing was kept."""
        ...

    async def remove(self, kind: str, name: str = "", value: str = "") -> bool:
        """The one of this kind with this name, or with this value; whether there was one."""
        ...

    async def live(self, now_ms: int) -> Sequence[Directive]:
        """Those that have not ended, in the order in which they were put; at most 200."""
        ...
