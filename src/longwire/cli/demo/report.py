"""What the demo says: bars while it works, one table at the end."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from statistics import quantiles
from types import TracebackType
from typing import Any, Self

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from longwire.cli.funnel import STATES

_ROOMY = 90
"""Columns of a terminal from which on the table has more air."""


@dataclass(frozen=True)
class Row:
    """A line of the table. What is None has no meaning there."""

    name: str
    asked: int | None = None
    confirmed: int | None = None
    once: int | None = None
    rate_per_s: float | None = None
    latencies_s: Sequence[float] = ()
    fault: str | None = None
    """None: nothing to judge; "": it adds up; else why it does not."""


@dataclass(frozen=True)
class Funnel:
    """What the API says of a push, beside what the demo counted itself."""

    name: str
    stats: Mapping[str, Any]
    targeted: int
    """Devices that the demo meant."""
    received: int
    """Applications that got it, each once."""
    latencies_s: Sequence[float] = ()
    """From POST to the application, or where it was away from when it began to connect."""
    fault: str = ""
    """Why this does not add up; "" where it does."""


@dataclass
class Report:
    """Everything that was counted and measured."""

    devices: int
    where: str = "one node"
    rows: list[Row] = field(default_factory=list)
    funnels: list[Funnel] = field(default_factory=list)
    node_bytes: tuple[int, int, int] | None = None
    """What the node held: when it was ready, with everyone connected, and at the end; None where nobody saw it."""
    took_s: float = 0.0
    stop: str = ""

    @property
    def faults(self) -> list[str]:
        judged = [(row.name, row.fault) for row in self.rows] + [(f"push {f.name}", f.fault) for f in self.funnels]
        return [f"{name}: {fault}" for name, fault in judged if fault]

    def show(self, console: Console) -> None:
        """The final screen."""
        table = Table(
            box=box.HORIZONTALS,
            title=f"Longwire demo: {self.devices:,} devices on {self.where} (times in ms)",
            title_style="bold",
            border_style="dim",
            header_style="dim",
            padding=(0, 0, 0, 1 if console.width >= _ROOMY else 0),
        )
        table.add_column("", no_wrap=True)
        for name in ("sent", "confirmed", "once", "per s", "p50", "p95", "p99"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("", no_wrap=True)
        for row in self.rows:
            if row.name == "":
                table.add_section()
                continue
            table.add_row(*_cells(row))
        table.add_section()
        counted = [row for row in self.rows if row.once is not None]
        total = Row(
            "in all",
            sum(row.asked or 0 for row in counted),
            sum(row.confirmed or 0 for row in counted),
            sum(row.once or 0 for row in counted),
            fault="; ".join(row.fault for row in self.rows if row.fault),
        )
        table.add_row(*_cells(total), style="bold")
        console.print()
        console.print(table)
        if self.funnels:
            console.print(_funnels(self.funnels))
        for name, value in self._facts():
            console.print(Text.assemble((f"{name:<8}", "dim"), value), soft_wrap=True)
        console.print()
        for fault in self.faults:
            console.print(Text(f"✗ {fault}", style="red"), soft_wrap=True)
        if self.faults:
            console.print(Text("It does not add up.", style="bold red"))
        else:
            said = "Everything adds up: sent = confirmed = received exactly once"
            if self.funnels:
                said += ", and each push's states = its targets"
            console.print(Text(f"{said}.", style="bold green"), soft_wrap=True)
        console.print()

    def _facts(self) -> Iterator[tuple[str, str]]:
        if self.node_bytes is not None:
            start, connected, end = self.node_bytes
            each = (connected - start) / self.devices / 1024
            yield "memory", f"{each:.1f} KB of the node for each connected device (what it had free is used first)"
            yield "", f"{_mb(start)} MB at its start, {_mb(connected)} with everyone connected, {_mb(end)} at the end"
        yield "time", f"{self.took_s:.1f} s{self.stop}"


def _funnels(funnels: Sequence[Funnel]) -> Table:
    """A column a push: its states, what they add up to, and what the demo counted."""
    table = Table(
        box=box.HORIZONTALS,
        title="Pushes: what became of each device",
        title_style="bold",
        border_style="dim",
        header_style="dim",
        padding=0,
    )
    table.add_column("", no_wrap=True)
    for funnel in funnels:
        table.add_column(funnel.name, justify="right", no_wrap=True)

    def add(name: str, values: Iterable[object], style: str = "") -> None:
        table.add_row(name, *(value if isinstance(value, Text) else f"{value:,}" for value in values), style=style)

    add("targeted", (f.stats["targeted"] for f in funnels), "bold")
    for state in STATES:
        add(f"  {state}", (f.stats[state] for f in funnels))
    add("states together", (sum(f.stats[state] for state in STATES) for f in funnels), "bold")
    table.add_section()
    add("demo: targeted", (f.targeted for f in funnels))
    add("demo: got it once", (f.received for f in funnels))
    for at, name in enumerate(("p50", "p95", "p99")):
        times = [percentiles(f.latencies_s)[at] if len(f.latencies_s) > 1 else None for f in funnels]
        add(f"until the app, {name} ms", (Text("" if value is None else _ms(value)) for value in times), "dim")
    add("", (Text("✗", style="bold red") if f.fault else Text("✓", style="green") for f in funnels))
    return table


def _cells(row: Row) -> list[Text]:
    def number(value: float | None) -> str:
        return "" if value is None else f"{value:,.0f}"

    times = ["", "", ""] if len(row.latencies_s) < 2 else [_ms(value) for value in percentiles(row.latencies_s)]
    mark = {None: Text(""), "": Text("✓", style="green")}.get(row.fault, Text("✗", style="bold red"))
    cells = [number(row.asked), number(row.confirmed), number(row.once), number(row.rate_per_s), *times]
    return [Text(row.name), *map(Text, cells), mark]


def percentiles(values: Sequence[float]) -> tuple[float, float, float]:
    """p50, p95 and p99 of two values or more."""
    cuts = quantiles(values, n=100, method="inclusive")
    return cuts[49], cuts[94], cuts[98]


def _ms(seconds: float) -> str:
    ms = seconds * 1000
    return f"{ms:,.0f}" if ms >= 100 else f"{ms:.1f}"


def _mb(size: int) -> str:
    return f"{size / (1 << 20):.1f}"


class Screen:
    """Progress bars on standard error; where that is no terminal, a line for each thing that is done."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓[/]"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
            refresh_per_second=8,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def bar(self, name: str, total: int) -> "Bar":
        """A thing to do, in so many steps."""
        return Bar(self, self._progress, name, total)


class Bar(AbstractContextManager["Bar"]):
    """One thing that is being done."""

    def __init__(self, screen: Screen, progress: Progress, name: str, total: int) -> None:
        self._screen = screen
        self._progress = progress
        self._name = name
        self._total = total
        self._began = time.perf_counter()
        self._task: TaskID = progress.add_task(f"{name:<44}", total=total)
        self.took_s = 0.0

    def advance(self, step: int = 1) -> None:
        self._progress.advance(self._task, step)

    def at(self, count: int) -> None:
        """So much is done."""
        self._progress.update(self._task, completed=count)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.took_s = time.perf_counter() - self._began
        if kind is None and not self._screen.console.is_terminal:
            self._screen.console.print(f"{self._name}: {self._total:,} in {self.took_s:.1f} s", highlight=False)
