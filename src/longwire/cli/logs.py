"""``longwire logs``: what each area of every process logs, for a while."""

from typing import Annotated, Any

import typer

from longwire.cli.operator import Api, calls_api, print_json, quoted
from longwire.cli.options import Json
from longwire.cli.table import moment, show_items
from longwire.cli.text import Failure, note

app = typer.Typer(help="What is logged, area by area: levels, set, reset.", no_args_is_help=True)

_SECONDS = {"s": 1, "m": 60, "h": 3_600}

Area = Annotated[str, typer.Argument(help="As `logs levels` lists them, such as gateway.", show_default=False)]


@app.command()
@calls_api
def levels(api: Api, json: Json = False) -> None:
    """List every area and the level that it logs at."""
    found = api.get("/v1/log-levels")
    if json:
        print_json(found)
        return
    own = {one["area"]: one for one in found["items"]}
    areas = sorted({*found["areas"], *own})
    show_items(
        [own.get(area, {"area": area}) for area in areas],
        False,
        ("area", "level", "until", "by"),
        lambda one: _row(one, found["base"]),
        "no areas",
    )


@app.command("set")
@calls_api
def set_level(
    api: Api,
    area: Area,
    level: Annotated[str, typer.Argument(help="debug, info, warning or error.", show_default=False)],
    lasts: Annotated[str, typer.Option("--for", help="Seconds, or 90s, 10m, 1h: at most 24h.")] = "1h",
    json: Json = False,
) -> None:
    """Have an area of every process log at another level for a while."""
    made = api.put("/v1/log-levels", {"area": area, "level": level, "for_s": _seconds(lasts)})
    if json:
        print_json(made)
        return
    note(f"{made['area']} logs at {made['level']} until {moment(made['until'])}")


@app.command()
@calls_api
def reset(api: Api, area: Area) -> None:
    """Have an area log at the base level again."""
    api.delete(f"/v1/log-levels/{quoted(area)}")
    note(f"{area} logs at the base level again")


def _row(one: dict[str, Any], base: str) -> tuple[str, ...]:
    if "level" not in one:
        return one["area"], base, "", ""
    return one["area"], one["level"], moment(one["until"]), one["by"]


def _seconds(text: str) -> int:
    number, unit = (text[:-1], text[-1:]) if text[-1:] in _SECONDS else (text, "s")
    if not number.isdecimal():
        raise Failure(f"--for {text} is neither a number of seconds nor of the form 90s, 10m or 1h", 2)
    return int(number) * _SECONDS[unit]
