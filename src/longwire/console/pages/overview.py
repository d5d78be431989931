"""The overview: how much goes on, what needs attention, how it went, and the nodes at a glance."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from longwire.console import words
from longwire.console.charts import Lines
from longwire.console.live import every
from longwire.console.parts import Column, Table, Tile, box, empty, icon, link, section, text, tiles
from longwire.console.shell import Seat, console_page, go

SPANS = {"15m": (900, "15 min"), "1h": (3_600, "1 h"), "24h": (86_400, "24 h")}
_EVERY_S = {"15m": 2.0, "1h": 10.0, "24h": 60.0}
_MOST_REASONS = 6
OTHERS = "others"

REASONS = {
    "peer": "went away",
    "draining": "drained",
    "token_expired": "token expired",
    "rebalanced": "rebalanced",
    "overloaded": "overloaded",
    "slow_consumer": "did not read",
    "heartbeat_timeout": "fell silent",
    "handshake_timeout": "no handshake",
    "internal_error": "internal error",
    "session_lost": "session lost",
    "protocol_error": "protocol error",
    "too_large": "too large",
    "unsupported": "unsupported",
    "taken_over": "taken over",
    "kicked": "kicked",
    "disabled": "disabled",
    "banned": "banned",
    "bad_credentials": "bad credentials",
    "not_permitted": "not permitted",
}
"""Why connections end, by the API's labels."""


@console_page("/", "Overview", nav="overview", scope="stats:read")
async def overview(seat: Seat, span: str = "15m") -> None:
    """Numbers of this second, and of the span."""
    span = span if span in SPANS else "15m"
    numbers = _Numbers()
    attention = _Attention()
    with section("", hint=""):
        with box("lw-span-head"):
            text("h2", "Over time")
            since = text("span", "", "lw-hint")
            _span_links(span)
        history = _History()
    with section("Nodes at a glance"):
        nodes = _node_table()

    def show(stats: dict[str, Any]) -> None:
        numbers.show(stats)
        attention.show(stats["attention"])
        nodes.show(stats["nodes"])

    def show_history(found: dict[str, Any]) -> None:
        since.text = f"counted since {words.when(found['since'])}"
        history.show(found)

    every(1.0, lambda: seat.api.get("/v1/stats"), show)
    every(_EVERY_S[span], lambda: seat.api.get("/v1/stats/history", span_s=SPANS[span][0]), show_history)


def _span_links(chosen: str) -> None:
    with box("lw-choice", "nav") as whole:
        whole.props["aria-label"] = "Span"
        for key, (_, label) in SPANS.items():
            made = link(label, f"/?span={key}", "lw-choice-item")
            if key == chosen:
                made.props["aria-current"] = "true"


class _Numbers:
    """The tiles."""

    def __init__(self) -> None:
        with tiles():
            self._online = Tile("Online", hint="Devices with a session")
            self._connects = Tile("Connects", unit="/s")
            self._closes = Tile("Closes", unit="/s", hint="Connections that ended")
            self._up = Tile("Up", unit="/s", hint="Messages that devices sent")
            self._down = Tile("Down", unit="/s", hint="Messages that were written to devices")
            self._latency = Tile("Ack p99", hint="From the write of a push to its acknowledgement, last half minute")

    def show(self, stats: dict[str, Any]) -> None:
        nodes, latency = len(stats["nodes"]), stats["recent_ack_latency_ms"]
        self._online.set(words.count(stats["online"]), delta=f"on {words.plural(nodes, 'node')}")
        self._connects.set(words.rate(stats["connects_per_s"]))
        self._closes.set(words.rate(stats["closes_per_s"]), delta=_chief_reason(stats["closes_by_reason"]))
        self._up.set(words.rate(stats["uplink_per_s"]), delta=_bytes(stats["up_bytes_per_s"]))
        self._down.set(words.rate(stats["downlink_per_s"]), delta=_bytes(stats["down_bytes_per_s"]))
        half = latency["p50"]
        self._latency.set(
            words.millis(latency["p99"]),
            delta="no acks lately" if half is None else f"half within {words.millis(half)}",
        )


def _bytes(per_s: float | None) -> str:
    return "" if per_s is None else f"{words.size(per_s)}/s"


def _chief_reason(reasons: dict[str, float]) -> str:
    if not reasons:
        return ""
    chief = max(reasons, key=lambda reason: reasons[reason])
    return f"{words.rate(reasons[chief])} {REASONS.get(chief, chief)}"


