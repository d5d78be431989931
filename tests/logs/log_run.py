"""A real run whose log is read: ten thousand messages at info, then everything at debug."""

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from longwire.app.logs import AREAS
from longwire.testing.process import NodeProcess, RawClient
from longwire.wire.packets import Ack, Ping, Push, Request, Send

PLANTED = "Kx9planted"
"""In every secret and every payload of the run; in no line of its log."""
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
WITHIN_S = 30.0
_BATCHES, _BATCH, _RECEIVERS = 20, 500, 20


class Run(NamedTuple):
    """What is known of the run once it is over."""

    log: Path
    text: str
    events: list[dict[str, Any]]
    lines_of_messages: int
    """How many lines came while ten thousand messages did, at info."""
    messages: int
    secrets: list[str]
    """That the process made itself."""
    applied_s: float
    """How long a level took."""
    message_id: str
    """Of the traced one, to a marked device."""


def _until(what: Callable[[], object]) -> float:
    began = time.monotonic()
    while not what():
        assert time.monotonic() - began < WITHIN_S, "it did not come"
        time.sleep(0.05)
    return time.monotonic() - began


def _send_many(api: httpx.Client) -> int:
    """The API's answer says that they are kept: ten thousand, of which those to the first device are written too."""
    kept = 0
    for _ in range(_BATCHES):
        items = [{"to": f"device:d-{n % _RECEIVERS}", "kind": "news", "payload": {"n": n}} for n in range(_BATCH)]
        answer = api.post("/v1/messages/batch", json={"items": items})
        assert answer.status_code == 200, answer.text
        kept += sum("message_id" in item for item in answer.json()["items"])
    return kept


def _say_secrets(api: httpx.Client, node: NodeProcess, bob: RawClient, token: str) -> None:
    """Everything that has a place for a secret or a payload gets one: headers, queries, bodies, frames."""
    secret = f"{PLANTED}-outside-0123456789"
    strange = f"{secret}\n\x1b[31m\u2028 next"
    calls: list[tuple[str, str, dict[str, Any]]] = [
        ("GET", "/v1/devices", {"headers": {"Authorization": f"Bearer lwk_{secret}"}}),
        ("GET", "/v1/devices", {"headers": {"Authorization": f"Bearer lws_{secret}"}}),
        ("GET", "/v1/devices", {"headers": {"Authorization": f"Basic {secret}"}}),
        ("GET", "/v1/devices", {"auth": ("app", secret)}),
        ("GET", "/v1/devices", {"params": {"q": secret, "token": secret}}),
        ("GET", f"/v1/devices/{secret}", {}),
        ("GET", f"/{secret}/x", {"headers": {"X-Request-Id": f"{secret} ?", "traceparent": f"00-{secret}-01"}}),
        ("POST", "/v1/messages", {"json": {"to": "device:d-0", "kind": "k", "payload": {"pin": strange}}}),
        ("POST", "/v1/messages", {"json": {"to": "device:d-0", "kind": strange, "payload": {}}}),
        ("POST", "/v1/messages", {"json": {"to": "device:d-0", "kind": "k", "wrong": secret}}),
        ("POST", "/v1/messages", {"content": secret.encode()}),
        ("POST", "/v1/pushes", {"json": {"audience": {"all": True}, "message": {"kind": "p", "payload": [secret]}}}),
        ("POST", "/v1/devices/d-0/commands", {"json": {"name": "run", "payload": {"pin": secret}, "timeout_ms": 200}}),
        ("POST", "/v1/sessions", {"json": {"name": "admin", "password": secret}}),
        ("POST", "/v1/keys", {"json": {"name": "robot", "scopes": ["device:read"]}}),
        (
            "POST",
            "/v1/webhooks",
            {
                "json": {
                    "url": f"http://127.0.0.1:9/{secret}?token={secret}",
                    "kinds": ["presence.online", "message.acked"],
                    "secret": secret,
                }
            },
        ),
        ("POST", "/device/v1/token", {"json": {"device_id": "d-0", "refresh_token": secret}}),
        (
            "POST",
            "/device/v1/register",
            {"json": {"app_key": secret, "device_id": "x", "ts_ms": 1, "nonce": secret, "proof": "ab" * 32}},
        ),
    ]
    for method, path, more in calls:
        answer = api.request(method, path, **more)
        assert answer.status_code < 500, answer.text
    bob.send(Send(bytes(15) + b"1", "", strange, secret.encode()), 2)
    bob.send(Send(bytes(15) + b"2", "device:d-1", "k", secret.encode(), collapse_key=secret), 3)
    bob.send(Request(secret, secret.encode()), 4)
    with RawClient(node.port) as wrong, contextlib.suppress(AssertionError, EOFError):
        wrong.connect("d-1", secret)
    with RawClient(node.port) as noise:
        noise.socket.sendall(secret.encode() * 10)
        noise.read_close()
    with RawClient(node.port) as other:
        other.connect("d-0", token)  # the first session is closed: taken over
        other.send(Ping())


def _traced(api: httpx.Client, receiver: RawClient) -> str:
    headers = {"traceparent": f"00-{TRACE_ID}-00f067aa0ba902b7-00"}
    answer = api.post("/v1/messages", json={"to": "device:m-1", "kind": "traced"}, headers=headers)
    assert answer.status_code == 202, answer.text
    assert answer.headers["traceparent"].startswith(f"00-{TRACE_ID}-")
    while True:
        frame = receiver.next()
        if isinstance(frame.packet, Push):
            receiver.send(Ack(), frame.correlation)
            if frame.packet.kind == "traced":
                return str(answer.json()["message_id"])


def _is_marked(api: httpx.Client, log: Path) -> bool:
    """Whether what goes to the device is told by now; a message finds out."""
    api.post("/v1/messages", json={"to": "device:m-1", "kind": "probe", "ttl_s": 0})
    return '"hop":"message.written"' in log.read_text()


def go(node: NodeProcess) -> Run:
    credentials = node.credentials()
    tokens = node.register([f"d-{n}" for n in range(_RECEIVERS)] + ["m-1"])
    headers = {"Authorization": f"Bearer {credentials['api_key']}"}
    with (
        httpx.Client(base_url=node.http_url, headers=headers, timeout=30) as api,
        RawClient(node.port) as bob,
        RawClient(node.port) as marked,
    ):
        bob.connect("d-0", tokens["d-0"])
        marked.connect("m-1", tokens["m-1"])
        before = node.log.read_text().count("\n")
        messages = _send_many(api)
        during = node.log.read_text().count("\n") - before
        for area in AREAS:
            answer = api.put("/v1/log-levels", json={"area": area, "level": "debug", "for_s": 600})
            assert answer.status_code == 200, answer.text
        assert api.post("/v1/marks", json={"device_id": "m-1"}).status_code == 201
        applied_s = _until(lambda: api.get("/readyz") and '"log.level":"debug"' in node.log.read_text())
        _until(lambda: _is_marked(api, node.log))
        message_id = _traced(api, marked)
        _until(lambda: _has_ack(node.log))
        _say_secrets(api, node, bob, tokens["d-0"])
        _until(lambda: '"longwire.webhooks"' in node.log.read_text())
    assert node.stop() == 0
    text = node.log.read_text()
    events = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    secrets = [*credentials.values(), *tokens.values()]
    return Run(node.log, text, events, during, messages, secrets, applied_s, message_id)


def _has_ack(log: Path) -> bool:
    return any('"message.acked"' in line and TRACE_ID in line for line in log.read_text().splitlines())
