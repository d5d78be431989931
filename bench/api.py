"""A caller of Longwire's HTTP API on one kept connection: cheap enough not to stand in the figures it takes."""

import http.client
import json
import time
from pathlib import Path
from urllib.parse import urlsplit

from bench.processes import ServerFailedError
from bench.servers import Endpoint

CALL_WITHIN_S = 60.0
POLL_S = 0.01
MEMBERS_A_CALL = 1_000
# A server closes a connection on which nothing is asked for a while.
KEPT_S = 2.0

Answer = dict[str, object]


class ApiFailedError(ServerFailedError):
    """The server refused a call of the bench, or did not do in time what was asked for."""


class Api:
    """Calls with the operator's key of `longwire dev`."""

    def __init__(self, url: str, key: str) -> None:
        where = urlsplit(url)
        self._connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=CALL_WITHIN_S)
        self._used = 0.0
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def call(self, method: str, path: str, body: object = None) -> Answer:
        """The answer's JSON; {} where it has none. Raises ApiFailedError for any status but 2xx."""
        data = None if body is None else json.dumps(body).encode()
        if time.monotonic() - self._used > KEPT_S:
            self._connection.close()  # and the next request opens it
        try:
            self._connection.request(method, path, data, self._headers)
            answer = self._connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as failure:
            raise ApiFailedError(f"{method} {path}: {failure!r}") from failure
        self._used = time.monotonic()
        if not 200 <= answer.status < 300:
            raise ApiFailedError(f"{method} {path}: {answer.status} {text[:400].decode(errors='replace')}")
        found: Answer = json.loads(text) if text else {}
        return found

    def make_group(self, group_id: str, devices: list[str]) -> None:
        """A group of these devices."""
        self.call("POST", "/v1/groups", {"group_id": group_id})
        for at in range(0, len(devices), MEMBERS_A_CALL):
            add = [{"device": device} for device in devices[at : at + MEMBERS_A_CALL]]
            self.call("POST", f"/v1/groups/{group_id}/members", {"add": add})

    def push_to_all(self, text: str) -> str:
        """Posts a push to every device; its id."""
        body = {"audience": {"all": True}, "message": {"kind": "news", "payload": {"text": text}}}
        return str(self.call("POST", "/v1/pushes", body)["id"])

    def stats(self, push_id: str) -> dict[str, int]:
        """The counters of a push. Raises ApiFailedError where they do not add up."""
        stats = self.call("GET", f"/v1/pushes/{push_id}")["stats"]
        assert isinstance(stats, dict)
        ended = ("acked", "expired", "failed", "collapsed", "canceled", "withdrawn", "pending")
        if stats["targeted"] != sum(stats[name] for name in ended):
            raise ApiFailedError(f"push {push_id} does not add up: {stats}")
        return stats

    def wait_until_acked(self, push_id: str, devices: int, within_s: float = 60.0, poll_s: float = POLL_S) -> float:
        """Returns when the store has so many acknowledgements; that moment, of time.monotonic()."""
        deadline = time.monotonic() + within_s
        while True:
            acked = self.stats(push_id)["acked"]
            now = time.monotonic()
            if acked >= devices:
                return now
            if now > deadline:
                raise ApiFailedError(f"only {acked} of {devices} devices had acknowledged after {within_s:.0f} s")
            time.sleep(poll_s)

    def time_pushes(self, count: int, devices: int, poll_s: float = POLL_S) -> list[float]:
        """Pushes to every device one after another; of each the seconds until the store has all acknowledgements."""
        took = []
        for at in range(count):
            began = time.monotonic()
            took.append(self.wait_until_acked(self.push_to_all(f"one {at}"), devices, poll_s=poll_s) - began)
        return took


def api_key(data: Path) -> str:
    """The key that `longwire dev` made for its operator at the first start on this folder."""
    return str(json.loads((data / "dev-credentials.json").read_text())["api_key"])


def api_of(endpoint: Endpoint) -> Api:
    """A caller of this server's API. Raises ApiFailedError where it has none."""
    if endpoint.http_url is None or endpoint.data is None:
        raise ApiFailedError("this server has no HTTP API")
    return Api(endpoint.http_url, api_key(endpoint.data))


def devices_of(endpoint: Endpoint, count: int) -> list[str]:
    """The first devices that were registered for the bench: those the generator connects first."""
    assert endpoint.tokens is not None
    lines = endpoint.tokens.read_text().splitlines()[:count]
    if len(lines) < count:
        raise ApiFailedError(f"{len(lines)} of {count} devices are registered")
    return [line.partition(",")[0] for line in lines]
