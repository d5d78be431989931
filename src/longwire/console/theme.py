"""The look: where the stylesheet and the script are served, and what a browser says of its owner's liking.

Colours, spacing and components stand in console.css; nothing else sets any.
"""

import hashlib
from datetime import tzinfo
from functools import cache
from importlib.resources import files
from typing import Final

from nicegui import ui
from starlette.responses import Response

from longwire.console import words

CSS_PATH: Final = "/console.css"
JS_PATH: Final = "/console.js"
ICON_PATH: Final = "/console.svg"
THEME_COOKIE: Final = "lw_theme"
"""``dark`` or ``light``; without it the system's own."""
ZONE_COOKIE: Final = "lw_zone"
"""The browser's time zone."""
_MEDIA = {CSS_PATH: "text/css", JS_PATH: "text/javascript", ICON_PATH: "image/svg+xml"}
PATHS: Final = frozenset(_MEDIA)

TONES: Final = ("accent", "good", "warn", "bad", "idle")
SERIES: Final = ("accent", "good", "warn", "bad", "violet", "teal", "idle")
"""Tokens of console.css that lines and bars are drawn with, in this order."""


@cache
def asset(path: str) -> bytes:
    """One of the console's own files."""
    return files("longwire.console").joinpath(path.removeprefix("/")).read_bytes()


def versioned(path: str) -> str:
    """Its address: another one for another content, so that browsers may keep it."""
    return f"{path}?v={hashlib.sha256(asset(path)).hexdigest()[:12]}"


def serve(path: str) -> Response | None:
    """The file at ``path``; None where that is none."""
    if path not in _MEDIA:
        return None
    return Response(asset(path), media_type=_MEDIA[path], headers={"Cache-Control": "public, max-age=31536000"})


def head() -> str:
    """What stands in the head of every page."""
    return (
        f'<link rel="stylesheet" href="{versioned(CSS_PATH)}">'
        f'<link rel="icon" href="{versioned(ICON_PATH)}">'
        f'<script defer src="{versioned(JS_PATH)}"></script>'
    )


def is_dark(cookie: str | None) -> bool | None:
    """What the reader chose; None: what the system has."""
    return {"dark": True, "light": False}.get(cookie or "")


def zone() -> tzinfo:
    """The reader's time zone. Only while a page is built or handles something."""
    return words.zone_of(ui.context.client.request.cookies.get(ZONE_COOKIE, "").replace("%2F", "/"))
