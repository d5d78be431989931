"""A new push: whom it is for, with a count that follows the form; the message; and trying it before it is sent.

The count is the API's own (``/v1/pushes/validate``): nothing is guessed here, and nothing is sent by it.
"""

import asyncio
import base64
import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

from nicegui import background_tasks, ui
from nicegui.elements.mixins.value_element import ValueElement

from longwire.console import parts, theme, words
from longwire.console.api import ApiError
from longwire.console.parts import bar, box, button, section, text
from longwire.console.shell import Seat, console_page, go

TYPED_ABOVE = 10_000
"""Pushes to more devices than this are confirmed by typing the number."""
_DEBOUNCE_S = 0.4
_TEST_TTL_S = 60
_TEST_WAIT_MS = 5_000
_KINDS = {
    "all": "Everyone",
    "tags": "Tags",
    "groups": "Groups",
    "users": "Users",
    "devices": "Devices",
    "upload": "Upload",
}
_TTLS = {
    0: "Only who is online now",
    300: "5 minutes",
    3_600: "1 hour",
    86_400: "1 day",
    604_800: "7 days",
}
_BINARY = "base64"
T = TypeVar("T", str, list[str])


class Incomplete(Exception):
    """The form does not say a push yet; the text says what is missing, and in which field."""

    def __init__(self, message: str, field: ValueElement[Any] | None = None) -> None:
        super().__init__(message)
        self.field = field


@console_page("/pushes/new", "New push", nav="pushes", scope="push:write")
async def push_new(seat: Seat) -> None:
    """The form."""
    suggestions = await _suggestions(seat)
    limit = await _payload_limit(seat)
    composer = _Composer(seat, suggestions, limit)
    composer.draw()


async def _suggestions(seat: Seat) -> dict[str, dict[str, str]]:
    """Tags and groups with their counts, by name; none for who may not read them."""
    if not seat.may("device:read"):
        return {"tags": {}, "groups": {}}
    tags, groups = await asyncio.gather(seat.api.page("/v1/tags", limit=500), seat.api.page("/v1/groups", limit=500))
    return {
        "tags": {tag["tag"]: f"{tag['tag']} · {words.count(tag['devices'])}" for tag in tags.items},
        "groups": {
            one["group_id"]: f"{one['name'] or one['group_id']} · {words.plural(one['devices'], 'device')}"
            for one in groups.items
        },
    }


async def _payload_limit(seat: Seat) -> int | None:
    if not seat.may("stats:read"):
        return None
    limits = await seat.api.get("/v1/limits")
    return int(limits["device"]["max_push_payload_bytes"])


