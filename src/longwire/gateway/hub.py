"""The node's index of its sessions, by number and by id, and the bitmap of who is here."""

from collections.abc import Callable

from pyroaring import BitMap

from longwire.gateway.session import Session


class Hub:
    """At most one session a device. Both look-ups and both changes are O(1)."""

    __slots__ = ("_by_id", "_by_no", "find", "find_by_id", "online")

    def __init__(self) -> None:
        self._by_no: dict[int, Session] = {}
        self._by_id: dict[str, Session] = {}
        self.online = BitMap()
        """The devices that have a session here; to be read only."""
        # The look-ups themselves: every message makes one, and a call around it would cost more than it.
        self.find: Callable[[int], Session | None] = self._by_no.get
        self.find_by_id: Callable[[str], Session | None] = self._by_id.get

    def __len__(self) -> int:
        return len(self._by_no)

    def bind(self, session: Session) -> Session | None:
        """Makes this the device's session; gives the one it takes over."""
        previous = self._by_no.get(session.device_no)
        self._by_no[session.device_no] = session
        self._by_id[session.device_id] = session
        self.online.add(session.device_no)
        return previous

    def unbind(self, session: Session) -> bool:
        """Removes exactly this session; False where a newer one stands in its place."""
        if self._by_no.get(session.device_no) is not session:
            return False
        del self._by_no[session.device_no]
        self.online.discard(session.device_no)
        # A device that was deleted and made anew has the same id and another number.
        if self._by_id.get(session.device_id) is session:
            del self._by_id[session.device_id]
        return True

    def device_nos(self) -> list[int]:
        """The devices online, as of now."""
        return list(self._by_no)

    def sessions(self) -> list[Session]:
        """The sessions, as of now."""
        return list(self._by_no.values())
