"""``longwire top``: the nodes and what they do, drawn anew each second."""

import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from longwire.cli.operator import Answer, Api, calls_api, print_json
from longwire.cli.options import Json
from longwire.cli.text import Failure, one_line

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

_MOST_NODES = 500
_FIRST_LOOK_S = 1.0
_KEYS = {b"\x1b[A": "up", b"\x1b[B": "down", b"\x1b[C": "right", b"\x1b[D": "left", b"\x03": "q"}
_STATE_STYLES = {"live": "green", "silent": "bold red", "moving": "yellow", "draining": "yellow"}
_LOOP_LATE_MS = 100.0
_NEARLY_FULL = 0.85
_NOTICES = 5
_GAP = 2
_MB = 1 << 20

Every = Annotated[float, typer.Option(min=0.5, max=60, metavar="SECONDS", help="How often it is drawn.")]
Once = Annotated[bool, typer.Option("--once", help="Print it once and end, as where no terminal is.")]


@calls_api
def top(api: Api, every: Every = 1.0, once: Once = False, json: Json = False) -> None:
    """Show the nodes and what they do, drawn anew each second.

    q ends it, s or the arrows to the sides choose the column to sort by, r turns the order round, the arrows up and
    down move through the nodes.
    """
    look = _look(api)
    if json or once or not sys.stdout.isatty():
        if look.needs_another:
            time.sleep(_FIRST_LOOK_S)
            look = _look(api)
        if json:
            print_json({"stats": look.stats, "nodes": look.nodes})
        else:
            _print(look)
        return
    _run(api, look, every)


class Look(NamedTuple):
    """What the API said at one moment."""

    stats: Answer
    nodes: list[Answer]

    @property
    def needs_another(self) -> bool:
        """Rates are differences of two looks."""
        return self.stats["connects_per_s"] is None and bool(self.nodes)


class Column(NamedTuple):
    """One of the nodes' table. ``comes``: in which order columns get what room there is; 0 is always there."""

    title: str
    value: Callable[[Answer], float | str | None]
    shown: Callable[[Answer], "Text | str"]
    comes: int = 0
    is_number: bool = True


@dataclass(slots=True)
class View:
    """What its reader chose."""

    sort_by: int = 0
    is_reversed: bool = False
    first: int = 0
    trouble: str = ""
    """Why the last look failed; what is shown is older."""

    def take(self, key: str, nodes: int) -> bool:
        """Heeds a key; whether it goes on."""
        columns = len(columns_of())
        match key:
            case "q":
                return False
            case "s" | "right":
                self.sort_by = (self.sort_by + 1) % columns
            case "left":
                self.sort_by = (self.sort_by - 1) % columns
            case "r":
                self.is_reversed = not self.is_reversed
            case "down":
                self.first += 1
            case "up":
                self.first -= 1
        self.first = max(0, min(self.first, nodes - 1))
        return True


def columns_of() -> tuple[Column, ...]:
    """The columns, as they stand on a wide terminal."""
    return (
        Column("node", lambda n: n["node_id"], lambda n: one_line(n["node_id"]), is_number=False),
        Column("state", lambda n: n["state"], _state, is_number=False),
        Column("connections", lambda n: n["connections"], _connections),
        Column("full", _share, _full, 6),
        Column("in/s", lambda n: n["connects_per_s"], lambda n: _rate(n["connects_per_s"]), 5),
        Column("out/s", lambda n: n["closes_per_s"], lambda n: _rate(n["closes_per_s"]), 9),
        Column("up/s", lambda n: n["uplink_per_s"], lambda n: _rate(n["uplink_per_s"]), 1),
        Column("down/s", lambda n: n["downlink_per_s"], lambda n: _rate(n["downlink_per_s"]), 2),
        Column("acks/s", lambda n: n["acks_per_s"], lambda n: _rate(n["acks_per_s"]), 11),
        Column("ack p99", lambda n: _latency(n)["p99"], lambda n: _ms(_latency(n)["p99"]), 8),
        Column("cpu", lambda n: n["cpu_share"], lambda n: _percent(n["cpu_share"]), 3),
        Column("MB", lambda n: n["memory_bytes"], lambda n: _count(n["memory_bytes"], _MB), 7),
        Column("loop late", lambda n: n["loop_late_ms"], _late, 4),
        Column("queued", lambda n: n["queued_bytes"], lambda n: _count(n["queued_bytes"]), 12),
        Column("drift", lambda n: n["drift"], lambda n: _count(n["drift"]), 10),
    )


