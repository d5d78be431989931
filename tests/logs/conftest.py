"""One run for all tests here."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from log_run import PLANTED, Run, go

from longwire.testing.process import NodeProcess


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("logging")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LONGWIRE_")}
    settings = {
        "LONGWIRE_LOG_FORMAT": "json",
        "LONGWIRE_CONSOLE_PORT": "none",
        "LONGWIRE_NODE_NAME": "logs",
        "LONGWIRE_OTLP_URL": "http://127.0.0.1:9",
        "LONGWIRE_OTLP_HEADERS": f"authorization={PLANTED}-otlp-header",
        "LONGWIRE_WEBHOOK_PRIVATE_ADDRESSES": "true",
    }
    node = NodeProcess(folder / "data", environment=clean | settings)
    node.start()
    try:
        yield go(node)
    finally:
        if node.is_alive:
            node.kill()
