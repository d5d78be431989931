"""The node's index of its sessions, by number and by id."""

from longwire.gateway.session import Session


class Hub:
    """At most one session a device. Both look-ups and both changes are O(1)."""

    __slots__ = ("_by_id", "_by_no")

    def __init__(self) -> None:
        self._by_no: dict[int, Session] = {}
        self._by_id: dict[str, Session] = {}

    def __len__(self) -> int:
        return len(self._by_no)

    def bind(self, session: Session) -> Session | None:
        """Makes this the device's session; gives the one it takes over."""
        previous = self._by_no.get(session.device_no)
        self._by_no[session.device_no] = session
        self._by_id[session.device_id] = session
        return previous

    def unbind(self, session: Session) -> bool:
        """Removes exactly this session; False where a newer one stands in its place."""
        if self._by_no.get(session.device_no) is not session:
            return False
        del self._by_no[session.device_no]
        del self._by_id[session.device_id]
        return True

    def find(self, device_no: int) -> Session | None:
        return self._by_no.get(device_no)

    def find_by_id(self, device_id: str) -> Session | None:
        return self._by_id.get(device_id)

    def device_nos(self) -> list[int]:
        """The devices online, as of now."""
        return list(self._by_no)

    def sessions(self) -> list[Session]:
        """The sessions, as of now."""
        return list(self._by_no.values())
