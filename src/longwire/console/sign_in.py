"""Signing in and out, and changing one's password: plain forms, which need no script.

    GET  /sign-in    a form, and the cookie ``lw_pre``; the form's token is an HMAC of it
    POST /sign-in    token, Origin and ration are checked, then /v1/sessions is asked; a new cookie ``lw_console``
    POST /sign-out   ends the session, here and at /v1
    /password        the same for the person's own password, which a one-time password makes them replace

The bearer that /v1 gives stays in ``Sessions``: neither a page nor a cookie has it.
"""

import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from html import escape
from typing import Any, Final
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from longwire.console import theme, words
from longwire.console.api import Api, ApiError
from longwire.console.sessions import COOKIE, SignedIn
from longwire.console.shell import PASSWORD, SIGN_IN, SIGN_OUT, Desk

log = logging.getLogger(__name__)

PATHS: Final = frozenset({SIGN_IN, SIGN_OUT, PASSWORD})
PRE_COOKIE: Final = "lw_pre"
_PRE_S = 3_600
_MAX_FORM_BYTES = 8_192
_MAX_ADDRESSES = 4_096
_PASSWORD_HINT = "At least 10 characters; a few words are good."  # noqa: S105 - a sentence


class Ration:
    """So many attempts a minute of each address, in windows that slide by whole attempts."""

    def __init__(self, per_minute: int, now: Callable[[], float] = time.monotonic) -> None:
        self._most = per_minute
        self._now = now
        self._attempts: dict[str, list[float]] = {}

    def take(self, address: str) -> float:
        """Counts an attempt; 0.0 where it is allowed, else the seconds until one is."""
        now = self._now()
        recent = [at for at in self._attempts.pop(address, ()) if at > now - 60]
        if len(self._attempts) >= _MAX_ADDRESSES:
            del self._attempts[next(iter(self._attempts))]
        self._attempts[address] = recent
        if len(recent) >= self._most:
            return recent[0] + 60 - now
        recent.append(now)
        return 0.0


