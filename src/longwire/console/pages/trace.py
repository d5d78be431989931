"""Where is my message: one field for any id, a verdict in words, and the way step by step."""

from typing import Any, Final
from urllib.parse import urlencode

from nicegui import ui

from longwire.console import parts, words
from longwire.console.api import ApiError
from longwire.console.live import every
from longwire.console.pages.device import close_words
from longwire.console.pages.marks import MarkButton, Target
from longwire.console.parts import Column, Table, bar, box, button, fact, section, text
from longwire.console.shell import Seat, console_page, go

_EVERY_S = 2.0
_MARKED: Final[dict[str, Target]] = {"device": "device_id", "user": "user", "push": "push_id"}
_NARROWED: Final = frozenset({"message", "push"})
_PAGES: Final = {"device": "/devices/{}", "push": "/pushes/{}", "user": "/devices?user={}"}
_TITLES: Final = {"uplink": "Message of a device", "unknown": "Nothing found"}
_BAD: Final = (
    *("expired", "missed", "failed", "not-in-audience", "buried", "command-timeout", "command-offline"),
    *("command-failed", "device-disabled", "device-banned"),
)
_GOOD: Final = ("acked", "handled", "taken", "command-replied", "device-online")
_IDLE: Final = (
    *("collapsed", "withdrawn", "canceled", "not-kept", "device-unknown", "device-offline", "call-only", "too-old"),
    *("unknown", "trace", "user"),
)
_ICONS: Final = {"good": "check_circle", "bad": "error", "warn": "schedule", "idle": "info", "accent": "sync"}
_WHAT: Final = (
    ("msg_…", "a message, to one device or user, or from one"),
    ("psh_…", "a push; with a device, what became of it there"),
    ("cmd_…", "a command and its reply"),
    ("kiosk-001", "a device or a user, by name"),
    ("req_…", "an API call, by the X-Request-Id of its answer"),
    ("32 hex digits", "a trace, as it stands in a log line or a traceparent"),
)


def trace_path(q: str, device_id: str = "") -> str:
    """Where this is looked up."""
    given = {"q": q} | ({"device_id": device_id} if device_id else {})
    return f"/trace?{urlencode(given)}"


@console_page("/trace", "Where is my message", nav="trace", scope="device:read")
async def trace(seat: Seat, q: str = "", device_id: str = "") -> None:
    """What is found for ``q``, at one device where that is named."""
    q, device_id = q.strip(), device_id.strip()
    _search(q)
    if not q:
        _what()
        return

    async def load() -> dict[str, Any]:
        return await seat.api.get("/v1/trace", q=q, device_id=device_id or None)

    try:
        first = await load()
    except ApiError as error:
        if error.status != 400:
            raise
        parts.empty("search_off", "This is no id that anything has.", "Ids have no blanks, and at most 128 characters.")
        return
    found = _Found(seat, q, device_id, first)
    if not first["verdict"]["is_final"] or first["kind"] in ("device", "user"):
        loaded = [first]

        async def again() -> dict[str, Any]:
            return loaded.pop() if loaded else await load()

        every(_EVERY_S, again, found.show)


def _search(q: str) -> None:
    with bar():
        field = ui.input(value=q, placeholder="Message, push, command, device, user, trace or request id")
        field.props("outlined dense clearable maxlength=200").classes("lw-input lw-trace-field")
        field.props["aria-label"] = "An id"
        if not q:
            field.props("autofocus")

        def search() -> None:
            wanted = (field.value or "").strip()
            go(trace_path(wanted) if wanted else "/trace")

        field.on("keydown.enter", search)
        button("Find", search, kind="main", icon_name="search")


def _what() -> None:
    """What can be looked for."""
    with section("What can be found", hint="of the last seven days"), box("lw-panel"), box("lw-facts", "dl"):
        for example, meaning in _WHAT:
            with box("", "dt"):
                text("code", example)
            text("dd", meaning)


