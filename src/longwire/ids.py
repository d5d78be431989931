"""Names and numbers: who may be called what, and ids that sort by time.

Message ids are UUIDv7 (RFC 9562): 48 bits of milliseconds, then a counter that rises within the millisecond,
then random bits, so that ids of one process sort in the order they were made. The HTTP API shows them as a
prefix and 32 hex digits.
"""

import os
import re
import secrets
import time

MESSAGE_ID_BYTES = 16
MAX_NODE_ID_BYTES = 24
_TAIL_BYTES = 8

_DEVICE_ID = re.compile(r"[A-Za-z0-9._:@-]{1,64}")
_NODE_NAME = re.compile(r"[A-Za-z0-9._-]{1,15}")
# W3C Trace Context §3.2: 55 characters in version 00, maybe more in later ones; ff and ids of zeros are invalid.
_TRACEPARENT = re.compile(
    "(?!ff|00.{53}.)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]([0-9a-f])(?:-.*)?"
)

_POOL_BYTES = 4_096

_last_ms = 0
_counter = 0
_pool = b""
_pool_at = 0


def is_device_id(text: str) -> bool:
    """Whether ``text`` is 1-64 characters of ``A-Z a-z 0-9 . _ : @ -``, as a device, user or group is called."""
    return _DEVICE_ID.fullmatch(text) is not None


def new_message_id() -> bytes:
    """Sixteen bytes of UUIDv7, greater than every one this process made before."""
    return _message_id(_random(_TAIL_BYTES))


def new_message_ids(count: int) -> list[bytes]:
    """So many of them, rising."""
    return [_message_id(_random(_TAIL_BYTES)) for _ in range(count)]


def _random(size: int) -> bytes:
    """Random bytes, each given once. Fetched by the page: a call of the kernel gives the interpreter's lock away."""
    global _pool, _pool_at
    if _pool_at + size > len(_pool):
        _pool, _pool_at = os.urandom(_POOL_BYTES), 0
    _pool_at += size
    return _pool[_pool_at - size : _pool_at]


def _forget_pool() -> None:
    global _pool
    _pool = b""


# A child must not give what its parent gives too.
os.register_at_fork(after_in_child=_forget_pool)


def _message_id(random: bytes) -> bytes:
    global _last_ms, _counter
    now = time.time_ns() // 1_000_000
    if now > _last_ms:
        _last_ms = now
        _counter = int.from_bytes(_random(2), "big") & 0x7FF
    else:
        _counter += 1
        if _counter > 0xFFF:
            _last_ms += 1
            _counter = 0
    head = _last_ms << 16 | 0x7000 | _counter
    tail = int.from_bytes(random, "big") & 0x3FFF_FFFF_FFFF_FFFF | 0x8000_0000_0000_0000
    return (head << 64 | tail).to_bytes(MESSAGE_ID_BYTES, "big")


def prefixed(prefix: str, value: bytes) -> str:
    """``prefixed("msg", id)`` is the id as the HTTP API shows it: ``msg_`` and 32 hex digits."""
    return f"{prefix}_{value.hex()}"


def message_id_text(value: bytes) -> str:
    """The id as JSON sub-protocol clients see it: a UUID string."""
    text = value.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def message_id_bytes(text: str) -> bytes:
    """The 16 bytes of a UUID string as RFC 9562 §4 writes it, in either case.

    Raises ValueError for anything else; uuid.UUID also takes braces, ``urn:uuid:``, underscores and more.
    """
    if len(text) == 36 and text[8] == text[13] == text[18] == text[23] == "-":
        # Sixteen bytes are 32 hex digits: no room is left for a fifth hyphen or for the blanks fromhex skips.
        value = bytes.fromhex(text.replace("-", ""))
        if len(value) == MESSAGE_ID_BYTES:
            return value
    raise ValueError(f"text of {len(text)} characters is no UUID")


def new_node_id(name: str) -> str:
    """``name~boot``: a node that comes back at once inherits nothing of the one before (DESIGN §1).

    Raises ValueError where ``name`` is not 1-15 characters of ``A-Z a-z 0-9 . _ -``.
    """
    if _NODE_NAME.fullmatch(name) is None:
        raise ValueError(f"node name {name!r} is not 1-15 characters of A-Z a-z 0-9 . _ -")
    return f"{name}~{secrets.token_hex(4)}"


def new_secret() -> str:
    """256 random bits as 43 URL-safe characters."""
    return secrets.token_urlsafe(32)


def read_traceparent(text: str) -> tuple[bytes, bool]:
    """A W3C traceparent's 24 bytes of trace id and parent id, and its flag "sampled"; b"" where it is malformed."""
    found = _TRACEPARENT.fullmatch(text)
    return (b"", False) if found is None else (bytes.fromhex(found[1] + found[2]), int(found[3], 16) & 1 != 0)