class _Composer:
    """The form and what it would do."""

    def __init__(self, seat: Seat, suggestions: dict[str, dict[str, str]], limit: int | None) -> None:
        self._seat = seat
        self._suggestions = suggestions
        self._limit = limit
        self._asked = 0
        self._keys: dict[str, str] = {}

    def draw(self) -> None:
        """All of it."""
        with box("lw-compose"):
            with box("lw-compose-form"):
                with section("1  For whom"):
                    self._audience = _AudienceFields(self._suggestions, self._changed)
                with section("2  What"):
                    self._message = _MessageFields(self._limit, self._changed)
                with section("3  How"):
                    self._options = _OptionFields(self._changed)
            with box("lw-compose-check"), section("Before it is sent"):
                self._draw_check()
        self._changed()

    def _draw_check(self) -> None:
        with box("lw-count") as self._count:
            self._count.props["aria-live"] = "polite"
            self._targeted = text("div", words.UNKNOWN, "lw-count-number lw-number")
            self._online = text("div", "", "lw-muted")
        with box("lw-notices", "ul") as self._notes:
            pass
        button("Dry run", self._dry_run, icon_name="fact_check", hint="Checks all of it; sends nothing")
        text("h3", "Test on one device first")
        with bar():
            self._test_device = ui.input("Device id").props("outlined dense").classes("lw-input")
            button("Send test", self._test, icon_name="send_to_mobile")
        self._tested = text("p", "", "lw-muted lw-tested")
        self._tested.props["role"] = "status"
        button("Send push …", self._send, kind="main", icon_name="campaign")

    def body(self) -> dict[str, Any]:
        """The call's body. Raises Incomplete."""
        return {
            "audience": self._audience.value(),
            "message": self._message.value(),
            "options": self._options.value(),
        }

    # -- the count ------------------------------------------------------------------------------------------------

    def _changed(self) -> None:
        self._asked += 1
        background_tasks.create(self._count_soon(self._asked))

    async def _count_soon(self, asked: int) -> None:
        await asyncio.sleep(_DEBOUNCE_S)
        if asked != self._asked or self._count.is_deleted:
            return
        with self._count:
            await self._validate()

    async def _validate(self) -> dict[str, Any] | None:
        """Shows what the push would be; None where it is none."""
        asked = self._asked
        try:
            found = await self._seat.api.post("/v1/pushes/validate", self.body())
        except Incomplete as missing:
            self._show(words.UNKNOWN, str(missing), [])
            return None
        except ApiError as error:
            if asked == self._asked:
                said = [one["detail"] for one in error.errors] or [error.detail]
                self._show(words.UNKNOWN, "It would be refused:", [("bad", one) for one in said])
            return None
        if asked == self._asked and not self._count.is_deleted:
            noun = "device" if found["targeted"] == 1 else "devices"
            notes = [("warn", warning) for warning in found["warnings"]]
            if found["unresolved"]:
                sample = ", ".join(found["unresolved"]["sample"][:5])
                notes.append(("warn", f"nobody is called {sample}"))
            self._show(words.count(found["targeted"]), f"{noun}, {words.count(found['online'])} online now", notes)
        return found

    def _show(self, number: str, said: str, notes: list[tuple[str, str]]) -> None:
        self._targeted.text = number
        self._online.text = said
        self._notes.clear()
        with self._notes:
            for tone, note in notes:
                with box(f"lw-notice {tone}", "li"):
                    parts.icon("error" if tone == "bad" else "warning")
                    text("span", note[:1].upper() + note[1:])

    # -- trying and sending ---------------------------------------------------------------------------------------

    async def _dry_run(self) -> None:
        found = await self._checked()
        if found is None:
            return
        with parts.dialog("Dry run: nothing was sent") as shown:
            parts.facts(
                [
                    ("Devices", words.count(found["targeted"])),
                    ("Online now", words.count(found["online"])),
                    ("Payload", f"{words.count(found['payload_bytes'])} bytes"),
                    ("Names of nobody", words.count(found["unresolved"]["count"] if found["unresolved"] else 0)),
                    ("Warnings", "; ".join(found["warnings"]) or "none"),
                ]
            )
            with box("lw-dialog-actions"):
                button("Close", shown.close)
        shown.open()

    async def _checked(self) -> dict[str, Any] | None:
        """What the API says of the form as it is now; says in passing why it is no push."""
        try:
            self.body()
        except Incomplete as missing:
            if missing.field is not None:
                missing.field.run_method("focus")
            ui.notify(str(missing), classes="lw-toast bad", timeout=5_000)
            return None
        found = await self._validate()
        if found is None:
            ui.notify("The push would be refused; the reason stands beside the form.", classes="lw-toast bad")
        return found

    async def _test(self) -> None:
        device_id = str(self._test_device.value or "").strip()
        if not device_id:
            self._tested.text = "Name a device to test on."
            return
        try:
            message = self._message.value()
        except Incomplete as missing:
            self._tested.text = str(missing)
            return
        self._tested.text = "Sending …"
        body = {"to": {"device": device_id}, "ttl_s": _TEST_TTL_S, "wait_ack_ms": _TEST_WAIT_MS, **message}
        try:
            answer = await self._seat.api.post("/v1/messages", body, key=str(uuid.uuid4()))
        except ApiError as error:
            self._tested.text = f"Not sent: {error.detail}."
            return
        if answer.get("acked"):
            self._tested.text = f"✓ {device_id} acknowledged the test."
        elif answer["delivered_to"]:
            self._tested.text = f"Written to {device_id}, and not acknowledged within {_TEST_WAIT_MS // 1000} s."
        else:
            self._tested.text = f"{device_id} is offline: it gets the test if it comes within a minute."

    async def _send(self) -> None:
        found = await self._checked()
        if found is None:
            return
        body, targeted = self.body(), int(found["targeted"])
        devices = words.plural(targeted, "device")
        detail = f"It is for {devices}, of which {words.count(found['online'])} are online now."
        if body["options"].get("send_at"):
            detail += (
                f"\nIt is sent {words.dated(body['options']['send_at'], theme.zone())}, to who is in the audience then."
            )
        typed = str(targeted) if targeted > TYPED_ABOVE else ""
        if not await parts.confirm(f"Send to {devices}?", detail, verb="Send", tone="main", typed=typed):
            return
        # The same form sent twice is one push; another content is another.
        key = self._keys.setdefault(json.dumps(body, sort_keys=True), str(uuid.uuid4()))
        answer = await parts.act(self._seat.api.post("/v1/pushes", body, key=key), "The push is accepted.")
        if answer is not None:
            go(f"/pushes/{answer['id']}")


