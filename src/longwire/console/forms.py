"""Fields of forms, all of one look, with the place where a call's error belongs.

form = Form()
name = form.field("name", "Name", hint="a-z 0-9")
...
button("Add", lambda: form.send(lambda: api.post("/v1/people", {"name": name.value}), "Added"), kind="main")
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from nicegui import ui
from nicegui.elements.mixins.validation_element import ValidationElement

from longwire.console import parts
from longwire.console.api import ApiError

F = TypeVar("F", bound="ValidationElement[Any]")


class Form:
    """Fields by their names in the call's body; what the API says of one is shown at it."""

    def __init__(self) -> None:
        self._fields: dict[str, ValidationElement[Any]] = {}

    def field(
        self, name: str, label: str, *, value: str = "", hint: str = "", password: bool = False, rows: int = 1
    ) -> ui.input | ui.textarea:
        """A line of text, or several."""
        made: ui.input | ui.textarea
        if rows > 1:
            made = ui.textarea(label, value=value).props(f"rows={rows}")
        else:
            made = ui.input(label, value=value, password=password, password_toggle_button=password)
        return self._add(name, made, hint)

    def number(
        self, name: str, label: str, *, value: float | None = None, least: float | None = None, hint: str = ""
    ) -> ui.number:
        """A number."""
        return self._add(name, ui.number(label, value=value, min=least), hint)

    def choice(
        self,
        name: str,
        label: str,
        options: Mapping[str, str] | Sequence[str],
        *,
        value: str | None = None,
        hint: str = "",
    ) -> ui.select:
        """One of some: (value, label), or the values alone."""
        given = dict(options) if isinstance(options, Mapping) else list(options)
        return self._add(name, ui.select(given, label=label, value=value), hint)

    def switch(self, label: str, *, value: bool = False, hint: str = "") -> ui.switch:
        """On or off."""
        made = ui.switch(label, value=value).classes("lw-switch")
        if hint:
            made.props["title"] = hint
        return made

    async def send(self, call: Callable[[], Awaitable[dict[str, Any]]], done: str) -> dict[str, Any] | None:
        """Makes the call: says that it is done, or what is wrong where it is wrong. None where it failed."""
        for made in self._fields.values():
            made.error = None
        try:
            answer = await call()
        except ApiError as error:
            self.show(error)
            return None
        if done:
            parts.say(done)
        return answer

    def show(self, error: ApiError) -> None:
        """At the fields that it names; what names none is told in passing."""
        is_told = False
        for one in error.errors:
            name = str(one.get("pointer", "")).removeprefix("#/").partition("/")[0]
            if name in self._fields:
                self._fields[name].error = str(one.get("detail", ""))
                is_told = True
        if not is_told:
            parts.tell(error)

    def _add(self, name: str, made: F, hint: str) -> F:
        made.props("outlined dense hide-bottom-space" if not hint else "outlined dense").classes("lw-input")
        if hint:
            made.props["hint"] = hint
        self._fields[name] = made
        return made
