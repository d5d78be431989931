"""``longwire nodes``: the processes that hold the connections."""

from typing import Annotated

import typer

from longwire.cli.funnel import latency_text
from longwire.cli.operator import Answer, Api, calls_api, quoted
from longwire.cli.options import Json, Most
from longwire.cli.table import number, show_item, show_items

_RATES = (
    ("connects", "connects_per_s"),
    ("from devices", "uplink_per_s"),
    ("to devices", "downlink_per_s"),
    ("acks", "acks_per_s"),
)

app = typer.Typer(help="Nodes: list, show.", no_args_is_help=True)


@app.command("list")
@calls_api
def list_nodes(api: Api, most: Most = 50, json: Json = False) -> None:
    """List the nodes that live, with what they hold."""
    show_items(
        api.pages("/v1/nodes", most),
        json,
        ("node", "address", "connections", "at most", "cpu", "MB"),
        lambda n: (
            n["node_id"],
            _address(n),
            number(n["connections"]),
            number(n["max_connections"]),
            _percent(n["cpu_share"]),
            _megabytes(n["memory_bytes"]),
        ),
        "no nodes",
    )


@app.command("show")
@calls_api
def show_node(
    api: Api, node_id: Annotated[str, typer.Argument(metavar="NODE_ID", show_default=False)], json: Json = False
) -> None:
    """Show one node: connections, rates, processor, memory, and how late its loop is."""
    show_item(
        api.get(f"/v1/nodes/{quoted(node_id)}"),
        json,
        lambda n: [
            ("node", n["node_id"]),
            ("address", _address(n)),
            ("WebSocket", n["ws_url"]),
            ("draining", "yes" if n["is_draining"] else "no"),
            ("connections", f"{number(n['connections'])} of at most {number(n['max_connections'])}"),
            ("routed", f"{number(n['routed'])}, which differs by {n['drift']}"),
            *((word, f"{n[name]:.0f}/s") for word, name in _RATES if n[name] is not None),
            ("to the ack", latency_text(n["ack_latency_ms"]) or "-"),
            ("processor", f"{_percent(n['cpu_share'])} of a core"),
            ("memory", f"{_megabytes(n['memory_bytes'])} MB"),
            ("loop", f"{_ms(n['loop_late_ms'])} late, longest pause {_ms(n['longest_pause_ms'])}"),
            ("queued", f"{number(n['queued_bytes'])} bytes wait for the disk"),
        ],
    )


def _address(node: Answer) -> str:
    return f"{node['host']}:{node['port']}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share * 100:.0f} %"


def _ms(value: float | None) -> str:
    return "?" if value is None else f"{value:.1f} ms"


def _megabytes(size: int | None) -> str:
    return "" if size is None else f"{size / (1 << 20):.0f}"
