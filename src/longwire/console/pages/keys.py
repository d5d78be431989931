"""API keys: the part of the page "Keys and people" for programs that call ``/v1``."""

from typing import Any

from nicegui import ui

from longwire.console import parts
from longwire.console.api import Page, quoted
from longwire.console.forms import Form
from longwire.console.parts import Column, Pager, Table, box, button, empty, section, text
from longwire.console.shell import Seat

SCOPES = {
    "push:read": "See pushes",
    "push:write": "Send pushes and messages, and steer them",
    "device:read": "See devices, groups, tags, and where a message is",
    "device:write": "Change devices, send commands, kick and ban",
    "node:read": "See nodes and marks",
    "node:write": "Drain and rebalance nodes, mark devices",
    "stats:read": "See the sums and the limits",
    "admin": "Everything, keys and people among it",
}


class Keys:
    """The section with its table."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        with section("API keys", hint="For programs that call the API: a key has scopes, and no password."):
            self._table = Table(
                [
                    Column("name", "Name", lambda key: key["name"] or "no name"),
                    Column("key", "Key", lambda key: key["key_id"], kind="code", width="305px", hides_below=900),
                    Column("scopes", "Scopes", _scopes),
                    Column("state", "State", _state, kind="badge"),
                    Column("created", "Made", lambda key: key["created_at"], kind="time"),
                ],
                key="key_id",
                on_open=self._open,
                empty=lambda: empty(
                    "key", "There is no API key.", "A program needs one to call the API.", ("New key", self.make)
                ),
            )
            self._pager = Pager(self._load, self._table)

    async def first(self) -> None:
        """Shows the newest. Raises ApiError."""
        await self._pager.first()

    async def make(self) -> None:
        """Asks for a name and scopes, and tells the key once."""
        with parts.dialog("New API key") as asked:
            form = Form()
            name = form.field("name", "Name", hint="What calls with it: shop backend, nightly report")
            chosen: dict[str, ui.checkbox] = {}
            with box("lw-choices"):
                text("p", "Scopes", "lw-strong lw-wide")
                for scope, meaning in SCOPES.items():
                    chosen[scope] = ui.checkbox(scope).props("dense")
                    text("span", meaning, "lw-hint")
                missing = text("p", "", "lw-field-error lw-wide")

            async def make() -> None:
                scopes = [scope for scope, choice in chosen.items() if choice.value]
                name.error = None if name.value.strip() else "A key needs a name, by which the audit tells of it"
                missing.text = "" if scopes else "Choose what it may do"
                if name.error or missing.text:
                    return
                body = {"name": name.value.strip(), "scopes": scopes}
                answer = await form.send(lambda: self._seat.api.post("/v1/keys", body), "")
                if answer is not None:
                    asked.submit(answer)

            with box("lw-dialog-actions"):
                button("Cancel", asked.close)
                button("Make it", make, kind="main")
        answer = await parts.answer_of(asked)
        if answer:
            await show_secret(
                f"API key {answer['name']}",
                answer["key"],
                "This is shown once. Keep it where your program's secrets are; the console cannot show it again.",
            )
            await self.first()

    async def _load(self, cursor: str | None) -> Page:
        return await self._seat.api.page("/v1/keys", cursor=cursor)

    async def _open(self, key: dict[str, Any]) -> None:
        with parts.dialog(key["name"] or "API key") as shown:
            with box("lw-facts", "dl"):
                with parts.fact("Key"):
                    parts.code(key["key_id"])
                with parts.fact("State"):
                    parts.badge(_state(key))
                with parts.fact("Scopes"):
                    for scope in key["scopes"]:
                        with box(""):
                            text("span", scope)
                            text("span", f" · {SCOPES.get(scope, '')}", "lw-hint")
                with parts.fact("Made"):
                    parts.ago(key["created_at"])
                if key["revoked_at"]:
                    with parts.fact("Revoked"):
                        parts.ago(key["revoked_at"])
            with box("lw-dialog-actions"):
                if not key["revoked_at"]:
                    button("Revoke", lambda: shown.submit("revoke"), kind="danger")
                button("Close", shown.close)
        chosen = await parts.answer_of(shown)
        if chosen == "revoke":
            await self._revoke(key)

    async def _revoke(self, key: dict[str, Any]) -> None:
        name = key["name"] or key["key_id"]
        detail = f"What calls with {name} is refused from now on. It cannot be undone: a program needs a new key then."
        if await parts.confirm("Revoke the key?", detail, verb="Revoke"):
            await parts.act(self._seat.api.delete(f"/v1/keys/{quoted(key['key_id'])}"), "The key is revoked")
            await self.first()


async def show_secret(title: str, secret: str, detail: str) -> None:
    """Shows what is told once, to be copied; it is gone from the page with the dialog."""
    with parts.dialog(title) as shown:
        shown.props("persistent")
        text("p", detail, "lw-muted")
        parts.code(secret).classes("lw-secret")
        with box("lw-dialog-actions"):
            button("I have copied it", lambda: shown.submit(True), kind="main")
    await parts.answer_of(shown)


def _scopes(key: dict[str, Any]) -> str:
    return "admin: everything" if "admin" in key["scopes"] else " ".join(key["scopes"])


def _state(key: dict[str, Any]) -> str:
    return "revoked" if key["revoked_at"] else "active"
