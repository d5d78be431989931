"""The frame around every page: who looks, what they may see, and where they can go.

    @console_page("/nodes", "Nodes", nav="nodes", scope="node:read")
    async def nodes(seat: Seat) -> None:
        ...

The frame is there at once. A page that answers within a moment comes whole with the first answer; one that takes
longer shows a skeleton, and is filled when it is there.
"""

import asyncio
import contextlib
import inspect
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterator
from copy import copy
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from urllib.parse import quote
from weakref import WeakKeyDictionary

import httpx
from fastapi import Request
from nicegui import Client, background_tasks, ui
from nicegui.element import Element
from starlette.responses import RedirectResponse, Response

from longwire.console import live, parts, theme
from longwire.console.api import Api, ApiError
from longwire.console.parts import box, icon, text
from longwire.console.sessions import COOKIE, Sessions, SignedIn
from longwire.console.settings import ConsoleSettings

log = logging.getLogger(__name__)

_WHOLE_WITHIN_S = 0.5
_FIRST_WITHIN_S = 0.3
ADMIN: Final = "admin"
SIGN_IN: Final = "/sign-in"
SIGN_OUT: Final = "/sign-out"
PASSWORD: Final = "/password"  # noqa: S105 - a path

Build = Callable[..., Awaitable[None]]


class Place(NamedTuple):
    """Where the navigation goes."""

    key: str
    label: str
    path: str
    icon: str
    scope: str
    hotkey: str = ""


PLACES: Final = {
    "See": (
        Place("overview", "Overview", "/", "monitor_heart", "stats:read", "o"),
        Place("trace", "Trace", "/trace", "route", "device:read", "t"),
        Place("nodes", "Nodes", "/nodes", "dns", "node:read", "n"),
    ),
    "Send": (Place("pushes", "Pushes", "/pushes", "campaign", "push:read", "p"),),
    "Know": (
        Place("devices", "Devices", "/devices", "devices", "device:read", "d"),
        Place("groups", "Groups and tags", "/groups", "sell", "device:read"),
    ),
    "Run": (
        Place("people", "Keys and people", "/people", "key", ADMIN),
        Place("audit", "Audit", "/audit", "receipt_long", ADMIN),
        Place("limits", "Limits", "/limits", "speed", "stats:read"),
    ),
}


@dataclass(frozen=True, slots=True)
class Seat:
    """Who looks at a page, and the API with their rights."""

    api: Api
    name: str
    role: str
    scopes: frozenset[str]

    def may(self, scope: str) -> bool:
        """Whether /v1 would let them: for what is shown, never instead of asking it."""
        return not scope or scope in self.scopes or ADMIN in self.scopes


class Desk:
    """What the pages of this process share: who is signed in, and the way to /v1."""

    def __init__(self, settings: ConsoleSettings, client: httpx.AsyncClient, sessions: Sessions) -> None:
        self.settings = settings
        self.client = client
        self.sessions = sessions
        self.secret = secrets.token_bytes(32)

    def find(self, request: Request) -> SignedIn | None:
        """Who makes this request."""
        return self.sessions.find(request.cookies.get(COOKIE, ""))


_desk: Desk | None = None


def open_desk(desk: Desk) -> None:
    """Once a process: NiceGUI's pages are the process's."""
    global _desk
    _desk = desk


def console_page(path: str, title: str, *, nav: str, scope: str) -> Callable[[Build], Build]:
    """Makes ``async def page(seat, …)`` the page at ``path``. Its other parameters are those of path and query.

    ``nav`` is the key of the place that is marked; who lacks ``scope`` is told so instead.
    """

    def decorate(build: Build) -> Build:
        signature = inspect.signature(build, eval_str=True)
        own = [one for name, one in signature.parameters.items() if name not in ("seat", "request")]

        async def answer(request: Request, **params: Any) -> Response | None:
            return await _draw(request, title, nav, scope, lambda seat: build(seat, **params))

        request = inspect.Parameter("request", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=Request)
        answer.__signature__ = inspect.Signature([request, *own])  # type: ignore[attr-defined]
        answer.__name__ = build.__name__
        ui.page(path, title=f"{title} · Longwire", response_timeout=30.0)(answer)
        return build

    return decorate