class _AudienceFields:
    """Exactly one kind of audience; the fields of the chosen kind are shown."""

    def __init__(self, suggestions: dict[str, dict[str, str]], changed: Callable[[], None]) -> None:
        self._changed = changed
        self._kind = "all"
        self._items: dict[str, Any] = {}
        self._panes: dict[str, Any] = {}
        with box("lw-choice") as choice:
            choice.props.update({"role": "group", "aria-label": "Kind of audience"})
            for name, label in _KINDS.items():
                self._items[name] = self._item(name, label)
        for name in _KINDS:
            with box("lw-fields") as self._panes[name]:
                self._draw(name, suggestions)
        self._choose("all")

    def _item(self, name: str, label: str) -> Any:
        item = text("button", label, "lw-choice-item")
        item.props["type"] = "button"
        item.on("click", lambda: self._choose(name))
        return item

    def _choose(self, name: str) -> None:
        self._kind = name
        for one, item in self._items.items():
            item.props["aria-pressed"] = str(one == name).lower()
            item.update()
            self._panes[one].set_visibility(one == name)
        self._changed()

    def _draw(self, name: str, suggestions: dict[str, dict[str, str]]) -> None:
        match name:
            case "all":
                text("p", "Everyone who is registered.", "lw-muted")
            case "tags":
                tags = suggestions["tags"]
                self._any = _names("Any of these tags", tags, self._changed)
                self._all = _names("All of these tags", tags, self._changed)
                self._none = _names("None of these tags", tags, self._changed)
            case "groups":
                self._groups = _names("Groups", suggestions["groups"], self._changed)
            case "users":
                self._users = _lines("Users, one a line", "Each with all their devices; at most 1,000", self._changed)
            case "devices":
                self._devices = _lines("Device ids, one a line", "At most 1,000; more by an upload", self._changed)
            case _:
                self._upload = (
                    ui.input("Upload id", on_change=self._changed).props("outlined dense").classes("lw-input")
                )
                self._upload.props["hint"] = "What POST /v1/audience-uploads answered: upl_…"

    def value(self) -> dict[str, Any]:
        """The audience as the API takes it. Raises Incomplete."""
        match self._kind:
            case "all":
                return {"all": True}
            case "tags":
                given = {"any": self._any, "all": self._all, "none": self._none}
                tags = {name: list(field.value) for name, field in given.items() if field.value}
                if not tags.keys() & {"any", "all"}:
                    raise Incomplete("Choose a tag that devices have.", self._any)
                return {"tags": tags}
            case "groups":
                return {"groups": _some(list(self._groups.value or ()), "Choose a group.", self._groups)}
            case "users":
                return {"users": _some(_split(self._users.value), "Name a user.", self._users)}
            case "devices":
                return {"devices": _some(_split(self._devices.value), "Name a device.", self._devices)}
            case _:
                return {"upload": _some(str(self._upload.value or "").strip(), "Name an upload.", self._upload)}


