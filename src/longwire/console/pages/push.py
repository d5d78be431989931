"""One push: where it stands, what became of its devices, how it went, and steering it."""

import datetime as dt
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from nicegui import ui

from longwire.console import parts, theme, words
from longwire.console.api import Page, quoted
from longwire.console.charts import Bars
from longwire.console.live import every
from longwire.console.pages import push_new  # noqa: F401 - its path comes before the one with a name in it
from longwire.console.pages.pushes import ENDED, audience_words
from longwire.console.parts import Column, Pager, Table, Tile, bar, box, button, link, section, text, tiles
from longwire.console.shell import Seat, console_page, go

STATES = {
    "pending": "Waiting",
    "acked": "Acknowledged",
    "expired": "Expired",
    "failed": "Failed",
    "collapsed": "Replaced",
    "canceled": "Canceled",
    "withdrawn": "Withdrawn",
}
"""What becomes of devices, as the API says it and in words."""
Kind = Literal["main", "plain", "danger"]
_EVERY_S = 1.0
_COURSE_EVERY_S = 5.0


@console_page("/pushes/{push_id}", "Push", nav="pushes", scope="push:read")
async def push(seat: Seat, push_id: str, state: str = "pending") -> None:
    """One push, as it is now."""
    path = f"/v1/pushes/{quoted(push_id)}"
    first = await seat.api.get(path)
    status = _Status(seat, path, first)
    with tiles():
        numbers = _PushTiles()
    with section("What became of its devices"), box("lw-halves"):
        with box("") as funnel:
            pass
        with box("") as facts:
            _facts(first)
    course = _Course()
    recipients = _Recipients(seat, path, state if state in STATES else "pending")
    shown: dict[str, Any] = {}

    def show(found: dict[str, Any]) -> None:
        status.show(found)
        numbers.show(found)
        recipients.count(found["stats"])
        if found["stats"] != shown.get("stats"):
            funnel.clear()
            with funnel:
                parts.funnel(found["stats"])
        if shown and any(found[name] != shown[name] for name in ("started_at", "ended_at", "rate_per_s")):
            facts.clear()
            with facts:
                _facts(found)
        shown.update(found)

    async def load() -> dict[str, Any]:
        # What is over changes by late acknowledgements alone.
        is_quiet = shown.get("status") in ENDED and ticks.skip(10)
        return shown if is_quiet else await seat.api.get(path)

    ticks = _Ticks()
    every(_EVERY_S, load, show)
    every(_COURSE_EVERY_S, lambda: seat.api.get(f"{path}/progress"), course.show)
    every(_COURSE_EVERY_S, recipients.load, recipients.show)


class _Ticks:
    """Lets one of so many pass."""

    def __init__(self) -> None:
        self._count = 0

    def skip(self, of: int) -> bool:
        self._count += 1
        return self._count % of != 0


# -- where it stands ----------------------------------------------------------------------------------------------


