"""``longwire devices``: the registry, for operators."""

from collections.abc import Iterator
from typing import Annotated

import typer

from longwire.cli import provisioning
from longwire.cli.operator import Answer, Api, calls_api, print_json, quoted
from longwire.cli.options import DeviceId, Json, Most, named
from longwire.cli.table import moment, show_item, show_items
from longwire.cli.text import Failure, bytes_of, note, payload_of

app = typer.Typer(help="Devices: create and import, list, show, tag, call, cut off.", no_args_is_help=True)
app.command()(provisioning.create)
app.command("import")(provisioning.import_devices)

_MAX_QUERY = 1_000

Tags = Annotated[list[str], typer.Argument(metavar="TAG...", show_default=False)]


@app.command("list")
@calls_api
def list_devices(
    api: Api,
    user: Annotated[str | None, typer.Option(help="Only this user's.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only those with this tag.")] = None,
    group: Annotated[str | None, typer.Option(help="Only members of this group.")] = None,
    online: Annotated[
        bool | None, typer.Option("--online/--offline", help="Only those that are connected, or are not.")
    ] = None,
    prefix: Annotated[str | None, typer.Option(help="Only those whose id begins so.")] = None,
    most: Most = 50,
    json: Json = False,
) -> None:
    """List devices, newest first."""
    is_online = None if online is None else str(online).lower()
    show_items(
        api.pages("/v1/devices", most, user=user, tag=tag, group=group, online=is_online, q=prefix),
        json,
        ("device", "user", "tags", "client", "registered", ""),
        lambda d: (
            d["device_id"],
            d["user"] or "",
            " ".join(d["tags"]),
            " ".join(filter(None, (d["platform"], d["app_version"]))),
            moment(d["registered_at"]),
            "disabled" if d["is_disabled"] else "",
        ),
        "no devices",
    )


@app.command("show")
@calls_api
def show_device(api: Api, device_id: DeviceId, json: Json = False) -> None:
    """Show one device."""
    show_item(
        api.get(_path(device_id)),
        json,
        lambda found: [
            ("device", found["device_id"]),
            ("user", found["user"] or "-"),
            ("tags", " ".join(found["tags"]) or "-"),
            ("platform", found["platform"] or "-"),
            ("version", found["app_version"] or "-"),
            ("registered", moment(found["registered_at"])),
            ("disabled", "yes" if found["is_disabled"] else "no"),
        ],
    )


@app.command()
@calls_api
def presence(
    api: Api,
    device_ids: Annotated[
        list[str], typer.Argument(metavar="DEVICE_ID...", show_default=False, help="Or - to read them.")
    ],
    json: Json = False,
) -> None:
    """Show whether devices are connected, where, and since when."""
    names = named(device_ids, "device")
    parts = [names[at : at + _MAX_QUERY] for at in range(0, len(names), _MAX_QUERY)]
    answers = [api.post("/v1/presence/query", {"devices": part}) for part in parts]
    if unresolved := sum(answer["unresolved"]["count"] for answer in answers):
        note(f"{unresolved} devices are not registered")
    show_items(
        (item for answer in answers for item in answer["items"]),
        json,
        ("device", "", "since", "last seen", "node", "over", "last close"),
        lambda p: (
            p["device_id"],
            "online" if p["online"] else "offline",
            moment(p["since"]),
            moment(p["last_seen_at"]),
            p["node_id"] or "",
            p["transport"] or "",
            " ".join(_last_close(p["last_close"])),
        ),
        "no devices",
    )


@app.command()
@calls_api
def tag(api: Api, device_id: DeviceId, tags: Tags) -> None:
    """Give a device tags."""
    found = api.patch(f"{_path(device_id)}/tags", {"add": tags})
    note(f"{device_id} has the tags {' '.join(found['tags']) or '-'}")


@app.command()
@calls_api
def untag(api: Api, device_id: DeviceId, tags: Tags) -> None:
    """Take tags from a device."""
    found = api.patch(f"{_path(device_id)}/tags", {"remove": tags})
    note(f"{device_id} has the tags {' '.join(found['tags']) or '-'}")


