"""Nodes that are killed, filled up and flooded: each in a process of its own."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))

from longwire.testing.process import NodeProcess


@pytest.fixture
def new_node(tmp_path: Path) -> Iterator[Callable[..., NodeProcess]]:
    """Makes nodes; those that live at the end of the test are stopped, and must stop well."""
    made: list[NodeProcess] = []

    def make(folder: Path | None = None, **options: object) -> NodeProcess:
        made.append(NodeProcess(folder or tmp_path / f"data-{len(made)}", **options))
        made[-1].start()
        return made[-1]

    yield make
    for node in made:
        if node.is_alive:
            assert node.stop() == 0, node.log.read_text(errors="replace")


@pytest.fixture
def node(new_node: Callable[..., NodeProcess]) -> NodeProcess:
    return new_node()