_heads: WeakKeyDictionary[Client, Element] = WeakKeyDictionary()


@contextlib.contextmanager
def actions() -> Iterator[Element]:
    """Buttons at the right of the page's heading."""
    head = _heads[ui.context.client]
    with head, box("lw-bar") as whole:
        yield whole


def go(path: str) -> None:
    """To another page of the console."""
    ui.navigate.to(path)


def reload() -> None:
    """The same page anew."""
    ui.navigate.reload()


def sign_in_path(request: Request) -> str:
    """Where to sign in, to come back to this page."""
    query = f"?{request.url.query}" if request.url.query else ""
    return f"{SIGN_IN}?next={quote(request.url.path + query, safe='/')}"


async def _draw(
    request: Request, title: str, nav: str, scope: str, build: Callable[[Seat], Awaitable[None]]
) -> Response | None:
    desk = _desk
    assert desk is not None, "create_console comes before the pages"
    person = desk.find(request)
    if person is None:
        return RedirectResponse(sign_in_path(request), 303)
    seat = Seat(Api(desk.client, person.token), person.name, person.role, person.scopes)
    client = ui.context.client

    def ended() -> None:
        desk.sessions.close(request.cookies.get(COOKIE, ""))
        go(sign_in_path(request))

    # The template draws the page light or dark from its first moment on; the page object is shared by all.
    client.page = copy(client.page)
    client.page.dark = theme.is_dark(request.cookies.get(theme.THEME_COOKIE))
    client.on_exception(lambda error: _on_exception(error, ended))
    body, banner = _frame(seat, title, nav)
    here = live.Live(banner, ended)
    live.begin(here)
    ui.on("lw-visible", lambda event: here.sees(bool(event.args)))
    if not seat.may(scope):
        with body:
            parts.denied(scope)
        return None
    return await _fill(client, request, body, seat, here, build)


async def _fill(
    client: Client,
    request: Request,
    body: Element,
    seat: Seat,
    here: live.Live,
    build: Callable[[Seat], Awaitable[None]],
) -> Response | None:
    """Runs the page in its place. What it cannot load is told there."""
    ended: list[Response] = []

    async def fill() -> None:
        with body:
            try:
                await build(seat)
            except ApiError as error:
                body.clear()
                if error.status == 401:
                    ended.append(RedirectResponse(sign_in_path(request), 303))
                elif error.status == 403:
                    parts.denied(str(error.more.get("scope") or "that it asks for"))
                else:
                    parts.failed(error, reload)
            except Exception:
                log.exception("the page %s failed", client.page.path)
                body.clear()
                parts.failed(ApiError(500, "console", "The console failed; its log tells why."), reload)

    task = background_tasks.create(fill())
    await asyncio.wait([task], timeout=_WHOLE_WITHIN_S)
    if task.done():
        if here.first:  # numbers that are as quick as this come with the page
            await asyncio.wait(here.first, timeout=_FIRST_WITHIN_S)
        return ended[0] if ended else None
    with body:
        waiting = parts.skeleton(6)
    await client.connected()
    await task
    if not client.is_deleted:
        waiting.delete()
        if ended:
            go(sign_in_path(request))
    return None


def _on_exception(error: Exception, ended: Callable[[], None]) -> None:
    """What a click led to and nobody caught."""
    if isinstance(error, ApiError) and error.status == 401:
        ended()
    elif isinstance(error, ApiError):
        parts.tell(error)
    else:
        log.error("a page's handler failed", exc_info=error)
        parts.tell(ApiError(500, "console", "the console failed; its log tells why"))


# -- the frame ----------------------------------------------------------------------------------------------------


