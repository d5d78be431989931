"""Devices that write to each other and to the application all the time, and at the end account for every message.

    with Mesh(cluster, 12) as mesh:
        with mesh.talking(per_s=100):
            cluster.gateways[0].kill()
            mesh.push()
        mesh.check()

They are devices of the SDK, on a loop and a thread of their own. Each numbers what it writes to each other one, so
that the receiver sees what is missing, comes twice or overtakes. The application is number -1: what it got is what
the sinks stored.
"""

import asyncio
import base64
import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import httpx

from longwire.client import Device, Message, State
from longwire.errors import LongwireError
from longwire.testing.cluster.harness import Cluster

T = TypeVar("T")

LATE_S = 75.0
"""No confirmed message waits longer than a minute for a device that is online; and some time for a busy machine."""
APPLICATION = -1
_CONNECTED_WITHIN_S = 90.0
# All members share one client: when thousands come at once, each waits for those before it.
_API_WITHIN_S = 60.0
_LOOKED_EVERY_S = 0.2
_STEPS_PER_S = 50
_CONNECTING = 50
_PAGE = 500
_TOLD = 8
_STATES = ("acked", "expired", "failed", "collapsed", "canceled", "withdrawn", "pending")


class Key(NamedTuple):
    """A message: from which member, to which, and the how manieth of this pair."""

    sender: int
    receiver: int
    number: int

    @classmethod
    def read(cls, text: str) -> "Key":
        return cls(*map(int, text.split()))

    def __str__(self) -> str:
        return f"{self.sender} {self.receiver} {self.number}"


