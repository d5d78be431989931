"""The strategies of placement: which of the nodes that may be given a device is given.

A strategy gets the candidates (not draining; with room and not to be avoided where there are such) in the order of
their ids and knows what else lives. It never waits, and costs a step per node at the most.
"""

import hashlib
import random
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from enum import StrEnum
from math import ceil
from typing import Protocol

from longwire.model import NodeInfo

LOAD_FACTOR = 1.25
"""Consistent hash: a node is given no device while it holds this much more than its share."""
POINTS = 100
"""Consistent hash: a node's points on the ring, times its weight."""
_MOST_POINTS = 1_000
_LEAST_WEIGHT = 0.01
# Where a node counts as busy, and where as wholly so; it then counts for so many times more than it holds.
_CPU_BUSY, _CPU_FULL = 0.5, 1.0
_LAG_BUSY_MS, _LAG_FULL_MS = 20.0, 200.0
_BUSY_FACTOR = 4.0


class PlacementStrategy(StrEnum):
    """How the api chooses a node; the setting ``placement``."""

    AUTO = "auto"
    ROUND_ROBIN = "round_robin"
    WEIGHTED = "weighted"
    HASH = "hash"
    CONSISTENT_HASH = "consistent_hash"


class Cluster(Protocol):
    """What a strategy may know besides the candidates."""

    live: Sequence[NodeInfo]
    """All nodes that do not drain, by id, candidates or not."""

    def connections(self, node: NodeInfo) -> int:
        """What the node said it holds, and what it was given since."""
        ...


class Strategy(Protocol):
    """Chooses one of at least one candidate."""

    def pick(self, device_id: str, candidates: Sequence[NodeInfo], cluster: Cluster) -> NodeInfo: ...


class RoundRobin:
    """Each in turn."""

    def __init__(self, random_: random.Random) -> None:
        self._turn = random_.randrange(1 << 16)  # so that apis that start together do not go in step

    def pick(self, device_id: str, candidates: Sequence[NodeInfo], cluster: Cluster) -> NodeInfo:
        self._turn += 1
        return candidates[self._turn % len(candidates)]


class Hash:
    """The device's hash modulo the number of nodes; the next by id where that one is no candidate."""

    def pick(self, device_id: str, candidates: Sequence[NodeInfo], cluster: Cluster) -> NodeInfo:
        live = cluster.live
        at = hash_of(device_id) % len(live)
        return next(_among(candidates, (live[(at + step) % len(live)] for step in range(len(live)))))


class ConsistentHash:
    """A ring with bounded load (Mirrokni, Thorup, Zadimoghaddam: Consistent Hashing with Bounded Loads, 2018).

    The first node clockwise of the device's hash that holds less than LOAD_FACTOR times its share. The ring is made
    anew only where nodes come, go or change their weight.
    """

    def __init__(self) -> None:
        self._of: list[tuple[str, float]] = []
        self._points: list[int] = []
        self._owners: list[int] = []

    def pick(self, device_id: str, candidates: Sequence[NodeInfo], cluster: Cluster) -> NodeInfo:
        live = cluster.live
        self._build(live)
        share = (sum(map(cluster.connections, live)) + 1) / sum(map(weight_of, live))
        first = None
        for node in _among(candidates, self._clockwise(hash_of(device_id), live)):
            if cluster.connections(node) < ceil(LOAD_FACTOR * share * weight_of(node)):
                return node
            first = first or node
        return first or candidates[0]

    def _build(self, live: Sequence[NodeInfo]) -> None:
        of = [(node.node_id, weight_of(node)) for node in live]
        if of == self._of:
            return
        ring = sorted(
            (hash_of(f"{node_id}#{point}"), owner)
            for owner, (node_id, weight) in enumerate(of)
            for point in range(min(max(round(POINTS * weight), 1), _MOST_POINTS))
        )
        self._of, self._points, self._owners = of, [at for at, _ in ring], [owner for _, owner in ring]

    def _clockwise(self, at: int, live: Sequence[NodeInfo]) -> Iterator[NodeInfo]:
        """Each node once."""
        seen: set[int] = set()
        start = bisect_left(self._points, at)
        for step in range(len(self._owners)):
            owner = self._owners[(start + step) % len(self._owners)]
            if owner not in seen:
                seen.add(owner)
                yield live[owner]
                if len(seen) == len(live):
                    return


class Weighted:
    """In turn, in proportion to the nodes' weights, and spread out (nginx's smooth weighted round robin)."""

    def __init__(self) -> None:
        self._credit: dict[str, float] = {}

    def pick(self, device_id: str, candidates: Sequence[NodeInfo], cluster: Cluster) -> NodeInfo:
        self._credit = {node.node_id: self._credit.get(node.node_id, 0.0) for node in cluster.live}
        for node in candidates:
            self._credit[node.node_id] += weight_of(node)
        best = max(candidates, key=lambda node: self._credit[node.node_id])
        self._credit[best.node_id] -= sum(map(weight_of, candidates))
        return best


class Auto:
    """Of two different nodes drawn by weight, the one that holds less for its weight; busy ones count for more.

    Two choices rather than the least of all: figures are seconds old and several apis see the same ones, and the
    least of all would be given everybody until its next figures. So a new node of n gets at most 2/n of what comes.
    """

    def __init__(self, random_: random.Random) -> None:
        self._random = random_

    def pick(self, device_id: str, candidates: Sequence[NodeInfo], cluster: Cluster) -> NodeInfo:
        first = self._draw(candidates)
        others = [node for node in candidates if node is not first]
        if not others:
            return first
        second = self._draw(others)
        return min(first, second, key=lambda node: fullness(node, cluster.connections(node)))

    def _draw(self, nodes: Sequence[NodeInfo]) -> NodeInfo:
        return self._random.choices(nodes, [weight_of(node) for node in nodes])[0]


def strategy_of(name: PlacementStrategy, random_: random.Random) -> Strategy:
    match name:
        case PlacementStrategy.AUTO:
            return Auto(random_)
        case PlacementStrategy.ROUND_ROBIN:
            return RoundRobin(random_)
        case PlacementStrategy.WEIGHTED:
            return Weighted()
        case PlacementStrategy.HASH:
            return Hash()
        case PlacementStrategy.CONSISTENT_HASH:
            return ConsistentHash()


def fullness(node: NodeInfo, connections: int) -> float:
    """How much the node holds for its weight; up to nine times that where its processor and its loop are busy."""
    busy = _part(node.cpu_share, _CPU_BUSY, _CPU_FULL) + _part(node.loop_lag_ms, _LAG_BUSY_MS, _LAG_FULL_MS)
    return (connections + 1) / weight_of(node) * (1 + _BUSY_FACTOR * busy)


def weight_of(node: NodeInfo) -> float:
    return max(node.weight, _LEAST_WEIGHT)


def hash_of(text: str) -> int:
    """64 bits, the same in every process and release."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def _part(value: float, low: float, high: float) -> float:
    return min(max((value - low) / (high - low), 0.0), 1.0)


def _among(candidates: Sequence[NodeInfo], nodes: Iterator[NodeInfo]) -> Iterator[NodeInfo]:
    allowed = {node.node_id for node in candidates}
    return (node for node in nodes if node.node_id in allowed)
