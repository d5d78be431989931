"""What a node's sending needs of the other nodes.

Plain calls: they take what they are given and return. The order of calls for one receiver is the order of arrival
there. Nothing raises but ``where``, and everything is bounded: what cannot be carried stays in the inboxes where it
was committed, and is dropped where it goes at most once.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from pyroaring import BitMap

from longwire.ports.routes import Route
from longwire.push_model import PushMessage

Written = Callable[[tuple[int, ...]], None]
"""Told who was written to; () where nobody was."""


class Across(Protocol):
    """Carries messages to the nodes that hold their receivers."""

    @property
    def behind(self) -> BitMap:
        """Devices whose nodes are to be told to look into the inboxes; to be read only."""
        ...

    @property
    def queued_bytes(self) -> int:
        """What waits to be carried."""
        ...

    def may_be_online(self, device_no: int) -> bool:
        """False only where a look-up has said so within the last second."""
        ...

    def is_under_way(self, device_no: int) -> bool:
        """Whether a committed message is on its way to the device, or has been missed and its node is to be told."""
        ...

    def deliver(self, message: PushMessage, seq: int, receivers: Sequence[int]) -> None:
        """Carries a message that is committed, and whose hints stand, to the receivers' sessions."""
        ...

    def relay(self, message: PushMessage, receivers: Sequence[int], done: Written | None = None) -> None:
        """Carries a message at most once.

        ``done`` runs on the loop, once every node has answered or failed; at once where there is nobody to carry to.
        """
        ...

    def spread(self, message: PushMessage, receivers: BitMap) -> None:
        """Carries a message at most once to many, on all nodes but this one."""
        ...

    def end_older(self, node_id: str, device_no: int, epoch: int, done: Callable[[], None]) -> None:
        """Has the node end the device's session there: the one of this epoch has taken it over.

        ``done`` runs later on the loop, once the node has answered that it did, or was not reached at once. What it
        was sent for the device is in the store by then, and what it is sent from then on comes back.
        """
        ...

    def nudge(self, device_nos: Iterable[int]) -> None:
        """Has the devices' nodes, whichever those are now, look into their inboxes."""
        ...

    def came(self, device_no: int) -> None:
        """A session of the device stands on this node now."""
        ...

    async def where(self, device_nos: Sequence[int]) -> list[Route | None]:
        """Asks where each device is now; None for one whose node does not live. Raises StoreUnavailable."""
        ...
