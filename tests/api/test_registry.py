"""Tags, groups, presence, imports, uploads and bans as operators see them."""

import asyncio
import contextlib

import pytest

from longwire.accounts.api_keys import Scope
from longwire.accounts.tokens import close_code, hash_of
from longwire.operations_model import LastSession, SessionView
from longwire.push_model import SetKind
from longwire.reasons import CloseCode


@pytest.fixture
async def devices(operator) -> list[str]:
    """Six devices: d-0 to d-3 are ann's, e-0 and e-1 nobody's."""
    items = [{"device_id": f"d-{n}", "user": "ann", "tags": ["x"]} for n in range(4)]
    items += [{"device_id": f"e-{n}", "tags": ["x", "y"]} for n in range(2)]
    answer = await operator.post("/v1/devices/batch", json={"items": items})
    return [item["device_id"] for item in answer.json()["items"]]


async def number(site, device_id: str) -> int:
    return (await site.store.find_devices([device_id]))[0].device_no


async def listed(operator, **query) -> list[str]:
    answer = await operator.get("/v1/devices", params=query)
    assert answer.status_code == 200, answer.text
    return [item["device_id"] for item in answer.json()["items"]]


# -- lists --------------------------------------------------------------------------------------------------------


async def test_devices_are_listed_by_user_tag_group_beginning_and_all_of_them(operator, devices) -> None:
    assert await listed(operator, user="ann") == ["d-3", "d-2", "d-1", "d-0"]
    assert await listed(operator, tag="y") == ["e-1", "e-0"]
    assert await listed(operator, tag="sys:registered=2025-11-24", q="e") == ["e-1", "e-0"]
    assert await listed(operator, tag="y", user="ann") == []
    assert await listed(operator, tag="x", q="d-", limit=2) == ["d-3", "d-2"]
    await operator.post("/v1/groups", json={"group_id": "g"})
    await operator.post("/v1/groups/g/members", json={"add": [{"user": "ann"}, {"device": "e-0"}]})
    assert await listed(operator, group="g") == ["e-0", "d-3", "d-2", "d-1", "d-0"]
    assert await listed(operator, group="none") == []


async def test_a_filtered_list_goes_on_where_it_stood(operator, devices) -> None:
    seen, cursor = [], None
    while cursor is not None or not seen:
        query = {"tag": "x", "limit": 4} | ({"cursor": cursor} if cursor else {})
        page = (await operator.get("/v1/devices", params=query)).json()
        seen += [item["device_id"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert seen == devices[::-1]


async def test_devices_are_listed_by_whether_they_are_online(site, operator, devices) -> None:
    await site.routes.attach("n1~0a", [await number(site, "d-1"), await number(site, "e-0")])
    assert await listed(operator, online="true") == ["e-0", "d-1"]
    assert await listed(operator, online="false", q="d") == ["d-3", "d-2", "d-0"]
    assert await listed(operator, online="true", user="ann") == ["d-1"]


async def test_nobody_is_online_where_nobody_is_registered(operator) -> None:
    assert await listed(operator, online="true") == await listed(operator, online="false") == []


# -- changes ------------------------------------------------------------------------------------------------------


async def test_a_patch_changes_what_it_names(operator, devices) -> None:
    answer = await operator.patch(
        "/v1/devices/d-0", json={"platform": "ios", "app_version": "2", "tags": {"add": ["z"], "remove": ["x"]}}
    )
    assert answer.json() | {"registered_at": ""} == {
        "device_id": "d-0",
        "user": "ann",
        "tags": ["z"],
        "platform": "ios",
        "app_version": "2",
        "registered_at": "",
        "is_disabled": False,
        "banned_until": None,
    }
    assert await listed(operator, tag="sys:platform=ios") == await listed(operator, tag="sys:version=2") == ["d-0"]
    assert (await operator.patch("/v1/devices/d-0", json={"user": None})).json()["user"] is None
    assert (await operator.patch("/v1/devices/d-0", json={})).json()["platform"] == "ios"


@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        ({"users": "x"}, "unknown-field", "#/users"),
        ({"user": "a b"}, "invalid-parameter", "#/user"),
        ({"platform": "a\n"}, "invalid-parameter", "#/platform"),
        ({"tags": {"add": ["sys:x"]}}, "invalid-parameter", "#/tags/add/0"),
        ({"tags": {"add": ["x"], "to": []}}, "unknown-field", "#/tags/to"),
        ({"tags": ["x"]}, "invalid-parameter", "#/tags"),
    ],
)
async def test_a_patch_that_is_not_understood_changes_nothing(
    operator, devices, check_problem, body, code, pointer
) -> None:
    answer = await operator.patch("/v1/devices/d-0", json=body)
    assert check_problem(answer, 400, code)["errors"][0]["pointer"] == pointer


