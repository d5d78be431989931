"""``longwire marks``: devices, users and pushes whose traces are told whole for a while."""

from typing import Annotated

import typer

from longwire.cli.operator import Api, calls_api, print_json, quoted
from longwire.cli.options import Json
from longwire.cli.table import moment, show_items
from longwire.cli.text import Failure, note

app = typer.Typer(help="Marks: list, add, remove. What is marked is traced whole.", no_args_is_help=True)

_SECONDS = {"s": 1, "m": 60}


@app.command("list")
@calls_api
def list_marks(api: Api, json: Json = False) -> None:
    """List the marks that stand."""
    show_items(
        api.pages("/v1/marks"),
        json,
        ("mark", "what", "until", "by"),
        lambda m: (m["id"], _what(m), moment(m["until"]), m["by"]),
        "no marks",
    )


@app.command()
@calls_api
def add(
    api: Api,
    device: Annotated[str | None, typer.Option(help="The id of a device.", show_default=False)] = None,
    user: Annotated[str | None, typer.Option(help="All devices of a user.", show_default=False)] = None,
    push: Annotated[str | None, typer.Option(help="A push: psh_…", show_default=False)] = None,
    lasts: Annotated[str, typer.Option("--for", help="Seconds, or 10m: at most 30 minutes.")] = "10m",
    json: Json = False,
) -> None:
    """Have every message of a device, a user or a push told hop by hop, in the log and to the traces' collector."""
    wanted = {"device_id": device, "user": user, "push_id": push}
    target = {name: value for name, value in wanted.items() if value is not None}
    if len(target) != 1:
        raise Failure("give one of --device, --user and --push", 2)
    made = api.post("/v1/marks", {**target, "for_s": _seconds(lasts)})
    if json:
        print_json(made)
        return
    note(f"{_what(made)} is marked until {moment(made['until'])}: {made['id']}")


@app.command()
@calls_api
def remove(
    api: Api, mark_id: Annotated[str, typer.Argument(metavar="MARK_ID", help="As `marks list` shows it: mrk_…")]
) -> None:
    """End a mark before its time."""
    api.delete(f"/v1/marks/{quoted(mark_id)}")
    note(f"{mark_id} is removed")


def _what(mark: dict[str, str]) -> str:
    for name in ("device_id", "user", "push_id"):
        if mark[name] is not None:
            return f"{name.removesuffix('_id')} {mark[name]}"
    raise ValueError("a mark without a target")


def _seconds(text: str) -> int:
    number, unit = (text[:-1], text[-1:]) if text[-1:] in _SECONDS else (text, "s")
    if not number.isdecimal():
        raise Failure(f"--for {text} is neither a number of seconds nor of the form 90s or 10m", 2)
    return int(number) * _SECONDS[unit]
