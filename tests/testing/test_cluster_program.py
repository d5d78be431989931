"""``make cluster``: what its table shows, how nginx stands in front, and all of it once."""

import os
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from longwire.testing.cluster.__main__ import _front, _options
from longwire.testing.cluster.table import picture
from longwire.testing.engines import Nginx
from longwire.testing.engines.process import family

ENDS_WITHIN_S = 400


def node(node_id: str, **more: Any) -> dict[str, Any]:
    rates = dict.fromkeys(("connects_per_s", "uplink_per_s", "downlink_per_s", "acks_per_s"), 1.0)
    known = {"node_id": node_id, "state": "live", "connections": 10, "cpu_share": 0.5, "drift": 0, "behind": 0}
    return known | rates | {"drain": None} | more


def shown(*arguments: Any) -> str:
    out = StringIO()
    Console(file=out, width=80).print(picture(*arguments))
    return out.getvalue()


def test_the_table_fits_a_terminal_of_eighty_columns_and_adds_up() -> None:
    nodes = [
        node("gateway1-1~0a0b0c0d", connections=1_000, drift=None, behind=None),
        node("gateway1-2~0a0b0c0e", state="draining", drain={"eta_s": 42.4, "left": 7}, drift=-3),
        node("gateway1-3~0a0b0c0f", state="silent", connections=None, cpu_share=None, uplink_per_s=None),
    ]
    said = shown(nodes, [], set(), ["what may be pressed"])
    assert "…" not in said
    assert re.search(r"draining 42 s +10 .* -3 ", said)
    assert re.search(r"in all +1,010 +3 +2 +3 +3", said)
    assert said.rstrip().endswith("what may be pressed")


def test_what_is_gone_and_what_is_held_is_seen(tmp_path: Path) -> None:
    parts = [
        SimpleNamespace(name="api1", is_running=True, pid=4711),
        SimpleNamespace(name="redis", is_running=True, pid=4712),
        SimpleNamespace(name="sink1", is_running=False),
    ]
    said = shown([], parts, {"redis"}, [])
    assert [" ".join(part.split()) for part in said.split("●")[1:]] == ["api1 4711", "redis frozen", "sink1 gone"]


def test_nginx_takes_the_configuration_with_a_server_for_each_node(tmp_path: Path) -> None:
    cluster = SimpleNamespace(apis=[SimpleNamespace(http_port=7380)], gateways=[SimpleNamespace(port=17_300)])
    text = _front(cluster, 3)  # type: ignore[arg-type]
    assert re.findall(r"listen 127\.0\.0\.2:(\d+); proxy_pass 127\.0\.0\.1:(\d+); proxy_protocol on;", text) == [
        (str(port), str(port)) for port in (17_300, 17_301, 17_302)
    ]
    with Nginx(tmp_path, text) as nginx:
        assert nginx.is_running


def test_a_cluster_of_nothing_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _options(["--gateways", "0"])
    assert "must be 1 or more" in capsys.readouterr().err


@pytest.mark.chaos
def test_a_small_cluster_runs_the_demo_and_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "longwire.testing.cluster", "--devices", "60", "--gateways", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=ENDS_WITHIN_S, check=False)
    assert done.returncode == 0, done.stdout[-8_000:] + done.stderr[-4_000:]
    assert "Everything adds up" in done.stdout
    assert re.search(r"in all +642 +642 +642", done.stdout)
    assert [pid for pid in family(os.getpid()) if b"longwire.testing.cluster" in cmdline(pid)] == []


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
