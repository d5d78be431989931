"""This machine beside what the settings let Longwire do with it: files, queues, memory, clock, software.

Each check is a function of the kernel's files and the needs; none waits, writes or asks the network.
"""

import platform
import shlex
import sqlite3
import ssl
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

from longwire.app.doctor.kernel import PAGE_BYTES, UNLIMITED, AskClock, Kernel
from longwire.app.doctor.report import Finding, failure, ok, unknown, warning
from longwire.net.listener import BACKLOG

AREA = "machine"
SPARE_FILES = 256
"""Files of a process beside its devices' connections."""
SOCKET_BYTES = 5_120
"""What the kernel keeps for an idle TCP connection: 4,502 bytes were measured (slab, Linux 6.18), and epoll's part."""

_PYTHONS = ((3, 11), (3, 14))
_UVLOOP = (0, 23)
_SQLITE = (3, 35)
_SPARE_PROCESSES = 256
_SWAPPINESS = 10
_MOST_WRONG_MS = 500.0
_MB = 1 << 20


class Needs(NamedTuple):
    """What the settings let this machine's processes have."""

    nodes: int
    """Gateway nodes here; 0: none."""
    max_connections: int
    """Of each."""
    is_tls: bool

    @property
    def connections(self) -> int:
        return self.nodes * self.max_connections

    @property
    def files(self) -> int:
        """Of one process."""
        return self.max_connections + SPARE_FILES if self.nodes else 1_024


def look(kernel: Kernel, needs: Needs, ask_clock: AskClock) -> Iterator[Finding]:
    """Every check of the machine."""
    yield open_files(kernel, needs)
    yield all_files(kernel, needs)
    yield files_of_a_process(kernel, needs)
    if needs.nodes:
        yield accept_queue(kernel)
        yield handshake_queue(kernel)
        yield socket_memory(kernel, needs)
        yield connection_tracking(kernel, needs)
    yield processes(kernel)
    yield cores(kernel, needs)
    yield memory(kernel)
    yield swap(kernel)
    yield overcommit(kernel)
    yield huge_pages(kernel)
    yield clock(ask_clock)
    yield from software()


def open_files(kernel: Kernel, needs: Needs) -> Finding:
    name = "open files"
    limit = kernel.rlimit("Max open files")
    if limit is None:
        return unknown(AREA, name, "the limits of the process cannot be read")
    fact = f"{_count(limit.hard)} a process may open; {needs.files:,} are needed"
    if limit.hard >= needs.files:
        return ok(AREA, name, fact)
    return failure(
        AREA,
        name,
        fact,
        f"allow at least {needs.files:,}: LimitNOFILE= in a unit of systemd, ulimit -n in a shell;"
        " or set limits.max_connections lower",
        f"ulimit -n {needs.files}",
    )


def all_files(kernel: Kernel, needs: Needs) -> Finding:
    name = "open files of the machine"
    most = kernel.sysctl("fs.file-max")
    if most is None:
        return unknown(AREA, name, "fs.file-max cannot be read")
    used = kernel.number("proc/sys/fs/file-nr") or 0
    wanted = used + max(1, needs.nodes) * needs.files
    fact = f"fs.file-max is {_count(most)}; {used:,} are open"
    if most >= wanted:
        return ok(AREA, name, fact)
    return failure(AREA, name, fact, f"{wanted:,} are needed", f"sysctl -w fs.file-max={2 * wanted}")


def files_of_a_process(kernel: Kernel, needs: Needs) -> Finding:
    name = "fs.nr_open"
    most = kernel.sysctl(name)
    if most is None:
        return unknown(AREA, name, "it cannot be read")
    fact = f"no process may be allowed more than {most:,} open files"
    if most >= needs.files:
        return ok(AREA, name, fact)
    return failure(AREA, name, fact, f"{needs.files:,} are needed", f"sysctl -w fs.nr_open={needs.files}")


def accept_queue(kernel: Kernel) -> Finding:
    name = "net.core.somaxconn"
    most = kernel.sysctl(name)
    if most is None:
        return unknown(AREA, name, "it cannot be read")
    fact = f"{most:,} connections may wait to be taken; Longwire asks for {BACKLOG:,}"
    if most >= BACKLOG:
        return ok(AREA, name, fact)
    return warning(
        AREA, name, fact, "when many devices come back at once, some are dropped and try again", _set(name, BACKLOG)
    )


