"""``longwire groups``: groups and their members."""

from typing import Annotated

import typer

from longwire.cli.operator import Api, calls_api, quoted
from longwire.cli.options import Json, Most, listed
from longwire.cli.table import moment, number, show_items
from longwire.cli.text import Failure, note

app = typer.Typer(help="Groups: create, list, members, add, remove, delete.", no_args_is_help=True)

_MAX_CHANGE = 1_000

GroupId = Annotated[str, typer.Argument(metavar="GROUP_ID", show_default=False)]
DevicesOption = Annotated[
    list[str] | None, typer.Option("--device", metavar="ID", help="A device; repeat it, or separate with commas.")
]
UsersOption = Annotated[
    list[str] | None, typer.Option("--user", metavar="NAME", help="A user, with all devices, also later ones.")
]


@app.command("list")
@calls_api
def list_groups(api: Api, most: Most = 50, json: Json = False) -> None:
    """List groups."""
    show_items(
        api.pages("/v1/groups", most),
        json,
        ("group", "name", "devices", "users", "created"),
        lambda g: (g["group_id"], g["name"], number(g["devices"]), number(g["users"]), moment(g["created_at"])),
        "no groups",
    )


@app.command()
@calls_api
def create(
    api: Api,
    group_id: Annotated[
        str | None, typer.Argument(metavar="[GROUP_ID]", show_default=False, help="Left out: a new one is made.")
    ] = None,
    name: Annotated[str, typer.Option(help="What people call it.")] = "",
) -> None:
    """Make a group; its id is printed."""
    body = {key: value for key, value in (("group_id", group_id), ("name", name)) if value}
    typer.echo(api.post("/v1/groups", body)["group_id"])


@app.command()
@calls_api
def delete(api: Api, group_id: GroupId) -> None:
    """End a group; its members stay devices."""
    api.delete(f"/v1/groups/{quoted(group_id)}")
    note(f"{group_id} is deleted")


@app.command()
@calls_api
def members(api: Api, group_id: GroupId, most: Most = 500, json: Json = False) -> None:
    """List a group's members: devices, and users with all their devices."""
    show_items(
        api.pages(f"/v1/groups/{quoted(group_id)}/members", most),
        json,
        ("", "member"),
        lambda m: ("device", m["device"]) if m.get("device") else ("user", m["user"]),
        "no members",
    )


@app.command()
@calls_api
def add(api: Api, group_id: GroupId, devices: DevicesOption = None, users: UsersOption = None) -> None:
    """Add members to a group."""
    _change(api, group_id, "add", devices, users)


@app.command()
@calls_api
def remove(api: Api, group_id: GroupId, devices: DevicesOption = None, users: UsersOption = None) -> None:
    """Remove members from a group."""
    _change(api, group_id, "remove", devices, users)


def _change(api: Api, group_id: str, what: str, devices: list[str] | None, users: list[str] | None) -> None:
    wanted = [{"device": name} for name in listed(devices)] + [{"user": name} for name in listed(users)]
    if not wanted:
        raise Failure("name members with --device or --user", 2)
    changed = unresolved = 0
    for at in range(0, len(wanted), _MAX_CHANGE):
        answer = api.post(f"/v1/groups/{quoted(group_id)}/members", {what: wanted[at : at + _MAX_CHANGE]})
        changed += answer["added"] + answer["removed"]
        unresolved += answer["unresolved"]["count"]
    nobody = f"; {unresolved} devices are not registered" if unresolved else ""
    note(f"{group_id}: {changed} of {len(wanted)} members are {'added' if what == 'add' else 'removed'}{nobody}")
