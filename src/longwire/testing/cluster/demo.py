"""``longwire demo`` against a cluster, in a process of its own whose end is awaited while a table is shown."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

APPLICATION = "longwire.cli.demo.application:app"
"""What the cluster's gateways and sinks have to serve for it."""
_LAST_WORDS = "Ctrl-C ends it"
_STOPS_WITHIN_S = 30.0


class DemoRun:
    """One run. ``log`` has all that it says; it does not outlive us."""

    def __init__(
        self, http_url: str, keys: Mapping[str, str], devices: int, columns: int, log: Path, *, stays: bool = False
    ) -> None:
        """``stays``: its devices stay connected when all is counted."""
        self._log = log
        variables = {f"LONGWIRE_{name.upper()}": keys[name] for name in ("api_key", "app_key", "app_secret")}
        command = [sys.executable, "-m", "longwire.cli.demo.process", "demo"]
        with log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - ours
                [*command, "--against", http_url, "--devices", str(devices), *(["--stay"] if stays else [])],
                env={**os.environ, **variables, "COLUMNS": str(columns)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for us
            )

    @property
    def status(self) -> int | None:
        """The exit status; None while it runs."""
        return self._process.poll()

    @property
    def is_done(self) -> bool:
        """Whether it has counted everything, or ended."""
        return self.status is not None or _LAST_WORDS in self.said

    @property
    def said(self) -> str:
        return self._log.read_text("utf-8", "replace")

    @property
    def last_line(self) -> str:
        lines = self.said.rstrip().splitlines()
        return lines[-1] if lines else "begins"

    def stop(self) -> None:
        """Ends it where it still runs."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(_STOPS_WITHIN_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
