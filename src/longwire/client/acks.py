"""Acknowledgements: those that come due in one turn of the loop leave in one frame."""

import asyncio

from longwire.client.session import Session
from longwire.wire.packets import Ack

# A handle takes at most 5 bytes: well within the smallest body that a node takes.
_MAX_HANDLES = 1_000


class Acks:
    """What is owed to the session that is attached; an ACK counts only on the connection of its PUSH."""

    __slots__ = ("_due", "_session")

    def __init__(self) -> None:
        self._session: Session | None = None
        self._due: list[int] = []

    def attach(self, session: Session) -> None:
        """What was owed to another session is forgotten (PROTOCOL §2)."""
        self._session = session
        self._due.clear()

    def owe(self, session: Session, handle: int) -> None:
        """This handle of this session is to be acknowledged when the loop's turn ends."""
        if session is self._session:
            if not self._due:
                asyncio.get_running_loop().call_soon(self.flush)
            self._due.append(handle)

    def flush(self) -> None:
        """Writes what is owed, now."""
        due, self._due = self._due, []
        for start in range(0, len(due), _MAX_HANDLES):
            handle, *further = due[start : start + _MAX_HANDLES]
            if self._session is not None:
                self._session.tell(Ack(further), handle)
