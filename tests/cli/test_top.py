"""``longwire top``: what it draws, once on a running `longwire dev`, and live on a terminal."""

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from longwire.cli.top import Look, View, columns_of, drawn

Run = Callable[..., Any]

_UNKNOWN = {"p50": None, "p95": None, "p99": None}
_ESCAPES = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]")


def node(name: str, connections: int | None, **more: Any) -> dict[str, Any]:
    """As the API lists it; without connections it does not answer."""
    is_silent = connections is None
    rates = dict.fromkeys(
        ("connects_per_s", "closes_per_s", "uplink_per_s", "downlink_per_s", "acks_per_s"), None if is_silent else 12.0
    )
    return {
        "node_id": name,
        "state": "silent" if is_silent else "live",
        "connections": connections,
        "max_connections": None if is_silent else 1_000,
        "cpu_share": None if is_silent else 0.31,
        "memory_bytes": None if is_silent else 97 << 20,
        "loop_late_ms": None if is_silent else 0.4,
        "queued_bytes": None if is_silent else 0,
        "drift": None if is_silent else 0,
        "drain": None,
        "ack_latency_ms": _UNKNOWN,
        "recent_ack_latency_ms": {"p50": 1.25, "p95": 3.0, "p99": 140.0},
        **rates,
        **more,
    }


def look(*nodes: dict[str, Any], **more: Any) -> Look:
    stats = {
        "at": "2026-11-24T09:12:05.120Z",
        "online": 1_204,
        "connects_per_s": 12.0,
        "closes_per_s": 0.4,
        "uplink_per_s": 1_204.0,
        "downlink_per_s": 88.0,
        "acks_per_s": 88.0,
        "ack_latency_ms": {"p50": 2.0, "p95": 3.0, "p99": 9.0},
        "recent_ack_latency_ms": _UNKNOWN,
        "backlog": {"inbox": 31, "dead_letters": 2},
        "attention": [],
        **more,
    }
    return Look(stats, list(nodes))


def lines(seen: Look, view: View | None = None, width: int = 200, height: int | None = None) -> list[str]:
    out = StringIO()
    Console(file=out, width=width, height=height, highlight=False).print(drawn(seen, view or View(), width, height))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def order(seen: list[str]) -> list[str]:
    return [line.split()[0] for line in seen if line.startswith("gw-")]


THREE = look(node("gw-a", 10), node("gw-b", 900, loop_late_ms=250.0), node("gw-c", None))


def test_it_tells_the_sums_and_a_line_a_node() -> None:
    seen = lines(THREE)
    assert seen[0] == "Longwire · 3 nodes · 1,204 online · 09:12:05 UTC"
    assert "from devices 1,204/s" in seen[1]
    assert "to the ack 2.0 ms · 9.0 ms p50 · p99" in seen[1]
    assert order(seen) == ["gw-a", "gw-b", "gw-c"]
    row = next(line for line in seen if line.startswith("gw-b"))
    assert row.split()[1:6] == ["live", "900", "90", "%", "12"]


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    seen = lines(THREE, width=width)
    assert max(map(len, seen)) <= width
    assert order(seen) == ["gw-a", "gw-b", "gw-c"]


def test_a_narrow_terminal_keeps_what_matters_and_the_column_that_is_sorted_by() -> None:
    titles = [column.title for column in columns_of()]
    head = next(line for line in lines(THREE, width=60) if line.startswith("node"))
    assert "drift" not in head
    assert "connections" in head
    sorted_by_drift = View(sort_by=titles.index("drift"))
    assert "drift" in next(line for line in lines(THREE, sorted_by_drift, width=60) if line.startswith("node"))


def test_keys_choose_the_column_and_the_order() -> None:
    view = View()
    titles = [column.title for column in columns_of()]
    while titles[view.sort_by] != "connections":
        assert view.take("s", 3)
    assert order(lines(THREE, view)) == ["gw-b", "gw-a", "gw-c"]
    view.take("r", 3)
    assert order(lines(THREE, view)) == ["gw-a", "gw-b", "gw-c"]
    view.take("left", 3)
    assert titles[view.sort_by] == "state"
    assert not view.take("q", 3)


def test_arrows_scroll_through_the_nodes_and_stop_at_the_ends() -> None:
    view = View()
    view.take("up", 3)
    assert view.first == 0
    for _ in range(5):
        view.take("down", 3)
    assert order(lines(THREE, view)) == ["gw-c"]


def test_a_screen_is_never_higher_than_the_terminal() -> None:
    many = look(
        *(node(f"gw-{number}", number) for number in range(100)),
        attention=[{"level": "critical", "code": "x", "text": f"bad {n}", "node_id": "gw-1"} for n in range(9)],
    )
    for height in (8, 12, 24):
        assert len(lines(many, height=height)) <= height


def test_what_needs_attention_is_told_and_nothing_of_it_moves_the_terminal() -> None:
    notice = {"level": "warning", "code": "x", "text": "late \x1b[2J", "node_id": "gw-a"}
    seen = lines(look(node("gw-a", 1), attention=[notice]))
    assert "! gw-a: late \\x1b[2J" in seen


def test_without_nodes_it_says_so() -> None:
    assert "no nodes" in lines(look())


def test_once_prints_rates_of_a_running_process(at_dev: Run) -> None:
    outcome = at_dev("top", "--once")
    assert outcome.status == 0
    assert " · 1 node · " in outcome.out
    assert "node~" in outcome.out
    found = json.loads(at_dev("top", "--json").out)
    assert found["stats"]["connects_per_s"] is not None
    assert len(found["nodes"]) == 1


def test_on_a_terminal_it_draws_until_q_and_leaves_the_terminal_as_it_was(dev: Any) -> None:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    before = termios.tcgetattr(slave)
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("LONGWIRE_", "COLUMNS"))}
    process = subprocess.Popen(
        [sys.executable, "-m", "longwire.cli", "top", "--data", str(dev.data), "--every", "0.5"],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environ | {"TERM": "xterm-256color"},
    )
    try:
        seen = b""
        seen = _read_until(master, seen, lambda text: text.count(b"Longwire") >= 2)
        os.write(master, b"s")
        seen = _read_until(master, b"", lambda text: b"sort (state)" in text)
        os.write(master, b"q")
        _read_until(master, seen, lambda text: b"\x1b[?1049l" in text)
        assert process.wait(10) == 0
        assert termios.tcgetattr(slave) == before
    finally:
        process.kill()
        process.wait()
        os.close(master)
        os.close(slave)


def _read_until(master: int, seen: bytes, is_so: Callable[[bytes], bool]) -> bytes:
    until = time.monotonic() + 60
    while not is_so(seen):
        assert time.monotonic() < until, _ESCAPES.sub(b"", seen).decode(errors="replace")
        if select.select([master], [], [], 0.2)[0]:
            seen += os.read(master, 1 << 16)
    return seen
