"""Keys and scopes: who is let in, and for what."""

import base64
import dataclasses

import pytest

from longwire.accounts.api_keys import Scope
from longwire.accounts.people import PersonRole

PUSH = "psh_" + "0" * 32
COMMAND = "cmd_" + "0" * 32
MARK = "mrk_" + "0" * 32
NAMES = {
    "push_id": PUSH,
    "command_id": COMMAND,
    "device_id": "d",
    "group_id": "g",
    "tag": "t",
    "key_id": "key_" + "0" * 32,
    "import_id": "imp_" + "0" * 32,
    "node_id": "n~00",
    "webhook_id": "whk_1",
    "name": "anna",
    "mark_id": MARK,
    "area": "net",
}
ROUTES = [
    ("POST", "/v1/messages", Scope.PUSH_WRITE),
    ("POST", "/v1/messages/batch", Scope.PUSH_WRITE),
    ("POST", "/v1/pushes", Scope.PUSH_WRITE),
    ("POST", "/v1/pushes/validate", Scope.PUSH_READ),
    ("GET", "/v1/pushes", Scope.PUSH_READ),
    ("GET", f"/v1/pushes/{PUSH}", Scope.PUSH_READ),
    ("GET", f"/v1/pushes/{PUSH}/events", Scope.PUSH_READ),
    ("GET", f"/v1/pushes/{PUSH}/progress", Scope.PUSH_READ),
    ("GET", f"/v1/pushes/{PUSH}/recipients", Scope.PUSH_READ),
    ("GET", f"/v1/pushes/{PUSH}/recipients/d", Scope.PUSH_READ),
    ("POST", f"/v1/pushes/{PUSH}/cancel", Scope.PUSH_WRITE),
    ("POST", f"/v1/pushes/{PUSH}/withdraw", Scope.PUSH_WRITE),
    ("POST", f"/v1/pushes/{PUSH}/pause", Scope.PUSH_WRITE),
    ("POST", f"/v1/pushes/{PUSH}/resume", Scope.PUSH_WRITE),
    ("PATCH", f"/v1/pushes/{PUSH}", Scope.PUSH_WRITE),
    ("POST", f"/v1/pushes/{PUSH}/retry", Scope.PUSH_WRITE),
    ("POST", "/v1/devices/batch", Scope.DEVICE_WRITE),
    ("GET", "/v1/devices", Scope.DEVICE_READ),
    ("GET", "/v1/devices/d", Scope.DEVICE_READ),
    ("PATCH", "/v1/devices/d", Scope.DEVICE_WRITE),
    ("DELETE", "/v1/devices/d", Scope.DEVICE_WRITE),
    ("PUT", "/v1/devices/d/user", Scope.DEVICE_WRITE),
    ("PUT", "/v1/devices/d/tags", Scope.DEVICE_WRITE),
    ("PATCH", "/v1/devices/d/tags", Scope.DEVICE_WRITE),
    ("POST", "/v1/devices/d/revoke", Scope.DEVICE_WRITE),
    ("POST", "/v1/devices/d/disable", Scope.DEVICE_WRITE),
    ("POST", "/v1/devices/d/enable", Scope.DEVICE_WRITE),
    ("POST", "/v1/devices/d/disconnect", Scope.DEVICE_WRITE),
    ("GET", "/v1/devices/d/inbox", Scope.DEVICE_READ),
    ("DELETE", "/v1/devices/d/inbox", Scope.DEVICE_WRITE),
    ("POST", "/v1/devices/d/commands", Scope.DEVICE_WRITE),
    ("GET", f"/v1/commands/{COMMAND}", Scope.DEVICE_READ),
    ("GET", "/v1/devices/d/presence", Scope.DEVICE_READ),
    ("GET", "/v1/devices/d/sessions", Scope.DEVICE_READ),
    ("GET", "/v1/devices/d/messages", Scope.DEVICE_READ),
    ("GET", "/v1/trace", Scope.DEVICE_READ),
    ("POST", "/v1/presence/query", Scope.DEVICE_READ),
    ("GET", "/v1/tags", Scope.DEVICE_READ),
    ("POST", "/v1/tags/t/devices", Scope.DEVICE_WRITE),
    ("GET", "/v1/groups", Scope.DEVICE_READ),
    ("POST", "/v1/groups", Scope.DEVICE_WRITE),
    ("GET", "/v1/groups/g", Scope.DEVICE_READ),
    ("DELETE", "/v1/groups/g", Scope.DEVICE_WRITE),
    ("GET", "/v1/groups/g/members", Scope.DEVICE_READ),
    ("POST", "/v1/groups/g/members", Scope.DEVICE_WRITE),
    ("POST", "/v1/device-imports", Scope.DEVICE_WRITE),
    ("GET", "/v1/device-imports", Scope.DEVICE_READ),
    ("GET", "/v1/device-imports/imp_00000000000000000000000000000000", Scope.DEVICE_READ),
    ("GET", "/v1/device-imports/imp_00000000000000000000000000000000/events", Scope.DEVICE_READ),
    ("POST", "/v1/audience-uploads", Scope.PUSH_WRITE),
    ("GET", "/v1/stats", Scope.STATS_READ),
    ("GET", "/v1/stats/stream", Scope.STATS_READ),
    ("GET", "/v1/stats/history", Scope.STATS_READ),
    ("GET", "/v1/nodes", Scope.NODE_READ),
    ("GET", "/v1/nodes/n~00", Scope.NODE_READ),
    ("POST", "/v1/nodes/n~00/drain", Scope.NODE_WRITE),
    ("POST", "/v1/nodes/n~00/undrain", Scope.NODE_WRITE),
    ("POST", "/v1/rebalance", Scope.NODE_WRITE),
    ("GET", "/v1/keys", Scope.ADMIN),
    ("POST", "/v1/keys", Scope.ADMIN),
    ("DELETE", "/v1/keys/key_00000000000000000000000000000000", Scope.ADMIN),
    ("GET", "/v1/people", Scope.ADMIN),
    ("POST", "/v1/people", Scope.ADMIN),
    ("PATCH", "/v1/people/anna", Scope.ADMIN),
    ("DELETE", "/v1/people/anna", Scope.ADMIN),
    ("POST", "/v1/people/anna/password", Scope.ADMIN),
    ("GET", "/v1/limits", Scope.STATS_READ),
    ("GET", "/v1/marks", Scope.NODE_READ),
    ("POST", "/v1/marks", Scope.NODE_WRITE),
    ("DELETE", f"/v1/marks/{MARK}", Scope.NODE_WRITE),
    ("GET", "/v1/log-levels", Scope.NODE_READ),
    ("PUT", "/v1/log-levels", Scope.NODE_WRITE),
    ("DELETE", "/v1/log-levels/net", Scope.NODE_WRITE),
    ("GET", "/v1/audit", Scope.ADMIN),
    ("GET", "/v1/uplink", Scope.STATS_READ),
    ("GET", "/v1/dead-letters", Scope.ADMIN),
    ("GET", "/v1/dead-letters/ltr_1", Scope.ADMIN),
    ("POST", "/v1/dead-letters/ltr_1/replay", Scope.ADMIN),
    ("GET", "/v1/webhooks", Scope.ADMIN),
    ("POST", "/v1/webhooks", Scope.ADMIN),
    ("GET", "/v1/webhooks/whk_1", Scope.ADMIN),
    ("PATCH", "/v1/webhooks/whk_1", Scope.ADMIN),
    ("DELETE", "/v1/webhooks/whk_1", Scope.ADMIN),
    ("POST", "/v1/webhooks/whk_1/test", Scope.ADMIN),
    ("GET", "/v1/webhook-letters", Scope.ADMIN),
    ("GET", "/v1/webhook-letters/whl_1", Scope.ADMIN),
    ("POST", "/v1/webhook-letters/whl_1/replay", Scope.ADMIN),
]


