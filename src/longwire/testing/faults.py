"""A TCP proxy that breaks what passes through it, on request.

    with FaultProxy(("127.0.0.1", redis.port)) as proxy:
        client = connect(proxy.address)
        proxy.delay(50, jitter_ms=20)
        proxy.cut()

      client ──up──► proxy ──up──► target
      client ◄─down─ proxy ◄─down─ target

It runs on a loop and a thread of its own, so that it works while the loop under test is blocked, and each of its
methods may be called from any thread: when it has returned, the fault is there. Faults that lose bytes of a
connection end that connection once they are over, as half a stream is no stream.
"""

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Any, Self

from longwire.testing.engines import free_ports

_CHUNK_BYTES = 64 << 10
# What a direction of a connection may hold back before reading stops.
_MAX_CHUNKS = 64
_ASKED_WITHIN_S = 10.0
_RESET = struct.pack("ii", 1, 0)


class Direction(Enum):
    """Which way bytes go."""

    UP = "up"
    """From the client to the target."""
    DOWN = "down"
    """From the target to the client."""


@dataclass(frozen=True)
class _Faults:
    dropped: frozenset[Direction] = frozenset()
    is_stalled: bool = False
    delay_s: float = 0.0
    jitter_s: float = 0.0

    @property
    def hides_the_target(self) -> bool:
        return self.is_stalled or Direction.DOWN in self.dropped


class FaultProxy:
    """Passes connections on to ``target``, until told otherwise; faults hold for connections old and new."""

    def __init__(self, target: tuple[str, int] | str, port: int = 0) -> None:
        """``target``: host and port, also as ``"host:port"``. ``port``: our own on loopback; 0 picks one."""
        if isinstance(target, str):
            host, _, number = target.rpartition(":")
            target = (host, int(number))
        self.target = target
        self.port = port
        self.connections_seen = 0
        """How many connections were accepted since the start."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._server: asyncio.Server | None = None
        self._pipes: set[_Pipe] = set()
        self._faults = _Faults()

    @property
    def address(self) -> str:
        """``127.0.0.1:PORT``, to be given to clients."""
        return f"127.0.0.1:{self.port}"

    @property
    def open_connections(self) -> int:
        return len(self._pipes)

    def start(self) -> Self:
        """Listens. Raises OSError where the port is taken."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._thread.start()
        try:
            self._ask(self._listen())
        except BaseException:
            self._end_thread()
            raise
        return self

    def stop(self) -> None:
        """Refuses, cuts and ends; nothing where it does not run. It may be started again, on the same port."""
        if self._loop is not None:
            self._ask(self._refuse())
            self._ask(self._cut())
            self._end_thread()

    def pass_on(self) -> None:
        """No fault any more. Connections that lost bytes are cut; connections that stood still go on."""
        self._set(_Faults())

    def refuse(self) -> None:
        """New connections are refused, as by a host on which nobody listens. Those that are open go on."""
        self._ask(self._refuse())

    def blackhole(self) -> None:
        """Connections are accepted and what they send is swallowed: no answer and no end."""
        self._set(_Faults(dropped=frozenset(Direction)))

    def drop(self, direction: Direction) -> None:
        """Swallows what goes in one direction; the other one goes on."""
        self._set(_Faults(dropped=frozenset([direction])))

    def stall(self) -> None:
        """Nothing goes through and nothing is lost, as where a cable is out: it goes on with ``pass_on``."""
        self._set(_Faults(is_stalled=True))

    def delay(self, ms: float, jitter_ms: float = 0) -> None:
        """Holds each piece back for ``ms`` and up to ``jitter_ms`` more, in each direction; their order stays."""
        if ms < 0 or jitter_ms < 0:
            raise ValueError(f"a delay of {ms} ms and {jitter_ms} ms of jitter is none")
        self._set(_Faults(delay_s=ms / 1000, jitter_s=jitter_ms / 1000))

    def cut(self) -> None:
        """Resets every open connection, at both of its ends; new ones are as before."""
        self._ask(self._cut())

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # On the proxy's own thread.

    def _ask(self, work: Coroutine[Any, Any, None]) -> None:
        if self._loop is None:
            work.close()
            raise RuntimeError("the proxy has not started")
        asyncio.run_coroutine_threadsafe(work, self._loop).result(_ASKED_WITHIN_S)

    def _set(self, faults: "_Faults") -> None:
        self._ask(self._take(faults))

    async def _take(self, faults: "_Faults") -> None:
        before, self._faults = self._faults, faults
        for pipe in list(self._pipes):
            if pipe.has_lost and not before.dropped <= faults.dropped:
                pipe.reset()
            else:
                pipe.take(faults)
        await self._listen()

    async def _listen(self) -> None:
        if self._server is None:
            self.port = self.port or free_ports(1)[0]
            self._server = await asyncio.start_server(self._accepted, "127.0.0.1", self.port)

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _cut(self) -> None:
        pipes = list(self._pipes)
        for pipe in pipes:
            pipe.reset()
        if pipes:
            await asyncio.wait([pipe.task for pipe in pipes])

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pipe = _Pipe(reader, writer, self.target, self._faults)
        self.connections_seen += 1
        self._pipes.add(pipe)
        pipe.task.add_done_callback(lambda _: self._pipes.discard(pipe))

    def _end_thread(self) -> None:
        loop, self._loop = self._loop, None
        assert loop is not None
        assert self._thread is not None
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join(_ASKED_WITHIN_S)
        loop.close()


