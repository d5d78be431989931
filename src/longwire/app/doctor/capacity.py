"""How many connections this machine can hold, and what the bound is: bytes measured a connection, files, tables."""

from typing import NamedTuple

from longwire.app.doctor.kernel import UNLIMITED, Kernel
from longwire.app.doctor.machine import SOCKET_BYTES, SPARE_FILES, Needs
from longwire.app.doctor.report import Finding, ok, unknown, warning

AREA = "capacity"
PLAIN_BYTES = 1_888
TLS_BYTES = 25_831
"""Of a node's own memory for an idle connection: 15,000 of them measured (docs/performance.md)."""
NODE_BYTES = 150 << 20
"""A process without devices: 141 MB of a cluster's gateway."""
_USABLE = 0.8
"""Of what memory there is: the rest is for messages on their way and for the machine."""


class Capacity(NamedTuple):
    """Idle connections that fit."""

    connections: int
    bound: str
    """What ends first."""
    bounds: dict[str, int]
    """Every bound, by what it is."""
    bytes_each: int
    """Of memory, the kernel's part among them."""


def capacity(kernel: Kernel, needs: Needs) -> Capacity | None:
    """None where memory and files cannot be read."""
    memory, files = kernel.memory_kb("MemTotal"), kernel.rlimit("Max open files")
    if memory is None or files is None or not needs.nodes:
        return None
    # The kernel's part counts for a control group as well.
    usable = min(memory * 1_024, kernel.group_memory_bytes() or UNLIMITED) * _USABLE - needs.nodes * NODE_BYTES
    each = (TLS_BYTES if needs.is_tls else PLAIN_BYTES) + SOCKET_BYTES
    bounds = {
        "memory": max(0, int(usable / each)),
        f"open files of {_nodes(needs.nodes)}": needs.nodes * max(0, files.hard - SPARE_FILES),
        f"limits.max_connections of {_nodes(needs.nodes)}": needs.connections,
    }
    for what, most in (
        ("fs.file-max", kernel.sysctl("fs.file-max")),
        ("nf_conntrack_max", kernel.sysctl("net.netfilter.nf_conntrack_max")),
    ):
        if most is not None:
            bounds[what] = max(0, most - SPARE_FILES)
    bound = min(bounds, key=lambda what: bounds[what])
    return Capacity(bounds[bound], bound, bounds, each)


def look(found: Capacity | None, needs: Needs) -> Finding:
    """What is to be told of it."""
    name = "connections"
    if found is None:
        return unknown(AREA, name, "the machine's memory or files cannot be read")
    way = "with TLS" if needs.is_tls else "without TLS"
    rising = sorted(found.bounds.items(), key=lambda bound: bound[1])
    fact = f"{found.connections:,} idle ones of {found.bytes_each:,} bytes {way}; what bounds them: " + ", ".join(
        f"{what} {most:,}" for what, most in rising
    )
    if found.connections >= needs.connections:
        return ok(AREA, name, fact)
    return warning(
        AREA,
        name,
        fact,
        f"{_nodes(needs.nodes)} may take {needs.connections:,} (limits.max_connections, workers): raise {found.bound},"
        " or set them lower",
    )


def _nodes(count: int) -> str:
    return "1 node" if count == 1 else f"{count} nodes"
