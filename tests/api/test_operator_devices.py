"""The operators' door to devices: provision, look up, cut off."""

import pytest

from longwire.reasons import CloseCode


@pytest.fixture
async def device(site, operator):
    """A provisioned device that has a session."""
    answer = await operator.post(
        "/v1/devices/batch", json={"items": [{"device_id": "d-1", "user": "ann", "tags": ["a"]}]}
    )
    given = answer.json()["items"][0]
    number = (await site.store.find_devices(["d-1"]))[0].device_no
    site.link.online.add(number)
    return given | {"device_no": number}


async def test_a_batch_gives_tokens_that_work(site, operator) -> None:
    items = [{"device_id": f"d-{n}"} for n in range(1_000)]
    answer = await operator.post("/v1/devices/batch", json={"items": items})
    assert answer.status_code == 200
    given = answer.json()["items"]
    assert [one["device_id"] for one in given] == [one["device_id"] for one in items]
    assert all(one["created"] and one["expires_in_s"] == 86_400 for one in given)
    node = await site.client(f"Bearer {given[999]['token']}").get("/device/v1/node")
    assert node.status_code == 200
    refresh = await site.client().post("/device/v1/token", json={"refresh_token": given[0]["refresh_token"]})
    assert refresh.json()["device_id"] == "d-0"


async def test_an_item_that_cannot_be_says_why_and_the_others_are_done(operator) -> None:
    items = [
        {"device_id": "ok-1"},
        {"device_id": "a b"},
        {"device_id": "ok-1"},
        {"device_id": "d", "user": "x y"},
        {"device_id": "d", "tags": ["a", "no way"]},
        {"device_id": "d", "tags": ["sys:platform=ios"]},
        {"device_id": "d", "tags": [str(n) for n in range(201)]},
        {"device_id": "ok-2", "user": None, "tags": ["region=eu/west"]},
    ]
    answer = await operator.post("/v1/devices/batch", json={"items": items})
    assert answer.status_code == 200
    given = answer.json()["items"]
    assert [one["device_id"] for one in given if "token" in one] == ["ok-1", "ok-2"]
    problems = [(one["problem"]["pointer"], one["problem"]["code"]) for one in given if "problem" in one]
    assert problems == [
        (f"#/items/{where}", "invalid-parameter")
        for where in ("1/device_id", "2/device_id", "3/user", "4/tags/1", "5/tags/0", "6/tags")
    ]


async def test_a_batch_of_nothing_but_faults_is_answered_too(operator) -> None:
    answer = await operator.post("/v1/devices/batch", json={"items": [{"device_id": ""}]})
    assert answer.status_code == 200
    assert "problem" in answer.json()["items"][0]


async def test_a_known_device_in_a_batch_gets_a_further_token(operator, device) -> None:
    answer = await operator.post("/v1/devices/batch", json={"items": [{"device_id": "d-1"}]})
    again = answer.json()["items"][0]
    assert (again["created"], again["refresh_token"]) == (False, None)
    assert again["token"] != device["token"]


@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        ({"items": []}, "invalid-parameter", "#/items"),
        ({"items": [{"device_id": "d"}] * 1_001}, "invalid-parameter", "#/items"),
        ({"items": {"device_id": "d"}}, "invalid-parameter", "#/items"),
        ({"items": [{"device_id": "d", "tagz": []}]}, "unknown-field", "#/items/0/tagz"),
        ({"items": [{"device_id": "d", "a/b~c": []}]}, "unknown-field", "#/items/0/a~1b~0c"),
        ({"items": [{"device_id": "d"}, {"device_id": 1}]}, "invalid-parameter", "#/items/1/device_id"),
        ({"items": [{"device_id": "d", "tags": "vip"}]}, "invalid-parameter", "#/items/0/tags"),
        ({"items": [{"device_id": "d"}], "item": []}, "unknown-field", "#/item"),
        ([], "invalid-parameter", "#"),
    ],
)
async def test_a_batch_of_the_wrong_shape_is_refused_whole(operator, check_problem, body, code, pointer) -> None:
    answer = await operator.post("/v1/devices/batch", json=body)
    assert check_problem(answer, 400, code)["errors"][0]["pointer"] == pointer
    assert (await operator.get("/v1/devices")).json()["items"] == []


async def test_a_device_is_shown_with_its_user_and_tags(operator, device) -> None:
    assert (await operator.get("/v1/devices/d-1")).json() == {
        "device_id": "d-1",
        "user": "ann",
        "tags": ["a"],
        "platform": "",
        "app_version": "",
        "registered_at": "2025-11-24T16:00:00.000Z",
        "is_disabled": False,
        "banned_until": None,
    }


