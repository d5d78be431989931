"""What became of a push's devices: the bitmaps of one segment, their precedence, and the counts that follow.

    targeted ─┬─ acked ─ withdrawn ─ canceled ─ collapsed ─ failed ─ expired    a device counts in the first of these
              └─ rest: none of them; pending, and expired once the push's time is over

A bit of an end is never taken away: an acknowledgement that comes late simply counts before the others. So merges may
come in any order and more than once. The only place that knows the precedence (DESIGN §7).
"""

from pyroaring import BitMap

from longwire.push_model import PushStats, RecipientState, SegmentCounts


class Segment:
    """The devices of one segment of one push. Whoever changes a set calls ``settle`` before it reads the rest."""

    __slots__ = ("acked", "canceled", "collapsed", "expired", "failed", "rest", "targeted", "withdrawn", "written")

    def __init__(self, targeted: BitMap) -> None:
        self.targeted = targeted
        self.written = BitMap()
        self.acked = BitMap()
        self.withdrawn = BitMap()
        self.canceled = BitMap()
        self.collapsed = BitMap()
        self.failed = BitMap()
        self.expired = BitMap()
        self.rest = targeted.copy()

    def ack(self, devices: BitMap) -> BitMap:
        """Those of the devices that are acknowledged for the first time; strangers are left out."""
        new = (devices & self.targeted) - self.acked
        self.acked |= new
        self.written |= new
        return new

    def write(self, devices: BitMap) -> None:
        """The devices were written to; strangers are left out."""
        self.written |= devices & self.targeted

    def cancel(self) -> None:
        """Ends who has not been written to; what is written stays pending."""
        self.canceled |= self.rest - self.written

    def withdraw(self) -> None:
        """Ends everybody who is pending."""
        self.withdrawn |= self.rest

    def collapse(self, devices: BitMap) -> BitMap:
        """A later message takes this one's place for the devices; those for whom it did."""
        gone = self.rest & devices
        self.collapsed |= gone
        return gone

    def fail(self, devices: BitMap) -> BitMap:
        """Those of the devices that were pending, and are failed now."""
        gone = self.rest & devices
        self.failed |= gone
        return gone

    def expire(self) -> None:
        """Keeps for good that the rest expired, before something else could end it."""
        self.expired |= self.rest

    def expire_unwritten(self) -> None:
        """TTL 0: who was not online is done with; who was may still acknowledge."""
        self.expired |= self.rest - self.written

    def by_state(self) -> dict[RecipientState, BitMap]:
        """Each device under the first of the states that it is in; PENDING: those in none."""
        found: dict[RecipientState, BitMap] = {}
        left = self.targeted
        for state, ended in (
            (RecipientState.ACKED, self.acked),
            (RecipientState.WITHDRAWN, self.withdrawn),
            (RecipientState.CANCELED, self.canceled),
            (RecipientState.COLLAPSED, self.collapsed),
            (RecipientState.FAILED, self.failed),
            (RecipientState.EXPIRED, self.expired),
        ):
            found[state] = left & ended
            left = left - ended
        found[RecipientState.PENDING] = left
        return found

    def settle(self) -> SegmentCounts:
        """Computes ``rest`` and the counts from the sets."""
        found = self.by_state()
        self.rest = found[RecipientState.PENDING]
        return SegmentCounts(
            targeted=len(self.targeted),
            written=len(self.written),
            acked=len(found[RecipientState.ACKED]),
            withdrawn=len(found[RecipientState.WITHDRAWN]),
            canceled=len(found[RecipientState.CANCELED]),
            collapsed=len(found[RecipientState.COLLAPSED]),
            failed=len(found[RecipientState.FAILED]),
            expired=len(found[RecipientState.EXPIRED]),
            rest=len(self.rest),
        )


def stats(counts: SegmentCounts, online: int, is_over: bool) -> PushStats:
    """A push's numbers from the sums over its segments; ``is_over``: its time to live has ended."""
    return PushStats(
        targeted=counts.targeted,
        online_at_send=online,
        written=counts.written,
        acked=counts.acked,
        expired=counts.expired + (counts.rest if is_over else 0),
        failed=counts.failed,
        collapsed=counts.collapsed,
        canceled=counts.canceled,
        withdrawn=counts.withdrawn,
        pending=0 if is_over else counts.rest,
    )
