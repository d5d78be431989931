"""The list of pushes, and the words for a push that its other pages use, too."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from nicegui import ui

from longwire.console import words
from longwire.console.api import Page
from longwire.console.live import every
from longwire.console.parts import Column, Pager, Table, bar, button, empty, section
from longwire.console.shell import Seat, console_page, go

STATUSES = ("scheduled", "sending", "paused", "dispatched", "completed", "canceled", "withdrawn", "failed")
ENDED = frozenset({"completed", "canceled", "withdrawn", "failed"})
_EVERY_S = 2.0


@console_page("/pushes", "Pushes", nav="pushes", scope="push:read")
async def pushes(seat: Seat, status: str = "") -> None:
    """Pushes, newest first."""
    status = status if status in STATUSES else ""
    with bar():
        if seat.may("push:write"):
            button("New push", lambda: go("/pushes/new"), kind="main", icon_name="add")
        _status_filter(status)
    with section(""):
        table = _table(lambda: _none(seat, status))

        def load(cursor: str | None) -> Any:
            return seat.api.page("/v1/pushes", cursor=cursor, status=status or None)

        pager = Pager(load, table)

    def show(page: Page) -> None:
        # Who has gone on to older ones reads them in peace.
        if not pager.is_extended:
            pager.show(page)

    every(_EVERY_S, lambda: load(None), show)


def _status_filter(status: str) -> None:
    options = {"": "All"} | {one: one.capitalize() for one in STATUSES}

    def chosen(value: str) -> None:
        go(f"/pushes?{urlencode({'status': value})}" if value else "/pushes")

    select = ui.select(options, value=status, label="Status", on_change=lambda event: chosen(event.value))
    select.props("outlined dense").classes("lw-input lw-narrow")


def _none(seat: Seat, status: str) -> None:
    if status:
        empty("filter_alt_off", f"No push has the status {status}.", "", ("Show all", lambda: go("/pushes")))
    elif seat.may("push:write"):
        detail = "A push is one message to everyone, to a tag, a group, or some devices."
        empty("campaign", "No push was sent yet.", detail, ("New push", lambda: go("/pushes/new")))
    else:
        empty("campaign", "No push was sent yet.", "Who may write pushes can send one; it is listed here then.")


def _table(none: Callable[[], None]) -> Table:
    return Table(
        [
            Column("kind", "Kind", lambda push: push["kind"], width="130px"),
            Column("audience", "Audience", lambda push: audience_words(push["audience"])),
            Column("status", "Status", lambda push: push["status"], kind="badge"),
            Column("targeted", "Devices", lambda push: words.count(push["stats"]["targeted"]), kind="number"),
            Column("acked", "Acknowledged", acked_words, kind="number"),
            Column("p95", "p95", _p95, kind="number", hides_below=900),
            Column("by", "By", _by, width="150px", hides_below=900),
            Column("created", "Made", lambda push: push["created_at"], kind="time"),
        ],
        key="id",
        on_open=lambda push: go(f"/pushes/{push['id']}"),
        empty=none,
    )


def _by(push: dict[str, Any]) -> str:
    """Who made it; of a key's id the ends."""
    by = str(push["created_by"] or words.UNKNOWN)
    return f"{by[:8]}…{by[-6:]}" if by.startswith("key_") else by.removeprefix("person:")


def _p95(push: dict[str, Any]) -> str:
    return words.millis(push["stats"]["latency_ms"]["p95"])


def acked_words(push: dict[str, Any]) -> str:
    """``1,204 · 12 %``."""
    stats = push["stats"]
    if not stats["targeted"]:
        return words.count(stats["acked"])
    return f"{words.count(stats['acked'])} · {words.percent(stats['acked'], stats['targeted'])}"


def audience_words(audience: dict[str, Any]) -> str:
    """Whom a push is for, in a line."""
    kind = next(iter(audience), "")
    given: Any = audience.get(kind)
    match kind:
        case "":
            return words.UNKNOWN
        case "all":
            return "Everyone"
        case "tags":
            return _tag_words(given)
        case "upload":
            return f"Upload {given}"
        case "retry_of":
            return f"Retry of {given}"
        case "notice_of":
            return f"Withdrawal of {given}"
        case "sent_to_group":
            return f"Group {given}"
        case _:
            noun = kind.removesuffix("s")
            if len(given) == 1:
                return f"{noun.capitalize()} {given[0]}"
            some = ", ".join(map(str, given[:3]))
            more = "" if len(given) <= 3 else " …"
            return f"{kind.capitalize()} {some}{more}"


def _tag_words(tags: dict[str, list[str]]) -> str:
    said = []
    if tags.get("any"):
        said.append("any of " + ", ".join(tags["any"]))
    if tags.get("all"):
        said.append("all of " + ", ".join(tags["all"]))
    if tags.get("none"):
        said.append("none of " + ", ".join(tags["none"]))
    return "Tags: " + "; ".join(said)
