"""``/v1/marks``."""

import pytest

from longwire.accounts.api_keys import Scope

PUSH = "psh_" + "ab" * 16


async def test_a_mark_is_set_listed_and_taken_away(site, operator) -> None:
    await site.devices("d-1", user="ann")
    for body, target in (
        ({"device_id": "d-1"}, ("d-1", None, None)),
        ({"user": "ann", "for_s": 1_800}, (None, "ann", None)),
        ({"push_id": PUSH}, (None, None, PUSH)),
    ):
        made = await operator.post("/v1/marks", json=body)
        assert made.status_code == 201
        told = made.json()
        assert (told["device_id"], told["user"], told["push_id"]) == target
        assert told["id"].startswith("mrk_")
        assert told["by"].startswith("key_")
    items = (await operator.get("/v1/marks")).json()["items"]
    assert len(items) == 3
    first = (await operator.get("/v1/marks?limit=2")).json()
    assert first["items"] == items[:2]
    rest = await operator.get("/v1/marks", params={"cursor": first["next_cursor"]})
    assert rest.json() == {"items": items[2:], "next_cursor": None}
    assert (await operator.delete(f"/v1/marks/{items[0]['id']}")).status_code == 204
    assert (await operator.get("/v1/marks")).json()["items"] == items[1:]
    site.clock.advance(600)
    assert (await operator.get("/v1/marks")).json()["items"] == [items[1]], "ten minutes, where nothing else is said"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"device_id": "d-1", "user": "ann"},
        {"device_id": "a b"},
        {"push_id": "psh_1"},
        {"device_id": "d-1", "for_s": 1_801},
        {"device_id": "d-1", "for_s": 0},
    ],
)
async def test_what_is_no_mark_is_refused(operator, check_problem, body) -> None:
    check_problem(await operator.post("/v1/marks", json=body), 400, "invalid-parameter")


async def test_a_mark_on_nobody_and_an_unknown_mark_are_not_found(operator, check_problem) -> None:
    check_problem(await operator.post("/v1/marks", json={"device_id": "nobody"}), 404, "not-found")
    check_problem(await operator.delete("/v1/marks/mrk_" + "0" * 32), 404, "not-found")


async def test_who_may_read_nodes_may_see_marks_and_not_set_them(site, check_problem) -> None:
    reader = await site.operator(Scope.NODE_READ)
    assert (await reader.get("/v1/marks")).status_code == 200
    check_problem(await reader.post("/v1/marks", json={"push_id": PUSH}), 403, "scope-missing")
    check_problem(await reader.delete("/v1/marks/mrk_" + "0" * 32), 403, "scope-missing")
