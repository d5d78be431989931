"""What the fleet does, step by step. Each step adds to the report what it counted."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

from longwire.cli.demo.application import Answer, fahrenheit
from longwire.cli.demo.fleet import HTTP_WIDTH, Fleet, Member, spread, strangers
from longwire.cli.demo.node import Target
from longwire.cli.demo.pushes import Pushes
from longwire.cli.demo.report import Bar, Report, Row, Screen
from longwire.cli.demo.traffic import WITHIN_S, Arrivals, Traffic, watch
from longwire.client import ClientError, Message

T = TypeVar("T")

_EACH_SENDS = 5
"""Messages of a device while connections are cut."""
_EACH_GETS = 4
"""Messages that wait for a device that is away."""
_PACE_PER_S = 500
_REQUESTS_WIDTH = 32

ANSWER = "demo.answer"
READING = "demo.reading"


class Demo:
    """The steps, in the order of ``run``."""

    def __init__(self, node: Target, count: int, screen: Screen, seed: int) -> None:
        self.report = Report(count, node.name)
        self._node = node
        self._screen = screen
        self._chance = random.Random(seed)  # noqa: S311 - who writes to whom
        self._kinds: dict[str, Arrivals[Any]] = {}
        self._readings_sent = Traffic(READING, 0)
        self._wrong_answers = 0
        self.fleet = Fleet(count, node.credentials, self._received, node.run)

    async def run(self) -> None:
        """All of it. Raises Failure where it cannot even begin; what does not add up is in the report."""
        at_start = self._node.memory_bytes()
        await self._register()
        await self._connect()
        connected = self._node.memory_bytes()
        self._rule()
        await self._pace()
        await self._rush()
        await self._away()
        self._rule()
        await self._readings()
        await self._requests()
        await Pushes(self.fleet, self._node, self._screen, self.report, self._chance, self._kinds).run()
        at_end = self._node.memory_bytes()
        if at_start is not None and connected is not None and at_end is not None:
            self.report.node_bytes = (at_start, connected, at_end)

    # Steps

    async def _register(self) -> None:
        members = self.fleet.members
        times: list[float] = []
        with self._screen.bar("registering over HTTP", len(members)) as bar:
            await spread(members, _timed(self.fleet.register, times, bar), HTTP_WIDTH)
        tokens = len({member.token for member in members})
        self._add("register (HTTP)", len(members), len(times), tokens, len(times) / bar.took_s, times)

    async def _connect(self) -> None:
        for transport, name in (("tcp", "TCP"), ("websocket", "WebSocket")):
            members = self.fleet.over(transport)
            times: list[float] = []
            with self._screen.bar(f"connecting over {name}", len(members)) as bar:
                await spread(members, _timed(self.fleet.connect, times, bar))
            sessions = len({member.device.session_id for member in members})
            self._add(f"connect ({name})", len(members), len(times), sessions, len(times) / bar.took_s, times)

    async def _pace(self) -> None:
        """Messages at a steady pace far below saturation: their times are the system's, not a queue's."""
        members = self.fleet.members
        to = strangers(members, self._chance)
        traffic = self._traffic("demo.paced", len(members))
        pace = min(_PACE_PER_S, len(members))
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(watch(self._screen, traffic, "one to one, at a steady pace"))
            began = time.perf_counter()
            for at, member in enumerate(members):
                await asyncio.sleep(max(0.0, began + at / pace - time.perf_counter()))
                group.create_task(traffic.send(member, _address(to[member]), {"text": f"hello {at}"}))
            await watching
        self._add_traffic("device → device", traffic)
        self.report.rows.append(Row("  until SENT (durable)", latencies_s=traffic.confirm_s))

    async def _rush(self) -> None:
        """As fast as they can; in the middle the plug of some is pulled."""
        members = self.fleet.members
        rings = [strangers(members, self._chance) for _ in range(_EACH_SENDS)]
        traffic = self._traffic("demo.rush", len(members) * _EACH_SENDS)

        async def send_all(member: Member) -> None:
            for at, to in enumerate(rings):
                await traffic.send(member, _address(to[member]), {"text": f"message {at}"})

        cut = 0
        a_third = traffic.confirms(traffic.expected // 3)
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(watch(self._screen, traffic, "one to one, at full speed, while lines are cut"))
            for member in members:
                group.create_task(send_all(member))
            with suppress(TimeoutError):
                async with asyncio.timeout(WITHIN_S):
                    await a_third.wait()
            cut = self.fleet.cut(max(1, len(members) // 10), self._chance)
            await watching
        with suppress(TimeoutError, ClientError):
            async with asyncio.timeout(WITHIN_S):
                await self.fleet.settled()
        losses = sum(len(member.losses) for member in members)
        returns = sum(len(member.returns) for member in members)
        times = [back - lost for m in members for lost, back in zip(m.losses, m.returns, strict=False)]
        self._add_traffic("device → device, flat out", traffic)
        self._add("  lines cut → resumed", cut, losses, returns, None, times)

    async def _away(self) -> None:
        """Some leave; the others write to them; they come back."""
        members = list(self.fleet.members)
        self._chance.shuffle(members)
        cut_at = max(1, len(members) * 15 // 100)
        gone, here = members[:cut_at], members[cut_at:]
        traffic = self._traffic("demo.away", len(gone) * _EACH_GETS)
        with self._screen.bar("devices leave", len(gone)) as bar:
            await spread(gone, _step(lambda member: member.leave(), bar))
        to_send = [(self._chance.choice(here), member, at) for at in range(_EACH_GETS) for member in gone]
        with self._screen.bar("writing to devices that are away", len(to_send)) as bar:

            async def write(item: tuple[Member, Member, int]) -> None:
                sender, receiver, at = item
                await traffic.send(sender, _address(receiver), {"text": f"for later {at}"})

            await spread(to_send, _step(write, bar))
        too_early = len(traffic.copies)
        traffic.began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(watch(self._screen, traffic, "they come back and get what waited"))
            group.create_task(spread(gone, self.fleet.bring_back))
            await watching
        missed = sum(member.device.missed for member in gone)
        faults = [traffic.fault]
        if too_early:
            faults.append(f"{too_early} came while their device was away")
        if missed:
            faults.append(f"{missed} counted as missed")
        self._add_traffic("device → device, away", traffic, "; ".join(filter(None, faults)))

    async def _readings(self) -> None:
        """Every device writes to the application, which answers."""
        members = self.fleet.members
        traffic = self._readings_sent = self._traffic(READING, len(members))
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(watch(self._screen, traffic, "the application answers"))
            for at, member in enumerate(members):
                celsius = at % 40
                group.create_task(traffic.send(member, "", {"celsius": celsius}, receiver=member.device_id))
            await watching
        faults = [traffic.fault]
        if self._wrong_answers:
            faults.append(f"{self._wrong_answers} wrong answers")
        handled = await self._node.handled(members[0].device, READING, set(traffic.sent))
        if handled != len(traffic.sent):
            faults.append(f"the application counts {handled} readings of {len(traffic.sent)}")
        self._add_traffic("device → app → device", traffic, "; ".join(filter(None, faults)))

    async def _requests(self) -> None:
        """Every device calls a method of the application."""
        members = self.fleet.members
        times: list[float] = []
        right = 0

        async def ask(item: tuple[int, Member]) -> None:
            nonlocal right
            at, member = item
            began = time.perf_counter()
            with suppress(ClientError):
                reply = await member.device.request("demo.sum", [at, at + 1])
                times.append(time.perf_counter() - began)
                right += reply.json() == 2 * at + 1

        with self._screen.bar("calling the application's methods", len(members)) as bar:
            await spread(enumerate(members), _step(ask, bar), _REQUESTS_WIDTH)
        self._add("request → reply", len(members), len(times), right, len(times) / bar.took_s, times)

    # Counting

    def _received(self, member: Member, message: Message) -> None:
        if message.kind == ANSWER:
            answer = message.decode(Answer)
            index = int(member.device_id.rpartition("-")[2]) - 1
            self._wrong_answers += answer.fahrenheit != fahrenheit(index % 40)
            self._readings_sent.arrived(member, bytes.fromhex(answer.to))
        else:
            self._kinds[message.kind].received(member, message)

    def _traffic(self, kind: str, expected: int) -> Traffic:
        traffic = self._kinds[kind] = Traffic(kind, expected)
        return traffic

    def _rule(self) -> None:
        self.report.rows.append(Row(""))

    def _add(
        self, name: str, asked: int, confirmed: int, once: int, rate_per_s: float | None, times: list[float]
    ) -> None:
        fault = "" if asked == confirmed == once else f"{asked} · {confirmed} · {once} are not the same"
        self.report.rows.append(Row(name, asked, confirmed, once, rate_per_s, times, fault))

    def _add_traffic(self, name: str, traffic: Traffic, fault: str | None = None) -> None:
        self.report.rows.append(
            Row(
                name,
                len(traffic.sent),
                traffic.confirmed,
                traffic.once,
                traffic.rate_per_s,
                traffic.delivery_s,
                traffic.fault if fault is None else fault,
            )
        )


def _address(member: Member) -> str:
    return f"device:{member.device_id}"


def _timed(work: Callable[[T], Awaitable[object]], times: list[float], bar: Bar) -> Callable[[T], Awaitable[object]]:
    """The work, with the time it took noted and the bar moved when it is done."""

    async def measured(item: T) -> None:
        began = time.perf_counter()
        await work(item)
        times.append(time.perf_counter() - began)
        bar.advance()

    return measured


def _step(work: Callable[[T], Awaitable[object]], bar: Bar) -> Callable[[T], Awaitable[object]]:
    return _timed(work, [], bar)
