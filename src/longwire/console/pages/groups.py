"""Groups and tags: which there are, how many devices have them, and a group's members."""

from typing import Any
from urllib.parse import quote

from nicegui import ui

from longwire.console import parts, words
from longwire.console.api import ApiError, Page, quoted
from longwire.console.forms import Form
from longwire.console.live import every
from longwire.console.pages.devices import list_path
from longwire.console.parts import Column, Pager, Table, Tile, bar, box, button, empty, section, text, tiles
from longwire.console.shell import Seat, actions, console_page, go

_EVERY_S = 5.0
_MOST = 1_000
"""Members in one call."""


@console_page("/groups", "Groups and tags", nav="groups", scope="device:read")
async def groups(seat: Seat, prefix: str = "") -> None:
    """Both lists; ``prefix`` is how tags begin."""
    if seat.may("device:write"):
        with actions():
            button("New group", lambda: _create(seat), kind="main", icon_name="add")
    with section("Groups", hint="devices and users that you put together; a push or a device can send to a group"):
        table = Table(
            [
                Column("group", "Group", lambda group: group["group_id"], kind="code"),
                Column("name", "Name", lambda group: group["name"] or words.UNKNOWN),
                Column("devices", "Devices", lambda group: words.count(group["devices"]), kind="number"),
                Column("users", "Users", lambda group: words.count(group["users"]), kind="number"),
                Column("created", "Made", lambda group: group["created_at"], kind="time", hides_below=600),
            ],
            key="group_id",
            on_open=lambda group: go(f"/groups/{group['group_id']}"),
            empty=lambda: _no_group(seat),
        )
        found = Pager(lambda cursor: seat.api.page("/v1/groups", cursor=cursor), table)
    with section("Tags", hint="words that devices carry; those that begin sys: the system keeps"):
        _prefix_filter(prefix)
        tags = Table(
            [
                Column("tag", "Tag", lambda tag: tag["tag"], kind="code"),
                Column("devices", "Devices", lambda tag: words.count(tag["devices"]), kind="number"),
                Column("kept", "Kept by", lambda tag: "the system" if tag["reserved"] else "you", hides_below=600),
            ],
            key="tag",
            on_open=lambda tag: go(list_path(tag=tag["tag"])),
            empty=lambda: _no_tag(prefix),
        )
        found_tags = Pager(lambda cursor: _tag_page(seat, prefix, cursor), tags)
    _keep(found, lambda: seat.api.page("/v1/groups"))
    _keep(found_tags, lambda: _tag_page(seat, prefix, None))


async def _tag_page(seat: Seat, prefix: str, cursor: str | None) -> Page:
    return await seat.api.page("/v1/tags", cursor=cursor, prefix=prefix or None)


def _keep(pager: Pager, load: Any) -> None:
    """Shows the first page again and again, until somebody has gone on to the next."""

    def show(page: Page) -> None:
        if not pager.is_extended:
            pager.show(page)

    every(_EVERY_S, load, show)


def _prefix_filter(prefix: str) -> None:
    with bar():
        field = ui.input("Begins with", value=prefix).props("outlined dense clearable").classes("lw-input")

        def search() -> None:
            wanted = (field.value or "").strip()
            go(f"/groups?prefix={quote(wanted, safe='')}" if wanted else "/groups")

        field.on("keydown.enter", search)
        button("Search", search, icon_name="search")


def _no_group(seat: Seat) -> None:
    detail = "A group is a name for devices and users that belong together, such as a shift or a building."
    action = ("New group", lambda: _create(seat)) if seat.may("device:write") else None
    empty("groups", "There is no group yet.", detail, action)


def _no_tag(prefix: str) -> None:
    if prefix:
        empty("filter_alt_off", f"No tag begins {prefix}.", "", ("Show all", lambda: go("/groups")))
    else:
        detail = "Give a device tags on its page, or many at once with POST /v1/tags/TAG/devices."
        empty("sell", "No device has a tag.", detail)