class _MessageFields:
    """The kind and the payload, with its bytes counted."""

    def __init__(self, limit: int | None, changed: Callable[[], None]) -> None:
        self._limit = limit
        self._on_changed = changed
        with box("lw-fields"):
            self._kind = (
                ui.input("Kind", value="message", on_change=changed).props("outlined dense").classes("lw-input")
            )
            self._kind.props["hint"] = "What the application knows it by"
            self._form = ui.select(
                {"json": "JSON", "text": "Text", _BINARY: "Bytes, as base64"},
                label="Payload is",
                value="json",
                on_change=self._changed,
            )
            self._form.props("outlined dense").classes("lw-input")
            self._payload = ui.textarea("Payload", value='{\n  "text": "Hello"\n}', on_change=self._changed)
            self._payload.props("outlined dense rows=7 input-class=lw-mono spellcheck=false").classes(
                "lw-input lw-wide"
            )
        self._bytes = text("p", "", "lw-bytes lw-muted")
        self._tell()

    def _changed(self) -> None:
        self._tell()
        self._on_changed()

    def _tell(self) -> None:
        of = "" if self._limit is None else f" of {words.count(self._limit)}"
        try:
            size = self._size()
        except Incomplete as fault:
            self._bytes.text = str(fault)
            self._bytes.classes(add="bad", remove="lw-muted")
            return
        is_over = self._limit is not None and size > self._limit
        self._bytes.text = f"{words.count(size)}{of} bytes" + (": too large" if is_over else "")
        self._bytes.classes(add="bad" if is_over else "lw-muted", remove="lw-muted" if is_over else "bad")

    def _size(self) -> int:
        given = self.value()
        if "payload_b64" in given:
            return len(base64.b64decode(given["payload_b64"]))
        if "payload" in given:
            return len(json.dumps(given["payload"], ensure_ascii=False, separators=(",", ":")).encode())
        return 0

    def value(self) -> dict[str, Any]:
        """The message as the API takes it. Raises Incomplete."""
        kind = str(self._kind.value or "").strip()
        if not kind:
            raise Incomplete("Give the message a kind.", self._kind)
        written = str(self._payload.value or "")
        if not written.strip():
            return {"kind": kind}
        match self._form.value:
            case "json":
                try:
                    return {"kind": kind, "payload": json.loads(written)}
                except ValueError as error:
                    raise Incomplete(f"The payload is no JSON: {error}.", self._payload) from None
            case "text":
                return {"kind": kind, "payload_b64": base64.b64encode(written.encode()).decode()}
            case _:
                compact = "".join(written.split())
                try:
                    base64.b64decode(compact, validate=True)
                except ValueError as error:
                    raise Incomplete(f"The payload is no base64: {error}.", self._payload) from None
                return {"kind": kind, "payload_b64": compact}


class _OptionFields:
    """How long, how soon, how fast."""

    def __init__(self, changed: Callable[[], None]) -> None:
        with box("lw-fields"):
            self._ttl = ui.select(_TTLS, label="Worth delivering for", value=86_400, on_change=changed)
            self._priority = ui.select(
                {"high": "High", "normal": "Normal", "low": "Low"}, label="Priority", value="normal", on_change=changed
            )
            self._rate = ui.number("Devices a second", min=1, max=1_000_000, precision=0, on_change=changed)
            self._rate.props["hint"] = "Empty: as fast as it goes"
            self._send_at = ui.input("Send at", on_change=changed).props("type=datetime-local stack-label")
            self._send_at.props["hint"] = "Empty: now"
            self._collapse = ui.input("Collapse key", on_change=changed)
            self._collapse.props["hint"] = "Takes the place of earlier pushes with this key"
            for field in (self._ttl, self._priority, self._rate, self._send_at, self._collapse):
                field.props("outlined dense").classes("lw-input")

    def value(self) -> dict[str, Any]:
        """The options as the API takes them."""
        options: dict[str, Any] = {"ttl_s": int(self._ttl.value), "priority": self._priority.value}
        if self._rate.value:
            options["rate_per_s"] = int(self._rate.value)
        if self._collapse.value:
            options["collapse_key"] = str(self._collapse.value)
        if self._send_at.value:
            local = datetime.fromisoformat(str(self._send_at.value)).replace(tzinfo=theme.zone())
            options["send_at"] = local.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return options


def _names(label: str, suggestions: dict[str, str], changed: Callable[[], None]) -> ui.select:
    """Several of some names, or others that are typed."""
    made = ui.select(
        dict(suggestions), label=label, multiple=True, value=[], with_input=True, new_value_mode="add-unique",
        on_change=changed,
    )  # fmt: skip
    return made.props("outlined dense use-chips").classes("lw-input lw-wide")


def _lines(label: str, hint: str, changed: Callable[[], None]) -> ui.textarea:
    made = ui.textarea(label, on_change=changed).props("outlined dense rows=5 input-class=lw-mono spellcheck=false")
    made.props["hint"] = hint
    return made.classes("lw-input lw-wide")


def _split(written: str | None) -> list[str]:
    return [name for line in (written or "").replace(",", "\n").splitlines() if (name := line.strip())]


def _some(value: T, otherwise: str, field: ValueElement[Any]) -> T:
    if not value:
        raise Incomplete(otherwise, field)
    return value
