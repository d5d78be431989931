"""Who gets at the console: cookies, forms, origins and rations.

Most of it at a console of the test's own before a real API, with one page instead of NiceGUI's, which is one a
process; sockets and the child at the console of all tests here.
"""

import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from urllib.parse import quote

import httpx
import nicegui
import pytest
import websockets.sync.client
from console_world import World, sign_in, until
from websockets.exceptions import InvalidStatus

from longwire.console.server import Console
from longwire.console.sessions import COOKIE, Sessions, SignedIn
from longwire.console.settings import ConsoleSettings
from longwire.console.shell import PLACES, Desk
from longwire.console.sign_in import Ration, _next_of

PAGES = sorted(place.path for places in PLACES.values() for place in places)
HERE = "http://console.test"
WRONG = "The name or the password is wrong, or the person is disabled."

Open = Callable[..., AbstractAsyncContextManager["Browser"]]


async def _pages(scope, receive, send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"page"})


class Browser(httpx.AsyncClient):
    """What a browser would be at a console."""

    def __init__(self, console: Console, url: str) -> None:
        super().__init__(transport=httpx.ASGITransport(console), base_url=url, headers={"Origin": url})
        self._console = console

    async def sign_in(self, name: str, password: str, then: str = "/") -> httpx.Response:
        """Fills the form in and sends it."""
        token = form_token((await self.get("/sign-in")).text)
        return await self.post("/sign-in", data={"token": token, "name": name, "password": password, "next": then})

    async def opens_socket(self, origin: str = HERE, cookie: str | None = None) -> bool:
        """Whether the pages' socket is opened."""
        told: list[dict[str, object]] = []
        value = self.cookies.get(COOKIE, "") if cookie is None else cookie
        headers = [(b"origin", origin.encode()), (b"host", b"console.test"), (b"cookie", f"{COOKIE}={value}".encode())]
        scope = {"type": "websocket", "path": "/_nicegui_ws/socket.io/", "query_string": b"", "headers": headers}

        async def receive() -> dict[str, object]:
            return {"type": "websocket.connect"}

        async def send(message: dict[str, object]) -> None:
            told.append(message)

        await self._console(scope, receive, send)
        return told[0]["type"] == "websocket.accept"


@pytest.fixture
def open_browser(world: World) -> Open:
    """A browser at a console of these settings, signed in as ``role``."""

    @asynccontextmanager
    async def opened(role: str = "", **settings: object) -> AsyncIterator[Browser]:
        api_url = str(world.api.base_url)
        own = ConsoleSettings(**{"api_url": api_url, "sign_ins_per_minute": 1_000} | settings)
        async with httpx.AsyncClient(base_url=own.api_url) as client:
            console = Console(_pages, Desk(own, client, Sessions()))
            async with Browser(console, own.public_url or HERE) as browser:
                if role:
                    assert (await browser.sign_in(*world.people[role])).status_code == 303
                yield browser

    return opened


def form_token(page: str) -> str:
    """The token of the page's form."""
    found = re.search(r'name="token" value="([0-9a-f]+)"', page)
    assert found is not None, page
    return found[1]


# -- nobody ---------------------------------------------------------------------------------------------------------


async def test_nobody_sees_a_page_or_opens_the_socket_without_signing_in(open_browser: Open) -> None:
    async with open_browser() as browser:
        for path in PAGES:
            answer = await browser.get(path)
            assert (answer.status_code, answer.headers["location"]) == (303, f"/sign-in?next={quote(path)}")
        assert (await browser.get("/_nicegui_ws/socket.io/?EIO=4&transport=polling")).status_code == 401
        assert (await browser.post("/_nicegui/client/x/upload/1")).status_code == 401
        browser.cookies.set(COOKIE, "x" * 43)
        assert (await browser.get("/")).status_code == 303
        assert not await browser.opens_socket()
        assert not await browser.opens_socket(cookie="")


async def test_a_link_from_elsewhere_comes_again_by_itself_so_that_a_strict_cookie_goes_along(
    open_browser: Open,
) -> None:
    async with open_browser() as browser:
        answer = await browser.get("/trace?q=1", headers={"Sec-Fetch-Site": "cross-site"})
    assert (answer.status_code, 'http-equiv="refresh"' in answer.text) == (200, True)


