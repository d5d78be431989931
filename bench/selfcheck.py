"""`python -m bench.selfcheck`: does the generator notice?

A small honest server, and the same one telling one kind of lie at every seventh message. The generator must count every
lie under its name and nothing else, or its clean results mean nothing. The server shares no code with the generator
or with Longwire: struct, msgspec, and the `websockets` package.
"""

import asyncio
import json
import struct
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec
from rich.console import Console
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from bench import generator

_HEADER = struct.Struct(">BBBBII")
CONNECTED, PING, CLOSE, SENT, PUSH = 2, 3, 8, 0x11, 0x20
DEVICES = 20
EVERY = 7  # not a divisor of the devices: the lies fall on all of them
STALL_S = 0.4


def _frame(command: int, correlation: int, fields: list[object] | None, flags: int = 0) -> bytes:
    body = b"" if fields is None else msgspec.msgpack.encode(fields)
    return _HEADER.pack(0xA7, 0x10 | flags, command, 0, len(body), correlation) + body


@dataclass
class Peer:
    """One connected device: how to write to it, and what it has not finished saying."""

    write: Callable[[bytes], None]
    close: Callable[[], None]
    device_id: str = ""
    unread: bytes = b""


class Liar:
    """A relay that tells `lie` at every seventh SEND, and counts what it told."""

    def __init__(self, lie: str) -> None:
        self.lie = lie
        self.sends = self.lies = self.acks = self.pongs = self.gone = 0
        self.all_gone = asyncio.Event()
        self.peers: dict[str, Peer] = {}
        self.held: dict[str, bytes] = {}  # by receiver: the PUSH that the next one is to overtake

    def feed(self, peer: Peer, data: bytes) -> None:
        peer.unread += data
        while len(peer.unread) >= _HEADER.size:
            _, flags, command, _, length, correlation = _HEADER.unpack_from(peer.unread)
            end = _HEADER.size + length
            if len(peer.unread) < end:
                return
            body, peer.unread = peer.unread[_HEADER.size : end], peer.unread[end:]
            self._handle(peer, command, flags & 15, correlation, body)

    def _handle(self, peer: Peer, command: int, flags: int, correlation: int, body: bytes) -> None:
        match command:
            case 1:  # CONNECT
                peer.device_id = msgspec.msgpack.decode(body)[1]
                self.peers[peer.device_id] = peer
                peer.write(_frame(CONNECTED, correlation, ["s", 60, "n", 0, 0, 65536, 86400]))
                peer.write(_frame(PING, 77, None))
            case 4:  # PONG
                self.pongs += correlation == 77
            case 0x21:  # ACK
                self.acks += 1
            case 0x10:  # SEND
                self.sends += 1
                lies = self.sends % EVERY == 0
                self.lies += lies
                self._relay(peer, flags, correlation, body, self.lie if lies else "")

    def _relay(self, peer: Peer, flags: int, correlation: int, body: bytes, lie: str) -> None:
        message_id, to, kind, payload = msgspec.msgpack.decode(body)[:4]
        receiver = to.removeprefix("device:")
        if lie == "misroutes":
            receiver = next(name for name in self.peers if name != receiver)
        if lie == "corrupts":
            payload = payload[:-1] + bytes([payload[-1] ^ 1])
        sender = "device:nobody" if lie == "forges" else f"device:{peer.device_id}"
        push = _frame(PUSH, self.sends, [message_id, kind, sender, payload, 1], flags)
        if lie == "closes":
            peer.write(_frame(CLOSE, 0, [4004, "slow", True, 0]))
            peer.close()
            return
        if flags & 2:
            peer.write(_frame(SENT, correlation, [13, "", 5] if lie == "refuses" else [0]))
        self._push(receiver, push, lie)

    def _push(self, receiver: str, push: bytes, lie: str) -> None:
        write = self.peers[receiver].write
        match lie:
            case "loses" | "refuses":
                return
            case "repeats":
                write(push + push)
            case "swaps" if receiver not in self.held:
                self.held[receiver] = push
            case "swaps":
                self.lies -= 1  # two in a row cannot both be overtaken
                write(push + self.held.pop(receiver))
            case _:
                write(push + self.held.pop(receiver, b""))


class _TcpPeer(asyncio.Protocol):
    def __init__(self, liar: Liar) -> None:
        self._liar = liar

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._peer = Peer(transport.write, transport.close)

    def data_received(self, data: bytes) -> None:
        self._liar.feed(self._peer, data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._liar.gone += 1
        if self._liar.gone == DEVICES:
            self._liar.all_gone.set()


@asynccontextmanager
async def _listening(liar: Liar) -> AsyncIterator[int]:
    """The liar on a port; at the end it has heard all that was said to it."""
    server = await asyncio.get_running_loop().create_server(lambda: _TcpPeer(liar), "127.0.0.1", 0)
    async with server:
        yield int(server.sockets[0].getsockname()[1])
        await asyncio.wait_for(liar.all_gone.wait(), 5)


async def _websocket_peer(liar: Liar, connection: ServerConnection) -> None:
    """Every frame is cut in two messages, for the protocol allows it."""
    queue: asyncio.Queue[bytes] = asyncio.Queue()

    async def write_all() -> None:
        while True:
            data = await queue.get()
            await connection.send(data[:5])
            await connection.send([data[5:9], data[9:]])  # and the second is fragmented

    peer = Peer(queue.put_nowait, lambda: None)
    writer = asyncio.create_task(write_all())
    try:
        async for message in connection:
            assert isinstance(message, bytes)
            liar.feed(peer, message)
    except ConnectionClosed:
        pass  # lwload just goes
    finally:
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)