async def test_tags_are_replaced_and_changed(operator, devices) -> None:
    assert (await operator.put("/v1/devices/e-0/tags", json={"tags": ["b", "a", "b"]})).json()["tags"] == ["a", "b"]
    body = {"add": ["c", "a"], "remove": ["b", "c"]}
    assert (await operator.patch("/v1/devices/e-0/tags", json=body)).json()["tags"] == ["a", "c"]
    assert (await operator.patch("/v1/devices/e-0/tags", json={})).json()["tags"] == ["a", "c"]


async def test_more_than_two_hundred_tags_are_refused_with_their_number(operator, devices, check_problem) -> None:
    many = [f"t{n}" for n in range(200)]
    assert (await operator.put("/v1/devices/d-0/tags", json={"tags": many})).status_code == 200
    for call in (operator.put("/v1/devices/d-0/tags", json={"tags": [*many, "more"]}),
                 operator.patch("/v1/devices/d-0/tags", json={"add": ["more"]})):  # fmt: skip
        problem = check_problem(await call, 400, "invalid-parameter")
        assert (problem["limit"], problem["actual"]) == (200, 201)
    items = [{"device_id": "d-1"}, {"device_id": "d-0", "tags": ["more"]}, {"device_id": "new"}]
    answer = (await operator.post("/v1/devices/batch", json={"items": items})).json()["items"]
    assert ["token" in item for item in answer] == [True, False, True]
    assert answer[1]["problem"]["pointer"] == "#/items/1/tags"


@pytest.mark.parametrize("method", ["put", "patch"])
async def test_tags_of_an_unknown_device_are_not_found(operator, check_problem, method) -> None:
    body = {"tags": ["x"]} if method == "put" else {"add": ["x"]}
    check_problem(await getattr(operator, method)("/v1/devices/none/tags", json=body), 404, "not-found")
    check_problem(await operator.patch("/v1/devices/none", json={"tags": {"add": ["x"]}}), 404, "not-found")


# -- tags ---------------------------------------------------------------------------------------------------------


