"""What pages are made of. Every text that comes in is shown as text: nothing here parses HTML."""

import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nicegui import events, ui
from nicegui.element import Element
from nicegui.elements.mixins.text_element import TextElement

from longwire.console import theme, words
from longwire.console.api import ApiError, Page

Kind = Literal["text", "number", "time", "badge", "code"]
Handler = Callable[[], Awaitable[object] | object]
_STEP_ICONS = {"done": "check", "failed": "close", "ahead": "schedule", "unknown": "question_mark"}
_STEP_TONES = {"done": "good", "failed": "bad", "ahead": "warn", "unknown": "idle"}


def text(tag: str, content: str, classes: str = "") -> TextElement:
    """An HTML element with a text."""
    return TextElement(tag=tag, text=content).classes(classes)


@contextlib.contextmanager
def box(classes: str, tag: str = "div") -> Iterator[Element]:
    """An HTML element around others."""
    with Element(tag).classes(classes) as element:
        yield element


@contextlib.contextmanager
def section(title: str, *, hint: str = "") -> Iterator[Element]:
    """A part of a page with a heading."""
    with box("lw-section", "section") as whole:
        if title:
            with box("lw-section-head"):
                text("h2", title)
                if hint:
                    text("span", hint, "lw-hint")
        yield whole


@contextlib.contextmanager
def tiles() -> Iterator[Element]:
    """Tiles beside each other."""
    with box("lw-tiles") as whole:
        yield whole


@contextlib.contextmanager
def bar() -> Iterator[Element]:
    """Controls beside each other: buttons, filters."""
    with box("lw-bar") as whole:
        yield whole


class Tile:
    """One number with its name."""

    def __init__(self, label: str, *, unit: str = "", hint: str = "", tone: str = "") -> None:
        with box("lw-tile") as self._whole:
            named = text("div", label, "lw-tile-label")
            with box("lw-tile-value"):
                self._value = text("span", words.UNKNOWN, "lw-number")
                if unit:
                    text("span", unit, "lw-unit")
            self._delta = text("div", "", "lw-tile-delta")
        if hint:
            named.props["title"] = hint
        self._tone = ""
        self._paint(tone)

    def set(self, value: str, tone: str = "", delta: str = "") -> None:
        """``tone``: good, warn, bad, accent, idle or none; ``delta`` stands below in small."""
        self._value.text = value
        self._delta.text = delta
        self._paint(tone)

    def _paint(self, tone: str) -> None:
        if tone != self._tone:
            self._whole.classes(remove=self._tone, add=tone)
            self._tone = tone


def facts(rows: Sequence[tuple[str, str]]) -> Element:
    """Names and values, one a line."""
    with box("lw-facts", "dl") as whole:
        for name, value in rows:
            text("dt", name)
            text("dd", value)
    return whole


@contextlib.contextmanager
def fact(name: str) -> Iterator[Element]:
    """A name, and behind it what is drawn within; to be used within ``box("lw-facts", "dl")``."""
    text("dt", name)
    with Element("dd") as value:
        yield value


def badge(content: str, tone: str = "") -> TextElement:
    """A state: a dot of its colour and the word. Without ``tone`` the word's own."""
    return text("span", content, f"lw-badge {tone or words.tone_of(content)}")


def code(content: str) -> Element:
    """An id or a command; a click copies it."""
    with box("lw-code", "button") as whole:
        whole.props["type"] = "button"
        whole.props["title"] = "Copy"
        whole.props["aria-label"] = f"Copy {content}"
        whole.props["data-copy"] = content  # console.js copies it
        text("code", content)
        icon("content_copy")
    return whole


def icon(name: str, classes: str = "") -> Element:
    """A Material icon; it is never all that says something."""
    drawn = ui.icon(name).classes(f"lw-icon {classes}")
    drawn.props["aria-hidden"] = "true"
    return drawn


def ago(at: str | float | None) -> TextElement:
    """A time: relative within a day; UTC in its title."""
    shown = text("time", words.when(at, theme.zone()))
    shown.props["title"] = f"{words.dated(at, theme.zone())} · {words.utc(at)}"
    return shown


