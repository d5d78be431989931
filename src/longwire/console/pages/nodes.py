"""The nodes: what each holds and does, sending its devices elsewhere, and evening all of them out."""

from collections.abc import Awaitable, Callable
from typing import Any

from nicegui import ui

from longwire.console import parts, words
from longwire.console.api import quoted
from longwire.console.live import every
from longwire.console.parts import Column, Table, Tile, bar, box, button, empty, section, text, tiles
from longwire.console.shell import Seat, console_page, go

_WITHIN_S = 60


@console_page("/nodes", "Nodes", nav="nodes", scope="node:read")
async def nodes(seat: Seat) -> None:
    """All nodes that live."""
    if seat.may("node:write"):
        with bar():
            button("Rebalance", lambda: _rebalance(seat), icon_name="balance", hint="Even out connections by weight")
    with section("Nodes that live"):
        table = _table()
    every(2.0, lambda: seat.api.page("/v1/nodes", limit=500), lambda page: table.show(page.items))


def _table() -> Table:
    def none() -> None:
        empty("dns", "No node lives.", "Devices cannot connect. Start one:", command="longwire serve")

    return Table(
        [
            Column("node", "Node", lambda node: node["node_id"], kind="code"),
            Column("state", "State", lambda node: node["state"], kind="badge"),
            Column("connections", "Connections", _connections, kind="number"),
            Column("up", "Up /s", lambda node: words.rate(node["uplink_per_s"]), kind="number", hides_below=600),
            Column("down", "Down /s", lambda node: words.rate(node["downlink_per_s"]), kind="number", hides_below=600),
            Column("cpu", "CPU", _cpu, kind="number"),
            Column("memory", "Memory", lambda node: words.size(node["memory_bytes"]), kind="number", hides_below=600),
            Column(
                "late", "Loop late", lambda node: words.millis(node["loop_late_ms"]), kind="number", hides_below=900
            ),
            Column("p99", "Ack p99", _p99, kind="number", hides_below=900),
            Column("drift", "Drift", lambda node: words.count(node["drift"]), kind="number", hides_below=600),
        ],
        key="node_id",
        on_open=lambda node: go(f"/nodes/{node['node_id']}"),
        empty=none,
    )


def _connections(node: dict[str, Any]) -> str:
    if node["connections"] is None:
        return words.UNKNOWN
    return f"{words.count(node['connections'])} of {words.count(node['max_connections'])}"


def _cpu(node: dict[str, Any]) -> str:
    return words.UNKNOWN if node["cpu_share"] is None else f"{100 * node['cpu_share']:.0f} %"


def _p99(node: dict[str, Any]) -> str:
    return words.millis(node["recent_ack_latency_ms"]["p99"])


async def _rebalance(seat: Seat) -> None:
    """Asks, does it, and shows what every node was told."""
    detail = (
        "Nodes that hold clearly more than their share by weight send the surplus elsewhere within a minute.\n"
        "Those devices reconnect; nothing that waits for them is lost."
    )
    if not await parts.confirm("Rebalance the nodes?", detail, verb="Rebalance", tone="main"):
        return
    answer = await parts.act(seat.api.post("/v1/rebalance", {"within_s": _WITHIN_S}), "")
    if answer is None:
        return
    moved = sum(move["moving"] or 0 for move in answer["moves"])
    with parts.dialog("Rebalance") as shown:
        text(
            "p", f"{words.plural(moved, 'device')} move." if moved else "The nodes are even: nobody moves.", "lw-muted"
        )
        Table(
            [
                Column("node", "Node", lambda move: move["node_id"], kind="code"),
                Column("connections", "Holds", lambda move: words.count(move["connections"]), kind="number"),
                Column("target", "Share", lambda move: words.count(move["target"]), kind="number"),
                Column("moving", "Moves", _moving, kind="number"),
            ],
            key="node_id",
        ).show(answer["moves"])
        with box("lw-dialog-actions"):
            button("Close", shown.close)
    shown.open()


def _moving(move: dict[str, Any]) -> str:
    return "does not answer" if move["moving"] is None else words.count(move["moving"])


# -- one node -----------------------------------------------------------------------------------------------------


@console_page("/nodes/{node_id}", "Node", nav="nodes", scope="node:read")
async def node(seat: Seat, node_id: str) -> None:
    """One node: its numbers, and its drain."""
    path = f"/v1/nodes/{quoted(node_id)}"
    first = await seat.api.get(path)
    with bar():
        state = parts.badge(first["state"])
        parts.code(node_id)
    with tiles():
        numbers = _NodeTiles()
    drain = _Drain(seat, path)
    with section("More of it"):
        more = _Facts()

    def show(found: dict[str, Any]) -> None:
        state.text = found["state"]
        state.classes(remove="good accent warn bad idle", add=words.tone_of(found["state"]))
        numbers.show(found)
        drain.show(found)
        more.show(found)

    every(1.0, lambda: seat.api.get(path), show)


