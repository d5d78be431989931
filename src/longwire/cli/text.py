"""Words to people: escaped, so that nothing from outside moves the terminal, and on the right stream."""

import base64
import json
import sys
from typing import Any

import typer

from longwire.errors import LongwireError


class Failure(LongwireError):
    """A command's end that its user can do something about."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


def complain(message: str) -> None:
    """Tells on standard error why the program ends."""
    typer.secho("error: ", fg="red", bold=True, nl=False, err=True)
    typer.echo("\n       ".join(one_line(line) for line in message.splitlines()), err=True)


def note(message: str) -> None:
    """Tells on standard error what is going on, where somebody looks."""
    typer.secho(one_line(message), dim=sys.stderr.isatty(), err=True)


def one_line(text: str) -> str:
    """Text of any origin as one line: what does not print is escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def payload_line(payload: bytes) -> str:
    """A payload as one line: UTF-8 where it is, else the bytes escaped."""
    try:
        return one_line(payload.decode())
    except UnicodeDecodeError:
        return repr(payload)


def payload_of(item: dict[str, Any]) -> str:
    """The payload of a thing of the API as one line: a JSON value, or bytes in ``payload_b64``."""
    if item.get("payload_b64") is not None:
        return payload_line(base64.b64decode(item["payload_b64"]))
    payload = item.get("payload")
    return "" if payload is None else one_line(json.dumps(payload, ensure_ascii=False))


def bytes_of(payload: str) -> bytes:
    """An argument as bytes; ``-`` reads standard input."""
    return sys.stdin.buffer.read() if payload == "-" else payload.encode("utf-8", "surrogateescape")


def masked(secret: str) -> str:
    """A secret as it may be shown: enough to tell it from another one, too little to use."""
    return f"{secret[:8]}…" if len(secret) > 20 else "…"
