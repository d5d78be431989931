"""``longwire doctor``: what keeps Longwire from its work on this machine and with these engines."""

import sys
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

from longwire.cli import options
from longwire.cli.operator import print_json
from longwire.cli.options import WRONG_SETTING, load_settings
from longwire.cli.text import Failure, one_line

if TYPE_CHECKING:
    from longwire.app.doctor import Diagnosis, Finding

_MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "failure": ("✗", "red"), "unknown": ("?", "blue")}

Process = Annotated[
    int | None,
    typer.Option("--pid", min=1, help="Look at this process's limits, not at those of this shell.", show_default=False),
]


def doctor(
    roles: options.Roles = None,
    workers: options.Workers = None,
    data: options.Data = None,
    limit: options.Limit = None,
    config: options.Config = None,
    pid: Process = None,
    json: options.Json = False,
) -> None:
    """Look at this machine and at every engine, and say what is to be done.

    Takes the settings that `longwire serve` would take here. It changes nothing. Status 1 where something fails; what
    only warns, or cannot be looked at, is status 0.
    """
    import asyncio
    from pathlib import Path

    settings = load_settings({"roles": roles, "workers": workers, "data_dir": data}, limit, config).settings
    if pid is not None and not Path(f"/proc/{pid}").is_dir():
        raise Failure(f"there is no process {pid}", WRONG_SETTING)
    from longwire.app.doctor import State, diagnose

    found = asyncio.run(diagnose(settings, pid="self" if pid is None else str(pid)))
    if json:
        print_json(_as_json(found))
    else:
        _show(found)
    if found.state is State.FAILURE:
        raise typer.Exit(1)


def _as_json(found: "Diagnosis") -> dict[str, object]:
    room = found.capacity
    return {
        "state": found.state,
        "capacity": None if room is None else room._asdict(),
        "findings": [finding._asdict() for finding in found.findings],
    }


def _show(found: "Diagnosis") -> None:
    """Every finding by its area; what to do stands below it, the command alone on its line."""
    for area, findings in groupby(found.findings, key=lambda finding: finding.area):
        typer.secho(f"\n{area}", bold=sys.stdout.isatty())
        for finding in findings:
            _show_one(finding)
    counts = {state: sum(one.state == state for one in found.findings) for state in _MARKS}
    told = [f"{counts['ok']} in order"]
    told += [f"{count} {word}" for word, count in _several(counts) if count]
    typer.echo(f"\n{', '.join(told)}")


def _several(counts: dict[str, int]) -> list[tuple[str, int]]:
    words = {
        "warning": ("warning", "warnings"),
        "failure": ("failure", "failures"),
        "unknown": ("not looked at", "not looked at"),
    }
    return [(many if counts[state] != 1 else one, counts[state]) for state, (one, many) in words.items()]


def _show_one(finding: "Finding") -> None:
    mark, colour = _MARKS[finding.state]
    typer.secho(f"  {mark} ", fg=colour, nl=False)
    typer.echo(f"{finding.name}: {one_line(finding.fact)}")
    if finding.advice:
        typer.echo(f"      {one_line(finding.advice)}")
    if finding.command:
        typer.secho(f"      {one_line(finding.command)}", fg="cyan")