class _NodeTiles:
    def __init__(self) -> None:
        self._connections = Tile("Connections")
        self._cpu = Tile("CPU", hint="Of one core; below it the process's memory")
        self._late = Tile("Loop late", hint="How late the node comes to what is due")
        self._up = Tile("Up", unit="/s", hint="Messages that devices sent")
        self._down = Tile("Down", unit="/s", hint="Messages that were written to devices")
        self._latency = Tile("Ack p99", hint="From the write of a push to its acknowledgement, last half minute")

    def show(self, node: dict[str, Any]) -> None:
        connections, most = node["connections"], node["max_connections"]
        share = f"of {words.count(most)}" if most else ""
        tone = "warn" if connections and most and connections >= 0.85 * most else ""
        self._connections.set(words.count(connections), tone, share)
        self._cpu.set(_cpu(node), delta=f"{words.size(node['memory_bytes'])} of memory")
        late = node["loop_late_ms"]
        self._late.set(words.millis(late), "warn" if late and late > 100 else "")
        self._up.set(words.rate(node["uplink_per_s"]))
        self._down.set(words.rate(node["downlink_per_s"]))
        self._latency.set(_p99(node))


class _Facts:
    """Everything else, drawn anew where it changes."""

    def __init__(self) -> None:
        with box("") as self._place:
            pass
        self._shown: list[tuple[str, str]] = []

    def show(self, node: dict[str, Any]) -> None:
        tls = "" if node["tls_port"] is None else f", TLS {node['tls_port']}"
        rows = [
            ("Address for devices", f"{node['host']}:{node['port']}{tls}"),
            ("WebSocket", node["ws_url"] or words.UNKNOWN),
            (
                "Connects and closes",
                f"{words.rate(node['connects_per_s'])} and {words.rate(node['closes_per_s'])} a second",
            ),
            ("Acknowledgements", f"{words.rate(node['acks_per_s'])} a second"),
            ("Turned away for load", f"{words.rate(node['shed_per_s'])} a second"),
            ("Closed for not reading", f"{words.rate(node['slow_per_s'])} a second"),
            (
                "Routed here",
                f"{words.count(node['routed'])} devices by the route table; drift {words.count(node['drift'])}",
            ),
            ("Routes mended", f"{words.count(node['repaired'])} since its start"),
            ("Not committed yet", words.size(node["queued_bytes"])),
            (
                "For other nodes",
                f"{words.size(node['link_queued_bytes'])} waiting, {words.count(node['behind'])} devices behind",
            ),
            ("Longest pause", f"{words.millis(node['longest_pause_ms'])} of the garbage collector"),
        ]
        if rows != self._shown:
            self._shown = rows
            self._place.clear()
            with self._place:
                parts.facts(rows)


class _Drain:
    """How far a drain is, and the buttons that begin and end one."""

    def __init__(self, seat: Seat, path: str) -> None:
        self._seat = seat
        self._path = path
        self._state = ""
        self._drain_shown: dict[str, Any] | None = None
        with section("Drain", hint="sends its devices to other nodes, at an even pace") as self._place:
            with box("") as self._progress:
                pass
            with bar() as self._buttons:
                pass

    def show(self, node: dict[str, Any]) -> None:
        if node["drain"] != self._drain_shown or node["state"] != self._state:
            self._drain_shown = node["drain"]
            self._progress.clear()
            with self._progress:
                _draw_drain(node)
        if node["state"] == self._state:
            return
        self._state = node["state"]
        self._buttons.clear()
        if self._seat.may("node:write"):
            with self._buttons:
                self._draw_buttons(node)

    def _draw_buttons(self, node: dict[str, Any]) -> None:
        if node["state"] in ("draining", "drained"):
            button("Undrain", lambda: self._do(self._undrain), icon_name="undo", hint="It takes devices again")
        elif node["state"] in ("live", "moving"):
            self._within = ui.number("Within, seconds", value=_WITHIN_S, min=1, max=3_600, precision=0)
            self._within.props("outlined dense").classes("lw-input lw-narrow")
            button("Drain", lambda: self._do(self._drain), kind="danger", icon_name="logout")

    async def _do(self, deed: Callable[[], Awaitable[None]]) -> None:
        # The button may be gone before the deed is done: what it asks and tells stands elsewhere.
        with self._place:
            await deed()

    async def _drain(self) -> None:
        within_s = int(self._within.value or _WITHIN_S)
        detail = (
            f"Within {words.duration(within_s)} all its devices are sent to other nodes, and it takes no new ones.\n"
            "Those that do not go by themselves are closed at the end. The process goes on."
        )
        if await parts.confirm("Drain this node?", detail, verb="Drain"):
            answer = await parts.act(self._seat.api.post(f"{self._path}/drain", {"within_s": within_s}), "It drains.")
            if answer is not None:
                self.show(answer)

    async def _undrain(self) -> None:
        answer = await parts.act(self._seat.api.post(f"{self._path}/undrain"), "It takes devices again.")
        if answer is not None:
            self.show(answer)


def _draw_drain(node: dict[str, Any]) -> None:
    drain = node["drain"]
    if drain is None:
        is_silent = node["state"] == "silent"
        said = "It does not answer." if is_silent else "It takes devices; nobody is sent elsewhere."
        text("p", said, "lw-muted")
        return
    gone = drain["sessions"] - drain["left"]
    share = gone / drain["sessions"] if drain["sessions"] else 1.0
    left = f"{words.plural(drain['left'], 'device')} left of {words.count(drain['sessions'])}"
    eta = "" if drain["eta_s"] is None or not drain["left"] else f", about {words.duration(drain['eta_s'])} more"
    parts.progress(share, f"{left}{eta}")
    text("p", f"{words.count(drain['told'])} told to move, {words.count(drain['closed'])} closed.", "lw-muted")
