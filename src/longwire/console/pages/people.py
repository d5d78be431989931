"""Keys and people: who may sign in and call the API, and with which rights."""

import re
from typing import Any

from nicegui import ui

from longwire.console import parts
from longwire.console.api import quoted
from longwire.console.forms import Form
from longwire.console.pages.keys import Keys, show_secret
from longwire.console.parts import Column, Table, box, button, section, text
from longwire.console.shell import ADMIN, PASSWORD, Seat, actions, console_page, go

ROLES = ("viewer", "operator", "admin")
_ROLES = (
    "A viewer sees everything but keys, people and the audit. An operator also sends and steers, and changes devices"
    " and nodes. An admin may do everything."
)
_NAME = re.compile(r"[a-z0-9._@-]{1,57}")
_ONCE = "This is shown once: hand it over. It has to be replaced at the next sign-in."


@console_page("/people", "Keys and people", nav="people", scope=ADMIN)
async def people(seat: Seat) -> None:
    """Both lists."""
    persons, keys = _People(seat), Keys(seat)
    with actions():
        button("New API key", keys.make, icon_name="key")
        button("Add a person", persons.add, kind="main", icon_name="person_add")
    await persons.show()
    await keys.first()


class _People:
    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        with section("People", hint="They sign in to this console; what they do is in the audit under their name."):
            self._table = Table(
                [
                    Column("name", "Name", self._name),
                    Column("role", "Role", lambda person: person["role"]),
                    Column("state", "State", _state, kind="badge"),
                    Column("seen", "Last sign-in", lambda person: person["last_login_at"], kind="time"),
                    Column("created", "Added", lambda person: person["created_at"], kind="time", hides_below=600),
                ],
                key="name",
                on_open=self._open,
            )

    async def show(self) -> None:
        """Shows everybody. Raises ApiError."""
        self._table.show((await self._seat.api.page("/v1/people", limit=500)).items)

    async def add(self) -> None:
        """Asks for a name and a role, and tells the one-time password."""
        with parts.dialog("Add a person") as asked:
            form = Form()
            name = form.field("name", "Name", hint="Such as anna or anna@example.com")
            role = form.choice("role", "Role", ROLES, value="viewer")
            text("p", _ROLES, "lw-hint")

            async def add() -> None:
                wanted = name.value.strip().lower()
                if _NAME.fullmatch(wanted) is None:
                    name.error = "1 to 57 characters of a-z 0-9 . _ - @"
                    return
                body = {"name": wanted, "role": role.value}
                answer = await form.send(lambda: self._seat.api.post("/v1/people", body), "")
                if answer is not None:
                    asked.submit(answer)

            with box("lw-dialog-actions"):
                button("Cancel", asked.close)
                button("Add", add, kind="main")
        answer = await parts.answer_of(asked)
        if answer:
            await show_secret(f"One-time password of {answer['name']}", answer["one_time_password"], _ONCE)
            await self.show()

    def _name(self, person: dict[str, Any]) -> str:
        return f"{person['name']} (you)" if person["name"] == self._seat.name else str(person["name"])

    async def _open(self, person: dict[str, Any]) -> None:
        name, is_own = person["name"], person["name"] == self._seat.name
        with parts.dialog(name) as shown:
            with box("lw-facts", "dl"):
                with parts.fact("State"):
                    parts.badge(_state(person))
                with parts.fact("Added"):
                    parts.ago(person["created_at"])
                with parts.fact("Last sign-in"):
                    parts.ago(person["last_login_at"])
                if is_own:
                    with parts.fact("Role"):
                        text("span", person["role"])
            if is_own:
                text("p", "That is you: another admin has to change your role or remove you.", "lw-muted")
                with box("lw-dialog-actions"):
                    button("Change password", lambda: go(PASSWORD), kind="main")
                    button("Close", shown.close)
            else:
                self._others_actions(shown, person)
        chosen = await parts.answer_of(shown)
        if chosen:
            await self._do(person, *chosen)

    def _others_actions(self, shown: ui.dialog, person: dict[str, Any]) -> None:
        role = ui.select(list(ROLES), label="Role", value=person["role"]).props("outlined dense").classes("lw-input")
        text("p", _ROLES, "lw-hint")
        with box("lw-dialog-actions"):
            button("Remove", lambda: shown.submit(("remove", "")), kind="danger")
            verb = "Enable" if person["is_disabled"] else "Disable"
            button(verb, lambda: shown.submit((verb.lower(), "")), kind="plain" if person["is_disabled"] else "danger")
            button("New password", lambda: shown.submit(("password", "")))
            save = button("Save role", lambda: shown.submit(("role", str(role.value))), kind="main")
            save.bind_enabled_from(role, "value", lambda value: value != person["role"])

    async def _do(self, person: dict[str, Any], what: str, role: str) -> None:
        api, name = self._seat.api, person["name"]
        path = f"/v1/people/{quoted(name)}"
        match what:
            case "role":
                await parts.act(api.patch(path, {"role": role}), f"{name} is {role} now")
            case "enable":
                await parts.act(api.patch(path, {"is_disabled": False}), f"{name} may sign in again")
            case "disable":
                detail = f"{name} is signed out within five seconds and cannot sign in until enabled again."
                if await parts.confirm(f"Disable {name}?", detail, verb="Disable"):
                    await parts.act(api.patch(path, {"is_disabled": True}), f"{name} is disabled")
            case "remove":
                detail = f"{name} is signed out and forgotten. What they did stays in the audit."
                if await parts.confirm(f"Remove {name}?", detail, verb="Remove"):
                    await parts.act(api.delete(path), f"{name} is removed")
            case "password":
                detail = f"{name} is signed out, and signs in with a one-time password that is shown to you now."
                if await parts.confirm(f"A new password for {name}?", detail, verb="Make it", tone="main"):
                    answer = await parts.act(api.post(f"{path}/password"), "")
                    if answer is not None:
                        await show_secret(f"One-time password of {name}", answer["one_time_password"], _ONCE)
        await self.show()


def _state(person: dict[str, Any]) -> str:
    if person["is_disabled"]:
        return "disabled"
    return "one-time password" if person["must_change_password"] else "active"