class _Attention:
    """What needs attention; drawn anew where it changes."""

    def __init__(self) -> None:
        with section("Needs attention"), box("lw-notices", "ul") as self._list:
            self._list.props["aria-live"] = "polite"
        self._shown: list[dict[str, Any]] | None = None

    def show(self, notices: list[dict[str, Any]]) -> None:
        if notices == self._shown:
            return
        self._shown = notices
        self._list.clear()
        with self._list:
            for notice in notices:
                _notice(notice)
            if not notices:
                with box("lw-notice good", "li"):
                    icon("check_circle")
                    text("span", "Nothing needs attention.")


def _notice(notice: dict[str, Any]) -> None:
    is_critical = notice["level"] == "critical"
    with box(f"lw-notice {'bad' if is_critical else 'warn'}", "li"):
        icon("error" if is_critical else "warning")
        text("span", "Critical" if is_critical else "Warning", "lw-strong")
        text("span", notice["text"])
        if notice["node_id"]:
            link("Node", f"/nodes/{notice['node_id']}")
        elif notice["code"] == "dead-letters":
            text("code", "longwire dead-letters list")


class _History:
    """The charts."""

    def __init__(self) -> None:
        with box("lw-charts"):
            self._online = Lines("Devices online", [("online", "online")])
            self._messages = Lines("Messages", [("up", "up"), ("down", "down"), ("acks", "acks")], unit="/s")
            self._connects = Lines("Connects", [("connects", "connects")], unit="/s")
            with box("") as self._closes_place:
                self._reasons: list[str] = []
                self._closes = Lines("Closes", [("closes", "all")], unit="/s")
            self._latency = Lines("Acknowledgements take", [("p50", "p50"), ("p95", "p95"), ("p99", "p99")], unit="ms")
            self._inbox = Lines("Waiting in inboxes", [("inbox", "messages")])

    def show(self, found: dict[str, Any]) -> None:
        at = found["at"]
        for chart in (self._online, self._messages, self._connects, self._latency, self._inbox):
            chart.set(at, found)
        reasons = _chief_reasons(found["closes_by_reason"])
        if list(reasons) != self._reasons:
            # Another set of reasons is another chart.
            self._reasons = list(reasons)
            self._closes_place.clear()
            series = [(name, REASONS.get(name, name)) for name in reasons] or [("closes", "all")]
            with self._closes_place:
                self._closes = Lines("Closes by reason" if reasons else "Closes", series, unit="/s", stacked=True)
        self._closes.set(at, reasons or found)


def _chief_reasons(reasons: dict[str, list[float | None]]) -> dict[str, Sequence[float | None]]:
    """The six that happened most, by name, and the sum of all others."""
    totals = Counter({name: sum(rate or 0 for rate in rates) for name, rates in reasons.items()})
    chief = {name for name, _ in totals.most_common(_MOST_REASONS)}
    found: dict[str, Sequence[float | None]] = {name: reasons[name] for name in sorted(chief)}
    if rest := [rates for name, rates in reasons.items() if name not in chief]:
        found[OTHERS] = [sum(rate or 0 for rate in rates) for rates in zip(*rest, strict=True)]
    return found


def _node_table() -> Table:
    def none() -> None:
        empty("dns", "No node lives.", "Devices cannot connect. Start one:", command="longwire serve")

    return Table(
        [
            Column("node", "Node", lambda node: node["node_id"], kind="code"),
            Column("connections", "Connections", lambda node: words.count(node["connections"]), kind="number"),
            Column(
                "connects",
                "Connects /s",
                lambda node: words.rate(node["connects_per_s"]),
                kind="number",
                hides_below=600,
            ),
            Column(
                "closes", "Closes /s", lambda node: words.rate(node["closes_per_s"]), kind="number", hides_below=600
            ),
            Column("up", "Up /s", lambda node: words.rate(node["uplink_per_s"]), kind="number"),
            Column("down", "Down /s", lambda node: words.rate(node["downlink_per_s"]), kind="number"),
            Column(
                "p99",
                "Ack p99",
                lambda node: words.millis(node["recent_ack_latency_ms"]["p99"]),
                kind="number",
                hides_below=600,
            ),
            Column(
                "queued", "Uncommitted", lambda node: words.size(node["queued_bytes"]), kind="number", hides_below=900
            ),
        ],
        key="node_id",
        on_open=lambda node: go(f"/nodes/{node['node_id']}"),
        empty=none,
    )