def handshake_queue(kernel: Kernel) -> Finding:
    name = "net.ipv4.tcp_max_syn_backlog"
    most = kernel.sysctl(name)
    if most is None:
        return unknown(AREA, name, "it cannot be read")
    has_cookies = bool(kernel.sysctl("net.ipv4.tcp_syncookies"))
    fact = f"{most:,} handshakes of TCP may be open, {'and then' if has_cookies else 'without'} SYN cookies"
    if most >= BACKLOG or has_cookies:
        return ok(AREA, name, fact)
    return warning(AREA, name, fact, "a flood of connects loses its handshakes", _set(name, BACKLOG))


def socket_memory(kernel: Kernel, needs: Needs) -> Finding:
    name = "net.ipv4.tcp_mem"
    pages = kernel.numbers("proc/sys/net/ipv4/tcp_mem")
    if len(pages) != 3:
        return unknown(AREA, name, "it cannot be read")
    # A connection that is busy has a page each way, as the smallest buffers of tcp_rmem and tcp_wmem.
    each = sum(next(iter(kernel.numbers(f"proc/sys/net/ipv4/tcp_{way}mem")), PAGE_BYTES) for way in "rw")
    wanted = needs.connections * each // PAGE_BYTES
    fact = (
        f"buffers of TCP may have {pages[2] * PAGE_BYTES // _MB:,} MB, which is enough for"
        f" {pages[2] * PAGE_BYTES // each:,} busy connections of {each:,} bytes"
    )
    if pages[2] >= wanted:
        return ok(AREA, name, fact)
    return warning(
        AREA,
        name,
        fact,
        f"{needs.connections:,} connections are allowed; when they are busy at once the kernel drops some",
        f"sysctl -w {name}='{wanted // 2} {wanted * 3 // 4} {wanted}'",
    )


def connection_tracking(kernel: Kernel, needs: Needs) -> Finding:
    name = "net.netfilter.nf_conntrack_max"
    most = kernel.sysctl(name)
    if most is None:
        return ok(AREA, name, "the kernel does not track connections")
    used = kernel.sysctl("net.netfilter.nf_conntrack_count") or 0
    wanted = needs.connections + needs.connections // 4
    fact = f"the firewall tracks at most {most:,} connections, now {used:,}"
    if most >= wanted:
        return ok(AREA, name, fact)
    return failure(
        AREA,
        name,
        fact,
        f"{needs.connections:,} devices are allowed; beyond the table new connections are dropped without a word",
        _set(name, wanted),
    )


def processes(kernel: Kernel) -> Finding:
    name = "processes and threads"
    limits = {
        "kernel.pid_max": kernel.sysctl("kernel.pid_max"),
        "kernel.threads-max": kernel.sysctl("kernel.threads-max"),
        "pids.max of the control group": kernel.group_processes(),
        "ulimit -u": getattr(kernel.rlimit("Max processes"), "hard", None),
    }
    known = {what: most for what, most in limits.items() if most is not None}
    if not known:
        return unknown(AREA, name, "no limit of them can be read")
    what, most = min(known.items(), key=lambda item: item[1])
    fact = f"at most {_count(most)} ({what})"
    if most >= _SPARE_PROCESSES:
        return ok(AREA, name, fact)
    return warning(AREA, name, fact, f"a process has up to 40 threads: allow {_SPARE_PROCESSES} and more")


def cores(kernel: Kernel, needs: Needs) -> Finding:
    name = "cores"
    there = len([1 for line in (kernel.text("proc/cpuinfo") or "").splitlines() if line.startswith("processor")])
    if not there:
        return unknown(AREA, name, "they cannot be counted")
    allowed = kernel.group_cores()
    usable = min(there, allowed or there)
    fact = f"{there}" if allowed is None else f"{there}, of which the control group allows {allowed:g}"
    if usable >= needs.nodes:
        return ok(AREA, name, fact)
    return warning(
        AREA, name, fact, f"a node uses one core, and there are {needs.nodes} (workers): they take turns", ""
    )