class SignIn:
    """The three pages."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._ration = Ration(desk.settings.sign_ins_per_minute)

    async def answer(self, request: Request) -> Response:
        """One of ``PATHS``; the caller has checked the Origin of a POST."""
        match request.scope["path"], request.method:
            case "/sign-in", "GET" | "HEAD":
                return self._form(request, _next_of(request.query_params.get("next")))
            case "/sign-in", "POST":
                return await self._sign_in(request)
            case "/sign-out", "POST":
                return await self._sign_out(request)
            case "/password", "GET" | "HEAD":
                return self._password_form(request)
            case "/password", "POST":
                return await self._change_password(request)
            case _:
                return Response("Not allowed\n", 405)

    # -- in and out ---------------------------------------------------------------------------------------------------

    async def _sign_in(self, request: Request) -> Response:
        wait_s = self._ration.take(request.client.host if request.client else "")
        if wait_s:
            told = f"Too many attempts from your address. Try again in {words.duration(wait_s)}."
            return self._form(request, "/", told, 429, {"Retry-After": str(int(wait_s) + 1)})
        form = await _read_form(request)
        then = _next_of(form.get("next"))
        if not self._is_own_form(request, form):
            return self._form(request, then, "The form was too old. Please sign in again.", 403)
        name = form.get("name", "").strip()
        try:
            body = {"name": name, "password": form.get("password", "")}
            session = await Api(self._desk.client).post("/v1/sessions", body)
        except ApiError as error:
            return self._refused(request, then, name, error)
        value = self._desk.sessions.open(_signed_in(session["token"], session))
        # Whoever had this browser's cookie before has nothing any more, nor have pages that are still open.
        await self._end_session(request)
        answer = RedirectResponse(PASSWORD if session["must_change_password"] else then, 303)
        self._set_cookie(answer, COOKIE, value)
        answer.delete_cookie(PRE_COOKIE, path=SIGN_IN)
        log.info("%s signed in", session["name"])
        return answer

    def _refused(self, request: Request, then: str, name: str, error: ApiError) -> Response:
        if error.status == 429:
            wait_s = error.retry_after_s or 1
            told = f"Too many attempts. Try again in {words.duration(wait_s)}."
            return self._form(request, then, told, 429, {"Retry-After": str(int(wait_s) + 1)}, name)
        if error.status in (400, 401):
            told = "The name or the password is wrong, or the person is disabled."
            return self._form(request, then, told, 401, name=name)
        return self._form(request, then, f"Nobody can sign in now: {error.detail}.", 503, name=name)

    async def _sign_out(self, request: Request) -> Response:
        await self._end_session(request)
        answer = RedirectResponse(SIGN_IN, 303)
        answer.delete_cookie(COOKIE, path="/")
        return answer

    async def _end_session(self, request: Request) -> None:
        """Ends the session of this browser's cookie, here and at the API."""
        person = self._desk.sessions.close(request.cookies.get(COOKIE, ""))
        if person is not None:
            try:
                await Api(self._desk.client, person.token).delete("/v1/sessions/current")
            except ApiError as error:
                if error.status != 401:  # it had ended by itself
                    log.warning("the session of %s could not be ended at the API: %s", person.name, error)

    # -- the password -------------------------------------------------------------------------------------------------

    async def _change_password(self, request: Request) -> Response:
        person = self._desk.find(request)
        if person is None:
            return RedirectResponse(f"{SIGN_IN}?next={PASSWORD}", 303)
        form = await _read_form(request)
        if not self._is_token_of(request.cookies.get(COOKIE, ""), form):
            return self._password_form(request, "The form was too old. Please try again.", 403)
        new = form.get("new_password", "")
        if new != form.get("again", ""):
            return self._password_form(request, "The two new passwords are not the same.", 400)
        api = Api(self._desk.client, person.token)
        try:
            body = {"password": form.get("password", ""), "new_password": new}
            await api.post("/v1/sessions/current/password", body)
            session = await api.get("/v1/sessions/current")
        except ApiError as error:
            if error.status == 401:
                self._desk.sessions.close(request.cookies.get(COOKIE, ""))
                return RedirectResponse(f"{SIGN_IN}?next={PASSWORD}", 303)
            detail = error.detail[:1].upper() + error.detail[1:]
            return self._password_form(request, f"{detail}.", error.status)
        # Other rights, so another cookie: as at every sign-in.
        self._desk.sessions.close(request.cookies.get(COOKIE, ""))
        answer = RedirectResponse("/", 303)
        self._set_cookie(answer, COOKIE, self._desk.sessions.open(_signed_in(person.token, session)))
        return answer

    # -- forms --------------------------------------------------------------------------------------------------------

    def _form(
        self,
        request: Request,
        then: str,
        told: str = "",
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        name: str = "",
    ) -> Response:
        pre = request.cookies.get(PRE_COOKIE, "")
        is_new = not 32 <= len(pre) <= 64
        if is_new:
            pre = secrets.token_urlsafe(32)
        focus_name, focus_password = ("", " autofocus") if name else (" autofocus", "")
        inner = (
            f"<h1>Sign in</h1>{_told(told)}"
            f'<form method="post" action="{SIGN_IN}">'
            f'<input type="hidden" name="token" value="{self._token(pre)}">'
            f'<input type="hidden" name="next" value="{escape(then)}">'
            f'<label>Name<input name="name" value="{escape(name)}" autocomplete="username" required maxlength="64"'
            f' autocapitalize="none" spellcheck="false"{focus_name}></label>'
            '<label>Password<input name="password" type="password" autocomplete="current-password" required'
            f' maxlength="256"{focus_password}></label>'
            "<button>Sign in</button></form>"
            '<p class="lw-muted">No account? <br><code>longwire people add NAME --role viewer</code></p>'
        )
        answer = _page("Sign in", inner, request, status, headers)
        if is_new:
            self._set_cookie(answer, PRE_COOKIE, pre, path=SIGN_IN, max_age=_PRE_S)
        return answer

    def _password_form(self, request: Request, told: str = "", status: int = 200) -> Response:
        person = self._desk.find(request)
        if person is None:
            return RedirectResponse(f"{SIGN_IN}?next={PASSWORD}", 303)
        why = "You came with a one-time password: choose your own." if person.must_change_password else ""
        back = "" if person.must_change_password else '<p><a class="lw-link" href="/">Back</a></p>'
        inner = (
            f'<h1>Change password</h1><p class="lw-muted">{why}</p>{_told(told)}'
            f'<form method="post" action="{PASSWORD}">'
            f'<input type="hidden" name="token" value="{self._token(request.cookies.get(COOKIE, ""))}">'
            f'<input type="hidden" name="username" value="{escape(person.name)}" autocomplete="username">'
            '<label>Present password<input name="password" type="password" autocomplete="current-password" required'
            ' maxlength="256" autofocus></label>'
            '<label>New password<input name="new_password" type="password" autocomplete="new-password" required'
            f' minlength="10" maxlength="256" aria-describedby="hint"></label><p id="hint" class="lw-muted">'
            f"{_PASSWORD_HINT}</p>"
            '<label>New password again<input name="again" type="password" autocomplete="new-password" required'
            ' maxlength="256"></label>'
            f"<button>Change password</button></form>{back}"
        )
        return _page("Change password", inner, request, status)

    def _is_own_form(self, request: Request, form: Mapping[str, str]) -> bool:
        pre = request.cookies.get(PRE_COOKIE, "")
        return bool(pre) and self._is_token_of(pre, form)

    def _is_token_of(self, cookie: str, form: Mapping[str, str]) -> bool:
        given = form.get("token", "").encode("utf-8", "surrogatepass")
        return hmac.compare_digest(self._token(cookie).encode(), given)

    def _token(self, cookie: str) -> str:
        return hmac.new(self._desk.secret, cookie.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()

    def _set_cookie(self, answer: Response, name: str, value: str, path: str = "/", max_age: int | None = None) -> None:
        is_secure = self._desk.settings.is_secure
        answer.set_cookie(name, value, max_age, path=path, secure=is_secure, httponly=True, samesite="strict")


def _signed_in(token: str, session: Mapping[str, Any]) -> SignedIn:
    ends_at = words.moment_of(session["expires_at"])
    return SignedIn(
        token=token,
        name=session["name"],
        role=session["role"],
        scopes=frozenset(session["scopes"]),
        ends_at_s=0.0 if ends_at is None else ends_at.timestamp(),
        must_change_password=session["must_change_password"],
    )


def _next_of(path: str | None) -> str:
    """Where to go after signing in: a page of ours, and nothing that a browser could take for another host."""
    if not path or len(path) > 1_000 or not path.startswith("/") or path.startswith(("//", "/\\")):
        return "/"
    if any(ord(character) < 33 for character in path) or "\\" in path or path.partition("?")[0] in PATHS - {PASSWORD}:
        return "/"
    return path


async def _read_form(request: Request) -> dict[str, str]:
    """What a small form says; nothing of one that is too large or no form."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_FORM_BYTES:
            return {}
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
        return {}
    try:
        given = parse_qs(body.decode("ascii"), keep_blank_values=True, max_num_fields=16)
    except ValueError:
        return {}
    return {name: values[0] for name, values in given.items()}


def _told(sentence: str) -> str:
    return f'<p class="lw-form-error" role="alert">{escape(sentence)}</p>' if sentence else ""


def _page(title: str, inner: str, request: Request, status: int, headers: Mapping[str, str] | None = None) -> Response:
    chosen = theme.is_dark(request.cookies.get(theme.THEME_COOKIE))
    body = "" if chosen is None else " body--dark" if chosen else " body--light"
    return HTMLResponse(
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{title} · Longwire</title>{theme.head()}</head><body class="lw-plain{body}">'
        f'<main class="lw-sign-in"><div class="lw-brand"><span>Longwire</span></div>{inner}</main></body></html>',
        status,
        dict(headers or {}),
    )
