"""What a node publishes of itself: paced, when it changed noticeably, and now and then all the same."""

import asyncio
import time

import pytest
from msgspec.structs import replace

from longwire.adapters.embedded.registry import EmbeddedRegistry
from longwire.gateway.load import REPEATED_AFTER_S, WINDOW_S, CpuShare, Load
from longwire.model import NodeInfo
from longwire.net.wheel import TICK_S
from longwire.testing import ManualClock


class Publishing:
    """A node of which only the figures are there."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.registry = EmbeddedRegistry()
        self.now = NodeInfo("a~1", "h", 1, None, "ws://h:1/ws")
        self.load = Load(self.registry, self.info, self.clock)

    def info(self) -> NodeInfo:
        return replace(self.now, cpu_share=self.load.cpu_share, loop_lag_ms=self.load.loop_lag_ms)

    @property
    def published(self) -> NodeInfo:
        return self.registry.nodes()[0]

    def tick(self, seconds: float, *, late_s: float = 0.0) -> int:
        """Ticks for so long; how many publications there were."""
        count, end = 0, self.clock.monotonic() + seconds
        while self.clock.monotonic() < end:
            before = self.published
            self.clock.advance(TICK_S + late_s)
            self.load.tick()
            count += self.published is not before
        return count


@pytest.fixture
async def node(monkeypatch) -> Publishing:
    monkeypatch.setattr("longwire.gateway.load._cpu_s", lambda: 0.0)
    node = Publishing()
    await node.registry.register(node.now)
    return node


def test_a_noticeable_change_is_published_within_the_window_and_no_more_often(node) -> None:
    node.tick(WINDOW_S)
    assert node.published.figures_at_ms == node.clock.now_ms()
    node.now = replace(node.now, connections=100)
    assert node.tick(WINDOW_S) == 1
    assert node.published.connections == 100
    published = 0
    for count in range(100):
        node.now = replace(node.now, connections=200 + 50 * count)
        published += node.tick(TICK_S)
    assert published <= 100 * TICK_S / WINDOW_S + 1


def test_what_hardly_changes_is_published_only_now_and_then(node) -> None:
    node.now = replace(node.now, connections=10_000)
    node.tick(WINDOW_S)
    node.now = replace(node.now, connections=10_150)
    assert node.tick(REPEATED_AFTER_S - WINDOW_S) == 0
    assert node.tick(2 * WINDOW_S) == 1
    assert node.published.connections == 10_150
    assert node.tick(10 * REPEATED_AFTER_S) <= 11


def test_a_late_loop_is_published_and_forgotten_when_it_is_in_time_again(node) -> None:
    node.tick(2 * WINDOW_S, late_s=0.05)
    assert node.published.loop_lag_ms == pytest.approx(50.0)
    node.tick(2 * WINDOW_S)
    assert node.published.loop_lag_ms == 0.0


def test_a_node_that_drains_says_so_within_the_window(node) -> None:
    node.tick(WINDOW_S)
    node.now = replace(node.now, is_draining=True)
    node.tick(WINDOW_S)
    assert node.published.is_draining


async def test_a_node_that_has_left_publishes_nothing(node) -> None:
    await node.registry.leave("a~1")
    node.clock.advance(WINDOW_S)
    node.load.tick()
    assert node.registry.nodes() == []


async def test_the_share_of_the_processor_is_what_the_process_used() -> None:
    clock = ManualClock()
    cpu = CpuShare(clock)
    end = time.process_time() + 0.1
    while time.process_time() < end:
        await asyncio.sleep(0)
    clock.advance(1.0)
    share = cpu.look()
    assert 0.05 <= share <= 1.0
    assert cpu.look() == share
