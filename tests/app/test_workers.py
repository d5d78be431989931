"""Workers: started, started again, rolled and stopped by a parent that does nothing else."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PROGRAM = """
import logging, os, signal, sys, time
from pathlib import Path
from longwire.app import workers
from longwire.app.settings import load
from longwire.app.workers import run_workers

folder = Path(sys.argv[1])
workers._FIRST_PAUSE_S = 0.05
workers._STOPS_WITHIN_S = 1.0
settings = load(
    {
        "store_url": "mysql+asyncmy://db/lw", "redis_url": "redis://cache", "kafka_servers": "log",
        "zookeeper_hosts": "zoo", "cluster_secret": "s" * 32, "roles": "gateway", "workers": 3, "drain_s": 0,
    },
    {},
).settings
logging.basicConfig(level="INFO")

def run_one(own, ready):
    (folder / f"{own.node_name}.{os.getpid()}").write_text(f"{own.port} {os.getppid()} {os.getpgid(0)}")
    WORK

sys.exit(run_workers(settings, run_one))
"""
STAYS = """
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    ready()
    (folder / f"up.{os.getpid()}").touch()
    while True:
        time.sleep(10)
"""
DOES_NOT_GO = STAYS.replace("os._exit(0)", '(folder / f"told.{os.getpid()}").touch()')


class Parent:
    """The program as it runs; its workers leave files in ``folder``."""

    def __init__(self, folder: Path, work: str) -> None:
        self.folder = folder
        program = PROGRAM.replace("    WORK\n", work)
        self.log = folder / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen([sys.executable, "-c", program, str(folder)], stderr=log)

    def started(self) -> dict[int, str]:
        """By process id, the name of each worker that ever was."""
        found = (path.name.rpartition(".") for path in self.folder.glob("node-*"))
        return {int(pid): name for name, _, pid in found}

    def count(self, what: str) -> int:
        """How many workers are ``up``, or were ``told`` to end and have not."""
        return len(list(self.folder.glob(f"{what}.*")))

    def living(self) -> list[int]:
        """Those of one moment: where somebody was started while it looked, it looks again."""
        while True:
            started = self.started()
            living = [pid for pid in started if Path(f"/proc/{pid}").exists()]
            if self.started() == started:
                return living

    def said(self, text: str) -> int:
        return len(re.findall(text, self.log.read_text()))


def wait_until(is_so: Callable[[], object], within_s: float = 20) -> None:
    over = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < over
        time.sleep(0.01)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[[str], Parent]]:
    parents: list[Parent] = []

    def start(work: str = STAYS) -> Parent:
        parents.append(Parent(tmp_path, work))
        return parents[-1]

    yield start
    for parent in parents:
        parent.process.kill()
        parent.process.wait()
        for pid in parent.living():
            os.kill(pid, signal.SIGKILL)


def test_each_worker_has_settings_of_its_own_and_all_end_with_their_parent(run, tmp_path: Path) -> None:
    parent = run()
    wait_until(lambda: len(parent.started()) == 3)
    ports = {}
    for pid, name in parent.started().items():
        wait_until(lambda pid=pid, name=name: (tmp_path / f"{name}.{pid}").read_text())
        port, parent_pid, group = map(int, (tmp_path / f"{name}.{pid}").read_text().split())
        ports[name] = port
        assert (parent_pid, group) == (parent.process.pid, pid)
    assert ports == {"node-1": 7300, "node-2": 7301, "node-3": 7302}
    parent.process.send_signal(signal.SIGTERM)
    assert parent.process.wait(20) == 0
    assert parent.living() == []


def test_a_worker_that_dies_is_started_again_alone(run) -> None:
    parent = run()
    wait_until(lambda: len(parent.started()) == 3)
    before = parent.started()
    victim = next(pid for pid, name in before.items() if name == "node-2")
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: len(parent.started()) == 4)
    assert [name for pid, name in parent.started().items() if pid not in before] == ["node-2"]
    assert parent.said("worker node-2 ended of signal SIGKILL; it is started again in 0.05 s") == 1
    assert len(parent.living()) == 3


def test_no_worker_outlives_a_parent_that_is_killed(run) -> None:
    parent = run()
    wait_until(lambda: len(parent.started()) == 3)
    parent.process.kill()
    parent.process.wait()
    wait_until(lambda: not parent.living())


def test_workers_that_never_get_ready_end_their_parent_with_their_status(run) -> None:
    parent = run("    return 7\n")
    assert parent.process.wait(20) == 7
    assert parent.said(r"ended with status 7 5 times before any was ready") == 1


def test_a_hangup_restarts_them_one_after_the_other(run) -> None:
    parent = run("    time.sleep(0.1)\n" + STAYS)
    wait_until(lambda: parent.count("up") == 3)
    parent.process.send_signal(signal.SIGHUP)
    fewest = 3
    over = time.monotonic() + 20
    while len(parent.started()) < 6:
        fewest = min(fewest, len(parent.living()))
        assert time.monotonic() < over
    assert fewest == 2
    assert sorted(parent.started().values()) == ["node-1", "node-1", "node-2", "node-2", "node-3", "node-3"]
    assert parent.said("started again in") == 0


def test_a_worker_that_does_not_go_is_killed(run) -> None:
    parent = run(DOES_NOT_GO)
    wait_until(lambda: parent.count("up") == 3)
    parent.process.send_signal(signal.SIGTERM)
    assert parent.process.wait(20) == 1
    assert parent.living() == []


def test_a_second_interrupt_ends_them_at_once(run) -> None:
    parent = run(DOES_NOT_GO)
    wait_until(lambda: parent.count("up") == 3)
    parent.process.send_signal(signal.SIGINT)
    wait_until(lambda: parent.count("told") == 3)
    parent.process.send_signal(signal.SIGINT)
    wait_until(lambda: parent.process.poll() is not None, 0.9)
    assert parent.living() == []
