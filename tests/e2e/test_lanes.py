"""Lanes under load: what is urgent overtakes what is under way to many devices."""

import asyncio
from collections import defaultdict
from typing import Any

from push_fleet import Fleet, Operator, ended

LOW = 12
NAMES = [f"d-{n:04d}" for n in range(2_000)]
ASKED = NAMES[::200]


async def test_urgent_pushes_and_messages_overtake_broadcasts_to_2000_devices(node) -> None:
    """All are posted at once, the urgent ones last: without lanes they would come last."""
    kinds: defaultdict[str, list[str]] = defaultdict(list)
    async with Fleet(node, NAMES) as fleet, Operator(node) as operator:
        keep = fleet._take

        def take(name: str, message: Any) -> None:
            kinds[name].append(message.kind)
            keep(name, message)

        fleet._take = take  # type: ignore[method-assign]
        await fleet.come()
        low = [operator.push({"all": True}, "low", n, priority="low") for n in range(LOW)]
        high = operator.push({"all": True}, "high", priority="high")
        messages = [
            operator.call("POST", "/v1/messages", {"to": f"device:{name}", "kind": "one"}, 202) for name in ASKED
        ]
        pushes = (await asyncio.gather(*low, high, *messages))[: LOW + 1]
        for push in pushes:
            push = await operator.until(push["id"], ended)
            assert (push["status"], push["stats"]["acked"]) == ("completed", len(NAMES))
        await fleet.got("one", len(ASKED))
    assert {(got.count("low"), got.count("high")) for got in kinds.values()} == {(LOW, 1)}
    overtaken = {
        kind: [name for name, got in kinds.items() if kind in got and got[-1] != kind] for kind in ("high", "one")
    }
    assert len(overtaken["high"]) > 0.95 * len(NAMES)
    assert len(overtaken["one"]) > 0.8 * len(ASKED)
