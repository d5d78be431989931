"""Engines as processes: their ports, their log, their end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from longwire.testing.engines import Engine, EngineFailed, EngineMissing, Redis, base, free_ports
from longwire.testing.engines.process import family, is_gone, listening_ports

_WITHIN_S = 10.0


class Shell(Engine):
    """A script in place of an engine; it listens nowhere."""

    name = "shell"
    ready_within_s = 0.3
    stop_within_s = 0.3
    port_count = 0

    def __init__(self, folder: Path, script: str) -> None:
        super().__init__(folder)
        self.script = script

    def command(self) -> list[str]:
        return ["/bin/sh", "-c", self.script]


class DeafShell(Shell):
    """It never answers."""

    def answers(self) -> bool:
        return False


def until(fact: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _WITHIN_S
    while not fact():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_free_ports_are_apart_and_nobody_else_is_given_them() -> None:
    ports = free_ports(200)
    assert len(set(ports)) == 200
    lowest_given_out = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(1024 < port < lowest_given_out for port in ports) or lowest_given_out <= 4096


def test_nothing_runs_before_start_and_stop_may_come_at_any_time(tmp_path: Path) -> None:
    redis = Redis(tmp_path / "redis")
    assert not redis.is_running
    redis.stop()
    redis.kill()
    with pytest.raises(EngineFailed, match="redis does not run"):
        redis.freeze()
    redis.start()
    pid = redis.pid
    assert redis.start().pid == pid, "a second start changes nothing"
    redis.stop()
    redis.stop()
    assert not redis.is_running
    assert is_gone(pid)


def test_an_engine_that_was_killed_by_others_is_not_running(tmp_path: Path) -> None:
    with Redis(tmp_path) as redis:
        os.kill(redis.pid, signal.SIGKILL)
        until(lambda: not redis.is_running)
        redis.restart()
        assert redis.call("PING") == "+PONG"


def test_a_frozen_engine_answers_nobody_until_it_is_thawed_and_can_be_stopped(tmp_path: Path) -> None:
    with Redis(tmp_path) as redis:
        redis.freeze()
        with pytest.raises(TimeoutError):
            redis.call("PING")
        assert redis.is_running
        redis.thaw()
        assert redis.call("PING") == "+PONG"
        redis.freeze()
        started = time.monotonic()
        redis.stop()
        assert time.monotonic() - started < redis.stop_within_s, "it had to be killed"


def test_a_port_that_was_taken_in_the_meantime_is_picked_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Redis(tmp_path / "first") as first:
        picks = [first.ports]
        monkeypatch.setattr(base, "free_ports", lambda count: picks.pop() if picks else free_ports(count))
        with Redis(tmp_path / "second") as second:
            assert second.port != first.port
            assert second.port in listening_ports(second.pid)
            assert not picks


def test_another_process_on_our_port_is_not_taken_for_the_engine(tmp_path: Path) -> None:
    with Redis(tmp_path / "first") as first:
        second = Redis(tmp_path / "second")
        second.ports = first.ports
        with pytest.raises(EngineFailed, match="Address already in use"):
            second.start()
        assert not second.is_running


def test_an_engine_that_ends_says_so_with_its_log(tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match=r"(?s)redis ended with 1; its log: .*no-such-option"):
        Redis(tmp_path, options=("--no-such-option", "1")).start()


def test_the_log_of_an_earlier_start_does_not_pass_for_this_one(tmp_path: Path) -> None:
    with Shell(tmp_path, "echo first; exec sleep 60") as shell:
        until(lambda: shell.log_text() == "first\n")
        shell.stop()
        shell.script = "echo second; exec sleep 60"
        shell.start()
        until(lambda: shell.log_text() == "second\n")
        assert shell.log.read_text() == "first\nsecond\n"


def test_an_engine_that_never_answers_fails_at_the_deadline_and_leaves_no_process(tmp_path: Path) -> None:
    shell = DeafShell(tmp_path, "echo $$; echo still loading; sleep 60 & wait")
    with pytest.raises(EngineFailed, match=r"(?s)not ready on \[\] within 0.3 s; its log: .*still loading"):
        shell.start()
    assert is_gone(int(shell.log_text().split()[0]))


def test_an_engine_that_will_not_stop_is_killed_with_its_children(tmp_path: Path) -> None:
    with Shell(tmp_path, "trap '' TERM; sleep 60 & sleep 60 & wait") as shell:
        until(lambda: len(list(family(shell.pid))) == 3)
        members = list(family(shell.pid))
        shell.stop()
        assert not shell.is_running
        assert all(is_gone(pid) for pid in members)


def test_freeze_and_thaw_reach_the_children(tmp_path: Path) -> None:
    with Shell(tmp_path, "sleep 60 & sleep 60 & wait") as shell:
        until(lambda: len(list(family(shell.pid))) == 3)
        members = list(family(shell.pid))

        def states() -> set[str]:
            stats = (Path(f"/proc/{pid}/stat").read_text() for pid in members)
            return {stat.rpartition(")")[2].split()[0] for stat in stats}

        shell.freeze()
        until(lambda: states() == {"T"})
        shell.thaw()
        until(lambda: states() == {"S"})


def test_a_missing_program_is_told_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(base, "_FURTHER_FOLDERS", ())
    with pytest.raises(EngineMissing, match="run: make engines"):
        Redis(tmp_path).start()


_PARENT = """
import sys, threading, time
from pathlib import Path
from longwire.testing.engines import MariaDb, Nginx, Postgres, Redis
from longwire.testing.engines.process import family

folder = Path(sys.argv[1])
engines = [Redis(folder / "redis"), MariaDb(folder / "mariadb"), Postgres(folder / "postgres"),
           Nginx(folder / "nginx", "events {}\\nhttp {\\nserver { listen 127.0.0.1:@PORT0@; }\\n}\\n")]
for engine in engines:
    starter = threading.Thread(target=engine.start)
    starter.start()
    starter.join()
time.sleep(0.2)
assert all(engine.is_running for engine in engines), "the end of a thread is no reason to go"
print(*(pid for engine in engines for pid in family(engine.pid)), flush=True)
print(engines[2].data, flush=True)
time.sleep(60)
"""


def test_engines_die_with_the_process_that_started_them_not_with_the_thread(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _PARENT, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stderr is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) >= 8, parent.stderr.read()
        folder = Path(parent.stdout.readline().strip())
        assert not any(is_gone(pid) for pid in pids)
        parent.kill()
    until(lambda: all(is_gone(pid) for pid in pids))
    subprocess.run(["rm", "-rf", str(folder)], check=True)
