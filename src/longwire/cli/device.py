"""``longwire device``: be a device by hand, with the SDK."""

import os
import signal
import sys
import time
from collections.abc import Coroutine
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from longwire.cli import credentials
from longwire.cli.options import DEFAULT_DATA, CredentialsFolder, Json, Url
from longwire.cli.text import Failure, bytes_of, note, one_line, payload_line

if TYPE_CHECKING:
    from longwire.client import Device, Message, State

T = TypeVar("T")

app = typer.Typer(help="Be a device by hand: listen, send, request.", no_args_is_help=True)

_PANEL = "Who it is"


class Transport(StrEnum):
    """How the device connects."""

    TCP = "tcp"
    WEBSOCKET = "websocket"


TransportOption = Annotated[Transport, typer.Option("--transport", help="How it connects.")]
As = Annotated[str, typer.Option("--as", metavar="DEVICE_ID", help="Which device it is.", rich_help_panel=_PANEL)]
CredentialsFile = Annotated[
    Path | None,
    typer.Option(
        "--credentials",
        envvar="LONGWIRE_CREDENTIALS",
        metavar="FILE",
        help="App key and secret, as `longwire dev` writes them.  [dim]\\[default: of the data folder; or"
        " LONGWIRE_APP_KEY and LONGWIRE_APP_SECRET][/]",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
Token = Annotated[
    str | None,
    typer.Option(
        envvar="LONGWIRE_DEVICE_TOKEN",
        help="Its token, where it was provisioned: then no app key is needed.",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
StateFile = Annotated[
    Path | None,
    typer.Option(
        "--state",
        metavar="FILE",
        help="Keeps its tokens and unsent messages. `longwire serve` lets a known device register only with these.",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
Payload = Annotated[str, typer.Argument(help="Sent as UTF-8; - reads standard input.", show_default=False)]
Timeout = Annotated[float, typer.Option(min=0.1, help="Seconds to wait.")]


@app.command()
def listen(
    device_id: Annotated[str, typer.Argument(metavar="DEVICE_ID", show_default=False)],
    transport: TransportOption = Transport.TCP,
    count: Annotated[int, typer.Option(min=0, help="End after so many messages; 0: never.")] = 0,
    json: Json = False,
    credentials_file: CredentialsFile = None,
    token: Token = None,
    state: StateFile = None,
    url: Url = None,
    data: CredentialsFolder = DEFAULT_DATA,
) -> None:
    """Connect as a device and print messages as they come, a line each, until Ctrl-C."""
    device = _device(device_id, transport, credentials_file, token, state, url, data)
    _run(_listen(device, count, json))


@app.command()
def send(
    to: Annotated[str, typer.Argument(help="device:ID, user:ID, or application.", show_default=False)],
    payload: Payload,
    device_id: As,
    kind: Annotated[str, typer.Option(help="What kind of message it is.")] = "message",
    ttl_s: Annotated[
        int, typer.Option("--ttl", help="Seconds it is worth delivering; -1: as the node sets, 0: only if online.")
    ] = -1,
    transport: TransportOption = Transport.TCP,
    timeout: Timeout = 10.0,
    credentials_file: CredentialsFile = None,
    token: Token = None,
    state: StateFile = None,
    url: Url = None,
    data: CredentialsFolder = DEFAULT_DATA,
) -> None:
    """Send a message as a device and print what SENT says."""
    device = _device(device_id, transport, credentials_file, token, state, url, data)
    target = "" if to == "application" else to
    _run(_send(device, target, bytes_of(payload), kind, ttl_s, timeout))


@app.command()
def request(
    method: Annotated[str, typer.Argument(help="The application's method.", show_default=False)],
    payload: Payload,
    device_id: As,
    transport: TransportOption = Transport.TCP,
    timeout: Timeout = 10.0,
    credentials_file: CredentialsFile = None,
    token: Token = None,
    state: StateFile = None,
    url: Url = None,
    data: CredentialsFolder = DEFAULT_DATA,
) -> None:
    """Call a method of the application as a device and print the reply."""
    device = _device(device_id, transport, credentials_file, token, state, url, data)
    _run(_request(device, method, bytes_of(payload), timeout))


def _device(
    device_id: str,
    transport: Transport,
    file: Path | None,
    token: str | None,
    state: Path | None,
    url: str | None,
    folder: Path,
) -> "Device":
    """The device that the options, the environment and the credentials file describe; not entered yet."""
    from longwire.client import Device

    if file is not None:
        kept = credentials.read(file)
        if kept is None:
            raise Failure(f"credentials file {file} does not exist")
    else:
        found = credentials.find(folder)
        kept = found[0] if found is not None else {}
    http_url = url or kept.get("http_url")
    # The file's secret is for the file's address.
    known = kept if url is None or url.rstrip("/") == kept.get("http_url") else {}
    app_key = os.environ.get("LONGWIRE_APP_KEY") or known.get("app_key", "")
    app_secret = os.environ.get("LONGWIRE_APP_SECRET") or known.get("app_secret", "")
    if http_url is None or not (token or (app_key and app_secret)):
        raise Failure(
            f"no address, app key and secret: start `longwire dev` here (there is no {folder / credentials.DEV_FILE}),"
            " or give --credentials, or --url with LONGWIRE_APP_KEY and LONGWIRE_APP_SECRET or --token"
        )
    return Device(
        http_url,
        device_id,
        app_key="" if token else app_key,
        app_secret="" if token else app_secret,
        token=token or "",
        transport=transport,
        state=state,
        platform="longwire-cli",
    )


async def _listen(device: "Device", count: int, as_json: bool) -> None:
    import asyncio

    from longwire.client import DeviceClosed

    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    stopped = False

    def stop() -> None:
        nonlocal stopped
        stopped = True
        if task is not None:
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    device.on_state(lambda state: _tell_state(device, state))
    left = count
    try:
        async with device:
            while True:
                message = await device.receive()
                _print_message(message, as_json)
                left -= 1
                if left == 0:
                    return
    except DeviceClosed:
        return
    except asyncio.CancelledError:
        if not stopped:
            raise


async def _send(device: "Device", to: str, payload: bytes, kind: str, ttl_s: int, timeout_s: float) -> None:
    from longwire.client import NotSent, Refused, SendTimeout

    async with device:
        await _be_connected(device, timeout_s)
        began = time.perf_counter()
        try:
            result = await device.send(to, payload, kind, ttl_s=ttl_s, timeout_s=timeout_s)
        except Refused as error:
            raise Failure(f"SENT says {error}") from None
        except SendTimeout:
            raise Failure(f"no SENT within {timeout_s:g} s") from None
        except NotSent as error:
            raise Failure(str(error)) from None
        took_ms = (time.perf_counter() - began) * 1000
        typer.echo(f"SENT {int(result.status)} {result.status.label}  msg_{result.message_id.hex()}  {took_ms:.1f} ms")


async def _request(device: "Device", method: str, payload: bytes, timeout_s: float) -> None:
    from longwire.client import Refused

    async with device:
        await _be_connected(device, timeout_s)
        try:
            reply = await device.request(method, payload, timeout_s)
        except Refused as error:
            raise Failure(f"REPLY says {error}") from None
        typer.echo(payload_line(reply.payload))


async def _be_connected(device: "Device", timeout_s: float) -> None:
    try:
        await device.connected(timeout_s)
    except TimeoutError:
        why = device.last_close.reason if device.last_close is not None else "no answer"
        raise Failure(f"no session within {timeout_s:g} s: {why}") from None


def _run(work: Coroutine[object, object, T]) -> T:
    """Runs it to its end; what the SDK refuses is told with what helps."""
    import logging

    import uvloop

    from longwire.client import DeviceStopped

    logging.getLogger("longwire.client").addHandler(logging.NullHandler())
    try:
        return uvloop.run(work)
    except DeviceStopped as error:
        hint = ""
        if "refresh token is needed" in error.reason:
            hint = "; use the --state file it registered with, or a --token of `longwire devices create`"
        raise Failure(f"the node does not let this device in ({error.code}): {error.reason}{hint}") from None


def _tell_state(device: "Device", state: "State") -> None:
    from longwire.client import State

    why = device.last_close.reason if device.last_close is not None else ""
    match state:
        case State.CONNECTED:
            missed = f"; {device.missed} messages were let go meanwhile" if device.missed else ""
            note(f"{device.device_id} is connected to {device.node_id}{missed}")
        case State.WAITING:
            note(f"{device.device_id} has no session{': ' + why if why else ''}; trying again")


def _print_message(message: "Message", as_json: bool) -> None:
    sender = message.sender or "application"
    if as_json:
        import base64
        import json

        fields = {
            "message_id": f"msg_{message.message_id.hex()}",
            "sender": message.sender,
            "kind": message.kind,
            "to": message.to,
            "sent_at_ms": message.sent_at_ms,
        }
        try:
            fields["payload"] = message.payload.decode()
        except UnicodeDecodeError:
            fields["payload_b64"] = base64.b64encode(message.payload).decode()
        typer.echo(json.dumps(fields, ensure_ascii=False))
    else:
        at = time.strftime("%H:%M:%S", time.localtime(message.sent_at_ms / 1000))
        is_seen = sys.stdout.isatty()
        typer.secho(f"{at}.{message.sent_at_ms % 1000:03d}  ", dim=is_seen, nl=False)
        typer.secho(f"{one_line(sender)}  {one_line(message.kind)}  ", fg="cyan" if is_seen else None, nl=False)
        typer.echo(payload_line(message.payload))
    sys.stdout.flush()
