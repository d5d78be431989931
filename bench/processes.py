"""Starting, watching and ending the servers under test.

Only processes started here are ever ended, and by their pid. Memory and CPU are read from /proc, for the process and
its children, so that a server does not look small because it works in several processes.
"""

import os
import resource
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

READY_WITHIN_S = 30.0
STOP_WITHIN_S = 15.0


class ServerFailedError(Exception):
    """A server under test did not start, or died; the text ends with the last lines it wrote."""


def raise_file_limit() -> None:
    """Let servers have as many files as this user may: 15,000 connections need more than the usual 1,024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on. All are held open while choosing: else the kernel may give one of them twice."""
    held = [socket.socket() for _ in range(count)]
    try:
        for sock in held:
            sock.bind(("127.0.0.1", 0))
        return [int(sock.getsockname()[1]) for sock in held]
    finally:
        for sock in held:
            sock.close()


@dataclass(frozen=True)
class Memory:
    """What a process tree holds: Pss counts a page shared by n processes as 1/n."""

    pss_kb: int
    rss_kb: int


@dataclass(frozen=True)
class ServerProcess:
    """One running server."""

    popen: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.popen.pid

    def require_alive(self) -> None:
        """Raises ServerFailedError when the process has ended."""
        if self.popen.poll() is not None:
            tail = self.log.read_text(errors="replace").strip().splitlines()[-8:]
            raise ServerFailedError(f"ended with {self.popen.returncode}: " + " | ".join(tail))

    def wait_until(self, is_ready: Callable[[], bool], within_s: float = READY_WITHIN_S) -> None:
        """Polls until ready; raises ServerFailedError when the process dies first or the time is over."""
        deadline = time.monotonic() + within_s
        while not is_ready():
            self.require_alive()
            if time.monotonic() > deadline:
                raise ServerFailedError(f"not ready after {within_s:.0f} s")
            time.sleep(0.05)

    def memory(self) -> Memory:
        """Pss and RSS of the process and all its descendants, now."""
        pss = rss = 0
        try:
            maps = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in _tree(self.pid)]
        except (FileNotFoundError, ProcessLookupError) as gone:
            self.require_alive()
            raise ServerFailedError("a child of the server ended while its memory was read") from gone
        for text in maps:
            for line in text.splitlines():
                name, _, rest = line.partition(":")
                if name == "Pss":
                    pss += int(rest.split()[0])
                elif name == "Rss":
                    rss += int(rest.split()[0])
        return Memory(pss, rss)

    def cpu_s(self) -> float:
        """User and system time of the process and its descendants so far."""
        return cpu_s(_tree(self.pid))

    def forget_peak(self) -> None:
        """From now on `peak_kb` is of the time since. Raises ServerFailedError where the kernel does not do that."""
        try:
            Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        except OSError as refused:
            self.require_alive()
            raise ServerFailedError(f"the peak of its memory cannot be reset here: {refused.strerror}") from refused

    def peak_kb(self) -> int:
        """The most that the process itself held (RSS)."""
        return self._status_kb("VmHWM")

    def rss_kb(self) -> int:
        """What the process itself holds now, without its children."""
        return self._status_kb("VmRSS")

    def _status_kb(self, name: str) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
        raise ServerFailedError(f"the kernel does not tell {name}")

    def settled_memory(self, at_least_s: float, at_most_s: float = 20.0) -> Memory:
        """The memory once it stands still: two readings a second apart within 0.2 %."""
        started = time.monotonic()
        last = self.memory()
        while True:
            time.sleep(1.0)
            self.require_alive()
            current = self.memory()
            waited_s = time.monotonic() - started
            is_still = abs(current.pss_kb - last.pss_kb) <= 0.002 * last.pss_kb
            if (is_still and waited_s >= at_least_s) or waited_s >= at_most_s:
                return current
            last = current


def cpu_s(pids: Iterable[int]) -> float:
    """User and system time of these processes so far."""
    ticks = 0
    for pid in pids:
        after_name = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        ticks += int(after_name[11]) + int(after_name[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _tree(pid: int) -> Iterator[int]:
    yield pid
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        yield from _tree(int(child))


def answers_tcp(port: int) -> bool:
    """Whether somebody accepts on this port of 127.0.0.1."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


@contextmanager
def started(command: list[str], folder: Path, environment: dict[str, str]) -> Iterator[ServerProcess]:
    """Runs `command` in `folder`, with these variables besides our own; its output goes to server.log there.

    SIGTERM at the end, SIGKILL if it stays.
    """
    log = folder / "server.log"
    with log.open("ab") as output:
        popen = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in the terminal ends the harness first, which then ends the server
        )
    try:
        yield ServerProcess(popen, log)
    finally:
        popen.terminate()
        try:
            popen.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            popen.kill()
            popen.wait()
