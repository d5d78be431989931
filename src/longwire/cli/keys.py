"""``longwire keys``: who may call the API, and for what."""

from typing import Annotated

import typer

from longwire.cli import operator
from longwire.cli.options import DEFAULT_DATA, ApiKey, CredentialsFolder, Json, Url
from longwire.cli.table import moment, show
from longwire.cli.text import note

app = typer.Typer(help="API keys: list, create, revoke.", no_args_is_help=True)

_EVERY = 1 << 31


@app.command("list")
def list_keys(
    json: Json = False,
    url: Url = None,
    api_key: ApiKey = None,
    data: CredentialsFolder = DEFAULT_DATA,
) -> None:
    """List the keys, newest first, revoked ones too."""
    with operator.connect(url, api_key, data) as api:
        found = list(api.pages("/v1/keys", _EVERY))
    if json:
        operator.print_json(found)
        return
    rows = [
        (k["key_id"], k["name"], " ".join(k["scopes"]), moment(k["created_at"]), moment(k["revoked_at"])) for k in found
    ]
    show(("key", "name", "scopes", "created", "revoked"), rows, "no keys")


@app.command()
def create(
    name: Annotated[str, typer.Option(help="What it is for.")],
    scope: Annotated[
        list[str],
        typer.Option(
            help="What it may do; repeat it, or separate with commas: push:write push:read device:write device:read"
            " node:read node:write stats:read admin."
        ),
    ],
    json: Json = False,
    url: Url = None,
    api_key: ApiKey = None,
    data: CredentialsFolder = DEFAULT_DATA,
) -> None:
    """Make a key. It is printed once, alone on standard output, and cannot be shown again."""
    scopes = [part for text in scope for part in text.replace(",", " ").split()]
    with operator.connect(url, api_key, data) as api:
        made = api.post("/v1/keys", {"name": name, "scopes": scopes})
    if json:
        operator.print_json(made)
        return
    note(f"{made['key_id']} {made['name']}: {' '.join(made['scopes'])}")
    typer.echo(made["key"])


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="KEY_ID", help="As `keys list` shows it: key_…")],
    url: Url = None,
    api_key: ApiKey = None,
    data: CredentialsFolder = DEFAULT_DATA,
) -> None:
    """End a key at once."""
    with operator.connect(url, api_key, data) as api:
        api.delete(f"/v1/keys/{operator.quoted(key_id)}")
    note(f"{key_id} is revoked")
