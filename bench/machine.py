"""The machine facts that stand beside every figure: enough to judge it by, nothing that names the machine."""

import os
import platform
import re
import subprocess
from pathlib import Path

from longwire import __version__

ROOT = Path(__file__).resolve().parent.parent


def _first_match(path: Path, pattern: str) -> str:
    found = re.search(pattern, path.read_text(), re.MULTILINE)
    return found.group(1) if found else "unknown"


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=10)
    except FileNotFoundError:
        return ""
    return done.stdout.strip()


def commit() -> str:
    """The commit under test, `+dirty` where the tree differs from it, `none` before the first."""
    name = _output("git", "rev-parse", "--short", "--verify", "--quiet", "HEAD") or "none"
    return name + ("+dirty" if _output("git", "status", "--porcelain") else "")


def facts() -> dict[str, str | int | float]:
    """Cores, memory, kernel, versions, and how busy the machine was before we began."""
    memory_kb = int(_first_match(Path("/proc/meminfo"), r"^MemTotal:\s+(\d+)"))
    return {
        "cores": os.cpu_count() or 0,
        "cpu": _first_match(Path("/proc/cpuinfo"), r"^model name\s*:\s*(.+)$"),
        "memory_gib": round(memory_kb / 2**20, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "compiler": _output("cc", "--version").partition("\n")[0],
        "longwire": __version__,
        "commit": commit(),
        "load_average_before": round(os.getloadavg()[0], 2),
    }
