"""``longwire pushes``: pushes that were made, and what became of them."""

from collections.abc import Callable
from typing import Annotated

import typer

from longwire.cli import funnel
from longwire.cli.funnel import push_path
from longwire.cli.operator import Api, calls_api, print_json, quoted
from longwire.cli.options import WRONG_SETTING, Json, Most, listed
from longwire.cli.table import moment, number, show_facts, show_item, show_items
from longwire.cli.text import Failure, note

app = typer.Typer(help="Pushes: list, show, watch, pause, cancel, withdraw, retry.", no_args_is_help=True)

PushId = Annotated[str, typer.Argument(metavar="PUSH_ID", show_default=False)]


@app.command("list")
@calls_api
def list_pushes(
    api: Api,
    status: Annotated[str | None, typer.Option(help="Only those in this status.")] = None,
    most: Most = 50,
    json: Json = False,
) -> None:
    """List pushes, newest first."""
    show_items(
        api.pages("/v1/pushes", most, status=status),
        json,
        ("push", "status", "audience", "kind", "created", "targeted", "acked", "pending"),
        lambda p: (
            p["id"],
            p["status"],
            funnel.audience_text(p["audience"]),
            p["kind"],
            moment(p["created_at"]),
            *(number(p["stats"][name]) for name in ("targeted", "acked", "pending")),
        ),
        "no pushes",
    )


@app.command("show")
@calls_api
def show_push(api: Api, push_id: PushId, json: Json = False) -> None:
    """Show one push and its funnel."""
    found = api.get(push_path(push_id))
    show_item(found, json, funnel.facts)
    if not json:
        funnel.show_funnel(found)


@app.command()
@calls_api
def watch(api: Api, push_id: PushId) -> None:
    """Show how far a push is until it is done, then its funnel."""
    funnel.watch(api, push_id)


def _control(name: str, told: str, doc: str) -> Callable[..., None]:
    @calls_api
    def change(api: Api, push_id: PushId, json: Json = False) -> None:
        found = api.post(f"{push_path(push_id)}/{name}")
        if json:
            print_json(found)
            return
        note(f"{push_id} is {told}")
        funnel.show_funnel(found)

    change.__doc__ = doc
    return change


app.command("pause")(_control("pause", "paused", "Stop sending a push for now."))
app.command("resume")(_control("resume", "going on", "Go on with a push that was paused."))
app.command("cancel")(
    _control("cancel", "canceled", "End a push: who has not been written to does not get it any more.")
)
app.command("withdraw")(
    _control("withdraw", "withdrawn", "End a push and take it back: devices that have it are told to drop it.")
)


@app.command()
@calls_api
def rate(
    api: Api,
    push_id: PushId,
    devices_per_s: Annotated[
        str, typer.Argument(metavar="N|none", help="Devices a second; none: as fast as it goes.", show_default=False)
    ],
) -> None:
    """Change how fast a push is sent, also while it is."""
    if devices_per_s != "none" and not (devices_per_s.isascii() and devices_per_s.isdigit()):
        raise Failure(f"{devices_per_s} is neither a whole number nor none", WRONG_SETTING)
    wanted = None if devices_per_s == "none" else int(devices_per_s)
    found = api.patch(push_path(push_id), {"rate_per_s": wanted})
    note(f"{push_id} is {found['status']}, " + (f"at most {wanted} devices a second" if wanted else "without a rate"))


@app.command()
@calls_api
def retry(
    api: Api,
    push_id: PushId,
    states: Annotated[
        list[str] | None,
        typer.Option("--state", help="failed or expired.  [dim]\\[default: both][/]", show_default=False),
    ] = None,
    watching: Annotated[bool, typer.Option("--watch", help="Show how far it is until it is done.")] = False,
) -> None:
    """Send a push again, as a new one, to those devices for whom it failed or expired. Prints its id."""
    made = api.post(f"{push_path(push_id)}/retry", {"states": listed(states) or ["failed", "expired"]})
    funnel.print_id(made)
    if watching:
        funnel.watch(api, made["id"])


@app.command()
@calls_api
def recipients(
    api: Api,
    push_id: PushId,
    device_id: Annotated[
        str | None, typer.Argument(metavar="[DEVICE_ID]", show_default=False, help="One device, with its timeline.")
    ] = None,
    state: Annotated[str, typer.Option(help=f"Those that are {', '.join(funnel.STATES[:-1])} or pending.")] = "pending",
    most: Most = 50,
    json: Json = False,
) -> None:
    """List the devices in a state, or tell what became of one."""
    path = f"{push_path(push_id)}/recipients"
    if device_id is None:
        show_items(
            api.pages(path, most, state=state),
            json,
            ("device", "state"),
            lambda r: (r["device_id"] or "(deleted)", r["state"]),
            f"no devices are {state}",
        )
        return
    found = api.get(f"{path}/{quoted(device_id)}")
    if json:
        print_json(found)
        return
    show_facts(
        [
            ("targeted", "yes" if found["in_audience"] else "no"),
            ("state", found["state"] or "-"),
            ("reason", found["reason"] or "-"),
            *((step["event"], moment(step["at"])) for step in found["timeline"]),
            ("verdict", found["verdict"]),
        ]
    )
