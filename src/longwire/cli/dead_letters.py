"""``longwire dead-letters``: messages of devices that the application's handlers would not take."""

import base64
from typing import TYPE_CHECKING, Annotated

import typer

from longwire.cli import operator
from longwire.cli.options import DEFAULT_DATA, ApiKey, CredentialsFolder, Json, Url
from longwire.cli.table import moment, show, show_facts
from longwire.cli.text import Failure, note, payload_line

if TYPE_CHECKING:
    from longwire.cli.operator import Answer

app = typer.Typer(help="Messages that the application would not take: list, show, replay.", no_args_is_help=True)

_EVERY = 1 << 31


@app.command("list")
def list_letters(
    most: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 50,
    json: Json = False,
    url: Url = None,
    api_key: ApiKey = None,
    data: CredentialsFolder = DEFAULT_DATA,
) -> None:
    """List dead letters, newest first, replayed ones too."""
    with operator.connect(url, api_key, data) as api:
        found = list(api.pages("/v1/dead-letters", most))
    if json:
        operator.print_json(found)
        return
    rows = [
        (x["letter_id"], x["device_id"], x["kind"], moment(x["buried_at"]), moment(x["replayed_at"]), x["error"])
        for x in found
    ]
    show(("letter", "from", "kind", "buried", "replayed", "error"), rows, "no dead letters")


@app.command("show")
def show_letter(
    letter_id: Annotated[str, typer.Argument(metavar="LETTER_ID", show_default=False)],
    json: Json = False,
    url: Url = None,
    api_key: ApiKey = None,
    data: CredentialsFolder = DEFAULT_DATA,
) -> None:
    """Show one dead letter with its payload."""
    with operator.connect(url, api_key, data) as api:
        found = api.get(f"/v1/dead-letters/{operator.quoted(letter_id)}")
    if json:
        operator.print_json(found)
        return
    show_facts(
        [
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
        ]
    )


@app.command()
def replay(
    letter_ids: Annotated[
        list[str] | None, typer.Argument(metavar="[LETTER_ID]...", show_default=False, help="Which ones.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Each that was not replayed yet.")] = False,
    url: Url = None,
    api_key: ApiKey = None,
    data: CredentialsFolder = DEFAULT_DATA,
) -> None:
    """Give messages to their handlers once more, oldest first. One that fails again makes a further dead letter."""
    if bool(letter_ids) == every:
        raise Failure("name dead letters, or say --all", 2)
    with operator.connect(url, api_key, data) as api:
        wanted = letter_ids or [
            x["letter_id"] for x in api.pages("/v1/dead-letters", _EVERY) if x["replayed_at"] is None
        ]
        for letter_id in sorted(wanted, key=_age):
            answer: Answer = api.get(f"/v1/dead-letters/{operator.quoted(letter_id)}")
            if answer["replayed_at"] is not None:
                note(f"{letter_id} was replayed at {moment(answer['replayed_at'])}: left as it is")
                continue
            api.post(f"/v1/dead-letters/{operator.quoted(letter_id)}/replay")
            note(f"{letter_id} is replayed: {answer['kind']} of {answer['device_id']}")
    if not wanted:
        note("no dead letters to replay")


def _age(letter_id: str) -> int:
    number = letter_id.rpartition("_")[2]
    return int(number) if number.isascii() and number.isdigit() else 0
