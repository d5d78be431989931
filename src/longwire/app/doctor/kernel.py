"""What the kernel says of this machine: the files of /proc and /sys, read below a root folder, and its clock's state.

Nothing here judges. What cannot be read is None: a container hides files, another kernel has them elsewhere.
"""

import ctypes
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

UNLIMITED = 1 << 62
"""Stands for "unlimited" and "max", so that limits compare."""
_NO_LIMIT_V1 = 1 << 60
_LISTENING = "0A"
_UNSYNCHRONISED = 0x40
_NO_CLOCK = 5
_TIMEX_LONGS = 64


class Rlimit(NamedTuple):
    """A limit of a process."""

    soft: int
    hard: int


class Listening(NamedTuple):
    """A TCP socket that takes connections."""

    address: str
    """As the kernel writes it: hexadecimal, all zeros for any."""
    port: int
    inode: str


class Holder(NamedTuple):
    """The process that has a socket."""

    pid: int
    name: str
    """The program's, without its arguments, which may have secrets in them."""
    is_longwire: bool


class Kernel:
    """Reads the machine below ``root``; ``pid`` is the process whose limits and control group are meant."""

    def __init__(self, root: Path = Path("/"), pid: str = "self") -> None:
        self._root = root
        self._proc = f"proc/{pid}"

    def text(self, path: str) -> str | None:
        """A file's text without the white space around it."""
        try:
            return (self._root / path).read_text("utf-8", "replace").strip()
        except OSError:
            return None

    def numbers(self, path: str) -> list[int]:
        """The whole numbers of a file; "max" is UNLIMITED, and other words are left out."""
        words = (self.text(path) or "").split()
        return [UNLIMITED if word == "max" else int(word) for word in words if word == "max" or word.isdigit()]

    def number(self, path: str) -> int | None:
        """The first of them."""
        return next(iter(self.numbers(path)), None)

    def sysctl(self, name: str) -> int | None:
        """A number below /proc/sys: ``net.core.somaxconn``."""
        return self.number("proc/sys/" + name.replace(".", "/"))

    def has_process(self) -> bool:
        """Whether the process that was named is there."""
        return (self._root / self._proc).is_dir()

    def rlimit(self, name: str) -> Rlimit | None:
        """A limit of the process by its name in /proc/PID/limits: ``Max open files``."""
        for line in (self.text(f"{self._proc}/limits") or "").splitlines():
            if line.startswith(name):
                soft, hard = line[len(name) :].split()[:2]
                return Rlimit(*(UNLIMITED if word == "unlimited" else int(word) for word in (soft, hard)))
        return None

    def memory_kb(self, name: str) -> int | None:
        """A line of /proc/meminfo: ``MemTotal``."""
        for line in (self.text("proc/meminfo") or "").splitlines():
            key, _, value = line.partition(":")
            if key == name:
                return int(value.split()[0])
        return None

    # -- control groups --------------------------------------------------------------------------------------------

    def group_memory_bytes(self) -> int | None:
        """The least memory that a control group above the process allows; None: no limit."""
        found = [*self._group_numbers("memory.max", "memory", "memory.limit_in_bytes")]
        least = min(found, default=UNLIMITED)
        return least if least < _NO_LIMIT_V1 else None

    def group_processes(self) -> int | None:
        """The fewest processes and threads that a control group allows; None: no limit."""
        least = min(self._group_numbers("pids.max", "pids", "pids.max"), default=UNLIMITED)
        return least if least < UNLIMITED else None

    def group_cores(self) -> float | None:
        """The fewest cores that a control group allows; None: no limit."""
        shares = []
        for folder in self._group_folders("cpu"):
            quota = self.numbers(f"{folder}/cpu.max")
            if not quota:
                quota = [*self.numbers(f"{folder}/cpu.cfs_quota_us"), *self.numbers(f"{folder}/cpu.cfs_period_us")]
            if len(quota) == 2 and quota[0] < UNLIMITED and quota[1]:
                shares.append(quota[0] / quota[1])
        return min(shares, default=None)

    def _group_numbers(self, name: str, controller: str, name_v1: str) -> Iterator[int]:
        for folder in self._group_folders(controller):
            for file in dict.fromkeys((name, name_v1)):
                found = self.number(f"{folder}/{file}")
                if found is not None:
                    yield found

    def _group_folders(self, controller: str) -> Iterator[str]:
        """The folders of the process's group and of all above it, in both hierarchies."""
        for line in (self.text(f"{self._proc}/cgroup") or "").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            base = f"sys/fs/cgroup/{controllers}".rstrip("/")
            parts = [part for part in path.split("/") if part not in ("", "..")]
            for depth in range(len(parts), -1, -1):
                yield "/".join([base, *parts[:depth]])

    # -- listening sockets -----------------------------------------------------------------------------------------

    def listening(self) -> list[Listening]:
        """Every TCP socket that takes connections."""
        found = []
        for file in ("proc/net/tcp", "proc/net/tcp6"):
            for line in (self.text(file) or "").splitlines()[1:]:
                words = line.split()
                if len(words) > 9 and words[3] == _LISTENING:
                    address, _, port = words[1].rpartition(":")
                    found.append(Listening(address, int(port, 16), words[9]))
        return found

    def holders(self, inodes: frozenset[str]) -> dict[str, Holder]:
        """Whose the sockets are, by inode. Another user's processes cannot be looked into."""
        wanted = {f"socket:[{inode}]": inode for inode in inodes}
        found: dict[str, Holder] = {}
        for process in sorted((self._root / "proc").glob("[0-9]*"), key=lambda folder: int(folder.name)):
            try:
                targets = {str(link.readlink()) for link in (process / "fd").iterdir()}
            except OSError:
                continue
            for target in targets & wanted.keys():
                # Of several that share it by fork the first, which is the parent, is told.
                found.setdefault(wanted[target], self._holder(process.name))
        return found

    def _holder(self, pid: str) -> Holder:
        words = (self.text(f"proc/{pid}/cmdline") or "").split("\0")
        program = [Path(word).name for word in words[:3]]
        name = "longwire" if "longwire" in program else self.text(f"proc/{pid}/comm") or program[0] or "?"
        return Holder(int(pid), name, name == "longwire")


class ClockState(NamedTuple):
    """The kernel's clock as it is steered."""

    is_synchronised: bool
    most_wrong_ms: float
    """How far from the true time it may be, as whoever steers it says."""


def clock_state() -> ClockState | None:
    """Asks adjtimex(2), which a container may be denied."""
    # struct timex begins: unsigned modes; long offset, freq, maxerror, esterror; int status.
    buffer = (ctypes.c_long * _TIMEX_LONGS)()
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
    except (OSError, AttributeError):
        return None
    if state < 0:
        return None
    status = buffer[5] & 0xFFFFFFFF
    return ClockState(state != _NO_CLOCK and not status & _UNSYNCHRONISED, buffer[3] / 1000)


AskClock = Callable[[], ClockState | None]

PAGE_BYTES = resource.getpagesize()