class _Found:
    """One answer, drawn anew where it changes."""

    def __init__(self, seat: Seat, q: str, device_id: str, first: dict[str, Any]) -> None:
        self._seat = seat
        self._q = q
        self._device_id = device_id
        self._shown: dict[str, Any] = {}
        with box("lw-page") as self._place:
            pass
        if first["kind"] in _MARKED and seat.may("node:write"):
            with box("lw-page"), section("Watch it closely"), bar():
                text("span", "Has what happens to it told hop by hop, in the logs and to a collector.", "lw-muted")
                MarkButton(seat, _MARKED[first["kind"]], first["id"])
        self.show(first)

    def show(self, found: dict[str, Any]) -> None:
        if found == self._shown:
            return
        self._shown = found
        self._place.clear()
        with self._place:
            _verdict(found)
            if found["kind"] in _NARROWED and (found["receivers_more"] or len(found["receivers"]) > 1):
                self._narrow()
            if found["timeline"]:
                with section("Its way", hint="times are yours; sentences tell them in UTC"), box("lw-panel"):
                    parts.timeline(found["timeline"])
            if len(found["receivers"]) > 1 and not self._device_id:  # of one the verdict tells all
                self._receivers(found)
            if found["sessions"]:
                with section("Connections"):
                    _sessions(found["sessions"])
            if found["related"]:
                with section("Look on"):
                    _related(found["related"])

    def _narrow(self) -> None:
        with bar():
            field = ui.input("At one device", value=self._device_id).props("outlined dense clearable")
            field.classes("lw-input")

            def narrow() -> None:
                go(trace_path(self._q, (field.value or "").strip()))

            field.on("keydown.enter", narrow)
            button("Look there", narrow)

    def _receivers(self, found: dict[str, Any]) -> None:
        more = found["receivers_more"]
        hint = f"and {words.count(more)} more: name a device above" if more else "open one to see its way"
        with section("Receivers", hint=hint):
            Table(
                [
                    Column("device", "Device", lambda row: row["device_id"] or "deleted since", kind="code"),
                    Column("state", "State", lambda row: row["state"], kind="badge"),
                    Column("verdict", "What became of it", lambda row: row["verdict"]["text"]),
                    Column("at", "At", lambda row: row["at"], kind="time", hides_below=600),
                ],
                key=lambda row: str(row["device_id"]),
                on_open=lambda row: go(trace_path(self._q, row["device_id"])) if row["device_id"] else None,
            ).show(found["receivers"])


def tone_of(code: str) -> str:
    """The colour of a verdict."""
    for tone, codes in (("good", _GOOD), ("bad", _BAD), ("idle", _IDLE)):
        if code in codes:
            return tone
    return "accent" if code in ("push-sending", "command-sent") else "warn"


def _verdict(found: dict[str, Any]) -> None:
    """The sentence, and what it is about."""
    tone = tone_of(found["verdict"]["code"])
    kind = found["kind"]
    with box(f"lw-panel lw-answer {tone}"):
        with box("lw-answer-head"):
            parts.icon(_ICONS[tone])
            text("p", found["verdict"]["text"], "lw-answer-text").props["role"] = "status"
        with box("lw-facts", "dl"):
            with fact(_TITLES.get(kind, kind.capitalize())), bar():
                parts.code(found["id"])
                if kind in _PAGES:
                    parts.link(f"Open the {kind}", _PAGES[kind].format(found["id"]))
            for name, value in found["facts"].items():
                if value not in (None, "", 0) or value is False:
                    _one_fact(name, value)
            if found["trace_id"]:
                with fact("Trace"):
                    parts.code(found["trace_id"])
            if found["kept_until"]:
                with fact("Kept until"):
                    parts.ago(found["kept_until"])


def _one_fact(name: str, value: object) -> None:
    label = name.removesuffix("_at").replace("_", " ").capitalize()
    if name.endswith("_at"):
        with fact(label):
            parts.ago(str(value))
    elif name == "bytes":
        with fact("Size"):
            text("span", words.size(float(str(value))))
    else:
        with fact(label):
            text("span", {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value))


def _sessions(sessions: list[dict[str, Any]]) -> None:
    Table(
        [
            Column("began", "Connected", lambda row: row["began_at"], kind="time"),
            Column("ended", "Closed", lambda row: row["ended_at"], kind="time"),
            Column("why", "Why", lambda row: close_words(row["close"])),
            Column("node", "Node", lambda row: row["node_id"]),
        ],
        key="session_id",
    ).show(sessions)


def _related(related: list[dict[str, Any]]) -> None:
    Table(
        [
            Column("text", "What", lambda row: row["text"]),
            Column("kind", "Is a", lambda row: row["kind"]),
            Column("id", "Id", lambda row: row["id"], kind="code", hides_below=600),
        ],
        key="id",
        on_open=lambda row: go(trace_path(row["id"])),
    ).show(related)
