"""The form of the calls between nodes: paths, headers, bodies.

    POST {internal_url}/link/1/{name}       body: a msgpack array of the call's arguments
    authorization: Longwire HEX             HMAC-SHA256(secret, name "\\n" node id "\\n" body)
    longwire-node: ID                       whom it is meant for
    longwire-within-ms: N                   how long the caller waits

New arguments stand at the end and have defaults; unknown ones behind those that are known are passed over, and so are
unknown fields of structs. So neighbouring releases understand each other.
"""

import hmac
from typing import Any

from msgspec import Raw, Struct, msgpack
from pyroaring import BitMap

from longwire import bitmaps
from longwire.histogram import Histogram
from longwire.push_model import BroadcastOrder, PushMessage
from longwire.reasons import CloseCode

LINK_VERSION = 1
MAX_BODY_BYTES = 16 << 20
SCHEME = "Longwire "
SIGNATURE_CHARACTERS = 64


def path_of(name: str, version: int) -> str:
    return f"/link/{version}/{name}"


def sign(secret: bytes, name: str, node_id: str, body: bytes) -> str:
    """What the authorization header says behind the scheme."""
    return hmac.digest(secret, f"{name}\n{node_id}\n".encode() + body, "sha256").hex()


def is_signed(secret: bytes, name: str, node_id: str, body: bytes, signature: str) -> bool:
    """Takes the same time however much of a signature is right."""
    return hmac.compare_digest(sign(secret, name, node_id, body).encode(), signature.encode())


class Carried(Struct, array_like=True, gc=False):
    """ports.link.Forward as it is written: the message was encoded once for all nodes and receivers."""

    message: Raw
    receivers: list[int]
    seq: int


class Spread(Struct, array_like=True):
    message: PushMessage
    receivers: BitMap


class CarriedSpread(Struct, array_like=True):
    message: Raw
    receivers: BitMap


class Strike(Struct, array_like=True):
    device_no: int
    code: CloseCode
    reason: str


class Broadcast(Struct, array_like=True):
    order: BroadcastOrder


class EndPush(Struct, array_like=True):
    push_no: int


class Devices(Struct, array_like=True):
    devices: BitMap


class Call(Struct, array_like=True):
    device_no: int
    command_id: bytes
    method: str
    payload: bytes
    timeout_ms: int
    trace: bytes = b""


class Sessions(Struct, array_like=True):
    device_nos: list[int]


class Nothing(Struct, array_like=True):
    pass


class Drain(Struct, array_like=True):
    within_ms: int


class Move(Struct, array_like=True):
    count: int
    within_ms: int


def _plain(value: object) -> bytes:
    if isinstance(value, BitMap):
        return bitmaps.dump(value) or b""
    if isinstance(value, Histogram):
        return value.dump() or b""
    raise NotImplementedError(f"{type(value).__name__} has no form on the link")


def _rich(kind: type, value: bytes) -> object:
    if kind is BitMap:
        return bitmaps.load(value or None)
    if kind is Histogram:
        return Histogram.load(value or None)
    raise NotImplementedError(f"{kind.__name__} has no form on the link")


encode = msgpack.Encoder(enc_hook=_plain).encode


def decoder(kind: Any) -> msgpack.Decoder[Any]:
    """Of arguments or a result. Raises msgspec.MsgspecError, or ValueError for a bad blob."""
    return msgpack.Decoder(kind, dec_hook=_rich)
