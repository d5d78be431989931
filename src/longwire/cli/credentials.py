"""The credentials file of a data folder: what was made at first start, and where the process is reached."""

import contextlib
import json
import os
from pathlib import Path

from longwire.cli.text import Failure

DEV_FILE = "dev-credentials.json"
SERVE_FILE = "credentials.json"

Credentials = dict[str, str]


def find(folder: Path) -> tuple[Credentials, Path] | None:
    """The credentials of ``longwire dev`` or ``serve`` on this folder, and the file. Raises Failure."""
    for name in (DEV_FILE, SERVE_FILE):
        path = folder / name
        found = read(path)
        if found is not None:
            return found, path
    return None


def read(path: Path) -> Credentials | None:
    """What the file says, None where there is none. Raises Failure where it cannot be read."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Failure(f"credentials file {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise Failure(f"credentials file {path} is damaged: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
        raise Failure(f"credentials file {path} is damaged: not an object of texts")
    return content


def write(path: Path, credentials: Credentials) -> None:
    """Puts the file there whole, for its owner alone; durable when this returns. Raises OSError."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o600)
            json.dump(credentials, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            new.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
