"""``/v1`` as the pages call it: with the token of the person who looks."""

from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx

_TIMEOUT_S = 10.0
_UNREACHABLE = 503


class ApiError(Exception):
    """A call that was not answered as hoped. ``str`` of it is a sentence for the person who made it."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        request_id: str = "",
        errors: list[dict[str, Any]] | None = None,
        retry_after_s: float | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        """503 where nobody answered."""
        self.code = code
        self.detail = detail
        self.request_id = request_id
        self.errors = errors or []
        self.retry_after_s = retry_after_s
        self.more = more or {}


class Page(NamedTuple):
    """Some of a list, and where it goes on; None at its end."""

    items: list[dict[str, Any]]
    next_cursor: str | None


class Api:
    """The API as one person may use it. Every call raises ApiError."""

    def __init__(self, client: httpx.AsyncClient, token: str = "") -> None:
        self._client = client
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    async def get(self, path: str, **params: object) -> dict[str, Any]:
        """``params`` that are None are left out."""
        return await self._call("GET", path, params=params)

    async def post(self, path: str, body: object = None, *, key: str | None = None) -> dict[str, Any]:
        """``key``: an Idempotency-Key."""
        return await self._call("POST", path, body, headers={} if key is None else {"Idempotency-Key": key})

    async def put(self, path: str, body: object = None) -> dict[str, Any]:
        return await self._call("PUT", path, body)

    async def patch(self, path: str, body: object = None) -> dict[str, Any]:
        return await self._call("PATCH", path, body)

    async def delete(self, path: str) -> dict[str, Any]:
        return await self._call("DELETE", path)

    async def upload(self, path: str, content: bytes, content_type: str) -> dict[str, Any]:
        """Posts a file as it is."""
        return await self._call("POST", path, headers={"Content-Type": content_type}, content=content)

    async def page(self, path: str, limit: int = 50, cursor: str | None = None, **params: object) -> Page:
        """A page of a list."""
        answer = await self.get(path, limit=limit, cursor=cursor, **params)
        return Page(answer["items"], answer["next_cursor"])

    async def _call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        params: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> dict[str, Any]:
        given = {name: _text(value) for name, value in (params or {}).items() if value is not None}
        try:
            answer = await self._client.request(
                method,
                path,
                json=body,
                content=content,
                params=given,
                headers=self._headers | dict(headers or {}),
                timeout=_TIMEOUT_S,
            )
        except httpx.TimeoutException:
            raise ApiError(_UNREACHABLE, "unreachable", f"the API gave no answer within {_TIMEOUT_S:g} s") from None
        except httpx.HTTPError as error:
            raise ApiError(_UNREACHABLE, "unreachable", f"the API cannot be reached: {error}") from None
        return _read(answer)


def quoted(name: str) -> str:
    """A name as one segment of a path; ``.`` and ``..`` too, which otherwise lead elsewhere."""
    if name in (".", ".."):
        return name.replace(".", "%2E")
    return quote(name, safe="") or "-"


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _read(answer: httpx.Response) -> dict[str, Any]:
    try:
        content = answer.json() if answer.content else {}
    except ValueError:
        content = None
    if not isinstance(content, dict) or (answer.is_error and "code" not in content):
        detail = f"the API answered {answer.status_code}, but not as Longwire does: is console_api_url right?"
        raise ApiError(_UNREACHABLE, "unreachable", detail)
    if answer.is_error:
        wait_ms = content.get("retry_after_ms")
        raise ApiError(
            answer.status_code,
            str(content["code"]),
            str(content.get("detail", "")),
            str(content.get("request_id", "")),
            content.get("errors"),
            None if wait_ms is None else wait_ms / 1000,
            content,
        )
    return content
