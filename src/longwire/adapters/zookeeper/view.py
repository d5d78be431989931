"""Whom a process believes to live, from what ZooKeeper lists: a great loss at once is not believed at once.

One node that dies is gone with the next listing. Where more than half of the nodes vanish together, it is more likely
that ZooKeeper lost its data, or everybody's session in an outage of its own, and the nodes are about to be listed
again; to take their devices for offline would be the greater harm. For the same reason no loss is believed at once
that is seen just after the connection was away: the others come back one by one.
"""

import logging
from collections.abc import Callable, Mapping

from longwire.model import NodeInfo

log = logging.getLogger(__name__)


class View:
    """The believed nodes by id.

    Together are losses within ``confirm_after_s``, for ZooKeeper ends sessions one by one. What confirms them: a
    later listing, read at least ``confirm_after_s`` after the first that lacked the node, without the connection
    having been away in between, and the node still not in it. A node that said before that it drains goes at once.
    """

    def __init__(self, monotonic: Callable[[], float], confirm_after_s: float) -> None:
        self._monotonic = monotonic
        self._confirm_after_s = confirm_after_s
        self._missing: dict[str, tuple[float, NodeInfo]] = {}
        self._doubts_all_until = float("-inf")
        self.is_doubting = False
        """Whether nodes are kept that the last listing lacked."""
        self.nodes: dict[str, NodeInfo] = {}

    def take(self, listed: Mapping[str, NodeInfo], own: Mapping[str, NodeInfo]) -> None:
        """Takes a listing; ``own`` are the nodes of this process, which live as long as it does."""
        now = self._monotonic()
        present = {**listed, **own}
        for node_id, node in self.nodes.items():
            if node_id not in present and not node.is_draining:
                self._missing.setdefault(node_id, (now, node))
        self._missing = {
            node_id: (since, node)
            for node_id, (since, node) in self._missing.items()
            if node_id not in present and now - since < self._confirm_after_s
        }
        self._judge(len(present), now)
        kept = {node_id: node for node_id, (_, node) in self._missing.items()} if self.is_doubting else {}
        self.nodes = {**kept, **present}

    def interrupted(self) -> None:
        """The connection was away: what was missing is missing from now, and the others may be away still."""
        now = self._monotonic()
        if self.nodes:
            self._doubts_all_until = now + self._confirm_after_s
        self._missing = {node_id: (now, node) for node_id, (_, node) in self._missing.items()}

    def _judge(self, present: int, now: float) -> None:
        missing = len(self._missing)
        if not missing:
            self.is_doubting = False
        elif not self.is_doubting and (missing > present or now < self._doubts_all_until):
            self.is_doubting = True
            log.warning(
                "%d of %d nodes vanished within %g s; they stay listed until ZooKeeper has lacked them for %g s",
                missing,
                missing + present,
                self._confirm_after_s,
                self._confirm_after_s,
            )