def button(
    label: str,
    on_click: Handler,
    *,
    kind: Literal["main", "plain", "danger", "quiet"] = "plain",
    icon_name: str = "",
    hint: str = "",
) -> ui.button:
    """A button that is off while what it does runs, and tells what went wrong. ``main`` is one a page."""
    made = ui.button(label, icon=icon_name or None, color=None).classes(f"lw-button {kind}").props("unelevated no-caps")
    if hint:
        made.props["title"] = hint

    async def clicked() -> None:
        made.disable()
        try:
            done = on_click()
            # A dialog's close and open give the dialog, and to await that is to open it.
            if isinstance(done, Awaitable) and not isinstance(done, ui.dialog):
                await done
        except ApiError as error:
            tell(error)
        finally:
            if not made.is_deleted:
                made.enable()

    made.on_click(clicked)
    return made


def link(label: str, target: str, classes: str = "") -> Element:
    """A link to a page of the console."""
    made = TextElement(tag="a", text=label).classes(f"lw-link {classes}")
    made.props["href"] = target
    return made


def tell(error: ApiError) -> None:
    """Says in passing why a call failed."""
    wait = f" Try again in {words.duration(error.retry_after_s)}." if error.retry_after_s else ""
    if error.status == 403:
        detail = f"Your role does not allow that: it lacks {error.more.get('scope') or 'the scope'}."
    else:
        detail = error.detail[:1].upper() + error.detail[1:]
    request = f"\nRequest {error.request_id}" if error.request_id else ""
    ui.notify(f"{detail}{wait}{request}", classes="lw-toast bad", multi_line=True, timeout=10_000, close_button="Close")


def say(done: str) -> None:
    """Says in passing that something is done."""
    ui.notify(done, classes="lw-toast good", timeout=3_000)


def empty(
    icon_name: str,
    title: str,
    detail: str,
    action: tuple[str, Callable[[], object]] | None = None,
    *,
    command: str = "",
) -> Element:
    """Where there is nothing: what this is, and what to do. ``command`` can be copied."""
    with box("lw-empty") as whole:
        icon(icon_name)
        text("p", title, "lw-empty-title")
        if detail:
            text("p", detail, "lw-muted")
        if command:
            code(command)
        if action is not None:
            button(action[0], action[1])
    return whole


def failed(error: ApiError, again: Handler | None = None) -> Element:
    """Where something could not be loaded: the fact, what to do, the request's id."""
    with box("lw-empty bad") as whole:
        whole.props["role"] = "alert"
        icon("cloud_off" if error.status == 503 else "error_outline")
        text("p", error.detail[:1].upper() + error.detail[1:], "lw-empty-title")
        text("p", _advice(error), "lw-muted")
        if error.request_id:
            code(error.request_id)
        if again is not None:
            button("Again", again)
    return whole


def _advice(error: ApiError) -> str:
    match error.status:
        case 404:
            return "It may have been deleted, or is older than what is kept."
        case 429:
            return f"Too many calls; again in {words.duration(error.retry_after_s or 1)}."
        case 503:
            return "The API or an engine behind it is away. `longwire doctor` tells which."
        case 500:
            return "The server failed. Its log has more under the request's id."
        case _:
            return "The API did not take the call."


def denied(scope: str) -> Element:
    """Where the person may not look."""
    with box("lw-empty") as whole:
        icon("lock")
        text("p", "Your role does not allow this.", "lw-empty-title")
        text("p", f"It needs the scope {scope}. An admin can give you another role.", "lw-muted")
    return whole


def skeleton(rows: int = 3) -> Element:
    """Where something is about to be."""
    with box("lw-skeleton") as whole:
        whole.props["aria-hidden"] = "true"
        for _ in range(rows):
            Element("span")
    return whole


@dataclass(frozen=True, slots=True)
class Column:
    """One column; ``of`` makes the text of a cell: of a time, what the API said. Below ``hides_below`` px (600 or
    900) it goes."""

    name: str
    label: str
    of: Callable[[dict[str, Any]], Any]
    align: Literal["left", "right"] = "left"
    width: str = ""
    kind: Kind = "text"
    hides_below: int = 0
    tone: Callable[[dict[str, Any]], str] | None = None
    """Of a badge; None: what its word says."""