async def _lwload(port: int, protocol: str, **options: object) -> generator.Result:
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    fixed = [f"--connections={DEVICES}", "--seconds=1", "--warmup=0", "--timeout=0.5", "--drain=2"]
    process = await asyncio.create_subprocess_exec(
        str(generator.BUILD / "lwload"),
        "relay",
        f"--port={port}",
        f"--protocol={protocol}",
        *fixed,
        *words,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 30)
    result: generator.Result = json.loads(output)
    return result


# Under which name each lie must be found.
_FOUND_AS = {
    "": None,
    "loses": "lost",
    "repeats": "duplicates",
    "corrupts": "corrupt",
    "forges": "corrupt",
    "misroutes": "misrouted",
    "swaps": "out_of_order",
}
_COUNTS = ("lost_confirmed", "delivered_though_refused", "stray_receipts", "foreign", "unsendable")


def _expect(failures: list[str], what: str, found: object, expected: object) -> None:
    if found != expected:
        failures.append(f"{what}: {found!r}, not {expected!r}")


async def _check_lie(lie: str, receipt: int) -> list[str]:
    """One run against one lie: the failures, none if the generator saw exactly what was done to it."""
    liar, failures = Liar(lie), list[str]()
    async with _listening(liar) as port:
        result = await _lwload(port, "native", in_flight=DEVICES, receipt=receipt)
    expected = dict.fromkeys(("lost", "duplicates", "corrupt", "misrouted", "out_of_order", *_COUNTS), 0)
    name = _FOUND_AS[lie]
    # What is swapped comes after its successor; the last ones may have none to come after.
    held = len(liar.held)
    if name:
        expected[name] = liar.lies - (held if lie == "swaps" else 0)
    if lie in ("corrupts", "forges", "misroutes"):
        expected["lost"] = liar.lies  # they did not arrive as they were sent
    if lie == "swaps":
        expected["lost"] = held
    if receipt:
        expected["lost_confirmed"] = expected["lost"]
    for field, count in expected.items():
        _expect(failures, field, result[field], count)
    _expect(failures, "sent", result["sent"], liar.sends)
    _expect(failures, "told any lie", liar.lies > 0, True)
    _expect(failures, "answered PINGs", liar.pongs, DEVICES)
    # Whatever comes with flag 2 is acknowledged, a repeat too.
    pushed = liar.sends + (liar.lies if lie == "repeats" else -liar.lies if lie == "loses" else 0) - held
    _expect(failures, "acks", liar.acks, pushed if receipt else 0)
    return failures


async def _check_refusal() -> list[str]:
    liar, failures = Liar("refuses"), list[str]()
    async with _listening(liar) as port:
        result = await _lwload(port, "native", in_flight=DEVICES, receipt=1)
    _expect(failures, "statuses", result["sent_statuses"], {"0": liar.sends - liar.lies, "13": liar.lies})
    _expect(failures, "lost", result["lost"], 0)
    return failures


async def _check_close() -> list[str]:
    liar, failures = Liar("closes"), list[str]()
    async with _listening(liar) as port:
        result = await _lwload(port, "native", rate=100)
    left = generator.number(result, "connected")
    _expect(failures, "closes", result["closes"], {"4004": DEVICES - left})
    _expect(failures, "some were closed", left < DEVICES, True)
    return failures


async def _check_stall() -> list[str]:
    """While the server stands still, an open loop's clock runs: all that was due in that time has waited."""
    liar, failures = Liar(""), list[str]()
    async with _listening(liar) as port:
        running = asyncio.create_task(_lwload(port, "native", rate=1000))
        await asyncio.sleep(0.5)
        time.sleep(STALL_S)  # noqa: ASYNC251 – the stall is the point
        result = await running
    # A tenth of the run or more was due in the first quarter of the stall.
    _expect(failures, "p90 shows the stall", generator.number(result, "latency", "p90_us") > STALL_S * 0.5e6, True)
    _expect(failures, "all arrived", result["received"], 1000)
    return failures


async def _check_websocket() -> list[str]:
    liar, failures = Liar(""), list[str]()
    protocols = [Subprotocol("longwire.v1")]
    async with serve(lambda c: _websocket_peer(liar, c), "127.0.0.1", 0, subprotocols=protocols) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        for payload in (32, 1000, 40000):  # each of the ways to write a length
            result = await _lwload(port, "websocket", in_flight=5, receipt=1, payload=payload)
            never, told = generator.faults(result)
            _expect(failures, f"faults at {payload} bytes", never + told, [])
            _expect(failures, "received some", generator.number(result, "received") > 0, True)
    return failures


async def _all_checks() -> int:
    results = {
        f"{lie or 'honest'}, receipt {receipt}": await _check_lie(lie, receipt)
        for lie in _FOUND_AS
        for receipt in (0, 1)
    }
    results["refuses"] = await _check_refusal()
    results["closes"] = await _check_close()
    results["stalls"] = await _check_stall()
    results["honest, in WebSocket"] = await _check_websocket()
    console = Console()
    for name, failures in results.items():
        console.print(f"{'FAILED' if failures else 'ok':<8}{name}  {'; '.join(failures)}", highlight=False)
    return 1 if any(results.values()) else 0


if __name__ == "__main__":
    generator.build()
    sys.exit(asyncio.run(_all_checks()))
