"""``longwire nodes``: steering nodes, on a running `longwire dev` and on an API that plays a drain."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

NODE_ID = "gw~0a0b0c0d"
KEY = "--api-key=lwk_x"


def node(left: int, *, is_draining: bool = True, eta_s: float | None = 9.4) -> dict[str, Any]:
    drain = {"left": left, "sessions": 100, "eta_s": eta_s if left else 0.0}
    return {
        "node_id": NODE_ID,
        "connections": left,
        "is_draining": is_draining,
        "drain": drain if is_draining else None,
    }


class Playing:
    """An API that answers each call with the next of its answers, the last one for ever."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, Any]]] = []
        self.calls: list[tuple[str, str, Any]] = []
        playing = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                playing.calls.append((self.command, self.path, json.loads(body) if body else None))
                answers = playing.answers
                status, answer = answers.pop(0) if len(answers) > 1 else answers[0]
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def do_POST(self) -> None:
                self.do_GET()

            def log_message(self, *_: object) -> None: ...

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Playing]:
    monkeypatch.setattr("longwire.cli.nodes._LOOK_EVERY_S", 0.01)
    playing = Playing()
    yield playing
    playing.close()


@pytest.fixture
def at_api(api: Playing, run) -> Callable[..., Any]:
    return lambda *words: run("nodes", *words, KEY, "--url", api.url)


def test_a_drain_that_is_waited_for_tells_how_far_it_is(api: Playing, at_api) -> None:
    api.answers = [(202, node(100)), (200, node(100)), (200, node(40)), (200, node(0))]
    done = at_api("drain", NODE_ID, "--within", "30", "--wait")
    assert done.status == 0
    assert api.calls[0] == ("POST", "/v1/nodes/gw~0a0b0c0d/drain", {"within_s": 30})
    assert done.err.splitlines() == [
        "100 of 100 are left, about 9 s more",
        "40 of 100 are left, about 9 s more",
        "0 of 100 are left",
        f"{NODE_ID} is empty",
    ]


def test_a_drain_that_is_not_waited_for_says_what_will_be(api: Playing, at_api) -> None:
    api.answers = [(202, node(1))]
    done = at_api("drain", NODE_ID)
    assert (done.status, done.err) == (0, f"{NODE_ID} sends 1 device elsewhere within 60 s\n")


def test_a_drain_that_somebody_takes_back_is_told(api: Playing, at_api) -> None:
    api.answers = [(202, node(100)), (200, node(60, is_draining=False))]
    done = at_api("drain", NODE_ID, "--wait")
    assert (done.status, "takes devices again" in done.err) == (1, True)


def test_a_drain_that_does_not_end_is_given_up(api: Playing, at_api, monkeypatch) -> None:
    monkeypatch.setattr("longwire.cli.nodes._LATE_S", -0.95)
    api.answers = [(202, node(7))]
    done = at_api("drain", NODE_ID, "--within", "1", "--wait")
    assert (done.status, "still holds 7 devices" in done.err) == (1, True)


def test_a_rebalance_lists_what_each_node_does(api: Playing, at_api) -> None:
    moves = [
        {"node_id": "a~00", "connections": 900, "target": 600, "moving": 300},
        {"node_id": "b~00", "connections": 300, "target": 600, "moving": None},
    ]
    api.answers = [(202, {"moves": moves})]
    done = at_api("rebalance", "--within", "5")
    assert done.out.splitlines() == ["a~00\t900\t600\t300", "b~00\t300\t600\tdoes not answer"]
    assert api.calls == [("POST", "/v1/rebalance", {"within_s": 5})]


def test_the_only_node_is_not_drained_and_has_its_share(at_dev) -> None:
    (line,) = at_dev("nodes", "list").out.splitlines()
    node_id, _, state, _, drift, *_ = line.split("\t")
    assert (state, drift) == ("live", "0")
    refused = at_dev("nodes", "drain", node_id)
    assert (refused.status, "nowhere to go" in refused.err, "409 state-conflict" in refused.err) == (1, True, True)
    assert "takes devices" in at_dev("nodes", "undrain", node_id).err
    assert at_dev("nodes", "rebalance").out.startswith(f"{node_id}\t")
    assert "404 not-found" in at_dev("nodes", "drain", "nobody~00000000").err
