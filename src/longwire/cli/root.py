"""The tree of commands."""

import inspect
from typing import Annotated

import typer

from longwire import __version__
from longwire.cli import (
    configuration,
    dead_letters,
    device,
    devices,
    groups,
    keys,
    logs,
    marks,
    migrate,
    nodes,
    people,
    pushes,
    serving,
    tags,
    webhooks,
)
from longwire.cli.demo.command import demo
from longwire.cli.doctor import doctor
from longwire.cli.push import push
from longwire.cli.top import top
from longwire.cli.trace import trace

app = typer.Typer(
    help="A push system for millions of long-lived connections.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,  # their boxes show local variables, secrets among them
)


def _tell_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"longwire {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    pass


app.command()(serving.dev)
app.command()(serving.serve)
app.command()(migrate.migrate)
app.command()(demo)
app.command()(push)
app.command()(doctor)
app.command()(top)
app.command()(trace)
_GROUPS = {
    "pushes": pushes,
    "devices": devices,
    "tags": tags,
    "groups": groups,
    "nodes": nodes,
    "marks": marks,
    "logs": logs,
    "webhooks": webhooks,
    "dead-letters": dead_letters,
    "keys": keys,
    "people": people,
    "device": device,
    "config": configuration,
}
for _name, _group in _GROUPS.items():
    app.add_typer(_group.app, name=_name)


@app.command()
def version() -> None:
    """Show the version."""
    _tell_version(True)


def _unwrap(text: str | None) -> str:
    """A docstring as running text: help is wrapped to the terminal it is shown on."""
    paragraphs = inspect.cleandoc(text or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


for _tree in (app, *(group.app for group in _GROUPS.values())):
    for _info in _tree.registered_commands:
        _info.help = _unwrap(_info.callback.__doc__ if _info.callback is not None else None)
