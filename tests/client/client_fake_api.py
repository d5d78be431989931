"""The devices' door of API.md §2 as a behaving fake: proofs, nonces, refresh tokens, placement."""

import hashlib
import hmac
import json
from email.utils import formatdate

import httpx

APP_KEY, APP_SECRET = "app", "s3cret"


class FakeApi:
    """Bend it with ``mode`` ("", "down", "failing", "busy"), ``reregister``, ``clock_ms``, ``nodes``."""

    def __init__(self, clock_ms: int = 1_764_000_000_000) -> None:
        self.nodes: list[dict[str, object]] = []
        self.mode = ""
        self.reregister = "prove"
        self.clock_ms = clock_ms
        self.backoff = {"base_ms": 1_000, "max_ms": 120_000}
        self.calls: list[str] = []
        self.bodies: list[dict[str, object]] = []
        self.tokens: dict[str, str] = {}
        self.refresh_tokens: dict[str, str] = {}
        self.nonces: set[str] = set()
        self.disabled: set[str] = set()
        self.made = 0

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(self.answer))

    def add_node(self, node_id: str, port: int, **more: object) -> None:
        known = {"node_id": node_id, "host": "127.0.0.1", "port": port, "tls_port": None, "ws_url": ""}
        self.nodes.append(known | more)

    def answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/device/v1/")
        self.calls.append(path + (f"?{request.url.query.decode()}" if request.url.query else ""))
        if self.mode == "down":
            raise httpx.ConnectError("connection refused", request=request)
        if self.mode == "failing":
            return httpx.Response(502, text="bad gateway")
        if self.mode == "busy":
            return self._problem(503, "overloaded", {"Retry-After": "17"})
        if path == "node":
            return self._node(request)
        body = json.loads(request.content)
        self.bodies.append(body)
        return self._register(body) if path == "register" else self._token(body)

    def _register(self, body: dict) -> httpx.Response:
        text = f"{body['device_id']}\n{body['ts_ms']}\n{body['nonce']}"
        proof = hmac.new(APP_SECRET.encode(), text.encode(), hashlib.sha256).hexdigest()
        is_fresh = abs(body["ts_ms"] - self.clock_ms) <= 300_000 and body["nonce"] not in self.nonces
        is_welcome = body.get("credentials") == "alice:pw" or body.get("proof") == proof
        if body["app_key"] != APP_KEY or not is_welcome or not is_fresh:
            return self._problem(401, "auth-invalid")
        self.nonces.add(body["nonce"])
        device_id = body["device_id"]
        if device_id in self.disabled:
            return self._problem(403, "device-disabled")
        known = self.refresh_tokens.get(device_id)
        if known is not None and self.reregister == "prove" and body.get("refresh_token") != known:
            return self._problem(401, "auth-invalid")
        return self._log_in(device_id, 200 if known else 201)

    def _token(self, body: dict) -> httpx.Response:
        for device_id, refresh_token in self.refresh_tokens.items():
            if refresh_token == body["refresh_token"]:
                return self._log_in(device_id, 200)
        return self._problem(401, "auth-invalid")

    def _log_in(self, device_id: str, status: int) -> httpx.Response:
        self.made += 1
        token = f"token-{self.made}"
        self.tokens[token] = device_id
        refresh_token = self.refresh_tokens.setdefault(device_id, f"refresh-{self.made}")
        answer = {
            "device_id": device_id,
            "token": token,
            "expires_in_s": 86_400,
            "refresh_token": refresh_token,
            "node": self.nodes[0] if self.nodes else None,
            "backoff": self.backoff,
            "heartbeat": {"default_s": 60, "min_s": 10, "max_s": 900},
            "server_time_ms": self.clock_ms,
        }
        return httpx.Response(status, json=answer)

    def _node(self, request: httpx.Request) -> httpx.Response:
        token = request.headers["authorization"].removeprefix("Bearer ")
        if token not in self.tokens:
            return self._problem(401, "token-expired")
        avoid = request.url.params.get("avoid")
        for node in self.nodes:
            if node["node_id"] != avoid:
                return httpx.Response(200, json={"node": node})
        return self._problem(503, "no-node", {"Retry-After": "3"})

    def _problem(self, status: int, code: str, headers: dict[str, str] | None = None) -> httpx.Response:
        date = {"Date": formatdate(self.clock_ms / 1000, usegmt=True)}
        problem = {"code": code, "title": code, "detail": "in words", "request_id": "req_1"}
        return httpx.Response(status, json=problem, headers=date | (headers or {}))
