"""A small server that speaks the native protocol and tells a lie at every seventh message: for `bench.selfcheck`.

It shares no code with the generator or with Longwire: struct, msgspec, and the `websockets` package.
"""

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from bench import generator

Stdin = Callable[[asyncio.StreamWriter], Awaitable[None]]

_HEADER = struct.Struct(">BBBBII")
CONNECTED, PING, CLOSE, SENT, PUSH = 2, 3, 8, 0x11, 0x20
DEVICES = 20
EVERY = 7  # not a divisor of the devices: the lies fall on all of them


def frame(command: int, correlation: int, fields: list[object] | None, flags: int = 0) -> bytes:
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
        self.all_here, self.all_gone = asyncio.Event(), asyncio.Event()
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
                peer.write(frame(CONNECTED, correlation, ["s", 60, "n", 0, 0, 65536, 86400]))
                peer.write(frame(PING, 77, None))
                if len(self.peers) == DEVICES:
                    self.all_here.set()
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
        if to.startswith("group:"):
            self._spread(peer, message_id, to, kind, payload, lie)
            return
        receiver = to.removeprefix("device:")
        if lie == "misroutes":
            receiver = next(name for name in self.peers if name != receiver)
        if lie == "corrupts":
            payload = payload[:-1] + bytes([payload[-1] ^ 1])
        sender = "device:nobody" if lie == "forges" else f"device:{peer.device_id}"
        push = frame(PUSH, self.sends, [message_id, kind, sender, payload, 1], flags)
        if lie == "closes":
            peer.write(frame(CLOSE, 0, [4004, "slow", True, 0]))
            peer.close()
            return
        if flags & 2:
            peer.write(frame(SENT, correlation, [13, "", 5] if lie == "refuses" else [0]))
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

    def _spread(self, sender: Peer, message_id: bytes, to: str, kind: str, payload: bytes, lie: str) -> None:
        """To everybody but the sender; the lie is told to one of them."""
        wrong, flags, said_by = payload, 0, f"device:{sender.device_id}"
        if lie == "corrupts":
            wrong = payload[:-1] + bytes([payload[-1] ^ 1])
        said_to = "group:other" if lie == "renames" else to
        wrong_sender = "device:nobody" if lie == "forges" else said_by
        if lie == "asks":
            flags = 2
        honest = frame(PUSH, self.sends, [message_id, kind, said_by, payload, 1, "", to])
        changed = frame(PUSH, self.sends, [message_id, kind, wrong_sender, wrong, 1, "", said_to], flags)
        receivers = [name for name in self.peers if name != sender.device_id]
        victim = receivers[self.sends % len(receivers)]
        for name in receivers:
            if name == victim:
                self._push(name, changed, lie)
            else:
                self._push(name, honest, "")
        if lie == "misroutes":
            sender.write(honest)

    def broadcast(self, number: int, lie: str) -> None:
        """A push to all, with an acknowledgement asked for; the lie is told to one of them."""
        message_id = number.to_bytes(16)
        payload = f"push {number}".encode()
        wrong = payload + b"!" if lie == "corrupts" else payload
        names = list(self.peers)
        victim = names[number % len(names)]
        for name in names:
            said = wrong if name == victim else payload
            push = frame(PUSH, 2 * number + 1, [message_id, "news", "", said, 1, "", ""], 2)
            self._push(name, push, lie if name == victim else "")

    def tell(self, peer: Peer, number: int, payload: bytes) -> None:
        """A message to one device."""
        peer.write(frame(PUSH, 2 * number + 1, [number.to_bytes(16), "note", "", payload, 1, "", ""], 2))


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
async def listening(liar: Liar) -> AsyncIterator[int]:
    """The liar on a port; at the end it has heard all that was said to it."""
    server = await asyncio.get_running_loop().create_server(lambda: _TcpPeer(liar), "127.0.0.1", 0)
    async with server:
        yield int(server.sockets[0].getsockname()[1])
        await asyncio.wait_for(liar.all_gone.wait(), 5)


async def websocket_peer(liar: Liar, connection: ServerConnection) -> None:
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


async def lwload(
    work: str, port: int, protocol: str, stdin: Stdin | None = None, **options: object
) -> generator.Result:
    """Runs the generator on a small fleet for a second or so. `stdin` says to it what it is to hear."""
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    fixed = [f"--connections={DEVICES}", "--warmup=0", "--timeout=0.5", "--drain=2"]
    process = await asyncio.create_subprocess_exec(
        str(generator.BUILD / "lwload"),
        work,
        f"--port={port}",
        f"--protocol={protocol}",
        *fixed,
        *([] if stdin else ["--seconds=1"]),
        *words,
        stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    if stdin is not None:
        assert process.stdin is not None
        await stdin(process.stdin)
        process.stdin.close()
    assert process.stdout is not None
    output = await asyncio.wait_for(process.stdout.read(), 30)
    await process.wait()
    result: generator.Result = json.loads(output.splitlines()[-1])
    return result


def expect(failures: list[str], what: str, found: object, expected: object) -> None:
    if found != expected:
        failures.append(f"{what}: {found!r}, not {expected!r}")
