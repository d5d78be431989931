"""The audit: who did what through the operators' door, and how it ended."""

import asyncio
import datetime as dt
from typing import Any
from urllib.parse import urlencode

from nicegui import ui

from longwire.console import parts, words
from longwire.console.api import Page
from longwire.console.live import every
from longwire.console.parts import Column, Pager, Table, box, button, empty, section, text
from longwire.console.shell import ADMIN, Seat, console_page, go

_EVERY_S = 5.0
_SPANS = {"": "90 days", "3600": "Last hour", "86400": "Last day", "604800": "Last week"}


@console_page("/audit", "Audit", nav="audit", scope=ADMIN)
async def audit(seat: Seat, caller: str = "", action: str = "", span: str = "") -> None:
    """Entries, newest first, by filters that stand in the address."""
    span = span if span in _SPANS else ""
    names = await _names(seat)
    _filters(names, caller, action, span)
    with section(""):
        table = _table(names, has_filter=bool(caller or action or span))

        def load(cursor: str | None) -> Any:
            since = None if not span else dt.datetime.now(dt.UTC) - dt.timedelta(seconds=int(span))
            return seat.api.page(
                "/v1/audit",
                cursor=cursor,
                caller=caller or None,
                action=action or None,
                since=None if since is None else since.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            )

        pager = Pager(load, table)

    def show(page: Page) -> None:
        # Who has gone on to older ones reads them in peace.
        if not pager.is_extended:
            pager.show(page)

    every(_EVERY_S, lambda: load(None), show)


def _filters(names: dict[str, str], caller: str, action: str, span: str) -> None:
    """Each is applied when it is chosen, typed and left; the page with them can be linked to."""
    now = {"caller": caller, "action": action, "span": span}

    def apply(name: str, value: str | None) -> None:
        wanted = now | {name: (value or "").strip()}
        if wanted != now:
            given = {key: one for key, one in wanted.items() if one}
            go(f"/audit?{urlencode(given)}" if given else "/audit")

    with parts.bar():
        callers = {"": "Anybody"} | {one: _who(one, names) for one in ([caller] if caller else [])} | names
        who = ui.select(
            callers, label="Who", value=caller, with_input=True, on_change=lambda event: apply("caller", event.value)
        )
        who.props("outlined dense").classes("lw-input")
        what = ui.input("Action begins with", value=action, placeholder="POST /v1/pushes")
        what.props("outlined dense clearable").classes("lw-input")
        for moment in ("keydown.enter", "blur", "clear"):
            what.on(moment, lambda: apply("action", what.value))
        chosen = ui.select(_SPANS, label="Since", value=span, on_change=lambda event: apply("span", event.value))
        chosen.props("outlined dense").classes("lw-input")


def _table(names: dict[str, str], *, has_filter: bool) -> Table:
    def who(entry: dict[str, Any]) -> str:
        return _who(entry["caller"], names)

    def none() -> None:
        if has_filter:
            empty("filter_alt_off", "Nothing of that in the audit.", "", ("Show all", lambda: go("/audit")))
        else:
            empty("receipt_long", "Nobody has changed anything yet.", "What people and keys change is listed here.")

    return Table(
        [
            Column("what", "What", lambda entry: entry["action"], kind="code"),
            Column("who", "Who", who),
            Column("target", "On", lambda entry: entry["target"] or words.UNKNOWN),
            Column("status", "Status", _status, kind="badge", tone=_tone),
            Column("at", "When", lambda entry: entry["at"], kind="time"),
        ],
        key="id",
        on_open=lambda entry: _open(entry, names),
        empty=none,
    )


async def _open(entry: dict[str, Any], names: dict[str, str]) -> None:
    with parts.dialog("What was done") as shown:
        with box("lw-facts", "dl"):
            for name, value in (
                ("What", entry["action"]),
                ("On", entry["target"] or words.UNKNOWN),
                ("Who", _who(entry["caller"], names)),
                ("Caller", entry["caller"]),
            ):
                with parts.fact(name):
                    text("span", value)
            with parts.fact("Status"):
                parts.badge(_status(entry), _tone(entry))
            with parts.fact("When"):
                parts.ago(entry["at"])
                text("span", f" {words.utc(entry['at'])}", "lw-muted")
            with parts.fact("Request"):
                parts.code(entry["request_id"])
        with box("lw-dialog-actions"):
            button("All of this caller", lambda: go(f"/audit?{urlencode({'caller': entry['caller']})}"))
            button("Trace the request", lambda: go(f"/trace?{urlencode({'q': entry['request_id']})}"))
            button("Close", shown.close)
    await parts.answer_of(shown)


async def _names(seat: Seat) -> dict[str, str]:
    """Who is called what: people, and the newest 500 keys."""
    people, keys = await asyncio.gather(seat.api.page("/v1/people", limit=500), seat.api.page("/v1/keys", limit=500))
    called = {f"person:{person['name']}": person["name"] for person in people.items}
    return called | {key["key_id"]: f"key {key['name'] or key['key_id']}" for key in keys.items}


def _who(caller: str, names: dict[str, str]) -> str:
    """``anna``, ``key shop backend``, or as the audit has it where it is nobody's any more."""
    return names.get(caller) or caller.removeprefix("person:")


_WORDS = {200: "done", 201: "made", 202: "accepted", 204: "done", 401: "not signed in", 403: "not allowed"}
_WORDS |= {404: "not found", 409: "not now", 422: "wrong", 429: "too often", 503: "engine away"}


def _status(entry: dict[str, Any]) -> str:
    status = int(entry["status"])
    word = _WORDS.get(status)
    return str(status) if word is None else f"{status} {word}"


def _tone(entry: dict[str, Any]) -> str:
    status = int(entry["status"])
    return "good" if status < 400 else "warn" if status < 500 else "bad"
