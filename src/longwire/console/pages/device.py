"""One device: whether it is there, how it came and went, what waits for it, what it was sent; and acting on it."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from longwire.console import parts, words
from longwire.console.api import ApiError, Page, quoted
from longwire.console.forms import Form
from longwire.console.live import every
from longwire.console.pages.devices import list_path, state_of
from longwire.console.pages.marks import MarkButton
from longwire.console.parts import Column, Pager, Table, bar, box, button, empty, fact, section, text
from longwire.console.shell import Seat, actions, console_page, go
from longwire.reasons import CloseCode

_EVERY_S = 2.0
_LISTS_EVERY_S = 5.0
_DAY_S = 86_400
_BANS: Final = {"600": "10 minutes", "3600": "1 hour", str(_DAY_S): "1 day", str(30 * _DAY_S): "30 days"}

CLOSES: Final = {
    "draining": "its node was drained",
    "token_expired": "its token had expired",
    "rebalanced": "it was sent to another node to even them out",
    "overloaded": "its node had too much to do",
    "slow_consumer": "it did not read fast enough",
    "heartbeat_timeout": "nothing was heard of it for too long",
    "handshake_timeout": "it did not say who it is in time",
    "internal_error": "its node failed",
    "session_lost": "its node was told that the session is no longer its own",
    "protocol_error": "it broke the protocol",
    "too_large": "it sent something too large",
    "unsupported": "it asked for what is not supported",
    "taken_over": "it connected once more elsewhere",
    "kicked": "it was disconnected by an operator",
    "disabled": "it was disabled, or its tokens revoked",
    "banned": "it was banned",
    "bad_credentials": "its token was not taken",
    "not_permitted": "it was not permitted to connect",
}
"""Why connections end, by the label of their code (reasons.CloseCode)."""


def close_words(close: dict[str, Any] | None) -> str:
    """Why a connection ended: ``4005, nothing was heard of it for too long``."""
    if close is None:
        return "still connected"
    if close["code"] is None:
        return "it went away by itself"
    reason = close.get("reason") or _label_of(close["code"])
    return f"{close['code']}, {CLOSES.get(reason, reason.replace('_', ' '))}" if reason else str(close["code"])


def _label_of(code: int) -> str:
    return CloseCode(code).label if code in CloseCode.__members__.values() else ""


@console_page("/devices/{device_id}", "Device", nav="devices", scope="device:read")
async def device(seat: Seat, device_id: str) -> None:
    """One device, as it is now."""
    path = f"/v1/devices/{quoted(device_id)}"

    async def load() -> tuple[dict[str, Any], dict[str, Any]]:
        found, presence = await asyncio.gather(seat.api.get(path), seat.api.get(f"{path}/presence"))
        return found, presence

    loaded = [await load()]
    head = _Head(seat, path, device_id)
    facts = _Facts(seat, path)
    lists = _Lists(seat, path, device_id)

    def show(found: tuple[dict[str, Any], dict[str, Any]]) -> None:
        head.show(*found)
        facts.show(*found)

    async def again() -> tuple[dict[str, Any], dict[str, Any]]:
        return loaded.pop() if loaded else await load()

    async def look() -> None:
        show(await load())

    head.look = look
    every(_EVERY_S, again, show)
    lists.keep()


class _Head:
    """Its id and state, and what can be done with it."""

    def __init__(self, seat: Seat, path: str, device_id: str) -> None:
        self._seat = seat
        self._path = path
        self._device_id = device_id
        self._shown: tuple[str, bool] | None = None
        self.look: Callable[[], Awaitable[None]] | None = None
        """Shows how the device is now."""
        with bar():
            self._state = parts.badge("…")
            parts.code(device_id)
            parts.link("Trace", f"/trace?q={quoted(device_id)}")
            MarkButton(seat, "device_id", device_id)
        if seat.may("device:write") or seat.may("push:write"):
            with actions():
                self._fixed()
                with box("lw-bar") as self._buttons:
                    pass

    def show(self, device: dict[str, Any], presence: dict[str, Any]) -> None:
        state = state_of(device, presence["online"])
        if (state, presence["online"]) == self._shown:
            return
        self._shown = (state, presence["online"])
        self._state.text = state
        self._state.classes(remove="good accent warn bad idle", add=words.tone_of(state))
        if self._seat.may("device:write"):
            self._buttons.clear()
            with self._buttons:
                self._draw_buttons(state, is_online=presence["online"])

    def _fixed(self) -> None:
        if self._seat.may("push:write"):
            button("Send", self._send, kind="main", icon_name="send")
        if self._seat.may("device:write"):
            button("Command", self._command, icon_name="terminal", hint="Call a method of the device")

    def _draw_buttons(self, state: str, *, is_online: bool) -> None:
        if is_online:
            button("Kick", self._kick, kind="danger", hint="Close its connection; it may come back")
        if state == "banned":
            button("Lift ban", lambda: self._do("disconnect", "It may connect again.", {"ban_s": 0}))
        else:
            button("Ban", self._ban, kind="danger", hint="Keep it out for a while")
        if state == "disabled":
            button("Enable", lambda: self._do("enable", "It may connect again."))
        else:
            button("Disable", self._disable, kind="danger", hint="Keep it out until it is enabled")
        button("Revoke", self._revoke, kind="danger", hint="End its tokens")

    async def _do(self, verb: str, done: str, body: object = None) -> None:
        answer = await parts.act(self._seat.api.post(f"{self._path}/{verb}", body), done)
        if answer is not None and self.look is not None:
            await self.look()

    async def _kick(self) -> None:
        detail = "Its connection is closed (4101) and it is told not to come back by itself. Its token stays valid."
        if await parts.confirm(f"Kick {self._device_id}?", detail, verb="Kick"):
            await self._do("disconnect", "Its connection is closed.")

    async def _disable(self) -> None:
        detail = "Its connection is closed (4102) and it is kept out until it is enabled. What waits for it stays."
        if await parts.confirm(f"Disable {self._device_id}?", detail, verb="Disable"):
            await self._do("disable", "It is disabled.")

    async def _revoke(self) -> None:
        detail = (
            "All its tokens end, and its connection is closed (4102).\n"
            "It gets in again only with a token that it is given anew: POST /v1/devices/batch."
        )
        if await parts.confirm(f"Revoke the tokens of {self._device_id}?", detail, verb="Revoke"):
            await self._do("revoke", "Its tokens are revoked.")

    async def _ban(self) -> None:
        with parts.dialog(f"Ban {self._device_id}?") as asked:
            text("p", "Its connection is closed (4103), and its tokens do not connect for so long.", "lw-muted")
            form = Form()
            span = form.choice("ban_s", "For", _BANS, value="3600")
            _ok_or_cancel(asked, "Ban", lambda: span.value, is_danger=True)
        chosen = await parts.answer_of(asked)
        if chosen is not None:
            await self._do("disconnect", f"It is banned for {_BANS[chosen]}.", {"ban_s": int(chosen)})

    async def _send(self) -> None:
        """A message to it alone; waits a moment for its acknowledgement."""
        with parts.dialog(f"Send to {self._device_id}") as shown:
            form = Form()
            kind = form.field("kind", "Kind", value="message")
            payload = form.field("payload", "Payload, JSON", value='{"text": "hello"}', rows=4)
            payload.classes("lw-mono")
            ttl = form.number("ttl_s", "Waits for it at most, seconds", value=_DAY_S, least=0, hint="0: only if online")
            said = text("p", "", "lw-muted")

            async def send() -> None:
                given = _json_of(payload)
                if given is None:
                    return
                body = {"to": f"device:{self._device_id}", "kind": kind.value, "payload": given[0]}
                body |= {"ttl_s": int(ttl.value or 0), "wait_ack_ms": 3_000}
                said.text = "Sending …"
                answer = await form.send(lambda: self._seat.api.post("/v1/messages", body), "")
                said.text = ""
                if answer is not None:
                    shown.submit(answer)

            _submit_or_cancel(shown, "Send", send)
        answer = await parts.answer_of(shown)
        if answer is not None:
            where = "It is acknowledged." if answer.get("acked") else _waits(answer)
            parts.say(f"Sent. {where}")
            go(f"/trace?q={answer['message_id']}")

    async def _command(self) -> None:
        """Calls a method, and shows what it replied."""
        with parts.dialog(f"Call a method of {self._device_id}") as shown:
            form = Form()
            method = form.field("method", "Method", hint="As the device's program names it")
            payload = form.field("payload", "Payload, JSON", value="{}", rows=3)
            payload.classes("lw-mono")
            timeout = form.number("timeout_ms", "It may take, milliseconds", value=5_000, least=100)
            with box("lw-reply") as reply:
                pass

            async def call() -> None:
                given = _json_of(payload)
                if given is None:
                    return
                body = {"method": method.value or "", "payload": given[0], "timeout_ms": int(timeout.value or 5_000)}
                reply.clear()
                with reply:
                    text("p", "Waiting for the device …", "lw-muted")
                try:
                    answer = await self._seat.api.post(f"{self._path}/commands", body)
                except ApiError as error:
                    form.show(error)
                    reply.clear()
                    if error.more.get("command_id"):
                        with reply:
                            parts.link("Where is it?", f"/trace?q={error.more['command_id']}")
                    return
                reply.clear()
                with reply:
                    _reply(answer)

            _submit_or_cancel(shown, "Call", call, close="Close")
        await parts.answer_of(shown)


def _waits(answer: dict[str, Any]) -> str:
    if answer["delivered_to"]:
        return "It is written, and not acknowledged yet."
    return "The device is offline: it waits."


def _reply(answer: dict[str, Any]) -> None:
    with bar():
        parts.badge(answer["status"])
        text("span", f"status {answer['reply_status']}", "lw-muted")
        parts.link("Trace", f"/trace?q={answer['command_id']}")
    given = answer.get("payload", answer.get("payload_b64"))
    if answer["detail"]:
        text("p", answer["detail"])
    if given is not None:
        text("pre", json.dumps(given, indent=2, ensure_ascii=False), "lw-block")


def _json_of(field: Any) -> tuple[Any] | None:
    """What stands in the field; None where it is no JSON, which the field tells."""
    try:
        given = json.loads(field.value or "null")
    except ValueError as fault:
        field.error = f"This is no JSON: {fault}"
        return None
    field.error = None
    return (given,)


def _ok_or_cancel(shown: Any, verb: str, value: Callable[[], object], *, is_danger: bool = False) -> None:
    with box("lw-dialog-actions"):
        button("Cancel", shown.close)
        made = button(verb, lambda: shown.submit(value()))
        made.classes(remove="plain", add="danger-main" if is_danger else "main")


def _submit_or_cancel(shown: Any, verb: str, call: Callable[[], Any], *, close: str = "Cancel") -> None:
    with box("lw-dialog-actions"):
        button(close, shown.close)
        button(verb, call, kind="main")


class _Facts:
    """What is known of it, drawn anew where it changes."""

    def __init__(self, seat: Seat, path: str) -> None:
        self._seat = seat
        self._path = path
        self._device_shown: object = None
        self._presence_shown: object = None
        with box("lw-halves"):
            with section("Presence"), box("") as self._presence:
                pass
            with section("Registered as"), box("") as self._registered:
                pass

    def show(self, device: dict[str, Any], presence: dict[str, Any]) -> None:
        if presence != self._presence_shown:
            self._presence_shown = presence
            self._presence.clear()
            with self._presence, box("lw-facts", "dl"):
                _presence_facts(presence)
        if device != self._device_shown:  # by itself: somebody may be at its tags
            self._device_shown = device
            self._registered.clear()
            with self._registered, box("lw-facts", "dl"):
                self._registered_facts(device)

    def _registered_facts(self, device: dict[str, Any]) -> None:
        with fact("User"):
            if device["user"]:
                parts.link(device["user"], list_path(user=device["user"]))
            else:
                text("span", "nobody's", "lw-muted")
        with fact("Tags"):
            self._tags(device["tags"])
        with fact("Platform"):
            text("span", " ".join(one for one in (device["platform"], device["app_version"]) if one) or words.UNKNOWN)
        with fact("Registered"):
            parts.ago(device["registered_at"])
        if state_of(device, None) == "banned":
            with fact("Banned until"):
                parts.ago(device["banned_until"])

    def _tags(self, tags: Sequence[str]) -> None:
        own = [tag for tag in tags if not tag.startswith("sys:")]
        with box("lw-tags"):
            for tag in own:
                link = parts.link(tag, list_path(tag=tag))
                link.classes(replace="lw-tag")
            if not own:
                text("span", "none", "lw-muted")
            if self._seat.may("device:write"):
                edit = button("Edit", lambda: self._edit(own), kind="quiet", hint="Give and take tags")
                edit.props["aria-label"] = "Edit tags"

    async def _edit(self, own: Sequence[str]) -> None:
        with parts.dialog("Tags") as shown:
            form = Form()
            field = form.field("tags", "One a line", value="\n".join(own), rows=6)

            async def save() -> None:
                wanted = list(dict.fromkeys((field.value or "").split()))
                answer = await form.send(lambda: self._seat.api.put(f"{self._path}/tags", {"tags": wanted}), "Saved.")
                if answer is not None:
                    shown.submit(answer)

            _submit_or_cancel(shown, "Save", save)
        await parts.answer_of(shown)


def _presence_facts(presence: dict[str, Any]) -> None:
    if presence["online"]:
        with fact("Online since"):
            parts.ago(presence["since"])
        with fact("Node"):
            parts.link(presence["node_id"], f"/nodes/{quoted(presence['node_id'])}")
        with fact("By"):
            text("span", presence["transport"])
        with fact("Session"):
            parts.code(presence["session_id"])
    elif presence["last_seen_at"] is None:
        with fact("Last seen"):
            text("span", "It has never connected, as far as is known.")
    else:
        with fact("Last seen"):
            parts.ago(presence["last_seen_at"])
        with fact("Was at"):
            text("span", f"{presence['node_id']}, by {presence['transport']}")
    if presence["last_close"] is not None:
        with fact("Last close"):
            text("span", close_words(presence["last_close"]))


class _Lists:
    """Connections, what waits, and what was sent."""

    def __init__(self, seat: Seat, path: str, device_id: str) -> None:
        self._seat = seat
        self._path = path
        self._device_id = device_id
        with section("What waits for it", hint="its inbox, oldest first"):
            inbox = _inbox_table()
            self._inbox = Pager(lambda cursor: self._page("inbox", cursor), inbox)
            self._waiting = 0
            if seat.may("device:write"):
                with bar():
                    self._empty = button("Empty the inbox", self._empty_inbox, kind="danger")
                    self._empty.set_visibility(False)
        with section("Last messages", hint="to it alone; those of the last seven days"):
            self._messages = _message_table()
        with section("Connections", hint="of the last seven days"):
            connections = _session_table()
            self._sessions = Pager(lambda cursor: self._page("sessions", cursor), connections)

    def keep(self) -> None:
        """Loads all, again and again."""
        every(_LISTS_EVERY_S, lambda: self._page("inbox", None), self._show_inbox)
        every(_LISTS_EVERY_S, lambda: self._seat.api.get(f"{self._path}/messages", limit=20), self._show_messages)
        every(_LISTS_EVERY_S, lambda: self._page("sessions", None), self._show_sessions)

    async def _page(self, name: str, cursor: str | None) -> Page:
        return await self._seat.api.page(f"{self._path}/{name}", limit=10, cursor=cursor)

    def _show_inbox(self, page: Page) -> None:
        if not self._inbox.is_extended:
            self._inbox.show(page)
        if self._seat.may("device:write"):
            self._empty.set_visibility(any(one["source"] == "message" for one in page.items))

    def _show_messages(self, found: dict[str, Any]) -> None:
        self._messages.show(found["items"])

    def _show_sessions(self, page: Page) -> None:
        if not self._sessions.is_extended:
            self._sessions.show(page)

    async def _empty_inbox(self) -> None:
        detail = "All messages that wait for it end as withdrawn; it never gets them. Pushes stay."
        if await parts.confirm(f"Empty the inbox of {self._device_id}?", detail, verb="Empty"):
            answer = await parts.act(self._seat.api.delete(f"{self._path}/inbox"), "")
            if answer is not None:
                parts.say(f"{words.plural(answer['withdrawn'], 'message')} withdrawn.")
                self._show_inbox(await self._page("inbox", None))


def _trace_of(row: dict[str, Any]) -> None:
    go(f"/trace?q={row.get('push_id') or row['message_id']}")


def _inbox_table() -> Table:
    return Table(
        [
            Column("kind", "Kind", lambda row: row["kind"] or words.UNKNOWN),
            Column("source", "By", lambda row: row["sender"] or ("push" if row["push_id"] else "application")),
            Column("bytes", "Size", lambda row: words.size(row["payload_bytes"]), kind="number", hides_below=600),
            Column("sent", "Accepted", lambda row: row["sent_at"], kind="time"),
            Column("until", "Waits until", lambda row: row["expires_at"], kind="time"),
            Column("id", "Message", lambda row: row["push_id"] or row["message_id"], kind="code", hides_below=900),
        ],
        key="message_id",
        on_open=_trace_of,
        empty=lambda: empty("inbox", "Nothing waits for it.", "What it was sent is acknowledged, or has ended."),
    )


def _message_table() -> Table:
    return Table(
        [
            Column("kind", "Kind", lambda row: row["kind"] or words.UNKNOWN),
            Column("state", "State", lambda row: row["state"], kind="badge"),
            Column("sender", "By", lambda row: row["sender"] or "application"),
            Column("sent", "Accepted", lambda row: row["sent_at"], kind="time"),
            Column("at", "Ended", lambda row: row["at"], kind="time"),
            Column("id", "Message", lambda row: row["message_id"], kind="code", hides_below=900),
        ],
        key="message_id",
        on_open=_trace_of,
        empty=lambda: empty("mail", "It was sent nothing of late.", "Messages to it or to its user stand here."),
    )


def _session_table() -> Table:
    return Table(
        [
            Column("began", "Connected", lambda row: row["began_at"], kind="time"),
            Column("ended", "Closed", lambda row: row["ended_at"], kind="time"),
            Column("why", "Why", lambda row: close_words(row["close"])),
            Column("node", "Node", lambda row: row["node_id"]),
            Column("transport", "By", lambda row: row["transport"], hides_below=600),
        ],
        key="session_id",
        empty=lambda: empty("link_off", "It has not connected in the last seven days.", ""),
    )
