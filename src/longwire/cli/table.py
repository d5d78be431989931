"""Lists as tables: for eyes on a terminal, one line an item with tabs where a program reads."""

import sys
from collections.abc import Callable, Iterable, Sequence

import typer

from longwire.cli.operator import Answer, print_json
from longwire.cli.text import one_line


def show_items(
    items: Iterable[Answer],
    as_json: bool,
    columns: Sequence[str],
    row: Callable[[Answer], Sequence[str]],
    empty: str,
) -> None:
    """Prints items of the API: as the API gives them, or as rows of a table."""
    found = list(items)
    if as_json:
        print_json(found)
    else:
        show(columns, map(row, found), empty)


def show_item(item: Answer, as_json: bool, facts: Callable[[Answer], Iterable[tuple[str, str]]]) -> None:
    """Prints a thing of the API: as the API gives it, or its facts, one a line."""
    if as_json:
        print_json(item)
    else:
        show_facts(facts(item))


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


def number(value: float | None) -> str:
    """A count as eyes read it on a terminal, bare for programs; "" for none."""
    if value is None:
        return ""
    return f"{value:,.0f}" if sys.stdout.isatty() else f"{value:.0f}"


def moment(text: str | None) -> str:
    """A time of the API without what eyes do not need; "" for none."""
    return "" if text is None else text.replace("T", " ")[:19]
