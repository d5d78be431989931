"""What a cluster looks like now: its nodes, then its processes and engines, as one picture."""

from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from longwire.testing.engines import Engine

_RATES = ("connects_per_s", "uplink_per_s", "downlink_per_s", "acks_per_s")
_GOOD = {"live": "green", "silent": "red"}


def picture(nodes: Sequence[dict[str, Any]], parts: Iterable[Engine], frozen: set[str], lines: Sequence[str]) -> Group:
    """``frozen``: the names of parts that are held; ``lines`` stand beneath. A part is shown with its pid."""
    below = [Text(line, style="dim") for line in lines]
    return Group(_nodes(nodes), _parts(parts, frozen), *below)


def _nodes(nodes: Sequence[dict[str, Any]]) -> RenderableType:
    table = _table("node", "state", "devices", "new/s", "up/s", "down/s", "acks/s", "cpu", "drift", "behind")
    for node in nodes:
        state = node["state"]
        drain = node["drain"]
        if drain is not None and drain["eta_s"] is not None and drain["left"]:
            state = f"{state} {drain['eta_s']:.0f} s"
        cpu = "" if node["cpu_share"] is None else f"{node['cpu_share'] * 100:.0f} %"
        table.add_row(
            node["node_id"].partition("~")[0],
            Text(state, style=_GOOD.get(node["state"], "yellow")),
            _number(node["connections"]),
            *(_number(node[name]) for name in _RATES),
            cpu,
            _number(node["drift"]),
            _number(node["behind"]),
        )
    if nodes:
        held = [node["connections"] or 0 for node in nodes]
        sums = (sum(node[name] or 0 for node in nodes) for name in _RATES)
        table.add_section()
        table.add_row("in all", "", _number(sum(held)), *map(_number, sums), "", "", "", style="bold")
    return table


def _parts(parts: Iterable[Engine], frozen: set[str]) -> RenderableType:
    cells = []
    for part in parts:
        state = "gone" if not part.is_running else "frozen" if part.name in frozen else str(part.pid)
        style = {"gone": "red", "frozen": "yellow"}.get(state, "green")
        cells.append(Text.assemble(("● ", style), part.name, (f" {state}", "dim" if style == "green" else style)))
    return Columns(cells, padding=(0, 3))


def _table(*columns: str) -> Table:
    table = Table(box=box.HORIZONTALS, border_style="dim", header_style="dim", padding=0)
    for at, column in enumerate(columns):
        table.add_column(column, no_wrap=True, justify="left" if at == 0 or column == "state" else "right")
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"