async def test_every_answer_has_the_headers_that_bind_a_browser(open_browser: Open) -> None:
    async with open_browser("admin") as browser:
        for path in ("/", "/sign-in", "/password", "/console.css", "/console.js"):
            headers = (await browser.get(path)).headers
            assert "frame-ancestors 'none'" in headers["content-security-policy"], path
            assert headers["x-frame-options"] == "DENY"
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "same-origin"
            if not path.startswith("/console."):
                assert headers.get_list("cache-control") == ["no-store"]
            assert "strict-transport-security" not in headers


# -- signing in -----------------------------------------------------------------------------------------------------


async def test_the_browser_gets_a_cookie_that_scripts_and_other_sites_do_not_and_never_the_token(
    open_browser: Open, world: World
) -> None:
    async with open_browser() as browser:
        answer = await browser.sign_in(*world.people["admin"], then="/nodes")
        assert (answer.status_code, answer.headers["location"]) == (303, "/nodes")
        cookie = next(one for one in answer.headers.get_list("set-cookie") if one.startswith(COOKIE))
        flags = {flag.strip().lower() for flag in cookie.split(";")[1:]}
        assert flags == {"httponly", "samesite=strict", "path=/"}
        assert len(browser.cookies[COOKIE]) >= 43
        assert "lws_" not in str(answer.headers) + (await browser.get("/password")).text


async def test_a_wrong_password_is_told_as_a_name_that_nobody_has_is_and_what_was_typed_is_shown_as_text(
    open_browser: Open,
) -> None:
    async with open_browser() as browser:
        wrong = await browser.sign_in("viewer-1", "wrong")
        nobody = await browser.sign_in('"><script>alert(1)</script>', "wrong")
    assert (wrong.status_code, nobody.status_code) == (401, 401)
    assert WRONG in wrong.text
    assert WRONG in nobody.text
    assert "<script>alert" not in nobody.text
    assert "&lt;script&gt;" in nobody.text


@pytest.mark.parametrize("token", ["", "0" * 64, "é", None])
async def test_a_form_that_is_not_ours_signs_nobody_in(open_browser: Open, world: World, token) -> None:
    async with open_browser() as browser:
        own = form_token((await browser.get("/sign-in")).text)
        if token is None:  # our token, in a browser that we did not give it to
            browser.cookies.clear()
        name, password = world.people["admin"]
        form = {"name": name, "password": password, "token": own if token is None else token}
        answer = await browser.post("/sign-in", data=form)
        assert (answer.status_code, COOKIE in browser.cookies) == (403, False)


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://console.test:81", "https://console.test"])
async def test_another_site_can_neither_sign_in_nor_out_nor_open_the_socket(
    open_browser: Open, world: World, origin
) -> None:
    foreign = {"Origin": origin}
    async with open_browser("admin") as browser:
        assert (await browser.post("/sign-out", headers=foreign)).status_code == 403
        assert (await browser.post("/password", headers=foreign)).status_code == 403
        polling = "/_nicegui_ws/socket.io/?EIO=4&transport=polling"
        assert (await browser.get(polling, headers=foreign)).status_code == 403
        assert not await browser.opens_socket(origin)
        assert await browser.opens_socket()
        browser.headers["Origin"] = origin
        assert (await browser.sign_in(*world.people["admin"])).status_code == 403


def test_the_socket_of_the_pages_is_opened_with_our_cookie_and_origin_alone(world: World) -> None:
    cookie = world.cookies["viewer"][COOKIE]

    def opened(cookie: str, origin: str) -> None:
        address = world.url.replace("http:", "ws:") + "/_nicegui_ws/socket.io/?EIO=4&transport=websocket"
        headers = {"Cookie": f"{COOKIE}={cookie}"}
        with websockets.sync.client.connect(address, origin=origin, additional_headers=headers):  # type: ignore[arg-type]
            pass

    for value, origin in ((cookie, "https://evil.example"), (cookie, "null"), ("x" * 43, world.url)):
        with pytest.raises(InvalidStatus) as refused:
            opened(value, origin)
        assert refused.value.response.status_code == 403
    opened(cookie, world.url)


async def test_a_host_header_makes_no_path_one_for_anybody(open_browser: Open) -> None:
    async with open_browser() as browser:
        for host in (f"console.test/_nicegui/{nicegui.__version__}/", "a/console.css?"):
            assert (await browser.get("/nodes", headers={"Host": host})).status_code == 303


