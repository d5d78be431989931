"""A process that is told to stop while event streams are open: it stops in time, and each stream ends in order."""

import asyncio
import time

import httpx
from push_fleet import Fleet, Operator

STOPS_WITHIN_S = 10.0


async def watch(http: httpx.AsyncClient, path: str, begun: asyncio.Semaphore) -> list[str]:
    """The events of a stream until it ends; a stream that is cut off raises."""
    seen: list[str] = []
    async with http.stream("GET", path) as answer:
        assert answer.status_code == 200, path
        async for line in answer.aiter_lines():
            if line.startswith("event: "):
                seen.append(line.removeprefix("event: "))
                begun.release()
    return seen


async def test_streams_that_are_open_at_a_stop_are_ended_and_hold_nothing_up(node) -> None:
    async with Fleet(node, ["away"]), Operator(node) as operator:
        push = await operator.push({"all": True})
        answer = await operator.http.post(
            "/v1/device-imports", content="{}\n" * 10, headers={"Content-Type": "application/x-ndjson"}
        )
        paths = [f"/v1/pushes/{push['id']}/events", "/v1/stats/stream"] * 10
        imported = f"{answer.headers['location']}/events"
        begun = asyncio.Semaphore(0)
        watching = [asyncio.create_task(watch(operator.http, path, begun)) for path in [*paths, imported]]
        async with asyncio.timeout(30):
            for _ in watching:
                await begun.acquire()
        started = time.monotonic()
        assert await asyncio.to_thread(node.stop) == 0, node.log.read_text()
        assert time.monotonic() - started < STOPS_WITHIN_S
        async with asyncio.timeout(5):
            seen = await asyncio.gather(*watching)
    assert all(events[0] in ("progress", "end") for events in seen)
    assert all("end" not in events for events in seen[: len(paths)])
    log = node.log.read_text()
    assert "Traceback" not in log, log
    assert "graceful shutdown exceeded" not in log, log
