"""What a relayed message costs a node in Python, without sockets: the connections' transports only count.

    .venv/bin/python -m bench.relay_cost [--profile]

The rest of what `relay` measures is the kernel, the loop and the generator. The least of the rounds is the figure:
whatever else the machine does can only add to it.
"""

import argparse
import asyncio
import cProfile
import pstats
import time
from typing import Any, cast
from unittest.mock import MagicMock

import uvloop

from longwire.application import Longwire
from longwire.clock import SystemClock
from longwire.gateway.node import Node, NodeSettings
from longwire.gateway.session import Session
from longwire.limits import Limits
from longwire.net.native_connection import NativeConnection
from longwire.wire import native
from longwire.wire.packets import Send

ROUNDS = 30
MESSAGES = 10_000
FOREVER_MS = 1 << 62


class _Transport:
    def __init__(self) -> None:
        self.writes = 0

    def write(self, _data: bytes) -> None:
        self.writes += 1

    def get_write_buffer_size(self) -> int:
        return 0


def _node() -> Node:
    # What stands behind a node is not reached by a relayed message.
    nothing = cast("Any", MagicMock())
    nothing.across = None  # one process, no other nodes
    limits = Limits(sends_per_s=10**9, send_burst=10**9)
    return Node(NodeSettings("bench~1"), nothing, nothing, Longwire(), SystemClock(), limits)


def _connect(node: Node, device_no: int) -> NativeConnection[Session]:
    connection = NativeConnection(node.device_port)
    connection._transport = cast("asyncio.Transport", _Transport())  # noqa: SLF001
    session = Session(device_no, f"dev-{device_no:06}", device_no, connection, 360)
    session.expires_at_ms = FOREVER_MS
    connection.session = session
    node.hub.bind(session)
    return connection


async def _measure(profiled: bool) -> None:
    node = _node()
    sender, _ = _connect(node, 1), _connect(node, 2)
    frame = native.encode(Send(b"x" * 16, "device:dev-000002", "bench", b"y" * 128), 7)

    def relay(count: int) -> None:
        for _ in range(count):
            sender.data_received(frame)

    rounds = []
    for _ in range(ROUNDS):
        began = time.process_time()
        relay(MESSAGES)
        rounds.append((time.process_time() - began) / MESSAGES * 1e6)
    print(f"{min(rounds):.2f} µs a message (median of {ROUNDS} rounds {sorted(rounds)[ROUNDS // 2]:.2f})")
    if profiled:
        profile = cProfile.Profile()
        profile.runcall(relay, 50_000)
        pstats.Stats(profile).sort_stats("tottime").print_stats(16)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--profile", action="store_true", help="which calls it is made of")
    uvloop.run(_measure(parser.parse_args().profile))