async def test_what_says_nothing_of_where_it_comes_from_changes_nothing(open_browser: Open) -> None:
    async with open_browser("admin") as browser:
        del browser.headers["Origin"]
        assert (await browser.post("/sign-out")).status_code == 403
        assert (await browser.post("/sign-out", headers={"Sec-Fetch-Site": "same-origin"})).status_code == 303


async def test_the_cookie_is_a_new_one_at_every_sign_in_and_the_one_before_is_nobodys(
    open_browser: Open, world: World
) -> None:
    async with open_browser() as browser:

        async def is_in(cookie: str) -> bool:
            browser.cookies.clear()
            browser.cookies.set(COOKIE, cookie)
            return (await browser.get("/")).status_code == 200

        given = []
        for name in ("admin", "viewer"):
            browser.cookies.set(COOKIE, given[-1] if given else "fixed-by-somebody-else", domain="console.test")
            answer = await browser.sign_in(*world.people[name])
            given.append(re.search(rf"{COOKIE}=([^;]+)", " ".join(answer.headers.get_list("set-cookie")))[1])
            browser.cookies.clear()
        assert not await is_in("fixed-by-somebody-else")
        assert not await is_in(given[0])
        assert await is_in(given[1])
    # What the admin's pages, still open, would load is refused by the API as well.
    who = {"caller": f"person:{world.people['admin'][0]}", "action": "DELETE /v1/sessions/current"}
    until(lambda: world.call("GET", "/v1/audit", **who)["items"], "the session before is ended at the API")


async def test_who_signs_out_is_out_at_the_api_too(open_browser: Open, world: World) -> None:
    name, _ = world.people["operator"]
    async with open_browser("operator") as browser:
        cookie = browser.cookies[COOKIE]
        assert (await browser.post("/sign-out")).headers["location"] == "/sign-in"
        browser.cookies.set(COOKIE, cookie)
        assert (await browser.get("/")).status_code == 303
        assert not await browser.opens_socket(cookie=cookie)
    action = "DELETE /v1/sessions/current"
    until(lambda: world.call("GET", "/v1/audit", caller=f"person:{name}", action=action)["items"], "it is in the audit")


async def test_who_has_a_one_time_password_gets_no_further_than_to_replace_it(open_browser: Open, world: World) -> None:
    made = world.call("POST", "/v1/people", {"name": "carl", "role": "admin"})
    async with open_browser() as browser:
        assert (await browser.sign_in("carl", made["one_time_password"])).headers["location"] == "/password"
        assert (await browser.get("/nodes")).headers["location"] == "/password"
        assert not await browser.opens_socket()
        form = {"password": made["one_time_password"], "new_password": "some words of carl"}
        form |= {"again": "some words of carl", "token": form_token((await browser.get("/password")).text)}
        assert "not the same" in (await browser.post("/password", data=form | {"again": "others"})).text
        assert (await browser.post("/password", data=form | {"token": "0"})).status_code == 403
        assert (
            "10 to 256"
            in (await browser.post("/password", data=form | dict.fromkeys(("new_password", "again"), "x"))).text
        )
        before = browser.cookies[COOKIE]
        assert (await browser.post("/password", data=form)).status_code == 303
        assert browser.cookies[COOKIE] != before
        assert (await browser.get("/nodes")).status_code == 200
    world.call("DELETE", "/v1/people/carl")


def test_what_a_role_has_not_is_neither_in_the_navigation_nor_on_the_page(world: World) -> None:
    with httpx.Client(base_url=world.url, cookies=world.cookies["viewer"]) as browser:
        for path in ("/people", "/audit"):
            page = browser.get(path).text
            assert "Your role does not allow this." in page
            assert '"href":"/audit"' not in page
            assert '"href":"/pushes"' in page
            assert "lws_" not in page


def test_a_person_who_is_disabled_is_sent_to_sign_in_by_the_next_page(world: World) -> None:
    made = world.call("POST", "/v1/people", {"name": "ines", "role": "admin"})
    session = world.call("POST", "/v1/sessions", {"name": "ines", "password": made["one_time_password"]})
    change = {"password": made["one_time_password"], "new_password": "some words of ines"}
    bearer = {"Authorization": f"Bearer {session['token']}"}
    world.api.post("/v1/sessions/current/password", json=change, headers=bearer).raise_for_status()
    cookies = sign_in(world.url, "ines", "some words of ines")
    with httpx.Client(base_url=world.url, cookies=cookies) as browser:
        assert browser.get("/people").status_code == 200
        world.call("DELETE", "/v1/people/ines")
        assert browser.get("/people").headers["location"] == "/sign-in?next=/people"


