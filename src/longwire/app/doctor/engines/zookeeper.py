"""ZooKeeper: each server that ``zookeeper_hosts`` names, by a session with it and by its ``srvr`` word."""

import asyncio
import re
import struct
import time

from longwire.app.doctor.engines import answered, away, version_of
from longwire.app.doctor.report import Finding, failure, ok, unknown, warning
from longwire.app.settings import Settings

AREA = "ZooKeeper"
_LEAST = (3, 5)
_WITHIN_S = 4.0
# ConnectRequest: length, protocol version, last zxid seen, timeout, session id, length of the password, password.
_CONNECT = struct.Struct(">iiqiqi16s")
_ANSWER = struct.Struct(">iiiq")
# length, xid, type: closeSession
_CLOSE = struct.pack(">iii", 8, 1, -11)


async def look(settings: Settings) -> list[Finding]:
    """Every check of every server."""
    hosts = [host for host in (settings.zookeeper_hosts or "").partition("/")[0].split(",") if host]
    found = await asyncio.gather(*(_server(host.strip(), settings.zookeeper_session_s) for host in hosts))
    if len(hosts) == 1 and len(found[0]) > 1:
        fact = "zookeeper_hosts names one server"
        found[0].append(warning(AREA, "servers", fact, "name all of an ensemble, of three at least"))
    if any(one[0].state == "ok" for one in found):
        # One of several that is away is what an ensemble is for.
        for one in found:
            if one[0].state == "failure":
                one[0] = warning(AREA, one[0].name, one[0].fact, "the others do its work; bring it back")
    return [finding for one in found for finding in one]


async def _server(host: str, session_s: float) -> list[Finding]:
    name, _, port = host.rpartition(":")
    place = (name, int(port)) if port.isdigit() and name else (host, 2181)
    began = time.perf_counter()
    try:
        async with asyncio.timeout(_WITHIN_S):
            granted_s = await _session(place, session_s)
            reached = answered(AREA, host, began)
            told = await _word(place, b"srvr")
    except (OSError, EOFError, TimeoutError, struct.error) as error:
        why = str(error) or f"not within {_WITHIN_S:g} s"
        return [away(AREA, "zookeeper_hosts", host, why, "no node comes or goes meanwhile")]
    return [reached, session(host, granted_s, session_s), *_told(host, told)]


async def _session(place: tuple[str, int], session_s: float) -> float:
    """Begins a session and ends it; how long it was granted, 0 where the server serves nobody."""
    reader, writer = await asyncio.open_connection(*place)
    try:
        writer.write(_CONNECT.pack(_CONNECT.size - 4, 0, 0, int(session_s * 1_000), 0, 16, bytes(16)))
        granted_ms: int = _ANSWER.unpack(await reader.readexactly(_ANSWER.size))[2]
        writer.write(_CLOSE)
        await writer.drain()
        return granted_ms / 1_000
    finally:
        writer.close()


async def _word(place: tuple[str, int], word: bytes) -> str:
    reader, writer = await asyncio.open_connection(*place)
    try:
        writer.write(word)
        return (await reader.read(1 << 16)).decode("utf-8", "replace")
    finally:
        writer.close()


def session(host: str, granted_s: float, wanted_s: float) -> Finding:
    """The server bounds the session by its minSessionTimeout and maxSessionTimeout."""
    name = f"session with {host}"
    fact = f"{granted_s:g} s granted of {wanted_s:g} s (zookeeper_session_s)"
    if granted_s == wanted_s:
        return ok(AREA, name, fact)
    if not granted_s:
        return failure(AREA, name, "none is granted", "the ensemble has no leader: see its servers")
    bound = "minSessionTimeout" if granted_s > wanted_s else "maxSessionTimeout"
    late = "a dead node is believed alive for longer" if granted_s > wanted_s else "a slow node is taken for dead"
    return warning(AREA, name, fact, f"{late}: set {bound} of the server, or zookeeper_session_s")


def _told(host: str, told: str) -> list[Finding]:
    version = re.search(r"^Zookeeper version: (\d+)\.(\d+)\.(\d+)", told, re.MULTILINE)
    mode = re.search(r"^Mode: (\w+)", told, re.MULTILINE)
    if version is None or mode is None:
        fact = f"{host} does not answer to srvr"
        return [unknown(AREA, "version", fact, "4lw.commands.whitelist=srvr in its zoo.cfg would let it")]
    found = version_of(AREA, "ZooKeeper", tuple(map(int, version.groups())), _LEAST)
    alone = mode[1] == "standalone"
    fact = f"{host}: {mode[1]}"
    if alone:
        return [found, warning(AREA, "mode", fact, "with it, no node comes or goes: run three servers")]
    return [found, ok(AREA, "mode", fact)]