class _Status:
    """Status, progress, and the buttons that this status allows."""

    def __init__(self, seat: Seat, path: str, first: dict[str, Any]) -> None:
        self._seat = seat
        self._path = path
        self._now = first
        self._drawn: tuple[object, ...] = ()
        with bar() as self._place:
            self._badge = parts.badge(first["status"])
            text("span", first["kind"], "lw-strong")
            text("span", f"to {audience_words(first['audience'])}", "lw-muted")
            parts.code(first["id"])
        with box("") as self._progress:
            pass
        with bar() as self._buttons:
            pass

    def show(self, push: dict[str, Any]) -> None:
        self._now = push
        self._badge.text = push["status"]
        self._badge.classes(remove="good accent warn bad idle", add=words.tone_of(push["status"]))
        self._progress.clear()
        with self._progress:
            self._progress.set_visibility(_draw_progress(push))
        again = _again(push)
        drawn = (push["status"], push["rate_per_s"], again)
        if drawn != self._drawn:
            self._drawn = drawn
            self._buttons.clear()
            if self._seat.may("push:write"):
                with self._buttons:
                    self._draw_buttons(push["status"], again)

    def _draw_buttons(self, status: str, again: int) -> None:
        if status in ("accepted", "sending", "resolving"):
            self._button("Pause", lambda: self._steer("pause", "Paused."), "pause")
        if status == "paused":
            self._button("Resume", lambda: self._steer("resume", "It goes on."), "play_arrow", "main")
        if status in ("accepted", "sending", "resolving", "paused", "scheduled"):
            self._button("Rate", self._change_rate, "speed")
        if status not in ENDED:
            self._button("Cancel", self._cancel, "block", "danger")
        if status not in ("withdrawn", "failed", "scheduled"):
            self._button("Withdraw", self._withdraw, "undo", "danger")
        if again:
            self._button(f"Send again to {words.count(again)}", self._retry, "replay")

    def _button(self, label: str, deed: Callable[[], Awaitable[None]], icon_name: str, kind: Kind = "plain") -> None:
        async def do() -> None:
            # The button may be gone before the deed is done: what it asks and tells stands elsewhere.
            with self._place:
                await deed()

        button(label, do, icon_name=icon_name, kind=kind)

    async def _steer(self, verb: str, done: str) -> None:
        self._take(await parts.act(self._seat.api.post(f"{self._path}/{verb}"), done))

    def _take(self, answer: dict[str, Any] | None) -> None:
        if answer is not None:
            self.show(answer)

    async def _cancel(self) -> None:
        detail = (
            "Nobody is written to any more. Devices that were not written to count as canceled;\n"
            "those that have it may still acknowledge."
        )
        if await parts.confirm("Cancel this push?", detail, verb="Cancel the push"):
            await self._steer("cancel", "Canceled.")

    async def _withdraw(self) -> None:
        detail = (
            "Nobody is written to any more, and devices that have it are told to drop it.\nThis cannot be taken back."
        )
        if await parts.confirm("Withdraw this push?", detail, verb="Withdraw"):
            await self._steer("withdraw", "Withdrawn.")

    async def _change_rate(self) -> None:
        with parts.dialog("Devices a second") as asked:
            text("p", "Empty: as fast as it goes.", "lw-muted")
            given = ui.number(value=self._now["rate_per_s"], min=1, max=1_000_000, precision=0)
            given.props("outlined dense autofocus aria-label='Devices a second'").classes("lw-input")
            with box("lw-dialog-actions"):
                button("Cancel", lambda: asked.submit(None))
                button("Set", lambda: asked.submit((given.value,)), kind="main")
        said = await asked
        asked.delete()
        if said is not None:
            rate = None if said[0] is None else int(said[0])
            self._take(await parts.act(self._seat.api.patch(self._path, {"rate_per_s": rate}), "The rate is set."))

    async def _retry(self) -> None:
        stats = self._now["stats"]
        with parts.dialog("Send again") as asked:
            text("p", "The same message goes as a new push to the devices for which this one is:", "lw-muted")
            chosen = {
                name: ui.checkbox(f"{name}: {words.count(stats[name])}", value=True)
                for name in ("failed", "expired")
                if stats[name]
            }
            with box("lw-dialog-actions"):
                button("Cancel", lambda: asked.submit(None))
                button("Send", lambda: asked.submit([n for n, box_ in chosen.items() if box_.value]), kind="main")
        states = await asked
        asked.delete()
        if states:
            call = self._seat.api.post(f"{self._path}/retry", {"states": states}, key=str(uuid.uuid4()))
            answer = await parts.act(call, "Sent again.")
            if answer is not None:
                go(f"/pushes/{answer['id']}")


def _again(push: dict[str, Any]) -> int:
    """How many it could be sent to again."""
    if push["status"] not in ENDED:
        return 0
    return int(push["stats"]["failed"] + push["stats"]["expired"])


