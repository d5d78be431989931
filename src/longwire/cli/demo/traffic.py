"""What is sent, confirmed and received, message by message: every number of the report is counted here."""

import asyncio
import time
from collections import Counter
from typing import NamedTuple

from longwire.cli.demo.fleet import Member
from longwire.client import ClientError, Message
from longwire.ids import new_message_id


class Sent(NamedTuple):
    """A message on its way."""

    receiver: str
    at: float


class Traffic:
    """The messages of one kind: each is to reach its receiver's application exactly once."""

    def __init__(self, kind: str, expected: int) -> None:
        self.kind = kind
        self.expected = expected
        self.sent: dict[bytes, Sent] = {}
        self.confirmed = 0
        self.refusals: Counter[str] = Counter()
        self.copies: Counter[bytes] = Counter()
        self.astray = 0
        """Messages that came to somebody else, or that nobody sent."""
        self.confirm_s: list[float] = []
        """From ``send`` to SENT."""
        self.delivery_s: list[float] = []
        """From ``send`` to the receiving application, or where it was away from the moment it began to connect."""
        self.began = 0.0
        self.ended = 0.0
        self._marks: list[tuple[int, asyncio.Event]] = []
        self._is_complete = asyncio.Event()

    async def send(self, sender: Member, to: str, payload: object, receiver: str | None = None) -> None:
        """Sends with receipt; ``receiver`` is who is to get something of it, by default whom it is addressed to."""
        message_id = new_message_id()
        at = time.perf_counter()
        self.began = self.began or at
        self.sent[message_id] = Sent(receiver or to.partition(":")[2], at)
        try:
            await sender.device.send(to, payload, self.kind, message_id=message_id)
        except ClientError as error:
            self.refusals[f"{type(error).__name__}: {error}"] += 1
            return
        self.confirmed += 1
        self.confirm_s.append(time.perf_counter() - at)
        for count, event in self._marks:
            if self.confirmed >= count:
                event.set()

    def received(self, member: Member, message: Message) -> None:
        """A device's application got one of these."""
        self.arrived(member, message.message_id)

    def arrived(self, member: Member, message_id: bytes) -> None:
        """What this message was to bring about has reached the device."""
        now = time.perf_counter()
        sent = self.sent.get(message_id)
        if sent is None or sent.receiver != member.device_id:
            self.astray += 1
            return
        self.copies[message_id] += 1
        if self.copies[message_id] > 1:
            return
        self.delivery_s.append(now - max(sent.at, member.came_at))
        self.ended = now
        if len(self.copies) == self.expected:
            self._is_complete.set()

    def confirms(self, count: int) -> asyncio.Event:
        """Set when so many are confirmed."""
        event = asyncio.Event()
        self._marks.append((count, event))
        return event

    async def completed(self, within_s: float) -> bool:
        """Waits until each message has arrived; whether it did in time."""
        try:
            async with asyncio.timeout(within_s):
                await self._is_complete.wait()
        except TimeoutError:
            return False
        return True

    @property
    def once(self) -> int:
        """Messages that reached whom they were for exactly once."""
        return sum(count == 1 for count in self.copies.values())

    @property
    def rate_per_s(self) -> float:
        """Messages delivered a second, from the first ``send`` to the last arrival."""
        return len(self.copies) / (self.ended - self.began) if self.ended > self.began else 0.0

    @property
    def fault(self) -> str:
        """Why this does not add up; "" where it does."""
        faults = [f"{count} × {text}" for text, count in self.refusals.most_common(3)]
        if lost := len(self.sent) - len(self.copies):
            faults.append(f"{lost} lost")
        if repeated := sum(count > 1 for count in self.copies.values()):
            faults.append(f"{repeated} more than once")
        if self.astray:
            faults.append(f"{self.astray} astray")
        if len(self.sent) != self.expected or self.confirmed != self.expected:
            faults.append(f"{self.confirmed} of {self.expected} confirmed")
        return ", ".join(faults)
