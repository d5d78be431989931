"""``longwire devices``: the registry, for operators."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from longwire.cli import operator
from longwire.cli.options import DEFAULT_DATA, ApiKey, CredentialsFolder, Json, Url
from longwire.cli.table import moment, show, show_facts
from longwire.cli.text import Failure, note
from longwire.ids import is_device_id

if TYPE_CHECKING:
    from longwire.cli.operator import Answer, Api

app = typer.Typer(help="Devices: create in bulk, list, show, cut off.", no_args_is_help=True)

_BATCH = 1_000
_DIGITS = 6
_REFUSALS_SHOWN = 5

DeviceId = Annotated[str, typer.Argument(metavar="DEVICE_ID", show_default=False)]


@app.command()
def create(
    count: Annotated[int, typer.Option(min=1, max=10_000_000, help="How many.")],
    prefix: Annotated[str, typer.Option(help="What their ids begin with.")],
    tokens: Annotated[
        Path, typer.Option(metavar="FILE.csv", help="Gets a line `device_id,token` for each; replaced if it exists.")
    ],
    start: Annotated[int, typer.Option(min=0, help="The first number.")] = 1,
    url: Url = None,
    api_key: ApiKey = None,
    data: CredentialsFolder = DEFAULT_DATA,
) -> None:
    """Provision devices, each with a token to connect with.

    Ids are PREFIX and a number of at least six digits: --prefix dev- gives dev-000001, dev-000002 … A device that
    exists gets a further token. FILE.csv has no header, and only its owner may read it.
    """
    last = start + count - 1
    if not is_device_id(_name(prefix, last)):
        raise Failure(f"{_name(prefix, last)!r} is not 1-64 characters of A-Z a-z 0-9 . _ : @ -")
    with operator.connect(url, api_key, data) as api, _replacing(tokens) as file, _progress(count) as advance:
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


@app.command("list")
def list_devices(
    most: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 50,
    json: Json = False,
    url: Url = None,
    api_key: ApiKey = None,
    data: CredentialsFolder = DEFAULT_DATA,
) -> None:
    """List devices, newest first."""
    with operator.connect(url, api_key, data) as api:
        found = list(api.pages("/v1/devices", most))
    if json:
        operator.print_json(found)
        return
    rows = [
        (
            d["device_id"],
            d["user"] or "",
            " ".join(d["tags"]),
            " ".join(filter(None, (d["platform"], d["app_version"]))),
            moment(d["registered_at"]),
            "disabled" if d["is_disabled"] else "",
        )
        for d in found
    ]
    show(("device", "user", "tags", "client", "registered", ""), rows, "no devices")


@app.command("show")
def show_device(
    device_id: DeviceId,
    json: Json = False,
    url: Url = None,
    api_key: ApiKey = None,
    data: CredentialsFolder = DEFAULT_DATA,
) -> None:
    """Show one device."""
    with operator.connect(url, api_key, data) as api:
        found = api.get(f"/v1/devices/{operator.quoted(device_id)}")
    _tell(found, json)


@app.command()
def disconnect(
    device_id: DeviceId,
    code: Annotated[
        int | None,
        typer.Option(help="Close code: 40xx lets it come back, 41xx does not.  [dim]\\[default: 4101][/]"),
    ] = None,
    url: Url = None,
    api_key: ApiKey = None,
    data: CredentialsFolder = DEFAULT_DATA,
) -> None:
    """Close a device's session."""
    body = None if code is None else {"code": code}
    with operator.connect(url, api_key, data) as api:
        _tell_cut_off(_post(api, device_id, "disconnect", body), "disconnected", "had no session")


@app.command()
def disable(
    device_id: DeviceId,
    url: Url = None,
    api_key: ApiKey = None,
    data: CredentialsFolder = DEFAULT_DATA,
) -> None:
    """Keep a device out until it is enabled again."""
    with operator.connect(url, api_key, data) as api:
        _tell_cut_off(_post(api, device_id, "disable"), "disabled and disconnected", "disabled; it had no session")


@app.command()
def enable(
    device_id: DeviceId,
    url: Url = None,
    api_key: ApiKey = None,
    data: CredentialsFolder = DEFAULT_DATA,
) -> None:
    """Let a disabled device in again, with the tokens it has."""
    with operator.connect(url, api_key, data) as api:
        _post(api, device_id, "enable")
    note(f"{device_id} is enabled")


@app.command()
def revoke(
    device_id: DeviceId,
    url: Url = None,
    api_key: ApiKey = None,
    data: CredentialsFolder = DEFAULT_DATA,
) -> None:
    """End a device's tokens and its session. `devices create` or its user's log-in gives it new ones."""
    with operator.connect(url, api_key, data) as api:
        _tell_cut_off(_post(api, device_id, "revoke"), "revoked and disconnected", "revoked; it had no session")


@app.command()
def delete(
    device_id: DeviceId,
    url: Url = None,
    api_key: ApiKey = None,
    data: CredentialsFolder = DEFAULT_DATA,
) -> None:
    """Forget a device: its session, its tokens, and what waits for it."""
    with operator.connect(url, api_key, data) as api:
        api.delete(f"/v1/devices/{operator.quoted(device_id)}")
    note(f"{device_id} is deleted")


def _post(api: "Api", device_id: str, what: str, body: object = None) -> "Answer":
    return api.post(f"/v1/devices/{operator.quoted(device_id)}/{what}", body)


def _tell(found: "Answer", json: bool) -> None:
    if json:
        operator.print_json(found)
        return
    show_facts(
        [
            ("device", found["device_id"]),
            ("user", found["user"] or "-"),
            ("tags", " ".join(found["tags"]) or "-"),
            ("platform", found["platform"] or "-"),
            ("version", found["app_version"] or "-"),
            ("registered", moment(found["registered_at"])),
            ("disabled", "yes" if found["is_disabled"] else "no"),
        ]
    )


def _tell_cut_off(found: "Answer", online: str, offline: str) -> None:
    note(f"{found['device_id']}: {online if found['disconnected'] else offline}")


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


@contextlib.contextmanager
def _progress(count: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error; nothing where that is no terminal."""
    if not sys.stderr.isatty():
        yield lambda step: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("provisioning"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=count)
        yield lambda step: progress.advance(task, step)