class Table(Element, component="table.js"):
    """Rows of a list. What is drawn within it (``with table:``) is shown where there is none."""

    def __init__(
        self,
        columns: Sequence[Column],
        *,
        key: str | Callable[[dict[str, Any]], str],
        on_open: Callable[[dict[str, Any]], object] | None = None,
        empty: Callable[[], object] | None = None,
    ) -> None:
        super().__init__()
        self._columns = columns
        self._key = key
        self._rows: dict[str, dict[str, Any]] = {}
        self.props["columns"] = [
            {
                "name": one.name,
                "label": one.label,
                "align": "right" if one.kind == "number" else one.align,
                "width": one.width,
                "kind": one.kind,
                "hides_below": one.hides_below,
            }
            for one in columns
        ]
        self.props["rows"] = []
        self.props["opens"] = on_open is not None
        if on_open is not None:
            self.on("open", lambda event: self._open(event, on_open))
        with self:
            if empty is not None:
                empty()
            else:
                skeleton()
        self._has_skeleton = empty is None

    def show(self, rows: Sequence[dict[str, Any]]) -> None:
        """These and no others."""
        self._rows = {self._key_of(row): row for row in rows}
        self._render()

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """These behind those that are there."""
        self._rows |= {self._key_of(row): row for row in rows}
        self._render()

    def _key_of(self, row: dict[str, Any]) -> str:
        return str(self._key(row) if callable(self._key) else row[self._key])

    def _render(self) -> None:
        if self._has_skeleton and not self._rows:
            self._has_skeleton = False
            self.clear()
            with self:
                text("p", "Nothing here.", "lw-muted")
        zone = theme.zone()
        self.props["rows"] = [
            {"key": key, "cells": [_cell(column, row, zone) for column in self._columns]}
            for key, row in self._rows.items()
        ]
        self.update()

    def _open(self, event: events.GenericEventArguments, on_open: Callable[[dict[str, Any]], object]) -> object:
        row = self._rows.get(str(event.args))
        return None if row is None else on_open(row)


def _cell(column: Column, row: dict[str, Any], zone: Any) -> dict[str, str]:
    value = column.of(row)
    if column.kind == "time":
        return {"text": words.when(value, zone), "title": words.utc(value)}
    shown = words.UNKNOWN if value is None else str(value)
    if column.kind == "badge":
        return {"text": shown, "tone": words.tone_of(shown) if column.tone is None else column.tone(row)}
    return {"text": shown}


class Pager:
    """A table of a list that goes on: "More" brings the next page."""

    def __init__(self, load: Callable[[str | None], Awaitable[Page]], table: Table) -> None:
        self._load = load
        self._table = table
        self._cursor: str | None = None
        self._more = button("More", self.more)
        self._more.set_visibility(False)
        self.is_extended = False
        """Whether there is more than the first page."""

    async def first(self) -> None:
        """Shows the first page, also again. Raises ApiError."""
        self.show(await self._load(None))

    def show(self, found: Page) -> None:
        """Shows this as the first page."""
        self.is_extended = False
        self._table.show(found.items)
        self._go_on(found)

    async def more(self) -> None:
        """Adds the next page. Raises ApiError."""
        found = await self._load(self._cursor)
        self.is_extended = True
        self._table.add(found.items)
        self._go_on(found)

    def _go_on(self, found: Page) -> None:
        self._cursor = found.next_cursor
        self._more.set_visibility(found.next_cursor is not None)


@contextlib.contextmanager
def dialog(title: str) -> Iterator[ui.dialog]:
    """A dialog; what is drawn within it is its content. Opens by ``open()`` or by being awaited."""
    # Beside the page: what opened it may be drawn anew while somebody reads.
    with ui.context.client.layout, ui.dialog().classes("lw-dialog") as whole, box("lw-dialog-card") as card:
        card.props["role"] = "dialog"
        card.props["aria-label"] = title
        text("h2", title)
        yield whole


async def answer_of(shown: ui.dialog) -> Any:
    """Opens it and waits: what it was submitted with, None where it was closed. It is gone then."""
    said = await shown
    if not shown.is_deleted:  # with its page, which somebody left meanwhile
        shown.delete()
    return said


