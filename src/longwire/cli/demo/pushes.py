"""The demo's steps with pushes: to tags, to everyone, to devices that are away, and one that is cancelled.

Each is made by POST /v1/pushes, as a backend would. What the API counts is set beside what the fleet itself got.
"""

import asyncio
import random
import time
from collections.abc import Callable, Iterable
from typing import Any

import httpx

from longwire.cli.demo.fleet import Fleet, Member, spread
from longwire.cli.demo.node import Target
from longwire.cli.demo.report import Funnel, Report, Screen
from longwire.cli.demo.traffic import WITHIN_S, Arrivals, PushArrivals, watch
from longwire.cli.funnel import STATES, difference
from longwire.cli.text import Failure

Push = dict[str, Any]

_LOOK_EVERY_S = 0.1
_BATCH = 1_000
_SHARES = {"north": 0.5, "south": 0.3, "vip": 0.4, "muted": 0.2}
"""The tags, and how many of the fleet get each."""
_EXPRESSION = {"any": ["north", "south"], "all": ["vip"], "none": ["muted"]}
_MEMBER = "demo"
"""The tag of the whole fleet, where there are others beside it."""
_PACED_FOR_S = 3.0
_STILL_S = 2.0
"""For so long after a cancel nothing more may come."""


class Pushes:
    """The steps, in the order of ``run``. ``kinds`` is told who counts the arrivals of a kind."""

    def __init__(
        self,
        fleet: Fleet,
        node: Target,
        screen: Screen,
        report: Report,
        chance: random.Random,
        kinds: dict[str, Arrivals[Any]],
    ) -> None:
        self._fleet = fleet
        self._screen = screen
        self._report = report
        self._chance = chance
        self._kinds = kinds
        self._everyone = [member.device_id for member in fleet.members]
        self._run = node.run
        self._to_everyone: Push = {"tags": {"any": [self._tag_of(_MEMBER)]}} if node.run else {"all": True}
        self._http = httpx.AsyncClient(
            base_url=node.http_url,
            headers={"Authorization": f"Bearer {node.credentials['api_key']}"},
            verify=node.http_url.startswith("https:"),
            timeout=30.0,
        )

    async def run(self) -> None:
        """All of them. Raises Failure where the API refuses; what does not add up is in the report."""
        async with self._http:
            await self._to_tags(await self._tag())
            await self._to_all()
            await self._to_those_away()
            await self._cancelled()

    # Steps

    async def _tag(self) -> dict[str, set[str]]:
        """Gives each tag to devices of its own choice; who has which."""
        tags = {
            tag: set(self._chance.sample(self._everyone, round(len(self._everyone) * share)))
            for tag, share in _SHARES.items()
        }
        if self._run:
            tags[_MEMBER] = set(self._everyone)
        with self._screen.bar("tagging devices", sum(map(len, tags.values()))) as bar:
            for tag, devices in tags.items():
                names = sorted(devices)
                for at in range(0, len(names), _BATCH):
                    part = names[at : at + _BATCH]
                    await self._call("POST", f"/v1/tags/{self._tag_of(tag)}/devices", {"add": part})
                    bar.advance(len(part))
        return tags

    async def _to_tags(self, tags: dict[str, set[str]]) -> None:
        meant = set.union(*(tags[tag] for tag in _EXPRESSION["any"]))
        meant = meant.intersection(*(tags[tag] for tag in _EXPRESSION["all"]))
        meant = meant.difference(*(tags[tag] for tag in _EXPRESSION["none"]))
        arrivals = self._expect("tags", meant)
        expression = {word: [self._tag_of(tag) for tag in tags] for word, tags in _EXPRESSION.items()}
        push = await self._push(arrivals, {"tags": expression})
        await watch(self._screen, arrivals, "a push to (north or south) and vip, not muted")
        push = await self._once(push, lambda now: now["status"] == "completed")
        self._add("to tags", push, arrivals)

    async def _to_all(self) -> None:
        arrivals = self._expect("all", self._everyone)
        push = await self._push(arrivals, self._to_everyone)
        await watch(self._screen, arrivals, "a push to everyone")
        push = await self._once(push, lambda now: now["status"] == "completed")
        self._add("to all", push, arrivals)

    async def _to_those_away(self) -> None:
        """Some leave; a push to all; they come back and get it."""
        members = list(self._fleet.members)
        self._chance.shuffle(members)
        cut_at = max(1, len(members) * 15 // 100)
        gone, here = members[:cut_at], members[cut_at:]
        await spread(gone, Member.leave)
        arrivals = self._expect("away", self._everyone, len(here))
        push = await self._push(arrivals, self._to_everyone)
        await watch(self._screen, arrivals, "a push to everyone while some are away")
        push = await self._once(push, lambda now: now["stats"]["acked"] >= len(here))
        self._add("some away", push, arrivals, pending=len(gone))
        arrivals.expect(len(members))
        arrivals.delivery_s.clear()
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(watch(self._screen, arrivals, "they come back and get the push"))
            group.create_task(spread(gone, self._fleet.bring_back))
            await watching
        push = await self._once(push, lambda now: now["status"] == "completed")
        self._add("they are back", push, arrivals)

    async def _cancelled(self) -> None:
        """A push at a rate, ended at half."""
        half = len(self._everyone) // 2
        arrivals = self._expect("cancelled", self._everyone, half)
        rate = max(1, round(len(self._everyone) / _PACED_FOR_S))
        push = await self._push(arrivals, self._to_everyone, {"rate_per_s": rate})
        await watch(self._screen, arrivals, f"a push of {rate:,}/s, cancelled at half")
        await self._call("POST", f"/v1/pushes/{push['id']}/cancel")
        push = await self._once(push, lambda now: now["stats"]["pending"] == 0)
        await asyncio.sleep(_STILL_S)
        push = await self._call("GET", f"/v1/pushes/{push['id']}")
        self._add("cancelled", push, arrivals, canceled=len(self._everyone) - len(arrivals.copies))

    # Calls and counts

    def _tag_of(self, name: str) -> str:
        return f"{name}-{self._run}" if self._run else name

    def _expect(self, name: str, audience: Iterable[str], expected: int | None = None) -> PushArrivals:
        kind = f"demo.push.{name}"
        arrivals = PushArrivals(kind, list(audience), expected)
        self._kinds[kind] = arrivals
        return arrivals

    async def _push(self, arrivals: PushArrivals, audience: Push, options: Push | None = None) -> Push:
        body = {
            "audience": audience,
            "message": {"kind": arrivals.kind, "payload": {"title": "hello"}},
            "options": options or {},
        }
        arrivals.began = time.perf_counter()
        return await self._call("POST", "/v1/pushes", body)

    async def _once(self, push: Push, is_so: Callable[[Push], bool]) -> Push:
        """The push as it stands when it is so, or after the longest that may take."""
        until = time.perf_counter() + WITHIN_S
        while True:
            push = await self._call("GET", f"/v1/pushes/{push['id']}")
            if is_so(push) or time.perf_counter() > until:
                return push
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _call(self, method: str, path: str, body: object = None) -> Push:
        try:
            answer = await self._http.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise Failure(f"{method} {path}: {error or type(error).__name__}") from error
        if answer.is_error:
            raise Failure(f"{method} {path} was answered {answer.status_code}: {answer.text[:300]}")
        found: Push = answer.json()
        return found

    def _add(self, name: str, push: Push, arrivals: PushArrivals, **others: int) -> None:
        """Notes what became of a push; ``others``: who of its audience is in another state than acked."""
        stats = push["stats"]
        should = {"targeted": len(arrivals.audience), "acked": arrivals.once} | dict.fromkeys(STATES[1:], 0) | others
        faults = [
            f"{state} {stats[state]} should be {count}" for state, count in should.items() if stats[state] != count
        ]
        if missing := difference(stats):
            faults.append(f"its states miss {missing} of its targets")
        if len(arrivals.copies) < arrivals.expected:
            faults.append(f"{arrivals.expected - len(arrivals.copies)} lost")
        if arrivals.repeated:
            faults.append(f"{arrivals.repeated} more than once")
        if arrivals.astray:
            faults.append(f"{arrivals.astray} astray")
        self._report.funnels.append(
            Funnel(
                name,
                dict(stats),
                len(arrivals.audience),
                arrivals.once,
                list(arrivals.delivery_s),
                ", ".join(faults),
            )
        )
