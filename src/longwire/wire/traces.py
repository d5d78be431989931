"""Trace contexts: the 24 bytes that packets carry (PROTOCOL §1), and W3C's traceparent, which says the same as text."""

import re

from longwire.errors import LocalProtocolError
from longwire.wire.packets import TRACE_BYTES

# W3C Trace Context §3.2: 55 characters in version 00, maybe more in later ones; ff and ids of zeros are invalid.
_TRACEPARENT = re.compile(
    "(?!ff|00.{53}.)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?"
)


def trace_of(traceparent: str) -> bytes:
    """The trace context of a traceparent; b"" where it is malformed. Whether it was sampled is not kept."""
    found = _TRACEPARENT.fullmatch(traceparent)
    return b"" if found is None else bytes.fromhex(found[1] + found[2])


def traceparent_of(trace: bytes) -> str:
    """The traceparent of a trace context, told as sampled. Raises LocalProtocolError for another size."""
    if len(trace) != TRACE_BYTES:
        raise LocalProtocolError(f"trace context of {len(trace)} bytes is not {TRACE_BYTES}")
    text = trace.hex()
    return f"00-{text[:32]}-{text[32:]}-01"
