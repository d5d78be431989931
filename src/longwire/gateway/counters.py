"""What the node counts: plain attributes, added to on the hot path and read when somebody asks."""

from collections import Counter


class Counters:
    """Since the process started."""

    __slots__ = (
        "acks",
        "closes",
        "connects",
        "delivered",
        "dropped",
        "pushes",
        "refused",
        "repeated",
        "sends",
        "shed",
        "stray_acks",
        "stray_replies",
    )

    def __init__(self) -> None:
        self.connects = 0
        self.closes: Counter[str] = Counter()
        """By close reason; ``peer`` where the device went away by itself."""
        self.sends = 0
        self.refused: Counter[str] = Counter()
        """Sends by the status that refused them, answered or not."""
        self.delivered = 0
        """Messages written with an acknowledgement wanted."""
        self.pushes = 0
        """Messages written at most once."""
        self.dropped = 0
        """At-most-once messages that a slow consumer did not get."""
        self.repeated = 0
        self.acks = 0
        self.stray_acks = 0
        """Acknowledgements of what was not written to that device."""
        self.stray_replies = 0
        self.shed = 0
        """Connections that admission turned away."""
