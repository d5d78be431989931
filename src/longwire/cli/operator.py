"""The operator's door of the HTTP API, as the commands call it: where it is, with which key, and what went wrong."""

import functools
import inspect
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate

import typer

from longwire.cli import credentials
from longwire.cli.options import DEFAULT_DATA, ApiKey, CredentialsFolder, Url
from longwire.cli.text import Failure

if TYPE_CHECKING:
    import httpx

DEFAULT_URL = "http://127.0.0.1:7380"
_TIMEOUT_S = 60.0
_PATIENT_TRIES = 20
_MAX_WAIT_S = 5.0
_PAGE = 500

Answer = dict[str, Any]


class Api:
    """An open client. Each call raises Failure with what its user can do about it."""

    def __init__(self, client: "httpx.Client", url: str) -> None:
        self._client = client
        self._url = url

    def get(self, path: str, **params: object) -> Answer:
        return self.call("GET", path, params=params)

    def post(self, path: str, body: object = None, headers: Mapping[str, str] | None = None) -> Answer:
        return self.call("POST", path, body, headers=headers)

    def put(self, path: str, body: object) -> Answer:
        return self.call("PUT", path, body)

    def patch(self, path: str, body: object) -> Answer:
        return self.call("PATCH", path, body)

    def delete(self, path: str) -> Answer:
        return self.call("DELETE", path)

    def upload(self, path: str, content: bytes, content_type: str) -> Answer:
        """Posts a file as it is."""
        return self.call("POST", path, headers={"Content-Type": content_type}, content=content)

    def pages(self, path: str, most: int | None = None, **params: object) -> Iterator[Answer]:
        """The items of a list in its order, newest first where it has times; at most ``most``, None: all."""
        left = most if most is not None else 1 << 62
        cursor: str | None = None
        while left > 0:
            page = self.get(path, limit=min(left, _PAGE), cursor=cursor, **params)
            yield from page["items"]
            left -= len(page["items"])
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def events(self, path: str, silence_s: float) -> Iterator[tuple[str, Answer]]:
        """Server-sent events as (name, data), to the end of the stream or until nothing came for ``silence_s``."""
        import httpx

        timeout = httpx.Timeout(_TIMEOUT_S, read=silence_s)
        headers = {"Accept": "text/event-stream"}
        with self._reaching(), self._client.stream("GET", path, headers=headers, timeout=timeout) as answer:
            if answer.is_error:
                answer.read()
                self._read(answer)
            name, data = "", ""
            try:
                for line in answer.iter_lines():
                    if line.startswith("event:"):
                        name = line.removeprefix("event:").strip()
                    elif line.startswith("data:"):
                        data += line.removeprefix("data:")
                    elif not line and data:
                        yield name, json.loads(data)
                        name, data = "", ""
            except httpx.ReadTimeout:
                return

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> Answer:
        """The answer's object, {} where it has no body. A key that calls too often waits as it is told."""
        import httpx

        given = {name: value for name, value in (params or {}).items() if value is not None}
        for attempt in range(_PATIENT_TRIES):
            with self._reaching():
                answer = self._client.request(method, path, json=body, params=given, headers=headers, content=content)
            if answer.status_code != httpx.codes.TOO_MANY_REQUESTS or attempt == _PATIENT_TRIES - 1:
                break
            time.sleep(_wait_s(answer))
        return self._read(answer)

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """What may happen on the way there, as Failure."""
        import httpx

        try:
            yield
        except httpx.ConnectError as error:
            raise Failure(f"no Longwire answers at {self._url} ({error}); start one with `longwire dev`") from None
        except httpx.TimeoutException:
            raise Failure(f"{self._url} gave no answer within {_TIMEOUT_S:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Failure(f"{self._url}: {error or type(error).__name__}") from None

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


def calls_api(command: Callable[Concatenate[Api, ...], None]) -> Callable[..., None]:
    """A command whose first parameter is the API: --url, --api-key and --data, which say where it is, join its own."""
    signature = inspect.signature(command, eval_str=True)
    _, *own = signature.parameters.values()
    reach = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, default, annotation in (
            ("url", None, Url),
            ("api_key", None, ApiKey),
            ("data", DEFAULT_DATA, CredentialsFolder),
        )
    ]

    @functools.wraps(command)
    def call(*, url: str | None, api_key: str | None, data: Path, **options: object) -> None:
        with connect(url, api_key, data) as api:
            command(api, **options)

    shown = signature.replace(parameters=[*own, *reach])
    call.__signature__ = shown  # type: ignore[attr-defined]
    call.__annotations__ = {name: parameter.annotation for name, parameter in shown.parameters.items()}
    return call


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
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def quoted(name: str) -> str:
    """A name as one segment of a path; ``.`` and ``..`` too, which otherwise lead elsewhere."""
    from urllib.parse import quote

    if name in (".", ".."):
        return name.replace(".", "%2E")
    return quote(name, safe="") or "-"
