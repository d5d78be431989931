"""Trace contexts: the 24 bytes that packets carry (PROTOCOL §1), and W3C's traceparent, which says the same as text."""

from longwire.errors import LocalProtocolError
from longwire.ids import read_traceparent
from longwire.wire.packets import TRACE_BYTES


def trace_of(traceparent: str) -> bytes:
    """The trace context of a traceparent; b"" where it is malformed. Whether it was sampled is not kept."""
    return read_traceparent(traceparent)[0]


def traceparent_of(trace: bytes) -> str:
    """The traceparent of a trace context that a node gave, told as sampled where the node samples it.

    Raises LocalProtocolError for another size.
    """
    if len(trace) != TRACE_BYTES:
        raise LocalProtocolError(f"trace context of {len(trace)} bytes is not {TRACE_BYTES}")
    text = trace.hex()
    # The lowest bit of a span id of ours says it (longwire/traces.py).
    return f"00-{text[:32]}-{text[32:]}-0{trace[23] & 1}"