async def test_tags_are_listed_by_name_with_their_counts(operator, devices) -> None:
    everything = (await operator.get("/v1/tags")).json()
    assert everything["items"] == [
        {"tag": "sys:registered=2025-11-24", "devices": 6, "reserved": True},
        {"tag": "x", "devices": 6, "reserved": False},
        {"tag": "y", "devices": 2, "reserved": False},
    ]
    first = (await operator.get("/v1/tags?limit=2")).json()
    assert first["next_cursor"] == "x"
    rest = (await operator.get("/v1/tags", params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert ([item["tag"] for item in rest["items"]], rest["next_cursor"]) == (["y"], None)
    assert [item["tag"] for item in (await operator.get("/v1/tags?prefix=sys:")).json()["items"]] == [
        "sys:registered=2025-11-24"
    ]


async def test_a_tag_is_given_to_many_and_taken_from_many(operator, devices) -> None:
    body = {"add": ["d-0", "d-0", "e-0", "none"], "remove": ["e-0", "e-1", "d-1", "nobody"]}
    answer = await operator.post("/v1/tags/y/devices", json=body)
    assert answer.json() == {
        "added": 1,
        "removed": 1,
        "unresolved": {"count": 2, "sample": ["none", "nobody"]},
        "refused": [],
    }
    assert await listed(operator, tag="y") == ["e-0", "d-0"]
    again = (await operator.post("/v1/tags/y/devices", json=body)).json()
    assert (again["added"], again["removed"]) == (0, 0)


async def test_a_tag_may_have_a_slash_and_a_full_device_is_named(operator, devices) -> None:
    await operator.put("/v1/devices/d-0/tags", json={"tags": [f"t{n}" for n in range(200)]})
    answer = await operator.post("/v1/tags/region=eu%2Fwest/devices", json={"add": ["d-0", "d-1"]})
    assert (answer.json()["added"], answer.json()["refused"]) == (1, ["d-0"])
    assert await listed(operator, tag="region=eu/west") == ["d-1"]


@pytest.mark.parametrize("path", ["sys:platform=x", "a%20b", "x" * 65])
async def test_a_tag_that_cannot_be_is_refused(operator, devices, check_problem, path) -> None:
    check_problem(await operator.post(f"/v1/tags/{path}/devices", json={"add": ["d-0"]}), 400, "invalid-parameter")


# -- groups -------------------------------------------------------------------------------------------------------


async def test_a_group_is_made_filled_listed_and_forgotten(operator, devices, check_problem) -> None:
    made = await operator.post("/v1/groups", json={"group_id": "friends", "name": "The friends"})
    assert made.status_code == 201
    check_problem(await operator.post("/v1/groups", json={"group_id": "friends"}), 409, "already-exists")
    body = {"add": [{"device": "e-1"}, {"device": "d-0"}, {"device": "none"}, {"user": "ann"}, {"user": "bob"}]}
    assert (await operator.post("/v1/groups/friends/members", json=body)).json() == {
        "added": 4,
        "removed": 0,
        "unresolved": {"count": 1, "sample": ["none"]},
    }
    assert (await operator.get("/v1/groups/friends")).json() == {
        "group_id": "friends",
        "name": "The friends",
        "devices": 2,
        "users": 2,
        "created_at": "2025-11-24T16:00:00.000Z",
    }
    seen, cursor = [], None
    while cursor is not None or not seen:
        query = {"limit": 1} | ({"cursor": cursor} if cursor else {})
        page = (await operator.get("/v1/groups/friends/members", params=query)).json()
        seen += [item["device"] or item["user"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert seen == ["d-0", "e-1", "ann", "bob"]
    whole = (await operator.get("/v1/groups/friends/members")).json()
    assert whole["items"][0] == {"device": "d-0", "user": None}
    removed = await operator.post("/v1/groups/friends/members", json={"remove": [{"user": "ann"}, {"device": "e-1"}]})
    assert removed.json()["removed"] == 2
    assert (await operator.delete("/v1/groups/friends")).status_code == 204
    check_problem(await operator.get("/v1/groups/friends"), 404, "not-found")


async def test_groups_without_an_id_get_one_and_are_listed_in_pages(operator) -> None:
    made = [(await operator.post("/v1/groups", json={})).json()["group_id"] for _ in range(3)]
    assert all(name.startswith("grp_") for name in made)
    first = (await operator.get("/v1/groups?limit=2")).json()
    rest = (await operator.get("/v1/groups", params={"cursor": first["next_cursor"]})).json()
    assert [group["group_id"] for group in first["items"] + rest["items"]] == sorted(made)


async def test_an_unknown_group_is_not_found(operator, check_problem) -> None:
    for call in (
        operator.get("/v1/groups/none"),
        operator.delete("/v1/groups/none"),
        operator.get("/v1/groups/none/members"),
        operator.post("/v1/groups/none/members", json={"add": [{"user": "ann"}]}),
    ):
        check_problem(await call, 404, "not-found")


@pytest.mark.parametrize("member", [{}, {"device": "d", "user": "u"}, {"device": "a b"}, {"group": "g"}])
async def test_a_member_is_either_a_device_or_a_user(operator, check_problem, member) -> None:
    await operator.post("/v1/groups", json={"group_id": "g"})
    answer = await operator.post("/v1/groups/g/members", json={"add": [member]})
    assert answer.status_code == 400


# -- presence -----------------------------------------------------------------------------------------------------


async def test_presence_is_the_live_session_and_how_the_last_one_ended(site, operator, devices) -> None:
    now_ms = site.clock.now_ms()
    one, two = await number(site, "d-0"), await number(site, "d-1")
    site.presence.ended(LastSession(one, 3, now_ms - 5_000, "n0~00", "native", 4005))
    site.presence.ended(LastSession(two, 5, now_ms - 1_000, "n0~00", "websocket", None))
    await site.store.use_nonce("a", "n", now_ms)  # a write returns behind what was queued before it
    site.link.sessions_of[one] = SessionView(one, "ses_1", "n1~0a", 8, now_ms - 2_000, now_ms, "json")
    assert (await operator.get("/v1/devices/d-0/presence")).json() == {
        "device_id": "d-0",
        "online": True,
        "since": "2025-11-24T15:59:58.000Z",
        "last_seen_at": "2025-11-24T16:00:00.000Z",
        "node_id": "n1~0a",
        "transport": "json",
        "session_id": "ses_1",
        "version": 8,
        "last_close": {"code": 4005, "at": "2025-11-24T15:59:55.000Z"},
    }
    answer = (await operator.post("/v1/presence/query", json={"devices": ["d-1", "none", "d-2", "d-1"]})).json()
    away, never = answer["items"]
    assert (away["online"], away["last_seen_at"], away["version"]) == (False, "2025-11-24T15:59:59.000Z", 5)
    assert away["last_close"] == {"code": None, "at": "2025-11-24T15:59:59.000Z"}
    assert (never["device_id"], never["online"], never["last_seen_at"], never["version"]) == ("d-2", False, None, 0)
    assert answer["unresolved"] == {"count": 1, "sample": ["none"]}


async def test_presence_of_an_unknown_device_is_not_found(operator, check_problem) -> None:
    check_problem(await operator.get("/v1/devices/none/presence"), 404, "not-found")


# -- bans ---------------------------------------------------------------------------------------------------------


async def test_a_ban_closes_the_session_and_holds_for_its_time(site, operator, devices) -> None:
    given = (await operator.post("/v1/devices/batch", json={"items": [{"device_id": "d-0"}]})).json()["items"][0]

    async def close() -> CloseCode | None:
        now_ms = site.clock.now_ms()
        return close_code((await site.store.check_tokens([hash_of(given["token"])], now_ms))[0], "d-0", now_ms)

    assert await close() is None
    answer = (await operator.post("/v1/devices/d-0/disconnect", json={"ban_s": 60})).json()
    assert answer["banned_until"] == "2025-11-24T16:01:00.000Z"
    assert site.link.closed == [(await number(site, "d-0"), CloseCode.BANNED)]
    assert await close() is CloseCode.BANNED
    site.clock.advance(60)
    assert await close() is None
    await operator.post("/v1/devices/d-0/disconnect", json={"ban_s": 60, "code": 4101})
    assert await close() is CloseCode.BANNED
    assert (await operator.post("/v1/devices/d-0/disconnect", json={"ban_s": 0})).json()["banned_until"] is None
    assert await close() is None


# -- imports and uploads ------------------------------------------------------------------------------------------


@pytest.fixture
async def importing(site):
    task = asyncio.create_task(site.imports.run())
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def done(operator, path: str) -> dict:
    async with asyncio.timeout(20):
        while (job := (await operator.get(path)).json())["status"] == "running":
            await asyncio.sleep(0.005)
    return job


@pytest.mark.usefixtures("importing")
async def test_an_import_is_taken_done_and_told(site, operator) -> None:
    lines = ["device_id,user,tags", "i-1,ann,vip", "a b", "i-2"]
    answer = await operator.post(
        "/v1/device-imports", content="\n".join(lines), headers={"Content-Type": "text/csv; charset=utf-8"}
    )
    assert answer.status_code == 202
    assert (answer.json()["status"], answer.json()["format"]) == ("running", "csv")
    job = await done(operator, answer.headers["location"])
    assert (job["status"], job["lines"], job["done"], job["failed"]) == ("completed", 4, 1, 2)
    assert [(error["line"], error["code"]) for error in job["errors"]] == [(3, "invalid-parameter")] * 1 + [
        (4, "invalid-parameter")
    ]
    assert await listed(operator, tag="vip") == ["i-1"]
    registered = await site.client().post("/device/v1/register", json=site.registration("i-1"))
    assert registered.status_code == 200
    told = (await operator.get(f"{answer.headers['location']}/events")).text
    assert told.startswith("event: end\ndata: {")
    listing = (await operator.get("/v1/device-imports")).json()
    assert [(item["import_id"], item["errors"]) for item in listing["items"]] == [(job["import_id"], [])]


@pytest.mark.usefixtures("importing")
async def test_an_import_larger_than_other_bodies_may_be_is_taken(operator) -> None:
    """An object a line, in pieces and with its length announced."""
    content = b"".join(b'{"device_id": "d-%06d", "tags": ["a", "b"]}\n' % n for n in range(30_000))
    assert len(content) > 1 << 20
    answer = await operator.post(
        "/v1/device-imports", content=content, headers={"Content-Type": "application/x-ndjson"}
    )
    assert answer.status_code == 202, answer.text
    job = await done(operator, answer.headers["location"])
    assert (job["done"], job["failed"]) == (30_000, 0)
    tags = (await operator.get("/v1/tags?prefix=a")).json()["items"]
    assert tags == [{"tag": "a", "devices": 30_000, "reserved": False}]


@pytest.mark.parametrize("path", ["/v1/device-imports", "/v1/audience-uploads"])
async def test_a_body_of_another_type_is_refused(operator, check_problem, path) -> None:
    answer = await operator.post(path, json={"device_id": "x"})
    check_problem(answer, 400, "invalid-parameter")


async def test_an_unknown_import_is_not_found(operator, check_problem) -> None:
    check_problem(await operator.get(f"/v1/device-imports/imp_{'0' * 32}"), 404, "not-found")
    check_problem(await operator.get("/v1/device-imports/x"), 400, "invalid-parameter")


async def test_an_upload_keeps_those_that_exist_and_counts_the_others(site, operator, devices) -> None:
    """A hundred thousand ids of which six exist."""
    lines = [f"none-{n}" for n in range(100_000)]
    for at, device_id in enumerate(devices):
        lines[at * 16_000 + 7] = f"  {device_id} \r"
    content = "\ufeff" + "\n".join([*lines, "", "x" * 5_000, "a b"])
    answer = await operator.post(
        "/v1/audience-uploads", content=content.encode(), headers={"Content-Type": "text/plain"}
    )
    assert answer.status_code == 201, answer.text
    given = answer.json()
    assert (given["devices"], given["unresolved"]["count"]) == (6, 100_002 - 6)
    assert given["unresolved"]["sample"][:2] == ["none-0", "none-1"]
    assert len(given["unresolved"]["sample"]) == 10
    assert given["expires_at"] == "2025-11-25T16:00:00.000Z"
    assert (await site.sets.members(SetKind.UPLOAD, [given["id"]]))[0] == await site.sets.everyone()


@pytest.mark.parametrize("content", [b"", b"none\nnobody\n"])
async def test_an_upload_of_nobody_is_refused(operator, check_problem, content) -> None:
    headers = {"Content-Type": "text/plain"}
    check_problem(await operator.post("/v1/audience-uploads", content=content, headers=headers), 422, "no-target")


async def test_each_call_needs_its_scope(site, check_problem) -> None:
    reader, pusher = await site.operator(Scope.DEVICE_READ), await site.operator(Scope.PUSH_WRITE)
    check_problem(await reader.put("/v1/devices/d/tags", json={"tags": []}), 403, "scope-missing")
    check_problem(await reader.post("/v1/groups", json={}), 403, "scope-missing")
    check_problem(await pusher.get("/v1/tags"), 403, "scope-missing")
    check_problem(await reader.post("/v1/audience-uploads", content=b"x"), 403, "scope-missing")
