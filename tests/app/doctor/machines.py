"""A machine made of files: what the doctor reads of /proc and /sys, each test with its own."""

import ipaddress
from pathlib import Path

from longwire.app.doctor.kernel import Kernel

_LIMITS = "Limit                     Soft Limit           Hard Limit           Units\n"
_HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"


class Machine:
    """The files, below a folder; what a test does not say is that of a machine in order."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.limits(open_files=65_536)
        self.meminfo(total_mb=16_384, available_mb=12_000)
        self.put("proc/self/cgroup", "0::/system.slice/longwire.service")
        self.put("proc/cpuinfo", "processor\t: 0\nprocessor\t: 1\n")
        self.put("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never")
        for name, value in {
            "fs.file-max": "9223372036854775807",
            "fs.file-nr": "1024\t0\t9223372036854775807",
            "fs.nr_open": "1048576",
            "kernel.pid_max": "32768",
            "kernel.threads-max": "190000",
            "net.core.somaxconn": "4096",
            "net.ipv4.tcp_max_syn_backlog": "1024",
            "net.ipv4.tcp_syncookies": "1",
            "net.ipv4.tcp_mem": "190000\t250000\t380000",
            "net.ipv4.tcp_rmem": "4096\t131072\t6291456",
            "net.ipv4.tcp_wmem": "4096\t16384\t4194304",
            "net.ipv4.ip_local_port_range": "32768\t60999",
            "net.ipv4.ip_local_reserved_ports": "",
            "vm.overcommit_memory": "0",
            "vm.swappiness": "60",
        }.items():
            self.sysctl(name, value)

    def kernel(self, pid: str = "self") -> Kernel:
        return Kernel(self.root, pid)

    def put(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")

    def remove(self, path: str) -> None:
        (self.root / path).unlink()

    def sysctl(self, name: str, value: object) -> None:
        self.put("proc/sys/" + name.replace(".", "/"), str(value))

    def limits(self, open_files: int | str, pid: str = "self") -> None:
        lines = [("Max processes", 63_000, "processes"), ("Max open files", open_files, "files")]
        self.put(f"proc/{pid}/limits", _LIMITS + "".join(f"{n:<25} 1024 {most!s:<20} {u}\n" for n, most, u in lines))

    def meminfo(self, total_mb: int, available_mb: int, swap_mb: int = 0) -> None:
        kb = {"MemTotal": total_mb, "MemAvailable": available_mb, "SwapTotal": swap_mb, "SwapFree": swap_mb}
        self.put("proc/meminfo", "\n".join(f"{name}:   {value * 1024} kB" for name, value in kb.items()))

    def listens(self, address: str, port: int, pid: int | None, *argv: str) -> None:
        """A process takes connections; without a pid it is one that this user may not look into."""
        inode = str(10_000 + port)
        own = ipaddress.ip_address(address)
        words = [own.packed[at : at + 4][::-1].hex().upper() for at in range(0, len(own.packed), 4)]
        file = f"proc/net/tcp{'6' if own.version == 6 else ''}"
        there = (self.root / file).read_text().rstrip("\n") if (self.root / file).exists() else _HEAD
        line = (
            f"   0: {''.join(words)}:{port:04X} 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 {inode} 1"
        )
        self.put(file, f"{there}\n{line}")
        if pid is not None:
            self.put(f"proc/{pid}/cmdline", "\0".join(argv))
            self.put(f"proc/{pid}/comm", Path(argv[0]).name[:15])
            (self.root / f"proc/{pid}/fd").mkdir()
            (self.root / f"proc/{pid}/fd/7").symlink_to(f"socket:[{inode}]")