async def test_lists_come_in_pages_newest_first(operator) -> None:
    items = [{"device_id": f"d-{n}"} for n in range(7)]
    await operator.post("/v1/devices/batch", json={"items": items})
    seen, cursor = [], None
    for _ in range(3):
        query = {"limit": 3} | ({"cursor": cursor} if cursor else {})
        page = (await operator.get("/v1/devices", params=query)).json()
        seen += [item["device_id"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert cursor is None
    assert seen == [f"d-{n}" for n in reversed(range(7))]


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=501",
        "limit=x",
        "cursor=x",
        "cursor=0",
        "tags=vip",
        "tag=a%20b",
        "online=maybe",
        "q=a%20b",
        "limit=1&limit=2",
        "limit=",
        "%00=1",
    ],
)
async def test_a_query_that_is_not_understood_is_refused(operator, check_problem, query) -> None:
    answer = await operator.get(f"/v1/devices?{query}")
    assert check_problem(answer, 400, "invalid-parameter")["errors"][0]["pointer"].startswith("?")


async def test_a_device_is_given_to_a_user_and_to_nobody(operator, device, check_problem) -> None:
    for user in ("bob", None):
        answer = await operator.put("/v1/devices/d-1/user", json={"user": user})
        assert (answer.status_code, answer.json()["user"]) == (200, user)
    check_problem(await operator.put("/v1/devices/d-1/user", json={"user": "a b"}), 400, "invalid-parameter")
    check_problem(await operator.put("/v1/devices/d-1/user", json={}), 400, "invalid-parameter")
    check_problem(await operator.put("/v1/devices/none/user", json={"user": "x"}), 404, "not-found")


async def test_revoking_closes_the_session_and_ends_the_tokens(site, operator, device, check_problem) -> None:
    answer = await operator.post("/v1/devices/d-1/revoke")
    assert answer.json()["disconnected"] is True
    assert site.link.closed == [(device["device_no"], CloseCode.DISABLED)]
    check_problem(await site.client(f"Bearer {device['token']}").get("/device/v1/node"), 401, "auth-invalid")
    assert (await operator.post("/v1/devices/d-1/revoke")).json()["disconnected"] is False


async def test_disabling_closes_the_session_until_it_is_enabled(site, operator, device) -> None:
    answer = (await operator.post("/v1/devices/d-1/disable")).json()
    assert (answer["is_disabled"], answer["disconnected"]) == (True, True)
    assert site.link.closed == [(device["device_no"], CloseCode.DISABLED)]
    answer = (await operator.post("/v1/devices/d-1/enable")).json()
    assert (answer["is_disabled"], answer["disconnected"]) == (False, False)


@pytest.mark.parametrize(("body", "code"), [(None, 4101), ({}, 4101), ({"code": 4002}, 4002), ({"code": 4103}, 4103)])
async def test_disconnecting_closes_the_session_with_the_code_asked_for(site, operator, device, body, code) -> None:
    answer = await operator.post("/v1/devices/d-1/disconnect", **({} if body is None else {"json": body}))
    assert (answer.status_code, answer.json()["disconnected"]) == (200, True)
    assert site.link.closed == [(device["device_no"], code)]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"code": 1000}, "invalid-parameter"),
        ({"code": "4101"}, "invalid-parameter"),
        ({"ban_s": -1}, "invalid-parameter"),
        ({"ban": 5}, "unknown-field"),
    ],
)
async def test_a_disconnect_that_is_not_understood_does_nothing(
    site, operator, device, check_problem, body, code
) -> None:
    check_problem(await operator.post("/v1/devices/d-1/disconnect", json=body), 400, code)
    assert site.link.closed == []


async def test_a_call_without_a_body_refuses_one_that_says_something(site, operator, device, check_problem) -> None:
    answer = await operator.post("/v1/devices/d-1/revoke", json={"only_token": True})
    check_problem(answer, 400, "unknown-field")
    assert site.link.closed == []
    assert (await operator.post("/v1/devices/d-1/revoke", json={})).status_code == 200


async def test_deleting_closes_the_session_and_forgets_the_device(site, operator, device, check_problem) -> None:
    answer = await operator.delete("/v1/devices/d-1")
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["x-request-id"]
    assert site.link.closed == [(device["device_no"], CloseCode.DISABLED)]
    check_problem(await operator.delete("/v1/devices/d-1"), 404, "not-found")
    check_problem(await site.client(f"Bearer {device['token']}").get("/device/v1/node"), 401, "auth-invalid")


@pytest.mark.parametrize("path", ["revoke", "disable", "enable", "disconnect"])
async def test_an_unknown_device_is_not_found(operator, check_problem, path) -> None:
    check_problem(await operator.post(f"/v1/devices/none/{path}"), 404, "not-found")


@pytest.mark.parametrize("device_id", ["a b", "%00", "x" * 65, "%F0%9F%98%80", "a%0A"])
async def test_a_path_that_names_no_possible_device_is_refused(operator, check_problem, device_id) -> None:
    answer = await operator.get(f"/v1/devices/{device_id}")
    body = check_problem(answer, 400, "invalid-parameter")
    assert body["errors"][0]["pointer"] == "{device_id}"