@app.command()
@calls_api
def command(
    api: Api,
    device_id: DeviceId,
    method: Annotated[str, typer.Argument(help="The device's method.", show_default=False)],
    payload: Annotated[str, typer.Argument(help="Sent as UTF-8; - reads standard input.")] = "",
    timeout_s: Annotated[float, typer.Option("--timeout", min=0.1, max=60, help="Seconds to wait.")] = 10,
    is_async: Annotated[
        bool, typer.Option("--async", help="Do not wait: print the command's id, which `devices reply` takes.")
    ] = False,
    json: Json = False,
) -> None:
    """Call a method of a device and print its reply."""
    import base64

    body = {
        "method": method,
        "payload_b64": base64.b64encode(bytes_of(payload)).decode(),
        "timeout_ms": round(timeout_s * 1000),
        "mode": "async" if is_async else "sync",
    }
    found = api.post(f"{_path(device_id)}/commands", body)
    if json:
        print_json(found)
    elif is_async:
        typer.echo(found["command_id"])
    else:
        typer.echo(_reply(found))


@app.command()
@calls_api
def reply(
    api: Api,
    command_id: Annotated[str, typer.Argument(metavar="COMMAND_ID", show_default=False)],
    json: Json = False,
) -> None:
    """Print the reply to a command, also one that came late."""
    found = api.get(f"/v1/commands/{quoted(command_id)}")
    if json:
        print_json(found)
    else:
        typer.echo(_reply(found))


@app.command()
@calls_api
def disconnect(
    api: Api,
    device_id: DeviceId,
    code: Annotated[
        int | None,
        typer.Option(help="Close code: 40xx lets it come back, 41xx does not.  [dim]\\[default: 4101][/]"),
    ] = None,
    ban_s: Annotated[int | None, typer.Option("--ban", min=1, help="Seconds for which it may not come back.")] = None,
) -> None:
    """Close a device's session."""
    body = {name: value for name, value in (("code", code), ("ban_s", ban_s)) if value is not None}
    _tell_cut_off(_post(api, device_id, "disconnect", body or None), "disconnected", "had no session")


@app.command()
@calls_api
def disable(api: Api, device_id: DeviceId) -> None:
    """Keep a device out until it is enabled again."""
    _tell_cut_off(_post(api, device_id, "disable"), "disabled and disconnected", "disabled; it had no session")


@app.command()
@calls_api
def enable(api: Api, device_id: DeviceId) -> None:
    """Let a disabled device in again, with the tokens it has."""
    _post(api, device_id, "enable")
    note(f"{device_id} is enabled")


@app.command()
@calls_api
def revoke(api: Api, device_id: DeviceId) -> None:
    """End a device's tokens and its session. `devices create` or its user's log-in gives it new ones."""
    _tell_cut_off(_post(api, device_id, "revoke"), "revoked and disconnected", "revoked; it had no session")


@app.command()
@calls_api
def delete(api: Api, device_id: DeviceId) -> None:
    """Forget a device: its session, its tokens, and what waits for it."""
    api.delete(_path(device_id))
    note(f"{device_id} is deleted")


def _path(device_id: str) -> str:
    return f"/v1/devices/{quoted(device_id)}"


def _post(api: Api, device_id: str, what: str, body: object = None) -> Answer:
    return api.post(f"{_path(device_id)}/{what}", body)


def _tell_cut_off(found: Answer, online: str, offline: str) -> None:
    note(f"{found['device_id']}: {online if found['disconnected'] else offline}")


def _last_close(closed: Answer | None) -> Iterator[str]:
    if closed is not None:
        yield str(closed["code"] or "lost")
        yield moment(closed["at"])


def _reply(found: Answer) -> str:
    """What the device answered. Raises Failure where it did not, or with an error."""
    if found["status"] != "replied":
        raise Failure(f"{found['command_id']} is {found['status']}: {found.get('detail') or 'no reply yet'}")
    if found["is_late"]:
        note("this reply came late")
    return payload_of(found)