def memory(kernel: Kernel) -> Finding:
    name = "memory"
    there, free = kernel.memory_kb("MemTotal"), kernel.memory_kb("MemAvailable")
    if there is None or free is None:
        return unknown(AREA, name, "/proc/meminfo cannot be read")
    fact = f"{there // 1_024:,} MB, {free // 1_024:,} MB available"
    allowed = kernel.group_memory_bytes()
    if allowed is not None:
        fact += f"; the control group allows {allowed // _MB:,} MB"
    if free > there // 20:
        return ok(AREA, name, fact)
    return warning(AREA, name, fact, "less than 5 % is left: the kernel will end processes")


def swap(kernel: Kernel) -> Finding:
    name = "swap"
    there, free = kernel.memory_kb("SwapTotal"), kernel.memory_kb("SwapFree")
    if there is None or free is None:
        return unknown(AREA, name, "/proc/meminfo cannot be read")
    if not there:
        return ok(AREA, name, "none")
    swappiness = kernel.sysctl("vm.swappiness")
    fact = f"{there // 1_024:,} MB, {(there - free) // 1_024:,} MB in use; vm.swappiness is {swappiness}"
    if swappiness is None or swappiness <= _SWAPPINESS:
        return ok(AREA, name, fact)
    return warning(
        AREA, name, fact, "memory of idle devices goes to the disk, and their node stalls", "sysctl -w vm.swappiness=1"
    )


def overcommit(kernel: Kernel) -> Finding:
    name = "vm.overcommit_memory"
    mode = kernel.sysctl(name)
    if mode is None:
        return unknown(AREA, name, "it cannot be read")
    if mode != 2:
        return ok(AREA, name, f"{mode}")
    return warning(
        AREA, name, "2: the kernel refuses memory that might not be there", "a fork of workers may fail", _set(name, 0)
    )


def huge_pages(kernel: Kernel) -> Finding:
    name = "transparent huge pages"
    path = "sys/kernel/mm/transparent_hugepage/enabled"
    text = kernel.text(path)
    if text is None:
        return ok(AREA, name, "none")
    chosen = text.partition("[")[2].partition("]")[0]
    if chosen != "always":
        return ok(AREA, name, chosen)
    return warning(
        AREA, name, chosen, "memory of many small things grows, and pauses come with it", f"echo madvise > /{path}"
    )


def clock(ask: AskClock) -> Finding:
    name = "clock"
    state = ask()
    if state is None:
        return unknown(AREA, name, "the kernel does not say whether it is synchronised", "see timedatectl")
    if not state.is_synchronised:
        return warning(
            AREA,
            name,
            "nothing synchronises it with the time of the network, as far as the kernel knows",
            "times of messages, tokens and logs differ between machines; in a virtual machine the host may do it",
            "timedatectl set-ntp true",
        )
    fact = f"synchronised, at most {state.most_wrong_ms:.0f} ms wrong"
    if state.most_wrong_ms <= _MOST_WRONG_MS:
        return ok(AREA, name, fact)
    return warning(AREA, name, fact, "its source is far or has been away for long", "timedatectl timesync-status")


def software() -> Iterator[Finding]:
    """What this process runs on."""
    low, high = _PYTHONS
    told = f"{platform.python_version()}, {ssl.OPENSSL_VERSION}, Linux {platform.release()}"
    if low <= sys.version_info[:2] < high:
        yield ok(AREA, "Python", told)
    else:
        yield warning(AREA, "Python", told, "Longwire is tested on 3.11, 3.12 and 3.13")
    yield _library("uvloop", _UVLOOP, "earlier ones can hand one connection's bytes to another")
    if sqlite3.sqlite_version_info >= _SQLITE:
        yield ok(AREA, "SQLite", sqlite3.sqlite_version)
    else:
        advice = "the embedded store needs 3.35"
        yield failure(AREA, "SQLite", sqlite3.sqlite_version, advice)


def _library(name: str, least: tuple[int, int], why: str) -> Finding:
    try:
        found = version(name)
    except PackageNotFoundError:
        return failure(AREA, name, "not installed", why, f"pip install {shlex.quote(name)}")
    numbers = tuple(int(part) for part in found.split(".")[:2] if part.isdigit())
    if numbers >= least:
        return ok(AREA, name, found)
    wanted = ".".join(map(str, least))
    return failure(AREA, name, found, why, f"pip install '{name}>={wanted}'")


def _count(value: int) -> str:
    return "any number of" if value >= UNLIMITED else f"{value:,}"


def _set(name: str, value: int) -> str:
    return f"sysctl -w {name}={value}"
