"""What the node counts: plain attributes, added to on the hot path and read when somebody asks."""

from collections import Counter

from longwire.histogram import Histogram


class Counters:
    """Since the process started."""

    __slots__ = (
        "acks",
        "broadcast_acks",
        "broadcast_skipped",
        "broadcast_written",
        "catch_up_written",
        "closes",
        "commands",
        "connected",
        "connects",
        "delivered",
        "dropped",
        "fan_out_rounds",
        "handshake_ms",
        "late_replies",
        "pushes",
        "receipts_refused",
        "refused",
        "repeated",
        "sends",
        "sent_ms",
        "shed",
        "stray_acks",
        "stray_replies",
    )

    def __init__(self) -> None:
        self.connected = [0, 0, 0]
        """Sessions that stand, by net.connection.Flavour."""
        self.connects = 0
        self.handshake_ms = Histogram()
        """From CONNECT to CONNECTED, of those who got in."""
        self.closes: Counter[str] = Counter()
        """By close reason; ``peer`` where the device went away by itself."""
        self.sends = 0
        self.sent_ms = Histogram()
        """From SEND to its receipt, of reliable messages."""
        self.refused: Counter[str] = Counter()
        """Sends by the status that refused them, answered or not."""
        self.delivered = 0
        """Messages written with an acknowledgement wanted."""
        self.pushes = 0
        """Messages written at most once."""
        self.dropped = 0
        """At-most-once messages that a slow consumer did not get."""
        self.repeated = 0
        """Reliable messages written again to the session they were written to."""
        self.broadcast_written = 0
        """Pushes written to those online as they were sent, one a device."""
        self.broadcast_skipped = 0
        """Of those, not written because the device does not read: they come when it has drained."""
        self.broadcast_acks = 0
        self.catch_up_written = 0
        """Pushes written to devices that came back."""
        self.fan_out_rounds = 0
        self.receipts_refused = 0
        """Flushes of acknowledgements that the store did not take; they are tried again."""
        self.acks = 0
        """Of one-to-one messages."""
        self.stray_acks = 0
        """Acknowledgements of what was not written to that device."""
        self.commands = 0
        """Requests written to devices."""
        self.late_replies = 0
        self.stray_replies = 0
        self.shed = 0
        """Connections that admission turned away."""
