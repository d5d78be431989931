"""Which protocol a connection speaks, told by its first byte (DESIGN §4)."""

from enum import Enum

from longwire.wire.native import MAGIC


class Protocol(Enum):
    """What the device port understands."""

    NATIVE = "native"
    WEBSOCKET = "websocket"


# A WebSocket handshake is a GET (RFC 6455 §4.1); another method's first letter is answered 405 by the handshake.
_HTTP_METHOD_LETTERS = frozenset(b"GHPDOCT")


def sniff(first: int) -> Protocol | None:
    """The protocol whose connections begin with this byte, or None where it is of none that is known."""
    if first == MAGIC:
        return Protocol.NATIVE
    if first in _HTTP_METHOD_LETTERS:
        return Protocol.WEBSOCKET
    return None