def _frame(seat: Seat, title: str, nav: str) -> tuple[Element, Callable[[str], None]]:
    """Draws it; where the page belongs, and what shows the banner."""
    ui.add_head_html(theme.head())
    with box("lw-frame"):
        skip = text("a", "Skip to the content", "lw-skip")
        skip.props["href"] = "#main"
        _top(seat)
        _nav(seat, nav)
        with box("lw-main", "main") as main:
            main.props["id"] = "main"
            main.props["tabindex"] = "-1"
            banner = text("div", "", "lw-banner")
            banner.props["role"] = "status"
            with box("lw-page-head") as head:
                text("h1", title)
            _keep_head(ui.context.client, head)
            with box("lw-page") as body:
                pass
    _keys()

    def show(sentence: str) -> None:
        banner.text = sentence
        banner.classes(add="shown" if sentence else "", remove="" if sentence else "shown")

    return body, show


def _keep_head(client: Client, head: Element) -> None:
    """For ``actions``; until the page is deleted, for what stands in its head may hold the page."""
    _heads[client] = head

    def forget() -> None:
        _heads.pop(client, None)

    client.on_delete(forget)


def _top(seat: Seat) -> None:
    with box("lw-top", "header"):
        with box("lw-icon-button lw-menu", "button") as menu:
            menu.props.update({"type": "button", "aria-label": "Menu", "data-menu": "nav"})
            icon("menu")
        with box("lw-brand", "a") as brand:
            brand.props["href"] = "/"
            text("span", "Longwire")
        with box("lw-search", "form") as search:
            search.props.update({"action": "/trace", "method": "get", "role": "search"})
            icon("search")
            field = Element("input")
            field.props.update(
                {
                    "name": "q",
                    "type": "search",
                    "placeholder": "Message, push, device, user, trace or request id",
                    "aria-label": "Where is my message: search by an id",
                    "autocomplete": "off",
                    "spellcheck": "false",
                    "maxlength": 200,
                }
            )
            text("kbd", "/")
        with box("lw-icon-button", "button") as dark:
            dark.props.update(
                {"type": "button", "aria-label": "Light or dark", "title": "Light or dark", "data-theme": ""}
            )
            icon("contrast")
        with box("lw-who", "details"):
            with box("", "summary") as summary:
                summary.props["aria-label"] = f"Signed in as {seat.name}"
                icon("account_circle")
                text("span", seat.name, "lw-who-name")
            with box("lw-who-menu"):
                text("p", seat.name, "lw-strong")
                text("p", seat.role, "lw-muted")
                parts.link("Change password", PASSWORD)
                with box("", "form") as out:
                    out.props.update({"action": SIGN_OUT, "method": "post"})
                    text("button", "Sign out", "lw-link").props["type"] = "submit"


def _nav(seat: Seat, here: str) -> None:
    with box("lw-nav", "nav") as nav:
        nav.props["aria-label"] = "Pages"
        for group, places in PLACES.items():
            allowed = [place for place in places if seat.may(place.scope)]
            if not allowed:
                continue
            text("div", group, "lw-nav-group")
            for place in allowed:
                with box("lw-nav-link", "a") as link:
                    link.props["href"] = place.path
                    if place.hotkey:
                        link.props["data-hotkey"] = place.hotkey
                    if place.key == here:
                        link.props["aria-current"] = "page"
                    icon(place.icon)
                    text("span", place.label)


def _keys() -> None:
    """What the keys do; console.js shows it at "?"."""
    keys = [("/", "Search by an id"), ("?", "This list"), ("Esc", "Close")]
    keys += [(f"g {place.hotkey}", place.label) for places in PLACES.values() for place in places if place.hotkey]
    with box("lw-keys", "dialog") as shown:
        shown.props["id"] = "lw-keys"
        text("h2", "Keys")
        with box("lw-facts", "dl"):
            for key, label in keys:
                with Element("dt"):
                    text("kbd", key)
                text("dd", label)
        with box("", "form") as form:
            form.props["method"] = "dialog"
            text("button", "Close", "lw-plain-button")
