"""An echo on the device port's own listener, for conformance suites: ``/ws`` gives every message back.

    python -m longwire.testing.websocket_echo --port 9001

Listener, sniffer and WebSocket connection are the node's; only what a message means is different here. It has
no accounts and no limits worth the name: nothing for a network that others can reach.
"""

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import Sequence

import uvloop

from longwire.limits import Limits
from longwire.net.connection import Connection, DevicePort
from longwire.net.listener import Listener
from longwire.net.websocket_connection import WebSocketConnection
from longwire.net.wheel import TICK_S, Wheel
from longwire.reasons import CloseCode
from longwire.wire.packets import Received
from longwire.wire.sniff import Protocol
from longwire.wire.websocket import Decoder, Request, encode

MAX_MESSAGE_BYTES = 64 << 20
# The suite sends thousands of messages before it reads one: what is to be echoed may pile up.
_LIMITS = Limits(
    max_body_bytes=MAX_MESSAGE_BYTES, high_water_bytes=2 * MAX_MESSAGE_BYTES, max_unsent_bytes=4 * MAX_MESSAGE_BYTES
)


class Anybody:
    """The session of every connection: nobody has to prove who they are."""


_ANYBODY = Anybody()


class EchoConnection(WebSocketConnection[Anybody]):
    """Sends every text and binary message back as it came."""

    __slots__ = ()

    def choose(self, request: Request) -> tuple[str | None, Decoder]:
        self.session = _ANYBODY
        self.proved()
        return None, Decoder(is_server=True, max_message_bytes=self.port.limits.max_body_bytes)

    def take(self, opcode: int, payload: bytes) -> None:
        self.write(encode(opcode, payload))


class _Nobody:
    """The receiver: an echo has no packets, no sessions and no heartbeat."""

    def received(self, connection: Connection[Anybody], frame: Received) -> None:
        raise AssertionError("an echo decodes no packets")

    def closed(self, connection: Connection[Anybody], code: CloseCode | None) -> None:
        pass

    def drained(self, connection: Connection[Anybody]) -> None:
        pass

    def due(self, connection: Connection[Anybody]) -> int:
        return 0


async def open_echo(host: str, port: int) -> tuple[Listener, DevicePort[Anybody]]:
    """Listens for WebSockets and nothing else. Somebody is to advance the port's wheel."""
    device_port: DevicePort[Anybody] = DevicePort(_Nobody(), Wheel(time.monotonic), _LIMITS)
    listener = await Listener.open(device_port, host, port, spoken={Protocol.WEBSOCKET: EchoConnection})
    return listener, device_port


async def serve(host: str, port: int) -> None:
    """Echoes until SIGTERM or SIGINT."""
    listener, device_port = await open_echo(host, port)
    sys.stdout.write(f"echo at ws://{host}:{listener.port}/ws\n")
    sys.stdout.flush()
    has_to_stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, has_to_stop.set)
    while not has_to_stop.is_set():
        device_port.wheel.advance()
        await asyncio.sleep(TICK_S)
    listener.stop_accepting()
    for connection in list(device_port.open):
        connection.abort()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="longwire.testing.websocket_echo", description="A WebSocket echo at /ws.")
    parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
    parser.add_argument("--port", type=int, required=True, help="0 picks a free one")
    options = parser.parse_args(arguments)
    uvloop.run(serve(options.host, options.port))


if __name__ == "__main__":
    main()
