"""A node with metrics, and its page."""

import os
import urllib.request
from collections.abc import Callable, Iterator

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from longwire.testing.engines import free_ports
from longwire.testing.process import NodeProcess

PageOf = Callable[[], dict[str, Metric]]


@pytest.fixture(scope="module")
def metrics_url() -> str:
    return f"http://127.0.0.1:{free_ports(1)[0]}/metrics"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, metrics_url: str) -> Iterator[NodeProcess]:
    """``longwire dev`` with an internal port."""
    port = metrics_url.rpartition(":")[2].partition("/")[0]
    quiet = {"LONGWIRE_INTERNAL_PORT": port, "LONGWIRE_CONSOLE_PORT": "none"}
    node = NodeProcess(tmp_path_factory.mktemp("metrics") / "data", environment={**os.environ, **quiet})
    node.start()
    yield node
    node.stop()


@pytest.fixture
def text(node: NodeProcess, metrics_url: str) -> Callable[[], str]:
    def read() -> str:
        with urllib.request.urlopen(metrics_url, timeout=10) as answer:
            return answer.read().decode()

    return read


@pytest.fixture
def page(text: Callable[[], str]) -> PageOf:
    """The page's families by name."""
    return lambda: {family.name: family for family in text_string_to_metric_families(text())}
