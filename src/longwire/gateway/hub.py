"""The node's index of its sessions, by number and by address, and the bitmap of who is here."""

from collections.abc import Callable

from pyroaring import BitMap

from longwire.gateway.session import Session


class Hub:
    """At most one session a device. Both look-ups and both changes are O(1)."""

    __slots__ = ("_by_address", "_by_no", "find", "find_by_address", "online")

    def __init__(self) -> None:
        self._by_no: dict[int, Session] = {}
        self._by_address: dict[str, Session] = {}
        self.online = BitMap()
        """The devices that have a session here; to be read only."""
        # The look-ups themselves: every message makes one, and a call around it would cost more than it.
        self.find: Callable[[int], Session | None] = self._by_no.get
        self.find_by_address: Callable[[str], Session | None] = self._by_address.get

    def __len__(self) -> int:
        return len(self._by_no)

    def bind(self, session: Session) -> Session | None:
        """Makes this the device's session; gives the one it takes over."""
        previous = self._by_no.get(session.device_no)
        self._by_no[session.device_no] = session
        self._by_address[session.address] = session
        self.online.add(session.device_no)
        return previous

    def unbind(self, session: Session) -> bool:
        """Removes exactly this session; False where a newer one stands in its place."""
        if self._by_no.get(session.device_no) is not session:
            return False
        del self._by_no[session.device_no]
        self.online.discard(session.device_no)
        # A device that was deleted and made anew has the same id and another number.
        if self._by_address.get(session.address) is session:
            del self._by_address[session.address]
        return True

    def find_by_id(self, device_id: str) -> Session | None:
        """The device's session."""
        return self._by_address.get(f"device:{device_id}")

    def device_nos(self) -> list[int]:
        """The devices online, as of now."""
        return list(self._by_no)

    def sessions(self) -> list[Session]:
        """The sessions, as of now."""
        return list(self._by_no.values())
