"""``longwire people``: who signs in to the console, and as what."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from longwire.cli import operator
from longwire.cli.operator import Api, calls_api
from longwire.cli.options import Json
from longwire.cli.table import moment, show_items
from longwire.cli.text import note

app = typer.Typer(help="People of the console: list, add, change, remove.", no_args_is_help=True)


class Role(StrEnum):
    """What a person may do."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


Name = Annotated[str, typer.Argument(metavar="NAME", help="a-z 0-9 . _ @ -")]
_ROLE_HELP = "viewer sees; operator also sends, and changes devices and nodes; admin may do everything."
_AT_FIRST = "which has to be replaced at the first sign-in"


@app.command("list")
@calls_api
def list_people(api: Api, json: Json = False) -> None:
    """List the people, by name."""
    show_items(
        api.pages("/v1/people"),
        json,
        ("name", "role", "created", "last sign-in", "state"),
        lambda p: (p["name"], p["role"], moment(p["created_at"]), moment(p["last_login_at"]), _state(p)),
        "no people; `longwire people add NAME --role admin` adds one",
    )


@app.command()
@calls_api
def add(
    api: Api, name: Name, role: Annotated[Role, typer.Option(help=_ROLE_HELP)] = Role.VIEWER, json: Json = False
) -> None:
    """Add a person. A one-time password is printed once, alone on standard output."""
    made = api.post("/v1/people", {"name": name, "role": str(role)})
    if json:
        operator.print_json(made)
        return
    note(f"{made['name']} is {made['role']}; the one-time password, {_AT_FIRST}:")
    typer.echo(made["one_time_password"])


@app.command()
@calls_api
def role(api: Api, name: Name, role: Annotated[Role, typer.Argument(help=_ROLE_HELP)]) -> None:
    """Give a person another role."""
    _change(api, name, {"role": str(role)})
    note(f"{name} is {role} now")


@app.command()
@calls_api
def password(api: Api, name: Name, json: Json = False) -> None:
    """Give a person a new one-time password, and end their sessions. It is printed once, on standard output."""
    made = api.post(f"/v1/people/{operator.quoted(name)}/password")
    if json:
        operator.print_json(made)
        return
    note(f"the one-time password of {name}, {_AT_FIRST}:")
    typer.echo(made["one_time_password"])


@app.command()
@calls_api
def disable(api: Api, name: Name) -> None:
    """Let a person not sign in any more, and end their sessions."""
    _change(api, name, {"is_disabled": True})
    note(f"{name} is disabled")


@app.command()
@calls_api
def enable(api: Api, name: Name) -> None:
    """Let a person sign in again."""
    _change(api, name, {"is_disabled": False})
    note(f"{name} is enabled")


@app.command()
@calls_api
def remove(api: Api, name: Name) -> None:
    """Forget a person, and end their sessions."""
    api.delete(f"/v1/people/{operator.quoted(name)}")
    note(f"{name} is removed")


def _change(api: Api, name: str, change: dict[str, Any]) -> None:
    api.patch(f"/v1/people/{operator.quoted(name)}", change)


def _state(person: dict[str, Any]) -> str:
    if person["is_disabled"]:
        return "disabled"
    return "one-time password" if person["must_change_password"] else "active"
