"""Traces: which messages are told about, hop by hop, and to whom.

    enters here (API call, SEND of a device) ─► enter ─► 24 bytes: trace id, our span id ─► every later place
                                                              └ two low bits: SAMPLED, MARKED
    each place ─► if trace and trace[23] & SAMPLED: hop ─► tells: the log, a collector

The decision is made once, where a message enters, and travels in the two low bits of our own span id, which there
takes the place of the caller's (W3C Trace Context §2.2: the parent id is replaced). So a context that did not come
through ``enter`` must not be asked. Hops are children of the entry's span: no hop rewrites the context.
"""

import logging
import random
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from typing import Final

from msgspec import Struct
from pyroaring import BitMap

from longwire.clock import Clock, SystemClock
from longwire.ids import read_traceparent
from longwire.model import Committed, Envelope

log = logging.getLogger("longwire.hops")

SAMPLED, MARKED = 1, 2

_ID_BYTES = 16
_RATIO_BYTES = 7
"""The end of a trace id that is random in every W3C trace id (Trace Context level 2 §3.2.2.3), and in a UUIDv7."""
_REQUEST_PREFIX = "req_"
# One of zeros is invalid by W3C (§3.2.2.3), and a device may send it.
_NO_IDS = (b"", bytes(_ID_BYTES))

# OpenTelemetry's words for who asks whom; all others are internal.
_KINDS = {
    "api.call": "server",
    "link.forward": "client",
    "link.arrived": "server",
    "message.written": "producer",
    "message.acked": "consumer",
    "sink.handled": "consumer",
    "sink.failed": "consumer",
    "command.sent": "client",
}


def is_sampled(trace: bytes) -> bool:
    """Whether hops of this context are told. For places that run for every message: write the test out."""
    return bool(trace) and trace[23] & SAMPLED != 0


class Hop(Struct, gc=False):
    """One thing that happened to a traced message."""

    name: str
    trace: bytes
    """The context as it travelled: 16 bytes of trace id, 8 of the entry's span."""
    span: bytes
    parent: bytes
    """b"": it begins the trace."""
    began_ns: int
    ended_ns: int
    kind: str
    facts: tuple[tuple[str, str | int], ...]
    is_error: bool = False


Tell = Callable[[Hop], None]
"""Takes a hop at once, without waiting and without raising."""


def hops_log(hop: Hop) -> None:
    """Tells a hop to the log: at info where an operator marked it, else at debug."""
    level = logging.INFO if hop.trace[23] & MARKED else logging.DEBUG
    if log.isEnabledFor(level):
        facts = dict(hop.facts)
        text = " ".join(f"{name}={value}" for name, value in hop.facts)
        labels = {"hop": hop.name, **facts}
        log.log(level, "%s %s", hop.name, text, extra={"trace.id": hop.trace[:16].hex(), "labels": labels})


class Marks(Struct, frozen=True):
    """What operators want told whole, by number."""

    devices: BitMap
    pushes: frozenset[bytes] = frozenset()


NO_MARKS: Final = Marks(BitMap())


class Call:
    """What a request to the API, or a call of a handler, is known by in logs and traces."""

    __slots__ = ("_trace", "is_entered", "request_id", "traceparent")

    def __init__(self, request_id: str = "", traceparent: str | None = None, trace: bytes = b"") -> None:
        self.request_id = request_id
        self.traceparent = traceparent
        """The caller's, as it came; None without one, or with several."""
        self.is_entered = False
        """Whether it is decided that its trace is told or not."""
        self._trace = trace

    @property
    def given(self) -> bytes:
        """The caller's context, or, where it gave none that is valid, the request id's bytes as trace id; b"" where
        the request id is no UUIDv7 of ours.
        """
        if self.traceparent is not None and (given := read_traceparent(self.traceparent)[0]):
            return given
        text = self.request_id.removeprefix(_REQUEST_PREFIX)
        if len(text) != 2 * _ID_BYTES or len(text) == len(self.request_id):
            return b""
        try:
            trace_id = bytes.fromhex(text)
        except ValueError:
            return b""
        return trace_id + bytes(8) if any(trace_id) else b""

    @property
    def says_sampled(self) -> bool:
        """Whether the caller's own context says that it samples this trace."""
        return self.traceparent is not None and read_traceparent(self.traceparent)[1]

    @property
    def parent(self) -> bytes:
        """The caller's span; b"" without one."""
        return b"" if self.traceparent is None else read_traceparent(self.traceparent)[0][_ID_BYTES:]

    @property
    def trace(self) -> bytes:
        """Its context, the same each time; not sampled, unless ``Traces.enter_call`` decided that it is."""
        if not self._trace:
            self._trace = _context(self.given[:_ID_BYTES] or _random(_ID_BYTES), 0)
        return self._trace

    @trace.setter
    def trace(self, trace: bytes) -> None:
        self._trace = trace

    @property
    def trace_id(self) -> str:
        """Its trace id, 32 hex digits."""
        return self.trace[:_ID_BYTES].hex()


CALL: ContextVar[Call | None] = ContextVar("longwire_call", default=None)
"""The call that the running code belongs to."""


