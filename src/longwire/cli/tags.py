"""``longwire tags``: who has which tag."""

from typing import Annotated

import typer

from longwire.cli.operator import Api, calls_api, quoted
from longwire.cli.options import Json, named
from longwire.cli.table import number, show_items
from longwire.cli.text import note

app = typer.Typer(help="Tags of devices: list, add, remove.", no_args_is_help=True)

_MAX_CHANGE = 1_000

Tag = Annotated[str, typer.Argument(metavar="TAG", show_default=False)]
DeviceIds = Annotated[list[str], typer.Argument(metavar="DEVICE_ID...", show_default=False, help="Or - to read them.")]


@app.command("list")
@calls_api
def list_tags(
    api: Api,
    prefix: Annotated[str | None, typer.Option(help="Only those that begin so; sys: for those of the system.")] = None,
    most: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 500,
    json: Json = False,
) -> None:
    """List tags with how many devices have them."""
    show_items(
        api.pages("/v1/tags", most, prefix=prefix),
        json,
        ("tag", "devices", ""),
        lambda t: (t["tag"], number(t["devices"]), "kept by the system" if t["reserved"] else ""),
        "no tags",
    )


@app.command()
@calls_api
def add(api: Api, tag: Tag, device_ids: DeviceIds) -> None:
    """Give devices a tag."""
    _change(api, tag, named(device_ids, "device"), "add")


@app.command()
@calls_api
def remove(api: Api, tag: Tag, device_ids: DeviceIds) -> None:
    """Take a tag from devices."""
    _change(api, tag, named(device_ids, "device"), "remove")


def _change(api: Api, tag: str, names: list[str], what: str) -> None:
    changed = unresolved = refused = 0
    for at in range(0, len(names), _MAX_CHANGE):
        answer = api.post(f"/v1/tags/{quoted(tag)}/devices", {what: names[at : at + _MAX_CHANGE]})
        changed += answer["added"] + answer["removed"]
        unresolved += answer["unresolved"]["count"]
        refused += len(answer["refused"])
    told = f"{tag} is {'added to' if what == 'add' else 'removed from'} {changed} of {len(names)} devices"
    if unresolved:
        told += f"; {unresolved} are not registered"
    if refused:
        told += f"; {refused} have as many tags as a device may have"
    note(told)
