"""``longwire trace``: where is my message."""

import sys
from typing import Annotated

import typer

from longwire.cli.operator import Answer, Api, calls_api, print_json
from longwire.cli.options import Json
from longwire.cli.table import moment, show_facts
from longwire.cli.text import one_line

_MARKS = {"done": "✓", "failed": "✗", "ahead": "…", "unknown": "?"}
_COLOURS = {"done": typer.colors.GREEN, "failed": typer.colors.RED, "ahead": typer.colors.BLUE, "unknown": None}

What = Annotated[
    str,
    typer.Argument(
        metavar="ID", show_default=False, help="Of a message, push, command, device, user, trace or request."
    ),
]


@calls_api
def trace(
    api: Api,
    what: What,
    device: Annotated[str | None, typer.Option(metavar="ID", help="Only at this device.")] = None,
    json: Json = False,
) -> None:
    """Show where a message is, and how it came there.

    Any id that the API or a log shows will do; a name is a device's, or else a user's.
    """
    found = api.get("/v1/trace", q=what, device_id=device)
    if json:
        print_json(found)
        return
    typer.secho(one_line(found["verdict"]["text"]), bold=sys.stdout.isatty())
    typer.echo()
    show_facts(_facts(found))
    for title, lines in (("", _steps(found)), ("devices", _receivers(found)), ("see also", _related(found))):
        if lines:
            typer.echo()
        if lines and title:
            typer.secho(title, dim=sys.stdout.isatty())
        for line, state in lines:
            colour = _COLOURS.get(state) if sys.stdout.isatty() else None
            typer.secho(one_line(line), fg=colour, dim=state == "ahead" and sys.stdout.isatty())


def _facts(found: Answer) -> list[tuple[str, str]]:
    told = [("id", found["id"]), ("kind", found["kind"])]
    for name, value in found["facts"].items():
        if value is not None and (name != "kind" or value != found["kind"]):
            label = "of kind" if name == "kind" else name.removesuffix("_at").replace("_", " ")
            told.append((label, moment(value) if name.endswith("_at") else str(value)))
    if found["trace_id"]:
        told.append(("trace", found["trace_id"]))
    if found["kept_until"]:
        told.append(("kept until", moment(found["kept_until"])))
    return told


def _steps(found: Answer) -> list[tuple[str, str]]:
    return [
        (f"{moment(step['at']):<19}  {_MARKS[step['state']]} {step['step']:<15} {step['text']}", step["state"])
        for step in found["timeline"]
    ]


def _receivers(found: Answer) -> list[tuple[str, str]]:
    if len(found["receivers"]) < 2:
        return []
    lines = [
        (f"{moment(one['at']):<19}  {one['state']:<10} {one['verdict']['text']}", "unknown")
        for one in found["receivers"]
    ]
    if found["receivers_more"]:
        lines.append((f"and {found['receivers_more']} more", "ahead"))
    return lines


def _related(found: Answer) -> list[tuple[str, str]]:
    return [(f"{one['kind']:<8} {one['id']}  {one['text']}", "unknown") for one in found["related"]]
