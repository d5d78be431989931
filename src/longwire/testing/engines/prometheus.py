"""Prometheus on a configuration that the test writes, and asked over HTTP."""

import json
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from longwire.testing.engines.base import Engine, find_program

_ANSWERS_WITHIN_S = 10.0


class Prometheus(Engine):
    """One Prometheus. What its configuration names by relative paths lies in ``folder``."""

    name = "prometheus"

    def __init__(self, folder: Path, config_text: str) -> None:
        super().__init__(folder)
        self._config_text = config_text

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def configure(self) -> None:
        (self.folder / "prometheus.yml").write_text(self._config_text)

    def command(self) -> list[str]:
        return [
            find_program("prometheus", self.name),
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=warn",
        ]

    def answers(self) -> bool:
        with urllib.request.urlopen(f"{self.url}/-/ready", timeout=_ANSWERS_WITHIN_S) as answer:  # noqa: S310 - loopback
            return bool(answer.status == 200)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series that it gives now; [] for none. Raises HTTPError for an expression that is none."""
        found: list[dict[str, Any]] = self._get("query", query=expression)["result"]
        return found

    def targets(self) -> list[dict[str, Any]]:
        """What it scrapes, and how that went."""
        found: list[dict[str, Any]] = self._get("targets")["activeTargets"]
        return found

    def _get(self, what: str, **parameters: str) -> Any:
        address = f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(address, timeout=_ANSWERS_WITHIN_S) as answer:  # noqa: S310 - loopback
            return json.load(answer)["data"]
