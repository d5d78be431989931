"""The ports that the settings name: free, taken by Longwire, or by somebody else; and who else may take them."""

import ipaddress
from collections.abc import Iterator
from typing import NamedTuple

from longwire.app.doctor.kernel import Kernel, Listening
from longwire.app.doctor.report import Finding, failure, ok, unknown, warning

AREA = "ports"


class Wanted(NamedTuple):
    """A port that a process is to listen on."""

    setting: str
    host: str
    port: int


def look(kernel: Kernel, wanted: list[Wanted]) -> Iterator[Finding]:
    """Each port, and the range that the kernel takes ports of outgoing connections from."""
    listening = kernel.listening()
    taken = {one: [at for at in listening if at.port == one.port and _meets(at, one.host)] for one in wanted}
    holders = kernel.holders(frozenset(at.inode for found in taken.values() for at in found))
    for one, found in taken.items():
        name = f"{one.setting} {one.port}"
        if not found:
            yield ok(AREA, name, "free")
            continue
        held = [holders[at.inode] for at in found if at.inode in holders]
        if not held:
            yield unknown(
                AREA, name, "taken, by another user's process", "look who has it", f"sudo ss -ltnp sport = :{one.port}"
            )
        elif held[0].is_longwire:
            yield ok(AREA, name, f"Longwire listens (process {held[0].pid})")
        else:
            fact = f"taken by {held[0].name} (process {held[0].pid})"
            yield failure(AREA, name, fact, f"end that process, or set {one.setting} to another port")
    if wanted:
        yield outgoing(kernel, wanted)


def outgoing(kernel: Kernel, wanted: list[Wanted]) -> Finding:
    name = "net.ipv4.ip_local_port_range"
    found = kernel.numbers("proc/sys/net/ipv4/ip_local_port_range")
    if len(found) != 2:
        return unknown(AREA, name, "it cannot be read")
    low, high = found
    reserved_text = kernel.text("proc/sys/net/ipv4/ip_local_reserved_ports") or ""
    reserved = _ranges(reserved_text)
    exposed = sorted(
        {
            one.port
            for one in wanted
            if low <= one.port <= high and not any(first <= one.port <= last for first, last in reserved)
        }
    )
    fact = f"{low}-{high}: {high - low + 1:,} ports for outgoing connections to one address, none for devices"
    if not exposed:
        return ok(AREA, name, fact)
    listed = ",".join(map(str, exposed))
    all_reserved = f"{reserved_text},{listed}".strip(",")
    return warning(
        AREA,
        name,
        f"{low}-{high} has {listed} in it",
        "an outgoing connection may have the port when Longwire starts: reserve it",
        f"sysctl -w net.ipv4.ip_local_reserved_ports={all_reserved}",
    )


def _ranges(text: str) -> list[tuple[int, int]]:
    pairs = [part.partition("-") for part in text.split(",") if part]
    return [(int(first), int(last or first)) for first, _, last in pairs]


def _meets(at: Listening, host: str) -> bool:
    """Whether a listener there keeps another one from listening at ``host``; a name meets any."""
    try:
        wanted = ipaddress.ip_address(host)
    except ValueError:
        return True
    bound = _address(at.address)
    return bound.is_unspecified or wanted.is_unspecified or bound == wanted


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The kernel writes each 32 bits as a number of this machine, whose least byte is the first (little endian)."""
    words = [bytes.fromhex(text[at : at + 8])[::-1] for at in range(0, len(text), 8)]
    address = ipaddress.ip_address(b"".join(words))
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address
