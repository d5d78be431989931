"""The button that marks a device, a user or a push: its messages are told hop by hop for a while."""

from typing import Any, Literal

from longwire.console import parts
from longwire.console.live import every
from longwire.console.parts import bar, button, text
from longwire.console.shell import Seat

_FOR_S = 600
_EVERY_S = 5.0

Target = Literal["device_id", "user", "push_id"]


class MarkButton:
    """Marks what is not marked, and says until when what is; nothing for who may not read marks."""

    def __init__(self, seat: Seat, name: Target, value: str) -> None:
        self._seat = seat
        self._name = name
        self._value = value
        self._shown: dict[str, Any] | None = {}
        if not seat.may("node:read"):
            return
        with bar() as self._place:
            pass
        every(_EVERY_S, self._load, self._show)

    async def _load(self) -> dict[str, Any] | None:
        marks = (await self._seat.api.get("/v1/marks"))["items"]
        return next((mark for mark in marks if mark[self._name] == self._value), None)

    def _show(self, mark: dict[str, Any] | None) -> None:
        if mark == self._shown:
            return
        self._shown = mark
        self._place.clear()
        with self._place:
            if mark is not None:
                parts.badge("traced", "accent").props["title"] = f"Marked by {mark['by']}"
                text("span", "until", "lw-muted")
                parts.ago(mark["until"])
            if not self._seat.may("node:write"):
                return
            if mark is None:
                hint = "Has all its messages told hop by hop, in the log and to the collector of traces"
                button("Trace for 10 minutes", self._mark, kind="quiet", icon_name="radar", hint=hint)
            else:
                button("End", lambda: self._unmark(mark["id"]), kind="quiet")

    async def _mark(self) -> None:
        body = {self._name: self._value, "for_s": _FOR_S}
        answer = await parts.act(self._seat.api.post("/v1/marks", body), "Its messages are traced for 10 minutes.")
        if answer is not None:
            self._show(answer)

    async def _unmark(self, mark_id: str) -> None:
        if await parts.act(self._seat.api.delete(f"/v1/marks/{mark_id}"), "It is traced no more.") is not None:
            self._show(None)