# -- the parts of it ------------------------------------------------------------------------------------------------


async def test_behind_https_cookies_are_secure_and_only_the_public_address_is_our_own(
    open_browser: Open, world: World
) -> None:
    async with open_browser(public_url="https://console.example") as browser:
        answer = await browser.sign_in(*world.people["admin"])
        assert answer.status_code == 303
        given = [one for one in answer.headers.get_list("set-cookie") if one.startswith(COOKIE)]
        assert "secure" in given[0].lower()
        assert (await browser.get("/")).headers["strict-transport-security"]
        foreign = {"Origin": "https://127.0.0.1", "Host": "127.0.0.1"}
        assert (await browser.post("/sign-out", headers=foreign)).status_code == 403


async def test_sign_ins_of_an_address_are_rationed_and_told_how_long(open_browser: Open, world: World) -> None:
    async with open_browser(sign_ins_per_minute=2) as browser:
        for _ in range(2):
            assert (await browser.sign_in("nobody", "wrong")).status_code == 401
        answer = await browser.sign_in(*world.people["admin"])
        assert answer.status_code == 429
        assert 1 <= int(answer.headers["retry-after"]) <= 61
        assert "Try again in" in answer.text


async def test_an_api_that_is_away_is_told_so(open_browser: Open) -> None:
    async with open_browser(api_url="http://127.0.0.1:1") as browser:
        answer = await browser.sign_in("admin", "x")
    assert (answer.status_code, "Nobody can sign in now" in answer.text) == (503, True)


@pytest.mark.parametrize(
    ("given", "then"),
    [
        ("/nodes?x=1", "/nodes?x=1"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("/x\\y", "/"),
        ("https://evil.example", "/"),
        ("/\tevil", "/"),
        ("/x\r\nSet-Cookie: a=b", "/"),
        ("javascript:alert(1)", "/"),
        ("/sign-out", "/"),
        ("", "/"),
        (None, "/"),
        ("/" + "x" * 2_000, "/"),
    ],
)
def test_signing_in_leads_to_a_page_of_ours_alone(given, then) -> None:
    assert _next_of(given) == then


def test_a_ration_slides_and_forgets() -> None:
    now = [0.0]
    ration = Ration(2, lambda: now[0])
    assert [ration.take("a"), ration.take("a"), ration.take("b")] == [0.0, 0.0, 0.0]
    now[0] = 20.0
    assert ration.take("a") == 40.0
    now[0] = 60.0
    assert ration.take("a") == 0.0
    for n in range(10_000):
        ration.take(str(n))
    assert len(ration._attempts) <= 4_097


def test_sessions_end_by_themselves_and_are_bounded() -> None:
    now = [0.0]
    sessions = Sessions(lambda: now[0])
    first = sessions.open(SignedIn("lws_secret", "anna", "viewer", frozenset(), 10.0))
    assert sessions.find(first) is not None
    assert "lws_secret" not in repr(sessions.find(first))
    now[0] = 10.0
    assert sessions.find(first) is None
    for _ in range(2_500):
        sessions.open(SignedIn("t", "anna", "viewer", frozenset(), 99.0))
    assert len(sessions._known) == 2_000


# -- the child ------------------------------------------------------------------------------------------------------


def test_a_console_that_is_killed_is_there_again_at_the_same_address_and_knows_nobody(world: World) -> None:
    assert world._process is not None
    command = ["/usr/bin/pgrep", "-P", str(world._process.pid), "-f", "roles console"]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    os.kill(int(found.stdout), signal.SIGKILL)

    def is_back() -> bool:
        try:
            return httpx.get(f"{world.url}/sign-in").status_code == 200
        except httpx.TransportError:
            return False

    until(lambda: not is_back(), "the console is gone")
    until(is_back, "the console is back")
    assert httpx.get(f"{world.url}/", cookies=world.cookies["admin"]).status_code == 303
    for role, (name, password) in world.people.items():
        world.cookies[role] = sign_in(world.url, name, password)
