"""Ending a push on the nodes, once the store says that it has ended."""

import asyncio
import logging
from collections.abc import Sequence

from longwire.errors import StoreUnavailable
from longwire.ports.link import Link
from longwire.ports.pushes import PushStore
from longwire.push_model import SegmentReceipts

logger = logging.getLogger("longwire.push")

_WITHIN_S = 1.0


async def end_on_nodes(link: Link, push_no: int) -> Sequence[SegmentReceipts]:
    """Has all nodes write the push no more; what they had gathered of it.

    A node that does not answer within a second learns of the end from the store.
    """
    try:
        async with asyncio.timeout(_WITHIN_S):
            return await link.end_push(push_no)
    except (TimeoutError, StoreUnavailable) as error:
        logger.warning("push %d: not every node says that it has ended: %s", push_no, error or "no answer")
        return ()


async def finish_cancel(store: PushStore, link: Link, push_no: int, now_ms: int) -> None:
    """The second half of a cancel, behind its commit; may be repeated. Raises StoreUnavailable."""
    await store.finish_cancel(push_no, await end_on_nodes(link, push_no), now_ms)
