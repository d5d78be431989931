"""The operator's door of the HTTP API, as the commands call it: where it is, with which key, and what went wrong."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from longwire.cli import credentials
from longwire.cli.text import Failure

if TYPE_CHECKING:
    import httpx

DEFAULT_URL = "http://127.0.0.1:7380"
_TIMEOUT_S = 60.0
_PATIENT_TRIES = 20
_MAX_WAIT_S = 5.0

Answer = dict[str, Any]


class Api:
    """An open client. Each call raises Failure with what its user can do about it."""

    def __init__(self, client: "httpx.Client", url: str) -> None:
        self._client = client
        self._url = url

    def get(self, path: str, **params: object) -> Answer:
        return self.call("GET", path, params={name: value for name, value in params.items() if value is not None})

    def post(self, path: str, body: object = None) -> Answer:
        return self.call("POST", path, body)

    def delete(self, path: str) -> Answer:
        return self.call("DELETE", path)

    def pages(self, path: str, most: int) -> Iterator[Answer]:
        """The items of a list, newest first, at most ``most``."""
        cursor: str | None = None
        while most > 0:
            page = self.get(path, limit=min(most, 500), cursor=cursor)
            yield from page["items"]
            most -= len(page["items"])
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def call(self, method: str, path: str, body: object = None, params: Mapping[str, Any] | None = None) -> Answer:
        """The answer's object, {} where it has no body. A key that calls too often waits as it is told."""
        import httpx

        for attempt in range(_PATIENT_TRIES):
            try:
                answer = self._client.request(method, path, json=body, params=params)
            except httpx.ConnectError as error:
                raise Failure(f"no Longwire answers at {self._url} ({error}); start one with `longwire dev`") from None
            except httpx.TimeoutException:
                raise Failure(f"{self._url} gave no answer within {_TIMEOUT_S:g} s") from None
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise Failure(f"{self._url}: {error or type(error).__name__}") from None
            if answer.status_code != httpx.codes.TOO_MANY_REQUESTS or attempt == _PATIENT_TRIES - 1:
                break
            time.sleep(_wait_s(answer))
        return self._read(answer)

    def _read(self, answer: "httpx.Response") -> Answer:
        try:
            content = answer.json() if answer.content else {}
        except ValueError:
            content = None
        if not isinstance(content, dict) or (answer.is_error and "code" not in content):
            raise Failure(f"{self._url} answered {answer.status_code}, but not as Longwire does; is it the right URL?")
        if answer.is_error:
            raise Failure(_told(answer.status_code, content))
        return content


@contextmanager
def connect(url: str | None, api_key: str | None, folder: Path) -> Iterator[Api]:
    """The API that the options, the environment or the data folder's credentials file name."""
    import httpx

    found = credentials.find(folder)
    kept, file = found if found is not None else ({}, None)
    wanted = (url or kept.get("http_url") or DEFAULT_URL).rstrip("/")
    # A key goes only where it belongs: not to another address that happens to be named.
    if api_key is None and (url is None or wanted == kept.get("http_url")):
        api_key = kept.get("api_key")
    if not api_key:
        where = f"{file} is of another address" if file else f"there is no {folder / credentials.DEV_FILE}"
        raise Failure(f"no API key: give --api-key or LONGWIRE_API_KEY, or start `longwire dev` here ({where})")
    try:
        client = httpx.Client(
            base_url=wanted,
            headers={"Authorization": f"Bearer {api_key}"},
            timeout=_TIMEOUT_S,
            verify=wanted.startswith("https:"),  # reading the platform's certificates takes 20 ms
        )
    except (httpx.InvalidURL, UnicodeError) as error:
        raise Failure(f"{wanted} is no URL, or the API key is none: {error}") from None
    with client:
        yield Api(client, wanted)


def _told(status: int, problem: Answer) -> str:
    code, detail = problem["code"], problem.get("detail", "")
    errors = [f"{e.get('pointer', '')}: {e.get('detail', '')}" for e in problem.get("errors", ())]
    more = "".join(f"\n{line}" for line in errors if line != detail)
    match status:
        case 401:
            return f"the API key is not taken ({code}): {detail}"
        case 403 if code == "scope-missing":
            scope = problem.get("scope", "")
            return f"the API key lacks the scope {scope} ({code}); `longwire keys create --scope {scope}` makes one"
        case 503:
            wait = problem.get("retry_after_s")
            return f"not now ({code}): {detail}" + (f"; try again in {wait} s" if wait else "")
        case 500:
            return f"the server failed ({code}); its log has more under {problem.get('request_id', '')}"
        case _:
            return f"{detail} ({status} {code}){more}"


def _wait_s(answer: "httpx.Response") -> float:
    try:
        return min(float(answer.json()["retry_after_ms"]) / 1000, _MAX_WAIT_S)
    except (ValueError, KeyError, TypeError):
        return 1.0


def print_json(value: object) -> None:
    """JSON for programs: on standard output, whole."""
    import json

    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def quoted(name: str) -> str:
    """A name as one segment of a path."""
    from urllib.parse import quote

    return quote(name, safe="") or "-"
