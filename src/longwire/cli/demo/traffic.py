"""What is sent, confirmed and received, message by message: every number of the report is counted here."""

import asyncio
import time
from collections import Counter
from collections.abc import Collection
from typing import Any, Generic, NamedTuple, TypeVar

from longwire.cli.demo.fleet import Member
from longwire.cli.demo.report import Screen
from longwire.client import ClientError, Message
from longwire.ids import new_message_id

K = TypeVar("K")

WITHIN_S = 60.0
_LOOK_EVERY_S = 0.1


class Sent(NamedTuple):
    """A message on its way."""

    receiver: str
    at: float


class Arrivals(Generic[K]):
    """Messages of one kind that reach applications, each under a key that is to come exactly once."""

    def __init__(self, kind: str, expected: int) -> None:
        self.kind = kind
        self.expected = expected
        self.copies: Counter[K] = Counter()
        self.astray = 0
        """Messages that came to somebody else, or that nobody sent."""
        self.delivery_s: list[float] = []
        """From the sending to the receiving application, or where it was away from when it began to connect."""
        self.began = 0.0
        self.ended = 0.0
        self._is_complete = asyncio.Event()

    def received(self, member: Member, message: Message) -> None:
        """A device's application got one of these."""
        raise NotImplementedError

    def _count(self, key: K, sent_at: float) -> None:
        self.copies[key] += 1
        if self.copies[key] > 1:
            return
        self.ended = time.perf_counter()
        self.delivery_s.append(self.ended - sent_at)
        if len(self.copies) >= self.expected:
            self._is_complete.set()

    def expect(self, count: int) -> None:
        """From now on so many are to arrive in all."""
        self.expected = count
        self._is_complete.clear()
        if len(self.copies) >= count:
            self._is_complete.set()

    async def completed(self, within_s: float) -> bool:
        """Waits until as many as expected have arrived; whether they did in time."""
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
    def repeated(self) -> int:
        """Messages that came more than once."""
        return len(self.copies) - self.once

    @property
    def rate_per_s(self) -> float:
        """Messages delivered a second, from the first ``send`` to the last arrival."""
        return len(self.copies) / (self.ended - self.began) if self.ended > self.began else 0.0


class PushArrivals(Arrivals[str]):
    """What comes of one push, by device. It is for the devices in ``audience``."""

    def __init__(self, kind: str, audience: Collection[str], expected: int | None = None) -> None:
        super().__init__(kind, len(audience) if expected is None else expected)
        self.audience = frozenset(audience)

    def received(self, member: Member, message: Message) -> None:
        if member.device_id in self.audience:
            self._count(member.device_id, max(self.began, member.came_at))
        else:
            self.astray += 1


class Traffic(Arrivals[bytes]):
    """Messages from one device to another: each is to reach its receiver's application exactly once."""

    def __init__(self, kind: str, expected: int) -> None:
        super().__init__(kind, expected)
        self.sent: dict[bytes, Sent] = {}
        self.confirmed = 0
        self.refusals: Counter[str] = Counter()
        self.confirm_s: list[float] = []
        """From ``send`` to SENT."""
        self._marks: list[tuple[int, asyncio.Event]] = []

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
        self.arrived(member, message.message_id)

    def arrived(self, member: Member, message_id: bytes) -> None:
        """What this message was to bring about has reached the device."""
        sent = self.sent.get(message_id)
        if sent is None or sent.receiver != member.device_id:
            self.astray += 1
        else:
            self._count(message_id, max(sent.at, member.came_at))

    def confirms(self, count: int) -> asyncio.Event:
        """Set when so many are confirmed."""
        event = asyncio.Event()
        self._marks.append((count, event))
        return event

    @property
    def fault(self) -> str:
        """Why this does not add up; "" where it does."""
        faults = [f"{count} × {text}" for text, count in self.refusals.most_common(3)]
        if lost := len(self.sent) - len(self.copies):
            faults.append(f"{lost} lost")
        if self.repeated:
            faults.append(f"{self.repeated} more than once")
        if self.astray:
            faults.append(f"{self.astray} astray")
        if len(self.sent) != self.expected or self.confirmed != self.expected:
            faults.append(f"{self.confirmed} of {self.expected} confirmed")
        return ", ".join(faults)


async def watch(screen: Screen, arrivals: Arrivals[Any], name: str) -> None:
    """Moves a bar until everything has arrived, or for as long as that may take."""
    with screen.bar(name, arrivals.expected) as bar:
        waiting = asyncio.ensure_future(arrivals.completed(WITHIN_S))
        try:
            while not waiting.done():
                bar.at(len(arrivals.copies))
                await asyncio.wait((waiting,), timeout=_LOOK_EVERY_S)
            bar.at(min(len(arrivals.copies), arrivals.expected))
        finally:
            waiting.cancel()