def drawn(look: Look, view: View, width: int, height: int | None) -> "RenderableType":
    """The screen; ``height`` None: as many lines as there are."""
    from rich.console import Group
    from rich.text import Text

    head = [*_head(look, view, width)]
    # The table has a heading and a row at least, the screen a last line.
    room = _NOTICES if height is None else max(0, min(_NOTICES, height - len(head) - 3))
    notices = look.stats["attention"][:room]
    rows = None if height is None else max(1, height - len(head) - len(notices) - 2)
    table = _table(look.nodes, view, width, rows)
    parts: list[RenderableType] = [*head, *map(_notice, notices), table]
    if height is not None:
        title = columns_of()[view.sort_by].title
        parts.append(
            Text(f"q quit · s sort ({title}) · r reverse · ↑↓ scroll", "dim", no_wrap=True, overflow="ellipsis")
        )
    return Group(*parts)


def _head(look: Look, view: View, width: int) -> Iterator["Text"]:
    from rich.text import Text

    stats, latency = look.stats, _latency(look.stats)
    nodes = f"{len(look.nodes):,} node{'' if len(look.nodes) == 1 else 's'}"
    first = Text("Longwire", "bold", no_wrap=True, overflow="ellipsis")
    first.append(f" · {nodes} · {stats['online']:,} online · {stats['at'][11:19]} UTC", "none")
    yield first if not view.trouble else first.append(f"  {one_line(view.trouble)}", "bold red")
    facts = [
        ("connects", _rate(stats["connects_per_s"]), "/s"),
        ("closes", _rate(stats["closes_per_s"]), "/s"),
        ("from devices", _rate(stats["uplink_per_s"]), "/s"),
        ("to devices", _rate(stats["downlink_per_s"]), "/s"),
        ("acks", _rate(stats["acks_per_s"]), "/s"),
        ("to the ack", f"{_ms(latency['p50'])} · {_ms(latency['p99'])}", " p50 · p99"),
    ]
    if backlog := stats["backlog"]:
        facts.append(("inboxes", f"{backlog['inbox']:,}", " wait"))
        facts.append(("dead letters", f"{backlog['dead_letters']:,}", ""))
    line = Text()
    for name, value, unit in facts:
        part = Text(f"{name} ", "dim").append(value, "bold").append(f"{unit}   ", "dim")
        if line and len(line) + len(part) > width:
            yield line
            line = Text()
        line.append_text(part)
    yield line


def _notice(notice: Answer) -> "Text":
    from rich.text import Text

    mark, style = ("✗", "bold red") if notice["level"] == "critical" else ("!", "yellow")
    node = f"{notice['node_id']}: " if notice["node_id"] else ""
    return Text(f"{mark} ", style, overflow="ellipsis", no_wrap=True).append(one_line(node + notice["text"]), "none")


def _table(nodes: list[Answer], view: View, width: int, rows: int | None) -> "RenderableType":
    from rich.table import Table
    from rich.text import Text

    columns = columns_of()
    by = columns[view.sort_by]
    # Numbers begin with the highest; a node that does not answer comes last.
    known = sorted(
        (node for node in nodes if by.value(node) is not None),
        key=lambda node: (by.value(node), node["node_id"]),
        reverse=by.is_number is not view.is_reversed,
    )
    ordered = known + [node for node in nodes if by.value(node) is None]
    shown = ordered[view.first : None if rows is None else view.first + rows]
    cells = {column: [column.shown(node) for node in shown] for column in columns}
    table = Table(box=None, padding=(0, _GAP, 0, 0), header_style="dim", pad_edge=False)
    kept = _that_fit(cells, width, by)
    for column in kept:
        title = Text(column.title, "bold cyan" if column is by else "dim")
        table.add_column(title, justify="right" if column.is_number else "left", no_wrap=True, overflow="ellipsis")
    for at in range(len(shown)):
        table.add_row(*(cells[column][at] for column in kept))
    return table if nodes else Text("no nodes", "dim")


