"""``longwire nodes``: the processes that hold the connections, and how devices leave them."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from longwire.cli.funnel import latency_text
from longwire.cli.operator import Answer, Api, calls_api, quoted
from longwire.cli.options import Json, Most
from longwire.cli.table import number, show_item, show_items
from longwire.cli.text import Failure, note

_RATES = (
    ("connects", "connects_per_s"),
    ("from devices", "uplink_per_s"),
    ("to devices", "downlink_per_s"),
    ("acks", "acks_per_s"),
)

_LOOK_EVERY_S = 1.0
_LATE_S = 30.0
"""For so long beyond its time a drain is looked at before it is given up."""

app = typer.Typer(help="Nodes: list, show, drain, undrain, rebalance.", no_args_is_help=True)

NodeId = Annotated[str, typer.Argument(metavar="NODE_ID", show_default=False)]
Within = Annotated[int, typer.Option(min=1, max=3_600, metavar="SECONDS", help="How long devices are given to go.")]


@app.command("list")
@calls_api
def list_nodes(api: Api, most: Most = 50, json: Json = False) -> None:
    """List the nodes that live, with what they hold."""
    show_items(
        api.pages("/v1/nodes", most),
        json,
        ("node", "address", "state", "connections", "drift", "at most", "cpu", "MB"),
        lambda n: (
            n["node_id"],
            _address(n),
            n["state"],
            number(n["connections"]),
            "" if n["drift"] is None else str(n["drift"]),
            number(n["max_connections"]),
            _percent(n["cpu_share"]),
            _megabytes(n["memory_bytes"]),
        ),
        "no nodes",
    )


@app.command("show")
@calls_api
def show_node(api: Api, node_id: NodeId, json: Json = False) -> None:
    """Show one node: connections, rates, processor, memory, and how late its loop is."""
    show_item(
        api.get(_path(node_id)),
        json,
        lambda n: [
            ("node", n["node_id"]),
            ("address", _address(n)),
            ("WebSocket", n["ws_url"]),
            ("state", n["state"] + ("" if n["drain"] is None else f", {_progress(n['drain'])}")),
            ("connections", f"{number(n['connections'])} of at most {number(n['max_connections'])}"),
            ("routed", _routed(n)),
            *((word, f"{n[name]:.0f}/s") for word, name in _RATES if n[name] is not None),
            ("to the ack", latency_text(n["ack_latency_ms"]) or "-"),
            ("processor", f"{_percent(n['cpu_share'])} of a core"),
            ("memory", f"{_megabytes(n['memory_bytes'])} MB"),
            ("loop", f"{_ms(n['loop_late_ms'])} late, longest pause {_ms(n['longest_pause_ms'])}"),
            ("queued", f"{number(n['queued_bytes'])} bytes wait for the disk"),
            *((("behind", f"{number(n['behind'])} devices on other nodes"),) if n["behind"] else ()),
        ],
    )


@app.command("drain")
@calls_api
def drain(
    api: Api,
    node_id: NodeId,
    within: Within = 60,
    wait: Annotated[bool, typer.Option("--wait", help="Show how far it is until nobody is left.")] = False,
) -> None:
    """Send a node's devices to other nodes, at an even pace; it takes no new ones.

    Its process goes on, empty: stop it, or let it take devices again with `longwire nodes undrain`.
    """
    node = api.post(f"{_path(node_id)}/drain", {"within_s": within})
    if not wait:
        note(f"{node_id} sends {_devices(node['connections'])} elsewhere within {within} s")
        return
    give_up_at = time.monotonic() + within + _LATE_S
    with _bar() as tell:
        while True:
            tell(node)
            if not node["is_draining"]:
                raise Failure(f"{node_id} takes devices again: somebody has said so")
            if node["connections"] == 0:
                break
            if time.monotonic() > give_up_at:
                raise Failure(f"{node_id} still holds {_devices(node['connections'])}")
            time.sleep(_LOOK_EVERY_S)
            node = api.get(_path(node_id))
    note(f"{node_id} is empty")


@app.command("undrain")
@calls_api
def undrain(api: Api, node_id: NodeId) -> None:
    """Let a node take devices again."""
    node = api.post(f"{_path(node_id)}/undrain")
    note(f"{node_id} takes devices; it holds {_devices(node['connections'])}")


@app.command("rebalance")
@calls_api
def rebalance(api: Api, within: Within = 60, json: Json = False) -> None:
    """Have nodes that hold clearly more than their share send the surplus to others."""
    show_items(
        api.post("/v1/rebalance", {"within_s": within})["moves"],
        json,
        ("node", "connections", "share", "moving"),
        lambda m: (
            m["node_id"],
            number(m["connections"]),
            number(m["target"]),
            "does not answer" if m["moving"] is None else number(m["moving"]),
        ),
        "no node takes devices",
    )


@contextmanager
def _bar() -> Iterator[Callable[[Answer], None]]:
    """Tells how far a drain is: a bar on a terminal, else a line whenever the count has changed."""
    if not sys.stderr.isatty():
        told = [-1]

        def tell(node: Answer) -> None:
            drain = node["drain"]
            if drain is not None and drain["left"] != told[0]:
                told[0] = drain["left"]
                note(_progress(drain))

        yield tell
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=1)

        def move(node: Answer) -> None:
            if drain := node["drain"]:
                gone = drain["sessions"] - drain["left"]
                progress.update(task, total=max(1, drain["sessions"]), completed=gone, description=_progress(drain))

        yield move


def _progress(drain: Answer) -> str:
    eta = "" if drain["eta_s"] is None or not drain["left"] else f", about {drain['eta_s']:.0f} s more"
    return f"{number(drain['left'])} of {number(drain['sessions'])} are left{eta}"


def _devices(count: int | None) -> str:
    return "an unknown number of devices" if count is None else "1 device" if count == 1 else f"{count} devices"


def _routed(node: Answer) -> str:
    if node["routed"] is None:
        return "unknown: the route table does not answer"
    differs = "" if node["drift"] is None else f", which differs by {node['drift']}"
    return f"{number(node['routed'])}{differs}"


def _path(node_id: str) -> str:
    return f"/v1/nodes/{quoted(node_id)}"


def _address(node: Answer) -> str:
    return f"{node['host']}:{node['port']}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share * 100:.0f} %"


def _ms(value: float | None) -> str:
    return "?" if value is None else f"{value:.1f} ms"


def _megabytes(size: int | None) -> str:
    return "" if size is None else f"{size / (1 << 20):.0f}"