async def _create(seat: Seat) -> None:
    with parts.dialog("New group") as shown:
        form = Form()
        group_id = form.field("group_id", "Id", hint="A-Z a-z 0-9 . _ : @ -; left empty it is made up")
        name = form.field("name", "Name")

        async def create() -> None:
            body = {"name": (name.value or "").strip()}
            if given := (group_id.value or "").strip():
                body["group_id"] = given
            answer = await form.send(lambda: seat.api.post("/v1/groups", body), "The group is made.")
            if answer is not None:
                shown.submit(answer)

        with box("lw-dialog-actions"):
            button("Cancel", shown.close)
            button("Make", create, kind="main")
    made = await parts.answer_of(shown)
    if made is not None:
        go(f"/groups/{made['group_id']}")


# -- one group ----------------------------------------------------------------------------------------------------


@console_page("/groups/{group_id}", "Group", nav="groups", scope="device:read")
async def group(seat: Seat, group_id: str) -> None:
    """One group and its members."""
    path = f"/v1/groups/{quoted(group_id)}"
    first = await seat.api.get(path)
    with bar():
        parts.code(group_id)
        name = text("span", first["name"], "lw-strong")
        parts.link("Its devices", list_path(group=group_id))
    with tiles():
        devices = Tile("Devices", hint="Put into it one by one")
        users = Tile("Users", hint="Each with all devices")
    with section("Members", hint="devices, oldest first, then users"):
        table = Table(
            [
                Column("member", "Member", lambda member: member["device"] or member["user"], kind="code"),
                Column("is", "Is a", lambda member: "device" if member["device"] else "user with all devices"),
            ],
            key=lambda member: f"{'d' if member['device'] else 'u'}{member['device'] or member['user']}",
            on_open=_open_member,
            empty=lambda: empty("group_off", "Nobody is in this group.", "What is sent to it goes to nobody."),
        )
        members = Pager(lambda cursor: seat.api.page(f"{path}/members", cursor=cursor), table)

    def show(found: dict[str, Any]) -> None:
        name.text = found["name"]
        devices.set(words.count(found["devices"]))
        users.set(words.count(found["users"]))

    async def again() -> None:
        show(await seat.api.get(path))
        await members.first()

    if seat.may("device:write"):
        with actions():
            button("Add", lambda: _change(seat, path, "add", again), kind="main", icon_name="add")
            button("Remove", lambda: _change(seat, path, "remove", again), icon_name="remove")
            button("Delete group", lambda: _delete(seat, path, group_id), kind="danger")
    every(_EVERY_S, lambda: seat.api.get(path), show)
    _keep(members, lambda: seat.api.page(f"{path}/members"))


def _open_member(member: dict[str, Any]) -> None:
    go(f"/devices/{member['device']}" if member["device"] else list_path(user=member["user"]))


async def _change(seat: Seat, path: str, verb: str, again: Any) -> None:
    """Takes members in or out by a list of names."""
    is_adding = verb == "add"
    with parts.dialog("Add members" if is_adding else "Remove members") as shown:
        form = Form()
        kind = form.choice("kind", "They are", {"device": "Devices", "user": "Users"}, value="device")
        names = form.field(verb, "Ids, one a line", rows=6)
        said = text("p", "", "lw-field-error")

        async def change() -> None:
            wanted = list(dict.fromkeys((names.value or "").split()))
            if not 0 < len(wanted) <= _MOST:
                said.text = f"Name 1 to {words.count(_MOST)} of them."
                return
            body = {verb: [{kind.value: one} for one in wanted]}
            try:
                shown.submit(await seat.api.post(f"{path}/members", body))
            except ApiError as error:
                said.text = error.detail

        with box("lw-dialog-actions"):
            button("Cancel", shown.close)
            button("Add" if is_adding else "Remove", change, kind="main")
    answer = await parts.answer_of(shown)
    if answer is None:
        return
    changed = words.plural(answer["added" if is_adding else "removed"], "member")
    unknown = answer["unresolved"]
    more = f" Not registered: {', '.join(unknown['sample'])}." if unknown["count"] else ""
    parts.say(f"{changed} {'added' if is_adding else 'removed'}.{more}")
    await again()


async def _delete(seat: Seat, path: str, group_id: str) -> None:
    detail = "Its members stay registered, and what was sent to it goes on. It cannot be brought back."
    if await parts.confirm(f"Delete the group {group_id}?", detail, verb="Delete"):
        answer = await parts.act(seat.api.delete(path), "The group is deleted.")
        if answer is not None:
            go("/groups")