def _that_fit(cells: dict[Column, list["Text | str"]], width: int, by: Column) -> list[Column]:
    """Those that stay and the one that is sorted by; then, in the order of ``comes``, as long as there is room."""

    def takes(column: Column) -> int:
        return max(len(column.title), *map(len, cells[column]), 0) + _GAP

    kept = {column for column in cells if not column.comes or column is by}
    room = width + _GAP - sum(map(takes, kept))
    for column in sorted(cells, key=lambda one: one.comes):
        if column in kept:
            continue
        if takes(column) > room:
            break
        kept.add(column)
        room -= takes(column)
    return [column for column in cells if column in kept]


def _state(node: Answer) -> "Text":
    from rich.text import Text

    drain, text = node["drain"], str(node["state"])
    if drain is not None and drain["sessions"]:
        text += f" {100 * (drain['sessions'] - drain['left']) // drain['sessions']} %"
    return Text(text, _STATE_STYLES.get(node["state"], "cyan"))


def _connections(node: Answer) -> str:
    return _count(node["connections"])


def _share(node: Answer) -> float | None:
    if node["connections"] is None or not node["max_connections"]:
        return None
    return float(node["connections"] / node["max_connections"])


def _full(node: Answer) -> "Text":
    from rich.text import Text

    share = _share(node)
    return Text(_percent(share), "bold red" if share is not None and share >= _NEARLY_FULL else "none")


def _late(node: Answer) -> "Text":
    from rich.text import Text

    late = node["loop_late_ms"]
    return Text(_ms(late), "bold red" if late is not None and late >= _LOOP_LATE_MS else "none")


def _latency(of: Answer) -> Answer:
    """Of the last half minute where there was any, else since the start."""
    recent: Answer = of["recent_ack_latency_ms"]
    return recent if recent["p99"] is not None else of["ack_latency_ms"]


def _rate(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


def _count(value: float | None, unit: int = 1) -> str:
    return "–" if value is None else f"{value / unit:,.0f}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share * 100:.0f} %"


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:,.1f} ms" if value < 100 else f"{value:,.0f} ms"


def _look(api: Api) -> Look:
    return Look(api.get("/v1/stats"), list(api.pages("/v1/nodes", _MOST_NODES)))


def _print(look: Look) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    wide = console.width if sys.stdout.isatty() else 200
    Console(highlight=False, width=wide).print(drawn(look, View(), wide, None))


def _run(api: Api, look: Look, every: float) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False)
    view = View()

    def draw() -> "RenderableType":
        return drawn(look, view, console.width, console.height)

    with _keys() as wait, Live(draw(), console=console, screen=True, auto_refresh=False) as live:
        looked_at = time.monotonic()
        while True:
            key = wait(max(0.0, looked_at + every - time.monotonic()))
            if key is not None and not view.take(key, len(look.nodes)):
                return
            if time.monotonic() - looked_at >= every:
                looked_at = time.monotonic()
                try:
                    look, view.trouble = _look(api), ""
                except Failure as failure:
                    view.trouble = str(failure).partition("\n")[0]
            live.update(draw(), refresh=True)


@contextmanager
def _keys() -> Iterator[Callable[[float], str | None]]:
    """Waits for a key for some seconds: its name, None where none was hit. Keys are taken without Enter."""
    import os
    import termios
    import tty

    fd = sys.stdin.fileno() if sys.stdin.isatty() else None
    if fd is None:
        yield lambda seconds: time.sleep(seconds)
        return
    before = termios.tcgetattr(fd)
    # Hidden with the screen it is drawn on: what was typed would be echoed into it.
    tty.setcbreak(fd)

    def wait(seconds: float) -> str | None:
        if not select.select([fd], [], [], seconds)[0]:
            return None
        typed = os.read(fd, 16)
        if not typed:  # the terminal is gone
            return "q"
        return _KEYS.get(typed) or typed[:1].decode("ascii", "replace")

    try:
        yield wait
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
