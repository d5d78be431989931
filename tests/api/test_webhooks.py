"""``/v1/webhooks`` and ``/v1/webhook-letters``; what is delivered, and how, is tests/webhooks."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from longwire.accounts.api_keys import Scope
from longwire.webhooks import PostSettings

SECRET = "own-0123456789abcdef"


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """A receiver that takes everything."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 OK\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()


async def test_a_webhook_is_made_listed_changed_and_deleted(operator, check_problem) -> None:
    body = {"url": "https://shop.example/hook", "kinds": ["push.*", "message.acked", "push.*"]}
    made = await operator.post("/v1/webhooks", json=body)
    assert made.status_code == 201, made.text
    told = made.json()
    assert made.headers["location"] == f"/v1/webhooks/{told['webhook_id']}"
    assert told.pop("secret").startswith("whsec_")
    assert told["kinds"] == ["message.acked", "push.*"]
    assert (told["is_enabled"], told["waiting"], told["last_success_at"], told["failing_since"]) == (
        True,
        0,
        None,
        None,
    )
    where = made.headers["location"]
    assert (await operator.get(where)).json() == told
    assert (await operator.get("/v1/webhooks")).json() == {"items": [told], "next_cursor": None}
    changed = await operator.patch(where, json={"is_enabled": False, "kinds": ["uplink"]})
    assert changed.json() == told | {"is_enabled": False, "kinds": ["uplink"]}
    assert (await operator.delete(where)).status_code == 204
    for answer in (await operator.get(where), await operator.patch(where, json={}), await operator.delete(where)):
        check_problem(answer, 404, "not-found")
    check_problem(await operator.post(where + "/test"), 404, "not-found")
    assert (await operator.get("/v1/webhooks")).json()["items"] == []


async def test_webhooks_come_in_pages_newest_first(operator) -> None:
    for n in range(3):
        await operator.post("/v1/webhooks", json={"url": f"https://shop.example/{n}", "kinds": ["uplink"]})
    first = (await operator.get("/v1/webhooks?limit=2")).json()
    second = (await operator.get(f"/v1/webhooks?limit=2&cursor={first['next_cursor']}")).json()
    assert [item["webhook_id"] for item in first["items"] + second["items"]] == ["whk_3", "whk_2", "whk_1"]
    assert second["next_cursor"] is None


async def test_a_secret_of_ones_own_is_taken_and_told_once(operator) -> None:
    body = {"url": "https://shop.example/", "kinds": ["uplink"], "secret": SECRET}
    assert (await operator.post("/v1/webhooks", json=body)).json()["secret"] == SECRET
    assert SECRET not in (await operator.get("/v1/webhooks")).text


@pytest.mark.parametrize(
    "changed",
    [
        {"url": "ftp://shop.example/"},
        {"url": "https://user:pass@shop.example/"},
        {"url": "https://shop.example/ x"},
        {"url": "https://shop.example:0/"},
        {"url": "https://shop.example:65536/"},
        {"url": "https://999.1.1.1/"},
        {"url": "https://[::1]/"},
        {"kinds": []},
        {"kinds": ["push.nothing"]},
        {"kinds": ["*"]},
        {"secret": "short"},
    ],
)
async def test_what_is_no_webhook_is_refused(operator, check_problem, changed) -> None:
    body = {"url": "https://shop.example/", "kinds": ["push.*"]} | changed
    check_problem(await operator.post("/v1/webhooks", json=body), 400, "invalid-parameter")
    assert (await operator.get("/v1/webhooks")).json()["items"] == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "169.254.169.254", "10.0.0.1", "0", "0x7f.1"])
async def test_a_private_address_is_refused_at_once_unless_it_is_allowed(site, operator, check_problem, host) -> None:
    body = {"url": f"http://{host}:80/", "kinds": ["push.*"]}
    assert (await operator.post("/v1/webhooks", json=body)).status_code == 201
    site.endpoints._posting = PostSettings()
    problem = check_problem(await operator.post("/v1/webhooks", json=body), 400, "invalid-parameter")
    assert "not public" in problem["detail"]
    check_problem(await operator.patch("/v1/webhooks/whk_1", json={"url": body["url"]}), 400, "invalid-parameter")


async def test_a_test_says_what_the_receiver_answered(operator, port: int) -> None:
    for url in (f"http://127.0.0.1:{port}/", "http://127.0.0.1:1/"):
        await operator.post("/v1/webhooks", json={"url": url, "kinds": ["push.*"]})
    good = (await operator.post("/v1/webhooks/whk_1/test")).json()
    assert (good["ok"], good["status"], good["error"]) == (True, 204, None)
    bad = (await operator.post("/v1/webhooks/whk_2/test")).json()
    assert (bad["ok"], bad["status"]) == (False, None)
    assert "ConnectError" in bad["error"]


async def test_letters_are_listed_read_and_replayed(site, operator, check_problem) -> None:
    await operator.post("/v1/webhooks", json={"url": "https://shop.example/", "kinds": ["push.*"]})
    await operator.patch("/v1/webhooks/whk_1", json={"is_enabled": False})
    body = b'{"delivery_id":"dlv_1","events":[{"id":"evt_1","kind":"push.acked","at":"x","n":1}]}'
    for _ in range(2):
        await site.endpoints._store.bury(1, 0, body, "the answer is 500", site.clock.now_ms())
    first = (await operator.get("/v1/webhook-letters?limit=1")).json()
    assert first["items"][0]["letter_id"] == first["next_cursor"] == "whl_2"
    assert first["items"][0]["error"] == "the answer is 500"
    second = (await operator.get("/v1/webhook-letters?limit=1&cursor=whl_2")).json()
    assert [item["letter_id"] for item in second["items"]] == ["whl_1"]
    detail = (await operator.get("/v1/webhook-letters/whl_1")).json()
    assert (detail["delivery_id"], detail["webhook_id"]) == ("dlv_1", "whk_1")
    assert detail["events"] == [{"id": "evt_1", "kind": "push.acked", "at": "x", "n": 1}]
    for _ in range(2):
        replayed = (await operator.post("/v1/webhook-letters/whl_1/replay")).json()
        assert replayed["replayed_at"] is not None
        assert (await operator.get("/v1/webhooks/whk_1")).json()["waiting"] == 1
    check_problem(await operator.get("/v1/webhook-letters/whl_9"), 404, "not-found")
    await operator.delete("/v1/webhooks/whk_1")
    assert (await operator.get("/v1/webhook-letters/whl_2")).status_code == 200
    check_problem(await operator.post("/v1/webhook-letters/whl_2/replay"), 409, "state-conflict")


async def test_there_are_at_most_a_hundred(site, operator, check_problem, monkeypatch) -> None:
    monkeypatch.setattr("longwire.webhooks.endpoints.MAX_WEBHOOKS", 1)
    body = {"url": "https://shop.example/", "kinds": ["push.*"]}
    await operator.post("/v1/webhooks", json=body)
    check_problem(await operator.post("/v1/webhooks", json=body), 409, "state-conflict")


async def test_webhooks_are_the_administrators_alone(site, check_problem) -> None:
    everything_else = await site.operator(*(scope for scope in Scope if scope is not Scope.ADMIN))
    for path in ("/v1/webhooks", "/v1/webhook-letters"):
        check_problem(await everything_else.get(path), 403, "scope-missing")
