"""``longwire dead-letters``: messages of devices that the application's handlers would not take."""

import base64
from collections.abc import Callable
from typing import Annotated

import typer

from longwire.cli.operator import Answer, Api, calls_api, quoted
from longwire.cli.options import Json, Most
from longwire.cli.table import moment, show_item, show_items
from longwire.cli.text import Failure, note, payload_line

app = typer.Typer(help="Messages that the application would not take: list, show, replay.", no_args_is_help=True)


@app.command("list")
@calls_api
def list_letters(api: Api, most: Most = 50, json: Json = False) -> None:
    """List dead letters, newest first, replayed ones too."""
    show_items(
        api.pages("/v1/dead-letters", most),
        json,
        ("letter", "from", "kind", "buried", "replayed", "error"),
        lambda x: (
            x["letter_id"],
            x["device_id"],
            x["kind"],
            moment(x["buried_at"]),
            moment(x["replayed_at"]),
            x["error"],
        ),
        "no dead letters",
    )


@app.command("show")
@calls_api
def show_letter(
    api: Api,
    letter_id: Annotated[str, typer.Argument(metavar="LETTER_ID", show_default=False)],
    json: Json = False,
) -> None:
    """Show one dead letter with its payload."""
    show_item(
        api.get(f"/v1/dead-letters/{quoted(letter_id)}"),
        json,
        lambda found: [
            ("letter", found["letter_id"]),
            ("from", found["device_id"]),
            ("kind", found["kind"]),
            ("message", found["message_id"]),
            ("sent", moment(found["sent_at"])),
            ("buried", moment(found["buried_at"])),
            ("replayed", moment(found["replayed_at"]) or "-"),
            ("trace", found["trace_id"] or "-"),
            ("error", found["error"]),
            ("payload", payload_line(base64.b64decode(found["payload_b64"]))),
        ],
    )


@app.command()
@calls_api
def replay(
    api: Api,
    letter_ids: Annotated[
        list[str] | None, typer.Argument(metavar="[LETTER_ID]...", show_default=False, help="Which ones.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Each that was not replayed yet.")] = False,
) -> None:
    """Give messages to their handlers once more, oldest first. One that fails again makes a further dead letter."""
    replay_letters(
        api,
        "/v1/dead-letters",
        letter_ids or [],
        every,
        lambda letter: f"{letter['kind']} of {letter['device_id']}",
    )


def replay_letters(api: Api, path: str, letter_ids: list[str], every: bool, told: Callable[[Answer], str]) -> None:
    """Replays the letters of a list that are named, or every one that was not; those that were are left."""
    if bool(letter_ids) == every:
        raise Failure("name dead letters, or say --all", 2)
    wanted = letter_ids or [x["letter_id"] for x in api.pages(path) if x["replayed_at"] is None]
    for letter_id in sorted(wanted, key=_age):
        letter = api.get(f"{path}/{quoted(letter_id)}")
        if letter["replayed_at"] is not None:
            note(f"{letter_id} was replayed at {moment(letter['replayed_at'])}: left as it is")
            continue
        api.post(f"{path}/{quoted(letter_id)}/replay")
        note(f"{letter_id} is replayed: {told(letter)}")
    if not wanted:
        note("no dead letters to replay")


def _age(letter_id: str) -> int:
    number = letter_id.rpartition("_")[2]
    return int(number) if number.isascii() and number.isdigit() else 0
