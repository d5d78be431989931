"""Logs: a line an event, and nothing from outside breaks it."""

import logging
import sys

_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


class OneLine(logging.Formatter):
    """Escapes what would begin a new line or move the terminal; a stack of our own keeps its lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        text = super().formatMessage(record)
        if text.isprintable():
            return text
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def configure(level: str, name: str = "") -> None:
    """Sends every log of the process to standard error; with ``name`` where several write there."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine(f"{name} {_FORMAT}" if name else _FORMAT))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # Each of these says at info what our own lines say already.
    for name in ("alembic", "httpx", "httpcore", "uvicorn"):
        logging.getLogger(name).setLevel(logging.WARNING)
