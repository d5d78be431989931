"""Devices on the SDK and the operator's door, for tests of pushes against a node in a process of its own."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable
from types import TracebackType
from typing import Any, Self

import httpx

from longwire.client import Device, Message
from longwire.testing.process import NodeProcess

WITHIN_S = 60.0
STATES = ("acked", "expired", "failed", "collapsed", "canceled", "withdrawn", "pending")
ENDED = ("completed", "canceled", "withdrawn", "failed")
_WIDTH = 64
_BATCH = 1_000

Push = dict[str, Any]


class Operator:
    """The operator's door. Every push that it returns adds up, or the test fails."""

    def __init__(self, node: NodeProcess) -> None:
        self.http = httpx.AsyncClient(
            base_url=node.http_url,
            headers={"Authorization": f"Bearer {node.credentials()['api_key']}"},
            timeout=WITHIN_S,
            verify=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.http.aclose()

    async def call(self, method: str, path: str, body: object = None, status: int = 200, **headers: str) -> Any:
        """The answer's JSON; it must have this status."""
        try:
            answer = await self.http.request(method, path, json=body, headers=headers)
        except httpx.RemoteProtocolError:
            # This process was busy for so long that the node closed the idle connection in the moment of the call.
            assert method == "GET"
            answer = await self.http.request(method, path, json=body, headers=headers)
        assert answer.status_code == status, f"{method} {path}: {answer.status_code} {answer.text[:500]}"
        return answer.json() if answer.content else None

    async def push(self, audience: object, kind: str = "news", payload: object = "hello", **options: object) -> Push:
        body = {"audience": audience, "message": {"kind": kind, "payload": payload}, "options": options}
        return adding_up(await self.call("POST", "/v1/pushes", body, 202))

    async def find(self, push_id: str) -> Push:
        return adding_up(await self.call("GET", f"/v1/pushes/{push_id}"))

    async def until(self, push_id: str, is_so: Callable[[Push], bool], within_s: float = WITHIN_S) -> Push:
        """Looks until it is so; the push adds up at every look."""
        until = time.monotonic() + within_s
        while not is_so(push := await self.find(push_id)):
            assert time.monotonic() < until, push
            await asyncio.sleep(0.02)
        return push

    async def steer(self, push_id: str, what: str, status: int = 200) -> Any:
        return await self.call("POST", f"/v1/pushes/{push_id}/{what}", status=status)


def adding_up(push: Push) -> Push:
    stats = push["stats"]
    assert stats["targeted"] == sum(stats[state] for state in STATES), push
    return push


def ended(push: Push) -> bool:
    return push["status"] in ENDED


def states(push: Push) -> dict[str, int]:
    """The states that a device of the push is in."""
    return {state: push["stats"][state] for state in STATES if push["stats"][state]}


class Fleet:
    """Devices on the SDK; ``copies[kind][device_id]`` counts what each application got."""

    def __init__(self, node: NodeProcess, names: Iterable[str]) -> None:
        self.names = list(names)
        self.copies: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.payloads: defaultdict[str, list[bytes]] = defaultdict(list)
        self.devices: dict[str, Device] = {}
        self._number = {name: number for number, name in enumerate(self.names)}
        self._address = f"127.0.0.1:{node.port}"
        self._tokens: dict[str, str] = {}
        for at in range(0, len(self.names), _BATCH):
            self._tokens |= node.register(self.names[at : at + _BATCH])
        self._marks: dict[asyncio.Event, Callable[[], bool]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.leave(list(self.devices))

    async def come(self, names: Collection[str] | None = None) -> None:
        """Connects these, by default all; every other one over WebSocket."""

        async def connect(name: str) -> None:
            transport = "tcp" if self._number[name] % 2 else "websocket"
            device = Device(device_id=name, token=self._tokens[name], address=self._address, transport=transport)
            device.on()(lambda message: self._take(name, message))
            self.devices[name] = device
            await device.__aenter__()
            await device.connected(WITHIN_S)

        await _spread(self.names if names is None else names, connect)

    async def leave(self, names: Collection[str]) -> None:
        await asyncio.gather(*(self.devices.pop(name).close() for name in names))

    def _take(self, name: str, message: Message) -> None:
        self.copies[message.kind][name] += 1
        self.payloads[name].append(message.payload)
        for event, is_so in self._marks.items():
            if is_so():
                event.set()

    async def got(self, kind: str, count: int, within_s: float = WITHIN_S) -> None:
        """Waits until so many applications have one of this kind."""
        await self._once(lambda: len(self.copies[kind]) >= count, within_s)

    async def _once(self, is_so: Callable[[], bool], within_s: float) -> None:
        event = asyncio.Event()
        self._marks[event] = is_so
        try:
            if not is_so():
                async with asyncio.timeout(within_s):
                    await event.wait()
        finally:
            del self._marks[event]

    def assert_once(self, kind: str, names: Collection[str]) -> None:
        """Exactly these have it, each once."""
        assert dict(self.copies[kind]) == dict.fromkeys(names, 1)


async def _spread(names: Collection[str], work: Callable[[str], Awaitable[object]]) -> None:
    waiting = iter(list(names))

    async def some() -> None:
        for name in waiting:
            await work(name)

    async with asyncio.TaskGroup() as group:
        for _ in range(_WIDTH):
            group.create_task(some())
