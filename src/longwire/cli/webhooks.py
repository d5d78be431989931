"""``longwire webhooks``: addresses that are told what happens, and batches that they would not take."""

from typing import Annotated

import typer

from longwire.cli.dead_letters import replay_letters
from longwire.cli.operator import Api, calls_api, print_json, quoted
from longwire.cli.options import Json, Most, listed
from longwire.cli.table import moment, show_items
from longwire.cli.text import Failure, note

app = typer.Typer(help="Webhooks: add, list, test, remove, letters, replay.", no_args_is_help=True)

WebhookId = Annotated[str, typer.Argument(metavar="WEBHOOK_ID", show_default=False)]


@app.command("list")
@calls_api
def list_webhooks(api: Api, most: Most = 50, json: Json = False) -> None:
    """List webhooks and how they do."""
    show_items(
        api.pages("/v1/webhooks", most),
        json,
        ("webhook", "url", "kinds", "", "last success", "failing since", "waiting"),
        lambda w: (
            w["webhook_id"],
            w["url"],
            " ".join(w["kinds"]),
            "" if w["is_enabled"] else "disabled",
            moment(w["last_success_at"]),
            moment(w["failing_since"]),
            str(w["waiting"]),
        ),
        "no webhooks",
    )


@app.command()
@calls_api
def add(
    api: Api,
    address: Annotated[str, typer.Argument(metavar="URL", help="http or https.", show_default=False)],
    kinds: Annotated[
        list[str],
        typer.Option("--kind", help="What it is told, such as push.* or presence.online; repeat it, or use commas."),
    ],
    json: Json = False,
) -> None:
    """Add a webhook. The secret that its calls are signed with is printed once, alone on standard output."""
    made = api.post("/v1/webhooks", {"url": address, "kinds": listed(kinds)})
    if json:
        print_json(made)
        return
    note(f"{made['webhook_id']} {made['url']}: {' '.join(made['kinds'])}")
    typer.echo(made["secret"])


@app.command()
@calls_api
def remove(api: Api, webhook_id: WebhookId) -> None:
    """End a webhook; what waits for it is dropped."""
    api.delete(f"/v1/webhooks/{quoted(webhook_id)}")
    note(f"{webhook_id} is removed")


@app.command()
@calls_api
def test(api: Api, webhook_id: WebhookId) -> None:
    """Send a webhook one event now and tell what it answers; status 1 where it does not take it."""
    found = api.post(f"/v1/webhooks/{quoted(webhook_id)}/test")
    if not found["ok"]:
        raise Failure(f"{webhook_id} did not take it: {found['error']}")
    note(f"{webhook_id} answered {found['status']} within {found['took_ms']} ms")


@app.command()
@calls_api
def letters(api: Api, most: Most = 50, json: Json = False) -> None:
    """List batches of events that a webhook would not take for a day, newest first."""
    show_items(
        api.pages("/v1/webhook-letters", most),
        json,
        ("letter", "webhook", "buried", "replayed", "error"),
        lambda x: (
            x["letter_id"],
            x["webhook_id"],
            moment(x["buried_at"]),
            moment(x["replayed_at"]),
            x["error"],
        ),
        "no letters",
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
    """Send letters to their webhooks once more, oldest first."""
    replay_letters(api, "/v1/webhook-letters", letter_ids or [], every, lambda letter: f"to {letter['webhook_id']}")
