"""A device's attachment to this node."""

from collections import deque
from collections.abc import Callable, Coroutine
from enum import Enum

from longwire.application import Session as SessionFacts
from longwire.net.connection import Connection

Work = Callable[[], Coroutine[None, None, None]]
"""The rest of a send that has to wait for something."""
Backlog = deque[tuple[int, Work]]
"""What waits, with the bytes of each."""


class Arrival(Enum):
    """Whether the store has said yet if anything waits for a new session."""

    OVER = 0
    ASKING = 1
    MISSED_ONE = 2
    """It has not, and a message was committed meanwhile: whatever it says, something waits."""


class Session:
    """One authenticated device. Knows its connection, which knows it, until either ends."""

    __slots__ = (
        "address",
        "arrival",
        "backlog",
        "calls",
        "connection",
        "device_no",
        "epoch",
        "expires_at_ms",
        "facts",
        "silent_ticks",
        "since_ms",
        "spent_until_ms",
        "told_missed",
        "user",
        "window",
    )

    def __init__(
        self, device_no: int, device_id: str, epoch: int, connection: "DeviceConnection", silent_ticks: int
    ) -> None:
        self.device_no = device_no
        self.address = f"device:{device_id}"
        """What the ``to`` of a SEND names it by."""
        self.epoch = epoch
        self.connection = connection
        self.silent_ticks = silent_ticks
        """Ticks of silence after which the device counts as gone."""
        self.since_ms = 0
        """When it began."""
        self.expires_at_ms = 0
        """When the token it stands under ends."""
        self.user: str | None = None
        self.facts: SessionFacts | None = None
        """What the application's hooks are told of it; None where there are no hooks."""
        self.told_missed = 0
        """Missed messages that CONNECTED told of and the device has not confirmed by a frame yet."""
        self.spent_until_ms = 0.0
        """Up to when its sends so far have used its rate; a burst's worth ahead of now, the bucket is empty."""
        self.calls = 0
        """Requests and in-place handlers that run for it now."""
        self.backlog: Backlog | None = None
        """Sends that wait for something, in order; None while nothing does."""
        self.arrival = Arrival.OVER
        self.window: Window | None = None
        """Its reliable messages under way; None while there are none."""

    @property
    def device_id(self) -> str:
        return self.address[7:]

    @property
    def session_id(self) -> str:
        """Names this session among all there ever were."""
        return f"{self.device_no:x}-{self.epoch:x}"


class Window:
    """A session's messages under way: written and not acknowledged, or still in the store.

    One-to-one messages and pushes that it gets because it comes back share it; what is broadcast to all who are
    online does not enter it. The handles of pushes are odd.
    """

    __slots__ = (
        "_due",
        "due_slot",
        "has_more",
        "is_catching_up",
        "is_catching_up_pushes",
        "is_full",
        "is_reading",
        "last_push_no",
        "last_seq",
        "recent",
        "session",
        "unacked",
    )

    def __init__(self, session: Session, due: Callable[[Session], int]) -> None:
        self.session = session
        self._due = due
        self.due_slot = -1
        self.unacked: dict[int, tuple[int, int, int]] = {}
        """Handle → (the message's place or the push's number, the tick it was written, for a push also the ms)."""
        self.last_seq = 0
        """The place of the newest message that was written or is under way; in a cluster, where messages come from
        several nodes, the place up to which the store was read."""
        self.recent: deque[int] | None = None
        """In a cluster the places acknowledged last, whose receipts may not be committed yet."""
        self.is_catching_up = False
        """Whether what comes next is in the store: then new messages go there too and not past it."""
        self.is_reading = False
        self.has_more = False
        """Whether a message went into the store since the last read began."""
        self.last_push_no = 0
        """The newest push that was looked at."""
        self.is_catching_up_pushes = False
        """Whether there may be further pushes in the store."""
        self.is_full = False
        """Whether the inbox was at its bound when the last message for it came."""

    def on_due(self) -> int:
        """The wheel's call."""
        return self._due(self.session)


DeviceConnection = Connection[Session]
