"""How evenly each strategy of placement spreads devices while nodes come and go: docs/placement.md.

    python -m bench.placement            # writes docs/placement.svg and prints the table

Nothing is connected: devices, nodes and apis are numbers, the placing is the program's own. The same seed gives the
same table; only the microseconds depend on the machine.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec.structs import replace

from longwire.accounts.placement import Placement
from longwire.accounts.placing import PlacementStrategy
from longwire.adapters.embedded.registry import EmbeddedRegistry
from longwire.model import NodeInfo

NODES = 10
DEVICES = 20_000
APIS = 3
PUBLISH_EVERY = 500
"""Devices that come between two figures of a node: two seconds at 250 a second."""
SAMPLE_EVERY = 500
COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd")
HEADS = (
    "strategy",
    "ten nodes filled",
    "a node joined: moved",
    "spread",
    "a node died: moved",
    "spread",
    "weight 4 of 8",
    "a choice of 10",
    "of 200",
)
PLOT = Path(__file__).parents[1] / "docs" / "placement.svg"


def info(node_id: str, weight: float = 1.0) -> NodeInfo:
    return NodeInfo(node_id, "h", 7300, None, "ws://h:7300/ws", weight=weight)


class Fleet:
    """Nodes, devices that are on them, and apis that place by what the nodes last published."""

    def __init__(self, strategy: PlacementStrategy) -> None:
        self.registry = EmbeddedRegistry()
        self.apis = [Placement(self.registry, strategy, random_=random.Random(seed)) for seed in range(APIS)]
        self.where: dict[int, str] = {}
        self.held: Counter[str] = Counter()
        self.placed = 0
        self.moved = 0
        self.fullest: list[float] = []

    def place(self, device: int) -> None:
        """The device connects, or connects again."""
        before = self.where.get(device)
        if before is not None:
            self.held[before] -= 1
        node_id = self.apis[self.placed % APIS].choose(f"d-{device}").node_id
        self.held[node_id] += 1
        self.where[device] = node_id
        self.moved += before is not None and before != node_id
        self.placed += 1
        if self.placed % PUBLISH_EVERY == 0:
            self.publish()
        if self.placed % SAMPLE_EVERY == 0:
            self.fullest.append(self.against_mean(max))

    def publish(self) -> None:
        for node in self.registry.nodes():
            self.registry.update(replace(node, connections=self.held[node.node_id], figures_at_ms=self.placed))

    async def die(self, node_id: str) -> None:
        """A node is gone, and its devices come again at once."""
        await self.registry.leave(node_id)
        for device in [device for device, on in self.where.items() if on == node_id]:
            self.place(device)

    def against_mean(self, of: Callable[[list[int]], int]) -> float:
        counts = [self.held[node.node_id] for node in self.registry.nodes()]
        return of(counts) * len(counts) / sum(counts)


async def story(strategy: PlacementStrategy) -> tuple[Fleet, list[tuple[float, float, float]]]:
    """Ten nodes fill; an eleventh joins; one dies. Between: every device connects again once, in random order.

    After each of the three the emptiest and fullest against the mean, and the share of devices that changed nodes.
    """
    fleet, order, told = Fleet(strategy), random.Random(1), []
    for at in range(NODES):
        await fleet.registry.register(info(f"n{at:02}~1"))

    def tell() -> None:
        told.append((fleet.against_mean(min), fleet.against_mean(max), fleet.moved / DEVICES))
        fleet.moved = 0

    def everybody_again() -> None:
        for device in order.sample(range(DEVICES), DEVICES):
            fleet.place(device)

    for device in range(DEVICES):
        fleet.place(device)
    tell()
    await fleet.registry.register(info("n10~1"))
    everybody_again()
    tell()
    await fleet.die("n03~1")
    everybody_again()
    tell()
    return fleet, told


async def weighed(strategy: PlacementStrategy) -> float:
    """The share that a node of weight 4 gets beside four of weight 1; half would be its due."""
    fleet = Fleet(strategy)
    for at in range(5):
        await fleet.registry.register(info(f"n{at}~1", weight=4.0 if at == 0 else 1.0))
    for device in range(DEVICES):
        fleet.place(device)
    return fleet.held["n0~1"] / DEVICES


async def cost_us(strategy: PlacementStrategy, nodes: int, choices: int = 2_000) -> float:
    """What one choice costs, in microseconds."""
    registry = EmbeddedRegistry()
    for at in range(nodes):
        await registry.register(info(f"n{at:03}~1"))
    placement = Placement(registry, strategy, random_=random.Random(1))
    placement.choose("warm")
    began = time.perf_counter()
    for device in range(choices):
        placement.choose(f"d-{device}")
    return (time.perf_counter() - began) / choices * 1e6


def svg(lines: dict[str, list[float]], marks: dict[str, float]) -> str:
    """The fullest node against the mean, over the devices placed. ``marks``: where along the way, from 0 to 1."""
    width, height, left, top = 720, 320, 50, 20
    low, high = 1.0, max(1.3, *(max(values[4:]) for values in lines.values()))

    def x(share: float) -> float:
        return left + share * (width - left - 20)

    def y(value: float) -> float:
        return top + (high - min(value, high)) / (high - low) * (height - top - 60)

    def drawn() -> Iterator[str]:
        yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        yield f'font-size="12"><rect width="{width}" height="{height}" fill="white"/>'
        for step in range(int((high - low) / 0.1) + 1):
            value = low + step * 0.1
            yield f'<line x1="{left}" x2="{width - 20}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#ddd"/>'
            yield f'<text x="{left - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.1f}</text>'
        for word, at in marks.items():
            yield f'<line x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{top}" y2="{height - 60}" stroke="#888" '
            yield f'stroke-dasharray="4"/><text x="{x(at) + 4:.1f}" y="{top + 10}">{word}</text>'
        for at, (name, values) in enumerate(lines.items()):
            points = " ".join(f"{x(n / (len(values) - 1)):.1f},{y(v):.1f}" for n, v in enumerate(values))
            yield f'<polyline points="{points}" fill="none" stroke="{COLOURS[at]}" stroke-width="1.5"/>'
            yield f'<text x="{left + at * 130}" y="{height - 12}" fill="{COLOURS[at]}">{name}</text>'
        yield f'<text x="{left}" y="{height - 36}">fullest node against the mean, over the devices placed</text>'
        yield "</svg>\n"

    return "".join(drawn())


async def main() -> None:
    lines: dict[str, list[float]] = {}
    dead_at = 0.0
    print("| " + " | ".join(HEADS) + " |")
    print("|" + "---|" * len(HEADS))
    for strategy in PlacementStrategy:
        fleet, (filled, joined, died) = await story(strategy)
        lines[strategy] = fleet.fullest
        dead_at = 2 * DEVICES / fleet.placed
        cells = [
            f"`{strategy}`",
            f"{filled[0]:.2f} – {filled[1]:.2f}",
            f"{joined[2]:.0%}",
            f"{joined[0]:.2f} – {joined[1]:.2f}",
            f"{died[2]:.0%}",
            f"{died[0]:.2f} – {died[1]:.2f}",
            f"{await weighed(strategy):.0%}",
            f"{await cost_us(strategy, 10):.0f} µs",
            f"{await cost_us(strategy, 200):.0f} µs",
        ]
        print("| " + " | ".join(cells) + " |")
    PLOT.write_text(svg(lines, {"a node joins": dead_at / 2, "a node dies": dead_at}))


if __name__ == "__main__":
    import asyncio

    asyncio.run(main())