class Traces:
    """Decides which traces are told, and tells them.

    Above ``most_per_s`` hops a second, twice that for marked ones, they are counted and not told.
    """

    __slots__ = (
        "_beyond",
        "_clock",
        "_limit",
        "_lost",
        "_most_per_s",
        "_offset_ns",
        "_second",
        "_told_in_second",
        "has_marks",
        "marks",
        "tells",
        "told",
    )

    def __init__(
        self,
        *,
        ratio: float = 0.0,
        tells: Sequence[Tell] = (),
        clock: Clock | None = None,
        most_per_s: int = 1_000,
        lost: Callable[[], int] = lambda: 0,
    ) -> None:
        """``ratio``: the share of traces that are told beside those that are marked or whose caller says so.

        ``lost``: how many hops the tells were given and could not tell.
        """
        self._limit = int(ratio * 256**_RATIO_BYTES)
        self._clock = clock = clock or SystemClock()
        self._offset_ns = clock.now_ms() * 1_000_000 - int(clock.monotonic() * 1e9)
        self._most_per_s = most_per_s
        self._second = 0
        self._told_in_second = 0
        self.tells = tuple(tells)
        self.marks = NO_MARKS
        self.has_marks = False
        """To be asked before ``marked`` is called, and where a message without a context enters."""
        self.told = 0
        self._beyond = 0
        self._lost = lost

    @property
    def dropped(self) -> int:
        """Hops that were not told: those above the bound, and those that the tells lost."""
        return self._beyond + self._lost()

    def now_ns(self) -> int:
        """Nanoseconds since the Unix epoch."""
        return int(self._clock.monotonic() * 1e9) + self._offset_ns

    def set_marks(self, marks: Marks) -> None:
        """From now on these are told whole."""
        self.marks = marks
        self.has_marks = bool(marks.devices or marks.pushes)

    # Where a message enters

    def enter(
        self,
        given: bytes,
        *,
        is_trusted: bool = False,
        says_sampled: bool = False,
        devices: Iterable[int] = (),
        push_id: bytes = b"",
    ) -> bytes:
        """The context with which a message goes on: the trace id of ``given``, our span id, the two bits.

        b"" stays b"" unless a mark asks for one. ``devices`` and ``push_id`` are what is known of the message so far.
        """
        is_marked = self.has_marks and self._is_marked(devices, push_id)
        if not given and not is_marked:
            return b""
        trace_id = given[:_ID_BYTES]
        if trace_id in _NO_IDS:
            trace_id = _random(_ID_BYTES)
        if is_marked:
            return _context(trace_id, SAMPLED | MARKED)
        is_chosen = int.from_bytes(trace_id[-_RATIO_BYTES:]) < self._limit
        return _context(trace_id, SAMPLED if is_chosen or (is_trusted and says_sampled) else 0)

    def enter_call(self, call: Call) -> bytes:
        """The context of what a call of the API makes: the caller's trace, else its request id's; decided once."""
        if not call.is_entered:
            call.is_entered = True
            call.trace = self.enter(call.given or call.trace, is_trusted=True, says_sampled=call.says_sampled)
        return call.trace

    def marked(self, trace: bytes, devices: Iterable[int] = (), push_id: bytes = b"") -> bytes:
        """The context once it is known for whom the message is: told whole where one of them is marked.

        To be called only where ``has_marks``. The call that this happens in becomes part of the trace.
        """
        if (trace and trace[23] & MARKED) or not self._is_marked(devices, push_id):
            return trace
        call = CALL.get()
        if not trace:
            return _context(_random(_ID_BYTES), SAMPLED | MARKED)
        marked = trace[:23] + bytes((trace[23] | SAMPLED | MARKED,))
        if call is not None and call.trace == trace:
            call.trace = marked
        return marked

    def _is_marked(self, devices: Iterable[int], push_id: bytes) -> bool:
        marks = self.marks
        if push_id and push_id in marks.pushes:
            return True
        if isinstance(devices, BitMap):
            return not marks.devices.isdisjoint(devices)
        return any(device_no in marks.devices for device_no in devices)

    # Telling

    def hop(
        self,
        name: str,
        trace: bytes,
        *,
        began_ns: int = 0,
        parent: bytes | None = None,
        is_error: bool = False,
        **facts: str | int,
    ) -> None:
        """Something happened to a traced message, now or since ``began_ns``. Only where ``is_sampled(trace)``.

        With a ``parent`` it is the entry itself: its span is that of the context, and ``parent`` the caller's span
        or b"". Facts are ids, numbers and names; never payloads, addresses or secrets.
        """
        now_ns = self.now_ns()
        second = now_ns // 1_000_000_000
        if second != self._second:
            self._second, self._told_in_second = second, 0
        # Devices may have traces of theirs fall to ``ratio``: they must not crowd out what an operator marked.
        if self._told_in_second >= self._most_per_s * (2 if trace[23] & MARKED else 1):
            self._beyond += 1
            return
        self._told_in_second += 1
        self.told += 1
        if parent is None:
            span, parent = _random(8), trace[_ID_BYTES:]
        else:
            span = trace[_ID_BYTES:]
        kind = _KINDS.get(name, "internal")
        hop = Hop(name, trace, span, parent, began_ns or now_ns, now_ns, kind, tuple(facts.items()), is_error)
        for tell in self.tells:
            tell(hop)

    def committed(self, envelope: Envelope, outcome: Committed) -> None:
        """A message of the application was given to the store. Only where ``is_sampled(envelope.trace)``."""
        is_kept = outcome.status.is_success
        self.hop(
            "message.accepted" if is_kept else "message.refused",
            envelope.trace,
            began_ns=envelope.sent_at_ms * 1_000_000,
            is_error=not is_kept,
            message_id=envelope.message_id.hex(),
            status=outcome.status.label,
            seq=outcome.seq,
            receivers=len(envelope.receivers),
        )


def _random(size: int) -> bytes:
    # Ids of traces and spans need no secrecy.
    return random.getrandbits(8 * size).to_bytes(size)


def _context(trace_id: bytes, bits: int) -> bytes:
    # The third bit keeps a span id of zeros away, which would be invalid.
    return trace_id + (random.getrandbits(64) & ~(SAMPLED | MARKED) | 4 | bits).to_bytes(8)


NO_TRACES: Final = Traces()
"""For those who are given none: tells nobody, and marks nothing."""
