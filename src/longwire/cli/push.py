"""``longwire push``: a message to one, some or all."""

import base64
import json
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from longwire.cli.funnel import print_id, watch
from longwire.cli.operator import Answer, Api, calls_api
from longwire.cli.options import WRONG_SETTING, listed
from longwire.cli.table import show_facts
from longwire.cli.text import Failure, bytes_of, note

_AUDIENCE = "Who gets it: one of these; tags may be combined"
_MESSAGE = "What they get: one of these, or nothing"
_HOW = "How"


class Lane(StrEnum):
    """Which pushes go first."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


def _names(flag: str, help_text: str) -> object:
    more = f"{help_text}; repeat it, or separate with commas."
    return typer.Option(flag, metavar="NAME", help=more, show_default=False, rich_help_panel=_AUDIENCE)


@calls_api
def push(
    api: Api,
    everyone: Annotated[bool, typer.Option("--all", help="Everyone.", rich_help_panel=_AUDIENCE)] = False,
    devices: Annotated[list[str] | None, _names("--device", "A device's id")] = None,
    users: Annotated[list[str] | None, _names("--user", "A user, with all devices")] = None,
    groups: Annotated[list[str] | None, _names("--group", "A group's id")] = None,
    tag_any: Annotated[list[str] | None, _names("--tag-any", "Devices that have at least one of these tags")] = None,
    tag_all: Annotated[list[str] | None, _names("--tag-all", "Devices that have each of these tags")] = None,
    tag_none: Annotated[list[str] | None, _names("--tag-none", "But none of these")] = None,
    upload: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The devices that a file names, an id a line, up to a million.",
            show_default=False,
            rich_help_panel=_AUDIENCE,
        ),
    ] = None,
    payload: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help="UTF-8; - reads standard input.", show_default=False, rich_help_panel=_MESSAGE
        ),
    ] = None,
    json_text: Annotated[
        str | None,
        typer.Option("--json", metavar="JSON", help="Any JSON value.", show_default=False, rich_help_panel=_MESSAGE),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A file's bytes.", show_default=False, rich_help_panel=_MESSAGE),
    ] = None,
    kind: Annotated[str, typer.Option(help="What kind of message it is.", rich_help_panel=_MESSAGE)] = "message",
    ttl_s: Annotated[
        int | None,
        typer.Option(
            "--ttl",
            min=0,
            help="Seconds it is worth delivering; 0: only to who is online now.  [dim]\\[default: a day][/]",
            show_default=False,
            rich_help_panel=_HOW,
        ),
    ] = None,
    priority: Annotated[Lane, typer.Option(help="Which pushes go first.", rich_help_panel=_HOW)] = Lane.NORMAL,
    collapse_key: Annotated[
        str, typer.Option(help="Takes the place of earlier pushes with this key.", rich_help_panel=_HOW)
    ] = "",
    at: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="When: 2026-01-31T18:00, of this machine's zone where none is named.",
            show_default=False,
            rich_help_panel=_HOW,
        ),
    ] = None,
    rate_per_s: Annotated[
        int | None,
        typer.Option("--rate", min=1, help="Devices a second at most.", show_default=False, rich_help_panel=_HOW),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Send nothing: tell whom it would reach.", rich_help_panel=_HOW)
    ] = False,
    watching: Annotated[
        bool,
        typer.Option("--watch", help="Show how far it is until it is done, then its funnel.", rich_help_panel=_HOW),
    ] = False,
    idempotency_key: Annotated[
        str | None,
        typer.Option(
            "--idempotency-key",
            metavar="TEXT",
            help="A repeat with the same key within a day is not another push.",
            show_default=False,
            rich_help_panel=_HOW,
        ),
    ] = None,
) -> None:
    """Send a message to one, some or all. Prints the push's id, under which `longwire pushes` finds it.

    It is committed when the id is printed: it reaches each device at least once while it lives, also those that are
    away now, and each application once.
    """
    tags = {word: _tags(given) for word, given in (("any", tag_any), ("all", tag_all), ("none", tag_none))}
    wanted: list[Answer] = [{"all": True}] if everyone else []
    wanted += [
        {name: listed(given)} for name, given in (("devices", devices), ("users", users), ("groups", groups)) if given
    ]
    wanted += [{"tags": {word: names for word, names in tags.items() if names}}] if any(tags.values()) else []
    if len(wanted) + (upload is not None) != 1:
        raise Failure("name one audience: --all, --device, --user, --group, --tag-…, or --upload", WRONG_SETTING)
    body = {
        "message": {"kind": kind, **_payload(payload, json_text, file)},
        "options": {
            "ttl_s": ttl_s,
            "priority": priority.value,
            "collapse_key": collapse_key,
            "send_at": _time(at) if at is not None else None,
            "rate_per_s": rate_per_s,
        },
    }
    audience = wanted[0] if upload is None else {"upload": _uploaded(api, upload)}
    if dry_run:
        _tell_dry_run(api.post("/v1/pushes/validate", {"audience": audience, **body}))
        return
    headers = {"Idempotency-Key": idempotency_key} if idempotency_key is not None else None
    made = api.post("/v1/pushes", {"audience": audience, **body}, headers)
    print_id(made)
    if watching:
        watch(api, made["id"])


def _tags(texts: list[str] | None) -> list[str]:
    """As ``listed``; what a tag of the system names may hold spaces and commas."""
    return [name for text in texts or () for name in ([text] if text.startswith("sys:") else listed([text]))]


def _payload(text: str | None, json_text: str | None, file: Path | None) -> Answer:
    if sum(given is not None for given in (text, json_text, file)) > 1:
        raise Failure("give one of --payload, --json and --file", WRONG_SETTING)
    if json_text is not None:
        try:
            return {"payload": json.loads(json_text)}
        except ValueError as error:
            raise Failure(f"--json is not JSON: {error}", WRONG_SETTING) from None
    if file is not None:
        return {"payload_b64": base64.b64encode(_bytes(file)).decode()}
    return {"payload_b64": base64.b64encode(bytes_of(text)).decode()} if text is not None else {}


def _uploaded(api: Api, file: Path) -> str:
    made = api.upload("/v1/audience-uploads", _bytes(file), "text/plain")
    if made["unresolved"]["count"]:
        note(f"{made['unresolved']['count']} ids of {file} are not registered")
    return str(made["id"])


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise Failure(f"{file} cannot be read: {error.strerror}") from error


def _time(text: str) -> str:
    """RFC 3339 UTC with milliseconds."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise Failure(
            f"--at {text} is no time, such as 2026-01-31T18:00 or 2026-01-31T17:00:00Z", WRONG_SETTING
        ) from None
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _tell_dry_run(found: Answer) -> None:
    show_facts(
        [
            ("targeted", str(found["targeted"])),
            ("online", str(found["online"])),
            ("payload", f"{found['payload_bytes']} bytes"),
            *(("warning", text) for text in found["warnings"]),
        ]
    )