class Mesh:
    """``count`` devices of a cluster, entered and left with it.

    ``via``: which gateway the member of a number is kept on; None: where the api sends it, as real devices.
    ``is_provisioned``: an operator has registered them all, many at a time; else each registers itself.
    ``options``: further ones of ``client.Device``.
    """

    def __init__(
        self,
        cluster: Cluster,
        count: int,
        *,
        prefix: str = "mesh",
        via: Callable[[int], int | None] = lambda _: None,
        is_provisioned: bool = False,
        **options: Any,
    ) -> None:
        self.devices: list[Device] = []
        self.confirmed: dict[Key, float] = {}
        """When SENT came."""
        self.got: list[tuple[Key, float]] = []
        """What applications were given, in the order they were."""
        self.refused: list[tuple[Key, LongwireError]] = []
        """Messages of which the SDK said that they will not go."""
        self.connects: list[tuple[float, int]] = []
        """(when, which member) of each session that began; one that was moved has no other sign of it."""
        self.errors: list[Exception] = []
        """What devices told ``on_error``."""
        self.pushes: dict[str, str] = {}
        """Each push to all members, and the kind of its message."""
        self.others: list[tuple[int, Message]] = []
        """What else applications were given: (which member, what)."""
        self.tag = prefix
        """Of all members."""
        self._cluster = cluster
        self._names = [f"{prefix}-{number}" for number in range(count)]
        self._via = via
        self._is_provisioned = is_provisioned
        self._options = options
        self._written: Counter[tuple[int, int]] = Counter()
        self._rng = random.Random(count)  # noqa: S311 - who writes to whom
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="mesh", daemon=True)
        self._stack = contextlib.AsyncExitStack()
        self._tasks: set[asyncio.Task[None]] = set()
        self._talking: asyncio.Task[None] | None = None

    # Coming and going.

    def __enter__(self) -> Self:
        self._thread.start()
        known = [
            name for number, name in enumerate(self._names) if self._is_provisioned or self._via(number) is not None
        ]
        try:
            self._cluster.register(known)
            self.run(self._enter(), _CONNECTED_WITHIN_S + len(self._names) / 50)
            for at in range(0, len(self._names), _PAGE):
                body = {"add": self._names[at : at + _PAGE]}
                self._cluster.call("POST", f"/v1/tags/{self.tag}/devices", json=body)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.run(self._leave(), _CONNECTED_WITHIN_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, T], within_s: float = 60.0) -> T:
        """Does something on the devices' loop; its outcome."""
        return asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, within_s), self._loop).result()

    # What a test does with it.

    @contextlib.contextmanager
    def talking(self, per_s: float = 100.0, *, uplink: float = 0.2) -> Iterator[None]:
        """Within the block somebody writes so many times a second: this share to the application, else to another."""
        self.talk(per_s, uplink=uplink)
        try:
            yield
        finally:
            self.be_quiet()

    def talk(self, per_s: float, *, uplink: float = 0.2) -> None:
        """Begins to talk, until ``be_quiet``."""
        self.run(self._begin(per_s, uplink))

    def wait_talked(self, more: int, within_s: float = 60.0) -> None:
        """Waits until so many more messages have been confirmed. Raises AssertionError."""
        before = len(self.confirmed)
        self._cluster.wait_until(
            lambda: len(self.confirmed) >= before + more, f"{more} more messages are confirmed", within_s
        )

    def be_quiet(self) -> None:
        """Writes nothing new. What was written is still sent, and repeated as the SDK does."""
        self.run(self._end())

    def push(self, number: int = 0, **options: object) -> str:
        """Posts a push to all members, by that api; its id. ``check`` asks for it."""
        kind = f"push-{len(self.pushes)}"
        body = {"audience": {"tags": {"any": [self.tag]}}, "message": {"kind": kind}, "options": options}
        posted: str = self._cluster.call("POST", "/v1/pushes", number=number, json=body)["id"]
        self.pushes[posted] = kind
        return posted

    def write(self, sender: int, receiver: int = APPLICATION) -> Key:
        """One message; it goes when it can, and ``check`` asks for it."""

        async def begin() -> Key:
            return self._write(sender, receiver)

        return self.run(begin())

    def name(self, number: int) -> str:
        """The member's device id."""
        return self._names[number]

    def wait_given(self, number: int, kind: str, count: int = 1, within_s: float = LATE_S) -> list[Message]:
        """Waits until that member's application was given so many messages of this kind; all of them."""

        def given() -> list[Message]:
            return [message for member, message in self.others if (member, message.kind) == (number, kind)]

        self._cluster.wait_until(lambda: len(given()) >= count, f"{self.name(number)} has {count} of {kind}", within_s)
        return given()

    def connected(self) -> int:
        """How many members have a session."""
        return sum(device.state is State.CONNECTED for device in self.devices)

    def wait_connected(self, within_s: float = _CONNECTED_WITHIN_S) -> None:
        """Waits until all have a session. Raises AssertionError."""
        deadline = time.monotonic() + within_s
        while self.connected() < len(self._names):
            stopped = [repr(device) for device in self.devices if device.state is State.STOPPED]
            assert not stopped, stopped
            assert time.monotonic() < deadline, f"{self.connected()} of {len(self._names)} are connected"
            time.sleep(0.05)

    def connects_since(self, moment: float) -> list[int]:
        """Which members came to connect after that ``time.monotonic()``; one who came twice twice."""
        return [member for when, member in self.connects if when > moment]

    def check(self, late_s: float = LATE_S, *, in_order: bool = True) -> None:
        """Falls silent and waits until everything written has been confirmed and arrived, then judges.

        Every message that was confirmed has arrived, none twice, and of each pair in order; all within ``late_s`` of
        the moment when everybody was connected and had got rid of what it had. Raises AssertionError.
        """
        self.be_quiet()
        self.wait_connected()
        self.run(self._drained(), _CONNECTED_WITHIN_S + 5)
        deadline = time.monotonic() + late_s
        wanted = {key for key in self.confirmed if key.receiver != APPLICATION}
        while (missing := wanted - {key for key, _ in self.got}) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not self.refused, f"{len(self.refused)} were refused, such as {self.refused[:_TOLD]}"
        told = ", ".join(
            f"{key} confirmed {time.monotonic() - self.confirmed[key]:.0f} s ago" for key in sorted(missing)[:_TOLD]
        )
        assert not missing, f"{len(missing)} of {len(wanted)} confirmed messages did not arrive: {told}"
        twice = [key for key, count in Counter(key for key, _ in self.got).items() if count > 1]
        assert not twice, f"{len(twice)} messages came twice: {twice[:_TOLD]}"
        late = overtaken(key for key, _ in list(self.got))
        assert not (in_order and late), f"{len(late)} messages came after a later one: {late[:_TOLD]}"
        self.check_uplink(late_s)
        self.check_pushes(late_s)

    def check_uplink(self, late_s: float = LATE_S) -> None:
        """What was confirmed of what members wrote to the application is stored: once, and each member's in order."""
        wanted = {key for key in self.confirmed if key.receiver == APPLICATION}
        deadline = time.monotonic() + late_s
        while (missing := wanted - set(stored := self.uplink())) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not missing, f"{len(missing)} of {len(wanted)} messages to the application: {sorted(missing)[:_TOLD]}"
        twice = [key for key, count in Counter(stored).items() if count > 1]
        assert not twice, f"{len(twice)} messages to the application are stored twice: {twice[:_TOLD]}"
        assert not (late := overtaken(stored)), (
            f"{len(late)} messages to the application are out of order: {late[:_TOLD]}"
        )

    def uplink(self) -> list[Key]:
        """What the sinks have stored of the members' messages, the first first."""
        found: list[Key] = []
        cursor = ""
        while True:
            page = self._cluster.call("GET", f"/v1/uplink?kind={self.tag}&limit={_PAGE}{cursor}")
            found += [Key.read(base64.b64decode(item["payload_b64"]).decode()) for item in page["items"]]
            if page["next_cursor"] is None:
                return found[::-1]
            cursor = f"&cursor={page['next_cursor']}"

    def check_pushes(self, late_s: float = LATE_S) -> None:
        """Every push is complete, adds up, and every member's application was given it once."""
        for posted, kind in self.pushes.items():
            deadline = time.monotonic() + late_s
            while (push := self._cluster.call("GET", f"/v1/pushes/{posted}"))["status"] != "completed":
                assert time.monotonic() < deadline, push
                time.sleep(0.1)
            stats = push["stats"]
            assert stats["targeted"] == sum(stats[state] for state in _STATES), push
            assert stats["targeted"] == stats["acked"] == len(self._names), push
            copies = Counter(number for number, message in self.others if message.kind == kind)
            assert copies == dict.fromkeys(range(len(self._names)), 1), f"{kind}: {copies}"

    # On the devices' loop.

    async def _enter(self) -> None:
        shared = await self._stack.enter_async_context(
            httpx.AsyncClient(timeout=_API_WITHIN_S, limits=httpx.Limits(max_connections=_CONNECTING))
        )
        at_a_time = asyncio.Semaphore(_CONNECTING)

        async def enter(number: int, name: str) -> None:
            via = self._via(number)
            options = self._options if via is not None else {"http": shared, **self._options}
            device = self._cluster.device(name, via=via, on_error=self.errors.append, **options)
            self.devices.append(device)
            async with at_a_time:
                await self._stack.enter_async_context(device)
            self._keep(self._receive(number, device))

        # Devices are made in their order; they connect side by side.
        await asyncio.gather(*(enter(number, name) for number, name in enumerate(self._names)))
        self._keep(self._watch_sessions())

    async def _watch_sessions(self) -> None:
        known = [""] * len(self.devices)
        while True:
            for number, device in enumerate(self.devices):
                if device.session_id != known[number]:
                    known[number] = device.session_id
                    self.connects.append((time.monotonic(), number))
            await asyncio.sleep(_LOOKED_EVERY_S)

    async def _leave(self) -> None:
        await self._end()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stack.aclose()

    async def _drained(self) -> None:
        for device in self.devices:
            await device.drained(_CONNECTED_WITHIN_S)

    async def _begin(self, per_s: float, uplink: float) -> None:
        await self._end()
        self._talking = asyncio.create_task(self._talk(per_s, uplink))

    async def _end(self) -> None:
        if self._talking is not None:
            self._talking.cancel()
            await asyncio.wait([self._talking])
            self._talking = None

    async def _talk(self, per_s: float, uplink: float) -> None:
        began, written = self._loop.time(), 0
        while True:
            while written < (self._loop.time() - began) * per_s:
                written += 1
                sender, receiver = self._rng.sample(range(len(self._names)), 2)
                self._write(sender, APPLICATION if self._rng.random() < uplink else receiver)
            await asyncio.sleep(1 / _STEPS_PER_S)

    def _write(self, sender: int, receiver: int) -> Key:
        key = Key(sender, receiver, self._written[sender, receiver])
        self._written[sender, receiver] += 1
        self._keep(self._send(key))
        return key

    async def _send(self, key: Key) -> None:
        to = "" if key.receiver == APPLICATION else f"device:{self._names[key.receiver]}"
        try:
            await self.devices[key.sender].send(to, str(key), self.tag)
        except LongwireError as error:
            self.refused.append((key, error))
        else:
            self.confirmed[key] = time.monotonic()

    async def _receive(self, number: int, device: Device) -> None:
        async for message in device:
            if message.kind == self.tag:
                self.got.append((Key.read(message.text()), time.monotonic()))
            else:
                self.others.append((number, message))

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def overtaken(keys: Iterable[Key]) -> list[Key]:
    """Messages that came after a later one of the same pair."""
    last: dict[tuple[int, int], int] = {}
    late = []
    for key in keys:
        pair = key.sender, key.receiver
        if key.number < last.get(pair, -1):
            late.append(key)
        last[pair] = max(key.number, last.get(pair, -1))
    return late
