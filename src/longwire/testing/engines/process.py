"""What /proc says of a process: its children, whether it is gone, and the ports it listens on."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

_LISTEN = "0A"


def family(pid: int) -> Iterator[int]:
    """The process, its children, theirs, and so on; a process is yielded before its children are looked for."""
    yield pid
    for child in _children(pid):
        yield from family(child)


def is_gone(pid: int) -> bool:
    """Whether the process has ended, be it that nobody has asked for its status yet."""
    state = _state_and_parent(pid)
    return state is None or state[0] == "Z"


def listening_ports(pid: int) -> set[int]:
    """The TCP ports on which this very process listens. Raises PermissionError for one of another user."""
    inodes = _listening_inodes()
    found = set()
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                found.add(inodes.get(str(descriptor.readlink()).removeprefix("socket:[").removesuffix("]")))
    return {port for port in found if port is not None}


def _children(pid: int) -> list[int]:
    others = (int(path.name) for path in Path("/proc").glob("[0-9]*"))
    return [other for other in others if (state := _state_and_parent(other)) is not None and state[1] == pid]


def _state_and_parent(pid: int) -> tuple[str, int] | None:
    try:
        # The program's name comes before them, in brackets, and may have blanks and brackets of its own.
        state, parent = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return None
    return state, int(parent)


def _listening_inodes() -> dict[str, int]:
    found = {}
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(FileNotFoundError):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                words = line.split()
                if words[3] == _LISTEN:
                    found[words[9]] = int(words[1].rpartition(":")[2], 16)
    return found