async def confirm(title: str, detail: str, *, verb: str, tone: str = "danger", typed: str = "") -> bool:
    """Asks. ``typed``: what has to be typed first, such as a number of devices."""
    with dialog(title) as asked:
        for line in detail.splitlines():
            text("p", line, "lw-muted")
        given: ui.input | None = None
        if typed:
            text("p", f"Type {typed} to go on.")
            given = ui.input().props("outlined dense autofocus").classes("lw-input")
            given.props["aria-label"] = f"Type {typed}"
        with box("lw-dialog-actions"):
            no = ui.button("Cancel", on_click=lambda: asked.submit(False), color=None).props("unelevated no-caps")
            no.classes("lw-button plain")
            yes = ui.button(verb, on_click=lambda: asked.submit(True), color=None).props("unelevated no-caps")
            yes.classes(f"lw-button {'danger-main' if tone == 'danger' else 'main'}")
            if given is not None:
                yes.bind_enabled_from(given, "value", lambda value: str(value or "").replace(",", "").strip() == typed)
            else:
                no.props("autofocus")
    return bool(await answer_of(asked))


async def act(call: Awaitable[dict[str, Any]], done: str) -> dict[str, Any] | None:
    """Makes a call and says that it is done, or why not; its answer, None where it failed."""
    try:
        answer = await call
    except ApiError as error:
        tell(error)
        return None
    if done:
        say(done)
    return answer


def timeline(steps: Sequence[dict[str, Any]]) -> Element:
    """What happened, in order: ``at``, ``text``, ``state`` (done, failed, ahead, unknown), ``node_id``."""
    zone = theme.zone()
    with box("lw-timeline", "ol") as whole:
        for step in steps:
            state = str(step.get("state", "done"))
            with box(f"lw-step {_STEP_TONES.get(state, 'idle')}", "li"):
                icon(_STEP_ICONS.get(state, "check"))
                at = step.get("at")
                shown = text("time", words.moment(at, zone) if at else state)
                if at:
                    shown.props["title"] = f"{words.dated(at, zone)} · {words.utc(at)}"
                with box("lw-step-text"):
                    text("span", str(step.get("text", "")))
                    where = " · ".join(str(step[name]) for name in ("node_id", "device_id") if step.get(name))
                    if where:
                        text("code", where, "lw-muted")
    return whole


_FUNNEL = (
    ("acked", "Acknowledged", "good"),
    ("pending", "Waiting", "warn"),
    ("expired", "Expired", "bad"),
    ("failed", "Failed", "bad"),
    ("collapsed", "Replaced by a later one", "idle"),
    ("canceled", "Canceled", "idle"),
    ("withdrawn", "Withdrawn", "idle"),
)


def funnel(stats: dict[str, Any]) -> Element:
    """What became of a push's devices: one bar, the numbers, and whether they add up."""
    targeted = int(stats.get("targeted") or 0)
    parts = [(label, int(stats.get(name) or 0), tone) for name, label, tone in _FUNNEL]
    rest = targeted - sum(number for _, number, _ in parts)
    with box("lw-funnel") as whole:
        with box("lw-funnel-bar") as drawn:
            drawn.props["role"] = "img"
            drawn.props["aria-label"] = ", ".join(f"{label} {words.count(number)}" for label, number, _ in parts)
            for _, number, tone in parts:
                if number and targeted:
                    Element("span").classes(tone).style(f"flex-grow: {number / targeted:.6f}")
        with box("lw-funnel-rows"):
            for label, number, tone in parts:
                text("span", label, f"lw-badge {tone}")
                text("span", words.count(number), "lw-number")
                text("span", words.percent(number, targeted), "lw-muted")
            text("span", "Targeted", "lw-strong")
            text("span", words.count(targeted), "lw-number lw-strong")
            text("span", "adds up" if not rest else f"{words.count(rest)} not accounted for", "lw-muted")
    return whole


def progress(value: float, label: str) -> Element:
    """How far something has come: ``value`` from 0 to 1, and the same in words."""
    with box("lw-progress") as whole:
        whole.props["role"] = "progressbar"
        whole.props["aria-valuenow"] = round(100 * value)
        whole.props["aria-label"] = label
        with box("lw-progress-bar"):
            Element("span").style(f"width: {100 * min(max(value, 0.0), 1.0):.1f}%")
        text("span", label, "lw-muted")
    return whole
