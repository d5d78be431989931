"""Messages on their way out: taken, kept, written in order, and kept again until SENT answers.

    take ─► storage ─► _ready ──pump──► _in_flight ──SENT──► 0, 1: done      10-12, 15-19: Refused
                         ▲                  │ └── 13, 14, 20 ──after retry_after, one at a time──► _ready
                         └── connection ended ┘

**Order.** Messages leave in the order in which ``take`` saw them, and again so on a new connection. One that
is refused for now holds back those behind it: all of them after 13 and 20, those to the same target after 14.
What was on its way by then cannot be called back, and may have been accepted: so ``Pace`` keeps 13 from
occurring, and after any refusal messages go one at a time for a while. ``in_flight=1`` buys strict order for
a round trip each.

**Time.** A message is given up after its ``ttl_s``, counted from ``take``, or after ``max_age_s`` where it has
none: a node remembers ids for a day, so a younger message may be repeated without harm. ``ttl_s`` 0 is now or
never: it is not kept, and does not outlive the connection.

**Blame.** After 4009-4011 the suspects are the messages behind the last frame that the node answered, since a
node reads in order. A single one is set aside; of several none is: they go out one at a time on the next
connection, which tells which one it is.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable

from longwire.client.entry import Entry, Outcome, check_size
from longwire.client.errors import (
    ClientError,
    Discarded,
    Expired,
    Offline,
    OutboxFull,
    SendTimeout,
    SetAside,
    refused,
)
from longwire.client.expiries import Expiries
from longwire.client.holds import Holds, Standstill
from longwire.client.message import SendResult
from longwire.client.outbox_limits import OutboxLimits
from longwire.client.pace import Pace
from longwire.client.session import End, Session
from longwire.client.storage import Storage, Stored
from longwire.client.timers import Deadline, Timer, Timers
from longwire.limits import MAX_CLIENT_BODY_BYTES
from longwire.reasons import CloseCode, Status
from longwire.wire.packets import FLAG_RECEIPT, Sent

_RETRIED = frozenset((Status.RATE_LIMITED, Status.OVERLOADED, Status.NOT_DURABLE))
_FAULTS = frozenset((CloseCode.PROTOCOL_ERROR, CloseCode.TOO_LARGE, CloseCode.UNSUPPORTED))
_MAX_STRIKES = 3
_MAX_ASIDE = 100
_LEAST_PAUSE_S = 0.01


class Outbox:
    """See the module. Every method is called from the event loop; only ``wait`` and ``drained`` wait.

    ``unclaimed`` is told what became of a message that nobody waits for any more.
    """

    def __init__(
        self,
        storage: Storage,
        timers: Timers,
        rng: random.Random,
        limits: OutboxLimits,
        unclaimed: Callable[[bytes, Outcome], None],
    ) -> None:
        self.max_body_bytes = MAX_CLIENT_BODY_BYTES
        """As the last CONNECTED told it."""
        self.aside: dict[bytes, Stored] = {}
        self._storage = storage
        self._timers = timers
        self._limits = limits
        self._unclaimed = unclaimed
        self._entries: dict[bytes, Entry] = {}
        self._bytes = 0
        self._seq = 0
        self._ready: deque[Entry] = deque()
        self._in_flight: dict[int, Entry] = {}
        self._in_flight_bytes = 0
        self._holds = Holds(timers, rng, self._release)
        self.pace = Pace(timers, limits.per_s, limits.burst)
        """Counts every frame that the node's rate limit counts."""
        self._standstill = Standstill(timers, rng, self._release)
        self._pump_timer: Timer | None = None
        self._expiries = Expiries(timers, self._expire)
        self._suspects: set[bytes] = set()
        self._session: Session | None = None
        self._stopped: ClientError | None = None
        self._empty_waiters: list[asyncio.Future[None]] = []

    def __len__(self) -> int:
        return len(self._entries)

    # The application's side.

    def load(self, messages: list[Stored]) -> None:
        """Takes up what the storage kept of an earlier process."""
        for message in messages:
            self._seq = max(self._seq, message.seq)
            if message.why_aside:
                self.aside[message.message_id] = message
            else:
                self._ready.append(self._add(message))

    def take(self, message_id: bytes, to: str, kind: str, payload: bytes, ttl_s: int, collapse_key: str) -> Entry:
        """Takes a message, or finds the one of this id that is here already.

        Raises what ``stop`` was given, OutboxFull, TooLarge, SetAside, and Offline for ttl_s 0 out of session.
        """
        if self._stopped is not None:
            raise self._stopped.with_traceback(None)
        known = self._entries.get(message_id)
        if known is not None:
            return known
        if message_id in self.aside:
            raise SetAside(f"set aside: {self.aside[message_id].why_aside}", message_id)
        if ttl_s == 0 and self._session is None:
            raise refused(Status.OFFLINE, "not connected, and ttl_s 0 is now or never")
        limits = self._limits
        if len(self._entries) >= limits.max_messages:
            raise OutboxFull(f"outbox holds {len(self._entries)} messages, the most it may", message_id)
        if self._bytes + len(payload) > limits.max_bytes:
            raise OutboxFull(f"{len(payload)} bytes more than {self._bytes} exceed {limits.max_bytes}", message_id)
        message = Stored(self._seq + 1, message_id, to, kind, payload, ttl_s, collapse_key, self._timers.now_ms())
        check_size(message, self.max_body_bytes)
        self._seq += 1
        entry = self._add(message)
        if ttl_s == 0:
            self._storage.mark(lambda error: self._stored(entry, error))
        else:
            self._storage.put(message, lambda error: self._stored(entry, error))
        return entry

    async def wait(self, entry: Entry, timeout_s: float | None) -> SendResult:
        """The message's outcome; raises it where it is an error. Cancelled, the message goes on its way."""
        if isinstance(entry.outcome, ClientError):
            raise entry.outcome
        if entry.outcome is not None:
            return entry.outcome
        waiter: asyncio.Future[SendResult] = asyncio.get_running_loop().create_future()
        entry.waiters.append(waiter)
        try:
            async with Deadline(self._timers, timeout_s):
                return await waiter
        except TimeoutError as error:
            message_id = entry.message.message_id
            raise SendTimeout(f"not answered within {timeout_s} s; still in the outbox", message_id) from error
        finally:
            entry.waiters.remove(waiter)

    async def drained(self) -> None:
        """Waits until nothing is in the outbox but what is set aside. Raises what ``stop`` was given."""
        if self._stopped is not None:
            raise self._stopped.with_traceback(None)
        if self._entries:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._empty_waiters.append(waiter)
            await waiter

    def discard(self, message_id: bytes) -> bool:
        """Forgets a message, also one set aside; whether it was there. What is written may still arrive."""
        if self.aside.pop(message_id, None) is not None:
            self._storage.remove(message_id)
            return True
        entry = self._entries.get(message_id)
        if entry is not None:
            self._resolve(entry, Discarded("discarded by the application", message_id))
        return entry is not None

    def retry(self, message_id: bytes) -> bool:
        """Sends a message again that was set aside, as if taken now; whether it was."""
        message = self.aside.pop(message_id, None)
        if message is None:
            return False
        message.why_aside = ""
        message.taken_at_ms = self._timers.now_ms()
        entry = self._add(message)
        self._storage.put(message, lambda error: self._stored(entry, error))
        return True

    def stop(self, error: ClientError) -> None:
        """There will be no connection: those who wait are told so, and the messages stay."""
        self._stopped = error
        for entry in self._entries.values():
            entry.tell(error)
        for waiter in self._empty_waiters:
            if not waiter.done():
                waiter.set_exception(error)
        self._empty_waiters.clear()

    def resume(self) -> None:
        """Takes ``stop`` back."""
        self._stopped = None

    def close(self, error: ClientError) -> None:
        """``stop`` for good: no timer is left."""
        self.stop(error)
        self._holds.clear()
        self._expiries.clear()
        self._standstill.clear()
        if self._pump_timer is not None:
            self._pump_timer.cancel()

    # The connection's side.

    def attach(self, session: Session) -> None:
        """From now on messages go out on this session, those that were not answered first."""
        self._session = session
        self.pace.begin()
        self.max_body_bytes = min(session.max_body_bytes, MAX_CLIENT_BODY_BYTES)
        self._take_back()
        self.pump()

    def detach(self, session: Session, end: End) -> None:
        """This session has ended; nothing happens where another one has taken its place."""
        if session is not self._session:
            return
        self._session = None
        if end.is_from_node and end.code in _FAULTS:
            self._blame(session, end)
        self._take_back()
        for entry in [entry for entry in self._entries.values() if entry.message.ttl_s == 0]:
            self._resolve(entry, Offline(Status.OFFLINE, "connection lost, and ttl_s 0 is now or never"))

    def answered(self, session: Session, correlation: int, sent: Sent) -> None:
        """SENT has come. ``pump`` follows once all that came with it is known, refusals above all."""
        entry = self._in_flight.pop(correlation, None) if session is self._session else None
        if entry is None:
            return
        message = entry.message
        entry.is_written = False
        self._in_flight_bytes -= len(message.payload)
        self._suspects.discard(message.message_id)
        if not entry.is_over:
            if sent.status <= Status.DUPLICATE:
                self._resolve(entry, SendResult(Status(sent.status), message.message_id, sent.detail))
            elif sent.status in _RETRIED and message.ttl_s != 0:
                self._refuse(entry, sent)
            else:
                self._resolve(entry, refused(sent.status, sent.detail, sent.retry_after_ms))

    def pump(self) -> None:
        """Writes what may be written now."""
        limits = self._limits
        while (
            self._ready
            and (session := self._session) is not None
            and session.is_writable
            and len(self._in_flight) < (1 if self._suspects or self._standstill.is_careful else limits.in_flight)
            and self._in_flight_bytes < limits.in_flight_bytes
            and not self._standstill.is_on
        ):
            entry = self._ready.popleft()
            if entry.is_over or self._holds.keep(entry) or self._is_expired(entry):
                continue
            wait_s = self.pace.wait_s()
            if wait_s > 0:
                self._ready.appendleft(entry)
                if self._pump_timer is None:
                    self._pump_timer = self._timers.call_later(max(wait_s, _LEAST_PAUSE_S), self._pump_again)
                return
            try:
                check_size(entry.message, self.max_body_bytes)
            except ClientError as error:
                self._resolve(entry, error)
                continue
            correlation = session.ask(entry.packet(self._timers.now_ms()), FLAG_RECEIPT)
            if correlation == 0:
                self._ready.appendleft(entry)
                return
            self.pace.spend()
            entry.is_written = True
            self._in_flight[correlation] = entry
            self._in_flight_bytes += len(entry.message.payload)

    # Within.

    def _pump_again(self) -> None:
        self._pump_timer = None
        self.pump()

    def _refuse(self, entry: Entry, sent: Sent) -> None:
        """13, 14, 20: the message waits, and those whose order it is part of wait behind it."""
        entry.attempts += 1
        if sent.status == Status.OVERLOADED:
            self._holds.hold(entry, sent.retry_after_ms)
            return
        if sent.status == Status.RATE_LIMITED:
            self.pace.refused()
        self._standstill.hold(entry, sent.retry_after_ms)

    def _add(self, message: Stored) -> Entry:
        age_s = message.ttl_s if message.ttl_s > 0 else self._limits.max_age_s
        # A message that a former process took in our future was stamped by a clock that was wrong.
        expires_at_ms = min(message.taken_at_ms, self._timers.now_ms()) + age_s * 1000
        entry = Entry(message, expires_at_ms)
        self._entries[message.message_id] = entry
        self._bytes += len(message.payload)
        self._expiries.add(entry, len(self._entries))
        return entry

    def _stored(self, entry: Entry, error: Exception | None) -> None:
        if entry.is_over:
            return
        if isinstance(error, ClientError):
            self._resolve(entry, error)
            return
        self._release([entry])

    def _release(self, entries: list[Entry]) -> None:
        """These may go out, before all that was taken after them."""
        if not entries:
            pass
        elif len(entries) == 1 and (not self._ready or self._ready[-1] < entries[0]):
            self._ready.append(entries[0])
        else:
            self._ready = deque(sorted([*entries, *self._ready]))
        self.pump()

    def _take_back(self) -> None:
        """What is in flight is ready again, at its old place."""
        back = list(self._in_flight.values())
        self._in_flight.clear()
        self._in_flight_bytes = 0
        for entry in back:
            entry.is_written = False
        back = [entry for entry in back if not entry.is_over and not self._is_expired(entry)]
        if back:
            self._ready = deque(sorted([*back, *self._ready]))

    def _is_expired(self, entry: Entry) -> bool:
        if entry.expires_at_ms <= self._timers.now_ms():
            self._expire(entry)
            return True
        return False

    def _expire(self, entry: Entry) -> None:
        if entry.is_written:  # its answer is on the way; if the connection goes first, it expires then
            return
        message = entry.message
        age_s = message.ttl_s if message.ttl_s > 0 else self._limits.max_age_s
        self._resolve(entry, Expired(f"not accepted within {age_s} s", message.message_id))

    def _blame(self, session: Session, end: End) -> None:
        suspects = [
            entry
            for correlation, entry in self._in_flight.items()
            if correlation > session.confirmed and not entry.is_over
        ]
        is_alone = session.last_other <= session.confirmed
        for entry in suspects:
            entry.strikes += 1
        if len(suspects) == 1 and (is_alone or suspects[0].strikes >= _MAX_STRIKES):
            self._set_aside(suspects[0], f"{end.code} {end.reason}")
        else:
            self._suspects.update(entry.message.message_id for entry in suspects)

    def _set_aside(self, entry: Entry, why: str) -> None:
        message = entry.message
        if len(self.aside) >= _MAX_ASIDE:
            self.discard(next(iter(self.aside)))
        message.why_aside = why
        self.aside[message.message_id] = message
        self._storage.set_aside(message.message_id, why)
        error = SetAside(f"the node closed over this message: {why}", message.message_id)
        self._resolve(entry, error, forget=False)

    def _resolve(self, entry: Entry, outcome: Outcome, *, forget: bool = True) -> None:
        message = entry.message
        entry.outcome = outcome
        del self._entries[message.message_id]
        self._bytes -= len(message.payload)
        self._suspects.discard(message.message_id)
        self._standstill.resolved()
        self._holds.resolved(entry)
        if forget and message.ttl_s != 0:
            self._storage.remove(message.message_id)
        if not entry.tell(outcome):
            self._unclaimed(message.message_id, outcome)
        if not self._entries:
            for waiter in self._empty_waiters:
                if not waiter.done():
                    waiter.set_result(None)
            self._empty_waiters.clear()