class _Pipe:
    """One connection and what it is passed on by; ``task`` ends with it."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: tuple[str, int], faults: _Faults
    ) -> None:
        self.has_lost = False
        """Whether bytes of it, or an end, were swallowed."""
        self._faults = faults
        self._changed = asyncio.Event()
        self._writers = [writer]
        self.task = asyncio.get_running_loop().create_task(self._run(reader, writer, target))

    def take(self, faults: _Faults) -> None:
        self._faults = faults
        self._changed.set()
        self._changed = asyncio.Event()

    def reset(self) -> None:
        """Both ends see a reset."""
        for writer in self._writers:
            with contextlib.suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()
        self.task.cancel()

    async def _run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: tuple[str, int]) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*target)
            self._writers.append(far_writer)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._carry(Direction.UP, reader, far_writer))
                both.create_task(self._carry(Direction.DOWN, far_reader, writer))
        except* OSError:
            while self._faults.hides_the_target:
                await self._changed.wait()
            self.reset()
        finally:
            for each in self._writers:
                each.transport.abort()

    async def _carry(self, direction: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_MAX_CHUNKS)
        async with asyncio.TaskGroup() as both:
            both.create_task(self._read(reader, held))
            both.create_task(self._write(direction, held, writer))

    @staticmethod
    async def _read(reader: asyncio.StreamReader, held: asyncio.Queue[tuple[float, bytes]]) -> None:
        """The last piece is empty."""
        piece = b"-"
        while piece:
            piece = await reader.read(_CHUNK_BYTES)
            await held.put((asyncio.get_running_loop().time(), piece))

    async def _write(
        self, direction: Direction, held: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter
    ) -> None:
        while True:
            arrived, piece = await held.get()
            await self._let_through(arrived)
            if direction in self._faults.dropped:
                self.has_lost = True
            elif piece:
                writer.write(piece)
                await writer.drain()
            else:
                writer.write_eof()
                return

    async def _let_through(self, arrived: float) -> None:
        """Returns when the faults of that moment let a piece go that came at ``arrived``."""
        share = random.random()  # noqa: S311
        while True:
            faults, changed = self._faults, self._changed
            wait_s = arrived + faults.delay_s + share * faults.jitter_s - asyncio.get_running_loop().time()
            if not faults.is_stalled and wait_s <= 0:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if faults.is_stalled else wait_s):
                    await changed.wait()