def test_every_operators_route_is_in_the_list_above(site) -> None:
    paths = {
        (method, route.path_format.format(**NAMES, letter_id="whl_1" if "webhook" in route.path else "ltr_1"))
        for route in site.build().routes
        if route.path.startswith("/v1") and "x-scope" in route.openapi_extra
        for method in route.methods
    }
    assert paths == {(method, path) for method, path, _ in ROUTES}


@pytest.mark.parametrize(("method", "path", "scope"), ROUTES)
async def test_a_key_without_the_scope_is_told_which(site, check_problem, method, path, scope) -> None:
    client = await site.operator(*(set(Scope) - {scope, Scope.ADMIN}))
    body = check_problem(await client.request(method, path), 403, "scope-missing")
    assert body["scope"] == scope
    client = await site.operator(scope)
    assert (await client.request(method, path)).status_code not in (401, 403)


@pytest.mark.parametrize("role", PersonRole)
async def test_a_person_is_let_in_where_the_role_goes_and_refused_at_every_other_route(site, role) -> None:
    _, password = await site.people.create("anna", role, is_one_time=False)
    token, _ = await site.people.log_in("anna", password)
    client = site.client(f"Bearer {token}")
    held = {Scope(one) for one in (await client.get("/v1/sessions/current")).json()["scopes"]}
    for method, path, scope in ROUTES:
        answer = await client.request(method, path.replace("anna", "bert"))
        if scope in held or Scope.ADMIN in held:
            assert answer.status_code not in (401, 403), path
        else:
            assert (answer.status_code, answer.json()["code"]) == (403, "scope-missing"), path
    if role is PersonRole.VIEWER:
        assert not [scope for _, _, scope in ROUTES if scope in held and not scope.endswith(":read")]


