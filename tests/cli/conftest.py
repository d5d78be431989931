"""The program as people run it: a real `longwire dev` for the commands to talk to, and the commands themselves."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from longwire.cli import main


@pytest.fixture(autouse=True)
def logs_as_they_were() -> Iterator[None]:
    """Commands that run in this process set up its logs; the tests after them want them as they were."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    root.handlers = handlers


WITHIN_S = 60.0
APPLICATION = """\
from longwire import Longwire
from longwire.application import Context, Reject

app = Longwire()
is_fixed = False


@app.uplink("order")
async def order(text: str, ctx: Context) -> None:
    if text == "broken" and not is_fixed:
        raise Reject("no such article")
    await ctx.reply("done", text)


@app.request("double")
async def double(number: int) -> int:
    return 2 * number


@app.request("fix")
async def fix() -> None:
    global is_fixed
    is_fixed = True
"""


class Outcome(NamedTuple):
    """How a command ended, and what it said."""

    status: int
    out: str
    err: str


class Program:
    """A `longwire` in a process of its own."""

    def __init__(self, folder: Path, *words: str, **environ: str) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.output = folder / "output.txt"
        clean = {name: value for name, value in os.environ.items() if not name.startswith("LONGWIRE_")}
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "longwire.cli", *words],
                cwd=folder,
                env={"LONGWIRE_LOG_FORMAT": "text", "LONGWIRE_CONSOLE_PORT": "none"} | clean | environ,
                stdout=output,
                stderr=output,
            )

    def wait_until(self, is_so: Callable[[], Any], what: str) -> Any:
        """Looks until it is so, or the process ends."""
        until = time.monotonic() + WITHIN_S
        while time.monotonic() < until:
            found = is_so()
            if found:
                return found
            assert self.process.poll() is None, f"ended with {self.process.returncode}: {self.output.read_text()}"
            time.sleep(0.02)
        raise AssertionError(f"not within {WITHIN_S} s: {what}\n{self.output.read_text()}")

    def ready(self, name: str = "dev-credentials.json") -> dict[str, str]:
        """Waits for /readyz; what the credentials file says."""
        file = self.data / name
        credentials = self.wait_until(lambda: file.exists() and json.loads(file.read_text()), str(file))
        url = f"{credentials['http_url']}/readyz"
        self.wait_until(lambda: answers(url), url)
        return json.loads(file.read_text())

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal; the exit status, which must come within ten seconds."""
        self.process.send_signal(number)
        return self.process.wait(10)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def answers(url: str) -> bool:
    try:
        return httpx.get(url, verify=False).status_code == 200
    except httpx.HTTPError:
        return False


Launch = Callable[..., Program]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """`launch("dev", "--port", "0")` in an empty folder, with its data in ./data."""
    programs: list[Program] = []

    def begin(*words: str, **environ: str) -> Program:
        programs.append(Program(tmp_path, *words, **environ))
        return programs[-1]

    yield begin
    for program in programs:
        program.kill()


@pytest.fixture(scope="session")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """One `longwire dev` with an application, for all tests that only talk to it."""
    folder = tmp_path_factory.mktemp("dev")
    (folder / "shop.py").write_text(APPLICATION)
    program = Program(folder, "dev", "shop:app", "--data", "data", "--port", "0", "--http-port", "0")
    try:
        program.ready()
        yield program
    finally:
        program.kill()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Outcome]:
    """Runs a command in this process, in an empty folder and environment."""
    for name in os.environ:
        if name.startswith("LONGWIRE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")

    def command(*words: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["longwire", *map(str, words)])
        capsys.readouterr()
        status = 0
        try:
            main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        return Outcome(status, *capsys.readouterr())

    return command


@pytest.fixture
def at_dev(dev: Program, run: Callable[..., Outcome]) -> Callable[..., Outcome]:
    """Runs a command on the data folder of the running `longwire dev`."""

    def command(*words: object) -> Outcome:
        return run(*words, "--data", dev.data)

    return command
