"""Lists as tables: for eyes on a terminal, one line an item with tabs where a program reads."""

import sys
from collections.abc import Iterable, Sequence

import typer

from longwire.cli.text import one_line


def show(columns: Sequence[str], rows: Iterable[Sequence[str]], empty: str) -> None:
    """Prints rows; ``empty`` says on standard error that there are none."""
    lines = [[one_line(cell) for cell in row] for row in rows]
    if not lines:
        typer.echo(empty, err=True)
        return
    if not sys.stdout.isatty():
        for line in lines:
            typer.echo("\t".join(line))
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for line in lines:
        table.add_row(*map(Text, line))
    Console().print(table)


def show_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Prints a thing's facts, one a line."""
    for name, value in facts:
        typer.secho(f"{name:<14} ", dim=sys.stdout.isatty(), nl=False)
        typer.echo(one_line(value))


def moment(text: str | None) -> str:
    """A time of the API without what eyes do not need; "" for none."""
    return "" if text is None else text.replace("T", " ")[:19]