@pytest.mark.parametrize(("method", "path", "_scope"), ROUTES)
async def test_nobody_comes_in_without_a_key(site, check_problem, method, path, _scope) -> None:
    check_problem(await site.client().request(method, path), 401, "auth-missing")


@pytest.mark.parametrize(
    "header",
    ["Bearer x", "Bearer lwk_0_0", "Basic x", "Basic eA==", "Digest x", "Bearer", "Bearer " + "x" * 2_000, "é"],
)
async def test_a_wrong_header_is_refused(site, check_problem, header) -> None:
    client = site.client()
    answer = await client.get("/v1/devices", headers={"Authorization": header.encode()})
    check_problem(answer, 401, "auth-invalid")


async def test_the_master_secret_opens_everything(site, check_problem) -> None:
    def basic(secret: str) -> str:
        return "Basic " + base64.b64encode(f"{site.app.app_key}:{secret}".encode()).decode()

    client = site.client(basic(site.app.master_secret))
    for path in ("/v1/devices", "/v1/keys", "/v1/limits"):
        assert (await client.get(path)).status_code == 200
    check_problem(await site.client(basic(site.app.app_secret)).get("/v1/keys"), 401, "auth-invalid")


async def test_a_key_is_made_shown_once_used_and_ended(site, operator, check_problem) -> None:
    answer = await operator.post("/v1/keys", json={"name": "ci", "scopes": ["device:read", "push:write"]})
    assert answer.status_code == 201
    made = answer.json()
    text = made.pop("key")
    client = site.client(f"Bearer {text}")
    assert (await client.get("/v1/devices")).status_code == 200
    listed = (await operator.get("/v1/keys")).json()
    assert listed["items"][0] == made
    assert text.split("_", 2)[2] not in (await operator.get("/v1/keys")).text
    assert (await operator.delete(f"/v1/keys/{made['key_id']}")).status_code == 204
    check_problem(await client.get("/v1/devices"), 401, "auth-invalid")
    check_problem(await operator.delete(f"/v1/keys/{made['key_id']}"), 404, "not-found")
    assert (await operator.get("/v1/keys")).json()["items"][0]["revoked_at"] == "2025-11-24T16:00:00.000Z"


async def test_keys_come_in_pages(operator) -> None:
    for n in range(4):
        await operator.post("/v1/keys", json={"name": str(n), "scopes": ["admin"]})
    first = (await operator.get("/v1/keys", params={"limit": 3})).json()
    second = (await operator.get("/v1/keys", params={"limit": 3, "cursor": first["next_cursor"]})).json()
    assert [item["name"] for item in first["items"] + second["items"]] == ["3", "2", "1", "0", "test"]
    assert second["next_cursor"] is None


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"name": "x", "scopes": []}, "#/scopes"),
        ({"name": "x", "scopes": ["everything"]}, "#/scopes/0"),
        ({"name": "x", "scopes": "admin"}, "#/scopes"),
        ({"name": "", "scopes": ["admin"]}, "#/name"),
        ({"name": "a\0", "scopes": ["admin"]}, "#/name"),
        ({"scopes": ["admin"]}, "#/name"),
    ],
)
async def test_a_key_that_cannot_be_is_refused(operator, check_problem, body, pointer) -> None:
    answer = await operator.post("/v1/keys", json=body)
    assert check_problem(answer, 400, "invalid-parameter")["errors"][0]["pointer"] == pointer


async def test_each_key_has_its_own_ration(site, check_problem) -> None:
    site.settings = dataclasses.replace(site.settings, calls_per_s=2, call_burst=3)
    app = site.build()
    first, second = await site.operator(app=app), await site.operator(app=app)
    assert [(await first.get("/v1/limits")).status_code for _ in range(4)] == [200, 200, 200, 429]
    check_problem(await first.get("/v1/limits"), 429, "rate-limited")
    assert (await second.get("/v1/limits")).status_code == 200
    site.clock.advance(0.5)
    assert [(await first.get("/v1/limits")).status_code for _ in range(2)] == [200, 429]


async def test_the_limits_are_shown(operator) -> None:
    limits = (await operator.get("/v1/limits")).json()
    assert limits["api"] == {
        "calls_per_s": 200,
        "call_burst": 400,
        "max_body_bytes": 1_048_576,
        "max_batch": 1_000,
        "max_tags_per_device": 200,
        "max_message_batch": 500,
        "max_upload_bytes": 83_886_080,
        "max_streams": 64,
    }
    assert limits["device"]["max_push_payload_bytes"] == 4_096
    assert limits["device"]["max_audience_ids"] == 1_000
    assert limits["device"]["max_payload_bytes"] == 61_440
    assert limits["device"]["window"] == 64
