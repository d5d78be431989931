"""The demo's devices: two thousand ends on the SDK, half over TCP, half over WebSocket."""

import asyncio
import contextlib
import os
import random
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

import httpx

from longwire.cli.credentials import Credentials
from longwire.cli.text import Failure
from longwire.client import Device, Message, State
from longwire.client.account import proof

T = TypeVar("T")

Receive = Callable[["Member", Message], None]

HTTP_WIDTH = 8
"""Calls to the API at once."""
_CONNECT_WIDTH = 64
_CONNECTED_WITHIN_S = 20.0
_HEARTBEAT_S = 60


class Member:
    """A device of the fleet. It may leave and come back: then with another ``Device`` and the token it has."""

    def __init__(self, device_id: str, transport: str) -> None:
        self.device_id = device_id
        self.transport = transport
        self.token = ""
        self.address = ""
        self.port = 0
        """Of the node that its registration named."""
        self.came_at = 0.0
        """When it last began to connect."""
        self.losses: list[float] = []
        """When it lost its connection without having closed it."""
        self.returns: list[float] = []
        """When it had one again."""
        self._device: Device | None = None

    @property
    def device(self) -> Device:
        assert self._device is not None
        return self._device

    async def come(self, way: dict[str, Any], receive: Receive) -> None:
        """Connects as ``way`` (arguments of ``Device``) says, and takes messages from then on."""
        device = Device(device_id=self.device_id, transport=self.transport, heartbeat_s=_HEARTBEAT_S, **way)

        @device.on()
        def take(message: Message) -> None:
            receive(self, message)

        device.on_state(self._look)
        self.came_at = time.perf_counter()
        await device.__aenter__()
        self._device = device
        await device.connected(_CONNECTED_WITHIN_S)
        self.token = device.token

    async def leave(self) -> None:
        """Closes its connection."""
        device, self._device = self._device, None
        if device is not None:
            await device.close()

    def _look(self, state: State) -> None:
        now = time.perf_counter()
        if state is State.WAITING:
            self.losses.append(now)
        elif state is State.CONNECTED and len(self.returns) < len(self.losses):
            self.returns.append(now)


class Fleet:
    """All of them. ``receive`` is told each message that any of them takes; ``run`` is part of their names."""

    def __init__(self, count: int, app: Credentials, receive: Receive, run: str = "") -> None:
        half = (count + 1) // 2
        name = f"demo-{run}-" if run else "demo-"
        self.members = [Member(f"{name}{n:05d}", "tcp" if n <= half else "websocket") for n in range(1, count + 1)]
        self._app = app
        self._run = run
        self._receive = receive
        # One connection a client: looking for a free one among many costs httpx more than the call does.
        self._clients = [
            httpx.AsyncClient(
                verify=app["http_url"].startswith("https:"),
                limits=httpx.Limits(max_connections=1),
                timeout=30.0,
            )
            for _ in range(HTTP_WIDTH)
        ]
        self._free = list(self._clients)

    def over(self, transport: str) -> list[Member]:
        """Those that connect in this way."""
        return [member for member in self.members if member.transport == transport]

    async def register(self, member: Member) -> None:
        """Registers a device as one without the SDK would: POST /device/v1/register. Raises Failure."""
        ts_ms, nonce = time.time_ns() // 1_000_000, secrets.token_hex(16)
        body = {
            "app_key": self._app["app_key"],
            "device_id": member.device_id,
            "ts_ms": ts_ms,
            "nonce": nonce,
            "proof": proof(self._app["app_secret"], member.device_id, ts_ms, nonce),
            "platform": "longwire-demo",
        }
        http = self._free.pop()
        try:
            answer = await http.post(f"{self._app['http_url']}/device/v1/register", json=body)
        finally:
            self._free.append(http)
        if answer.status_code != httpx.codes.CREATED:
            raise Failure(f"registering {member.device_id} was answered {answer.status_code}: {answer.text[:200]}")
        told = answer.json()
        node = told["node"]
        member.token = told["token"]
        member.port = node["port"]
        member.address = node["ws_url"] if member.transport == "websocket" else f"{node['host']}:{node['port']}"

    async def connect(self, member: Member) -> None:
        """Connects a device with the SDK to the node that its registration named.

        Beside others, where nodes come and go, it asks the API for a node, so that it can be moved.
        """
        if self._run:
            await self.bring_back(member)
        else:
            await member.come({"token": member.token, "address": member.address}, self._receive)

    async def bring_back(self, member: Member) -> None:
        """Connects a device with the SDK, which asks the API for a node."""
        api = {name: self._app[name] for name in ("http_url", "app_key", "app_secret")}
        http = self._clients[hash(member.device_id) % len(self._clients)]
        await member.come(api | {"token": member.token, "http": http}, self._receive)

    async def settled(self) -> None:
        """Waits until everyone has a session and nothing to send."""
        for member in self.members:
            await member.device.connected()
            await member.device.drained()

    async def leave(self) -> None:
        """Closes every connection."""
        await asyncio.gather(*(member.leave() for member in self.members))
        for http in self._clients:
            await http.aclose()

    def cut(self, count: int, chance: random.Random) -> int:
        """Pulls the plug of connections: their sockets are shut at the system, behind the SDK's and the node's back.

        Returns how many. What is under way on them is lost.
        """
        sockets = _sockets_to({member.port for member in self.members})
        for descriptor in chance.sample(sockets, min(count, len(sockets))):
            with socket.socket(fileno=os.dup(descriptor)) as line:
                line.shutdown(socket.SHUT_RDWR)
        return min(count, len(sockets))


def _sockets_to(ports: set[int]) -> list[int]:
    """This process's descriptors of connections to these ports."""
    found = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names are all that is wanted
        descriptor = int(name)
        with contextlib.suppress(OSError, IndexError), socket.socket(fileno=os.dup(descriptor)) as line:
            if line.getpeername()[1] in ports:
                found.append(descriptor)
    return found


async def spread(items: Iterable[T], work: Callable[[T], Awaitable[object]], width: int = _CONNECT_WIDTH) -> None:
    """Does the work for each item, so many at once. The first failure ends it."""
    waiting = iter(items)

    async def some() -> None:
        for item in waiting:
            await work(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(width):
            group.create_task(some())


def strangers(members: Sequence[Member], chance: random.Random) -> dict[Member, Member]:
    """Gives each member another one to write to; everyone is written to by one."""
    ring = list(members)
    chance.shuffle(ring)
    return {member: ring[at - 1] for at, member in enumerate(ring)}
