"""``longwire devices create`` and ``import``: many devices at once."""

import contextlib
import os
import time
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TextIO

import typer

from longwire.cli.bar import counting
from longwire.cli.operator import Answer, Api, calls_api, quoted
from longwire.cli.text import Failure, note
from longwire.ids import is_device_id

_BATCH = 1_000
_DIGITS = 6
_REFUSALS_SHOWN = 5
_LOOK_EVERY_S = 0.25


class Format(StrEnum):
    """What the lines of an import are."""

    CSV = "csv"
    NDJSON = "ndjson"


_CONTENT_TYPES = {Format.CSV: "text/csv", Format.NDJSON: "application/x-ndjson"}


@calls_api
def create(
    api: Api,
    count: Annotated[int, typer.Option(min=1, max=10_000_000, help="How many.")],
    prefix: Annotated[str, typer.Option(help="What their ids begin with.")],
    tokens: Annotated[
        Path, typer.Option(metavar="FILE.csv", help="Gets a line `device_id,token` for each; replaced if it exists.")
    ],
    start: Annotated[int, typer.Option(min=0, help="The first number.")] = 1,
) -> None:
    """Provision devices, each with a token to connect with.

    Ids are PREFIX and a number of at least six digits: --prefix dev- gives dev-000001, dev-000002 … A device that
    exists gets a further token. FILE.csv has no header, and only its owner may read it.
    """
    last = start + count - 1
    if not is_device_id(_name(prefix, last)):
        raise Failure(f"{_name(prefix, last)!r} is not 1-64 characters of A-Z a-z 0-9 . _ : @ -")
    with _replacing(tokens) as file, counting("provisioning", count) as advance:
        made = 0
        refused: list[Answer] = []
        for first in range(start, last + 1, _BATCH):
            numbers = range(first, min(first + _BATCH, last + 1))
            answer = api.post("/v1/devices/batch", {"items": [{"device_id": _name(prefix, n)} for n in numbers]})
            for item in answer["items"]:
                if "token" in item:
                    file.write(f"{item['device_id']},{item['token']}\n")
                    made += 1
                else:
                    refused.append(item)
            advance(len(numbers))
    for item in refused[:_REFUSALS_SHOWN]:
        note(f"{item['device_id']}: {item['problem']['detail']}")
    if refused:
        raise Failure(f"{len(refused)} of {count} devices were refused; {made} are in {tokens}")
    note(f"{made} devices, {_name(prefix, start)} to {_name(prefix, last)}; their tokens are in {tokens}")


@calls_api
def import_devices(
    api: Api,
    file: Annotated[Path, typer.Argument(metavar="FILE", show_default=False)],
    file_format: Annotated[
        Format | None,
        typer.Option("--format", help="What its lines are.  [dim]\\[default: as the name ends][/]", show_default=False),
    ] = None,
) -> None:
    """Register the devices of a file, up to a million lines: CSV with a header, or an object of JSON a line.

    Fields are device_id and, where they are known, user and tags. Tells each line that was refused; the others are
    registered all the same.
    """
    form = file_format or (Format.NDJSON if file.suffix in (".ndjson", ".jsonl") else Format.CSV)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise Failure(f"{file} cannot be read: {error.strerror}") from error
    job = api.upload("/v1/device-imports", content, _CONTENT_TYPES[form])
    path = f"/v1/device-imports/{quoted(job['import_id'])}"
    with counting("importing", content.count(b"\n")) as advance:
        told = 0
        while job["status"] == "running":
            time.sleep(_LOOK_EVERY_S)
            job = api.get(path)
            advance(job["lines"] - told)
            told = job["lines"]
    for wrong in job["errors"]:
        note(f"line {wrong['line']}: {wrong['detail']} ({wrong['code']})")
    unlisted = job["failed"] - len(job["errors"])
    if unlisted > 0:
        note(f"and {unlisted} further ones")
    if job["failed"] or job["status"] != "completed":
        raise Failure(f"{job['import_id']} {job['status']}: {job['done']} registered, {job['failed']} refused")
    note(f"{job['import_id']}: {job['done']} devices are registered")


def _name(prefix: str, number: int) -> str:
    return f"{prefix}{number:0{_DIGITS}d}"


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[TextIO]:
    """A file for its owner alone, which takes the place of ``path`` once it is whole."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as error:
        raise Failure(f"{path} cannot be written: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            yield file
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