def _draw_progress(push: dict[str, Any]) -> bool:
    """Draws how far it is, or why it failed; whether there is anything to say."""
    progress = push["progress"]
    if push["failure"]:
        with box("lw-notice bad"):
            parts.icon("error")
            text("span", push["failure"])
    if push["status"] == "scheduled":
        with box("lw-bar"):
            text("span", "Its audience is found, and it is sent,", "lw-muted")
            parts.ago(push["send_at"])
    elif push["status"] in ("accepted", "resolving", "sending", "paused"):
        said = f"{words.count(progress['dispatched'])} of {words.count(progress['targeted'])} devices looked after"
        if progress["rate_per_s"]:
            said += f", {words.rate(progress['rate_per_s'])} a second"
        if progress["eta_s"]:
            said += f", about {words.duration(progress['eta_s'])} more"
        parts.progress(progress["percent"] / 100, said)
    else:
        return bool(push["failure"])
    return True


class _PushTiles:
    def __init__(self) -> None:
        self._targeted = Tile("Targeted", hint="Devices that it is for")
        self._online = Tile("Online at send")
        self._written = Tile("Written", hint="Devices that it was written to")
        self._acked = Tile("Acknowledged")
        self._half = Tile("Half within", hint="From the first write to the acknowledgement: p50")
        self._latency = Tile("99 % within", hint="From the first write to the acknowledgement: p99")

    def show(self, push: dict[str, Any]) -> None:
        stats = push["stats"]
        targeted, latency = stats["targeted"], stats["latency_ms"]
        self._targeted.set(words.count(targeted))
        self._online.set(words.count(stats["online_at_send"]), delta=words.percent(stats["online_at_send"], targeted))
        self._written.set(words.count(stats["written"]), delta=words.percent(stats["written"], targeted))
        self._acked.set(
            words.count(stats["acked"]), "good" if stats["acked"] else "", words.percent(stats["acked"], targeted)
        )
        self._half.set(words.millis(latency["p50"]))
        self._latency.set(words.millis(latency["p99"]))


def _facts(push: dict[str, Any]) -> None:
    zone = theme.zone()
    rows = [
        ("Made", f"{words.dated(push['created_at'], zone)} by {push['created_by'] or 'a device'}"),
        ("Began", words.dated(push["started_at"], zone)),
        ("Ended" if push["ended_at"] else "Expires", words.dated(push["ended_at"] or push["expires_at"], zone)),
        ("Worth delivering for", words.duration(push["ttl_s"]) if push["ttl_s"] else "only who is online"),
        ("Priority", push["priority"]),
        (
            "Rate",
            "as fast as it goes"
            if push["rate_per_s"] is None
            else f"{words.plural(push['rate_per_s'], 'device')} a second",
        ),
        ("Payload", words.size(push["payload_bytes"])),
    ]
    if push["collapse_key"]:
        rows.append(("Collapse key", push["collapse_key"]))
    if push["unresolved"]:
        sample = ", ".join(push["unresolved"]["sample"][:5])
        rows.append(("Names of nobody", f"{words.count(push['unresolved']['count'])}: {sample}"))
    with parts.facts(rows):
        if push["retry_of"]:
            text("dt", "Again of")
            with box("", "dd"):
                link(push["retry_of"], f"/pushes/{push['retry_of']}")


# -- how it went --------------------------------------------------------------------------------------------------


