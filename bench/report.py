"""What the runs gave, for people (a table a work) and for machines (one JSON file a run of the harness)."""

import json
import math
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.generator import Result, faults
from bench.work import Metric, Work

OURS = "longwire"


@dataclass(frozen=True)
class Run:
    """One measurement: one work on one server in one round."""

    work: str
    server: str
    round: int
    figures: dict[str, float]
    raw: list[Result]
    notes: list[str]
    broken: list[str]  # what no server may do
    error: str = ""


def judge(raw: list[Result], notes: list[str]) -> tuple[list[str], list[str]]:
    """(what no server may do, what a reader must know) in these results."""
    found = [faults(result) for result in raw]
    return [word for never, _ in found for word in never], notes + [word for _, told in found for word in told]


def _values(runs: list[Run], work: Work, server: str, key: str) -> list[float]:
    values = [run.figures.get(key, math.nan) for run in runs if run.work == work.name and run.server == server]
    return [value for value in values if not math.isnan(value)]


def _spread(values: list[float], digits: int) -> str:
    """The median, and under it the least and the most."""
    if not values:
        return "–"
    middle = f"{median(values):,.{digits}f}"
    if len(values) == 1:
        return middle
    return f"{middle}\n[dim]{min(values):,.{digits}f} – {max(values):,.{digits}f}[/dim]"


def ratios(runs: list[Run], work: Work, peer: str) -> list[float]:
    """Longwire ÷ peer in the headline figure, round by round: both ran within the same minutes."""
    key = work.metrics[0].key
    by_round: dict[int, dict[str, float]] = {}
    for run in runs:
        if run.work == work.name and not math.isnan(run.figures.get(key, math.nan)):
            by_round.setdefault(run.round, {})[run.server] = run.figures[key]
    return [
        values[OURS] / values[peer]
        for _, values in sorted(by_round.items())
        if OURS in values and values.get(peer, 0) > 0
    ]


def print_work(console: Console, work: Work, runs: list[Run]) -> None:
    """The table of one work, its budget, and what must be known about its figures."""
    mine = [run for run in runs if run.work == work.name]
    servers = list(dict.fromkeys(run.server for run in mine if run.figures))
    servers.sort(key=lambda name: name != OURS)
    console.print(f"[bold]{work.name}[/bold]: {work.title}", highlight=False)
    if work.budget:
        console.print(f"budget: {work.budget}", highlight=False)
    table = Table("median, least – most")
    for server in servers:
        table.add_column(server, justify="right")
    for metric in work.metrics:
        cells = [_spread(_values(mine, work, server, metric.key), metric.digits) for server in servers]
        table.add_row(metric.label + _direction(metric), *cells)
    if OURS in servers and len(servers) > 1:
        shares = ["" if server == OURS else _spread(ratios(mine, work, server), 2) for server in servers]
        table.add_row(f"longwire ÷ it, round by round:\n{work.metrics[0].label}", *shares)
    if servers:
        console.print(table)
    _print_remarks(console, mine)
    console.print()


def _direction(metric: Metric) -> str:
    return " ↑" if metric.higher_is_better else " ↓"


def _print_remarks(console: Console, runs: list[Run]) -> None:
    for run in runs:
        where = f"{run.server}, round {run.round}"
        if run.error:
            console.print(f"  [red]{where}: not measured: {escape(run.error)}[/red]", highlight=False)
        if run.broken:
            console.print(f"  [bold red]{where}: BROKEN: {', '.join(run.broken)}[/bold red]", highlight=False)
    remarks: dict[tuple[str, str], int] = {}
    for run in runs:
        if run.notes:
            key = (run.server, ", ".join(run.notes))
            remarks[key] = remarks.get(key, 0) + 1
    for (server, text), rounds in remarks.items():
        console.print(f"  {server} (in {rounds} of its rounds): {text}", highlight=False)


def summary(runs: list[Run], works: list[Work]) -> list[dict[str, object]]:
    """Median, least and most of each figure, and the ratios, as the tables have them."""
    rows: list[dict[str, object]] = []
    for work in works:
        for server in dict.fromkeys(run.server for run in runs if run.work == work.name):
            figures = {}
            for metric in work.metrics:
                values = _values(runs, work, server, metric.key)
                if values:
                    figures[metric.key] = {"median": median(values), "min": min(values), "max": max(values)}
            row: dict[str, object] = {"work": work.name, "server": server, "figures": figures}
            if server != OURS:
                row["longwire_ratio_by_round"] = ratios(runs, work, server)
            rows.append(row)
    return rows


def write_json(folder: Path, began: datetime, facts: dict[str, object], runs: list[Run], works: list[Work]) -> Path:
    """Everything, raw values included, in one new file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{began:%Y%m%dT%H%M%SZ}-{facts['commit']}.json"
    document = {
        "began": began.isoformat(timespec="seconds"),
        **facts,
        "summary": summary(runs, works),
        "runs": [asdict(run) for run in runs],
    }
    path.write_text(json.dumps(_without_nan(document), indent=1, ensure_ascii=False) + "\n")
    return path


def _without_nan(value: object) -> object:
    """JSON has no NaN: what was not measured is null."""
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_nan(inner) for inner in value]
    return value
