"""``longwire keys``: who may call the API, and for what."""

from typing import Annotated

import typer

from longwire.cli import operator
from longwire.cli.operator import Api, calls_api
from longwire.cli.options import Json, listed
from longwire.cli.table import moment, show_items
from longwire.cli.text import note

app = typer.Typer(help="API keys: list, create, revoke.", no_args_is_help=True)


@app.command("list")
@calls_api
def list_keys(api: Api, json: Json = False) -> None:
    """List the keys, newest first, revoked ones too."""
    show_items(
        api.pages("/v1/keys"),
        json,
        ("key", "name", "scopes", "created", "revoked"),
        lambda k: (k["key_id"], k["name"], " ".join(k["scopes"]), moment(k["created_at"]), moment(k["revoked_at"])),
        "no keys",
    )


@app.command()
@calls_api
def create(
    api: Api,
    name: Annotated[str, typer.Option(help="What it is for.")],
    scope: Annotated[
        list[str],
        typer.Option(
            help="What it may do; repeat it, or separate with commas: push:write push:read device:write device:read"
            " node:read node:write stats:read admin."
        ),
    ],
    json: Json = False,
) -> None:
    """Make a key. It is printed once, alone on standard output, and cannot be shown again."""
    made = api.post("/v1/keys", {"name": name, "scopes": listed(scope)})
    if json:
        operator.print_json(made)
        return
    note(f"{made['key_id']} {made['name']}: {' '.join(made['scopes'])}")
    typer.echo(made["key"])


@app.command()
@calls_api
def revoke(
    api: Api,
    key_id: Annotated[str, typer.Argument(metavar="KEY_ID", help="As `keys list` shows it: key_…")],
) -> None:
    """End a key at once."""
    api.delete(f"/v1/keys/{operator.quoted(key_id)}")
    note(f"{key_id} is revoked")