class _Course:
    """Deliveries over time, how long acknowledgements took, and why devices failed."""

    def __init__(self) -> None:
        with box("lw-charts"):
            self._time = Bars("Over time", [("written", "written"), ("acked", "acknowledged")])
            self._latency = Bars("Acknowledged after", [("count", "devices")])
        with section("Why devices failed") as self._why:
            self._reasons = Table(
                [
                    Column("reason", "Reason", lambda row: row["reason"]),
                    Column("count", "Devices", lambda row: words.count(row["count"]), kind="number"),
                ],
                key="reason",
            )
        self._why.set_visibility(False)
        self._shown: dict[str, Any] = {}

    def show(self, course: dict[str, Any]) -> None:
        if course == self._shown:
            return
        self._shown = course
        zone = theme.zone()
        say = words.clock if course["step_s"] < 3_600 else words.dated
        self._time.set([say(at, zone) for at in course["at"]], course)
        buckets = course["latency_buckets"]
        names = [f"< {words.millis(bucket['below_ms'])}" for bucket in buckets]
        self._latency.set(names, {"count": [bucket["count"] for bucket in buckets]})
        self._why.set_visibility(bool(course["reasons"]))
        self._reasons.show([{"reason": reason, "count": count} for reason, count in course["reasons"].items()])


# -- who ----------------------------------------------------------------------------------------------------------


class _Recipients:
    """The devices in a state, a page at a time."""

    def __init__(self, seat: Seat, path: str, state: str) -> None:
        self._seat = seat
        self._path = path
        self._state = state
        self._counts: dict[str, int] = {}
        self._items: dict[str, Any] = {}
        with section("Devices"):
            with box("lw-choice") as choice:
                choice.props.update({"role": "group", "aria-label": "State"})
                for name in STATES:
                    self._items[name] = self._item(name)
            table = Table(
                [
                    Column("device", "Device", lambda row: row["device_id"] or "deleted since", kind="code"),
                    Column(
                        "state", "State", lambda row: STATES.get(row["state"], row["state"]), kind="badge", tone=_tone
                    ),
                    Column("reason", "Why", lambda row: row["reason"] or words.UNKNOWN, hides_below=600),
                ],
                key=lambda row: row["device_id"] or str(id(row)),
                on_open=self._open,
                empty=lambda: text("p", "No device is in this state.", "lw-muted"),
            )
            self._pager = Pager(self._load, table)

    def _item(self, name: str) -> Any:
        item = parts.text("button", STATES[name], "lw-choice-item")
        item.props.update({"type": "button", "aria-pressed": str(name == self._state).lower()})
        item.on("click", lambda: self._choose(name))
        return item

    async def _choose(self, name: str) -> None:
        self._state = name
        for one, item in self._items.items():
            item.props["aria-pressed"] = str(one == name).lower()
            item.update()
        await self._pager.first()

    def count(self, stats: dict[str, Any]) -> None:
        """Shows how many are in each state."""
        for name, item in self._items.items():
            item.text = f"{STATES[name]} {words.count(stats[name])}"

    async def load(self) -> tuple[str, Page]:
        return self._state, await self._load(None)

    def show(self, found: tuple[str, Page]) -> None:
        state, page = found
        if state == self._state and not self._pager.is_extended:
            self._pager.show(page)

    async def _load(self, cursor: str | None) -> Page:
        return await self._seat.api.page(f"{self._path}/recipients", limit=25, cursor=cursor, state=self._state)

    async def _open(self, row: dict[str, Any]) -> None:
        device_id = row["device_id"]
        if device_id is None:
            return
        call = self._seat.api.get(f"{self._path}/recipients/{quoted(device_id)}")
        found = await parts.act(call, "")
        if found is None:
            return
        with parts.dialog(device_id) as shown:
            text("p", found["verdict"], "lw-verdict")
            parts.timeline([_step(step) for step in found["timeline"]])
            with box("lw-dialog-actions"):
                link("The device", f"/devices/{quoted(device_id)}")
                button("Close", shown.close)
        shown.open()


def _step(step: dict[str, Any]) -> dict[str, Any]:
    at = words.moment_of(step["at"])
    is_ahead = at is not None and at > dt.datetime.now(dt.UTC)
    said = step["event"].replace("-", " ") + (f" {words.when(step['at'], theme.zone())}" if is_ahead else "")
    return {"at": step["at"], "text": said, "state": "ahead" if is_ahead else "done"}


def _tone(row: dict[str, Any]) -> str:
    return words.tone_of(row["state"])
