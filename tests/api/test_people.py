"""People sign in by a name and a password, and may do what their role says."""

import asyncio

from longwire.accounts.api_keys import Scope
from longwire.accounts.people import PersonRole

GOOD = "correct horse battery"


async def person(site, role: PersonRole = PersonRole.VIEWER, name: str = "anna"):
    """A client with the session of a new person, and their password."""
    _, password = await site.people.create(name, role, is_one_time=False)
    answer = await site.client().post("/v1/sessions", json={"name": name, "password": password})
    assert answer.status_code == 201
    return site.client(f"Bearer {answer.json()['token']}"), password


async def audit(operator, **which) -> list[tuple[str, str, str, int]]:
    items = (await operator.get("/v1/audit", params=which)).json()["items"]
    return [(one["caller"], one["action"], one["target"], one["status"]) for one in items]


async def test_who_signs_in_is_told_a_token_and_what_it_is_good_for(site) -> None:
    _, password = await site.people.create("anna", PersonRole.OPERATOR, is_one_time=False)
    answer = await site.client().post("/v1/sessions", json={"name": "Anna", "password": password})
    body = answer.json()
    assert body.pop("token").startswith("lws_")
    assert body.pop("expires_at").endswith("Z")
    assert body == {
        "name": "anna",
        "role": "operator",
        "scopes": sorted(scope for scope in Scope if scope != Scope.ADMIN),
        "must_change_password": False,
    }
    assert password not in answer.text


async def test_an_operators_way_to_their_own_password(site, operator, check_problem) -> None:
    made = (await operator.post("/v1/people", json={"name": "anna", "role": "viewer"})).json()
    answer = await site.client().post("/v1/sessions", json={"name": "anna", "password": made["one_time_password"]})
    assert answer.json()["must_change_password"]
    anna = site.client(f"Bearer {answer.json()['token']}")
    problem = check_problem(await anna.get("/v1/devices"), 403, "scope-missing")
    assert "/v1/sessions/current/password" in problem["detail"]
    body = {"password": made["one_time_password"], "new_password": "short"}
    check_problem(await anna.post("/v1/sessions/current/password", json=body), 400, "invalid-parameter")
    body["new_password"] = GOOD
    assert (await anna.post("/v1/sessions/current/password", json=body)).status_code == 204
    assert (await anna.get("/v1/devices")).status_code == 200
    assert (await anna.get("/v1/sessions/current")).json()["scopes"] == [
        "device:read",
        "node:read",
        "push:read",
        "stats:read",
    ]


async def test_sign_ins_and_what_people_do_are_in_the_audit(site, operator, check_problem) -> None:
    client, _ = await person(site, PersonRole.OPERATOR)
    wrong = await site.client().post("/v1/sessions", json={"name": "anna", "password": "wrong"})
    check_problem(wrong, 401, "auth-invalid")
    # What is nobody's name may be a password in the wrong field: it is not kept.
    await site.client().post("/v1/sessions", json={"name": "hunter2", "password": "anna"})
    await client.post("/v1/groups", json={"group_id": "g", "name": "G"})
    await client.post("/v1/people", json={"name": "bert", "role": "admin"})
    await client.delete("/v1/sessions/current")
    async with asyncio.timeout(10):  # nobody waits for the audit
        while len(await audit(operator, caller="person:anna")) < 4:
            await asyncio.sleep(0.001)
    assert await audit(operator, caller="person:anna") == [
        ("person:anna", "DELETE /v1/sessions/current", "", 204),
        ("person:anna", "POST /v1/groups", "", 201),
        ("person:anna", "POST /v1/sessions", "anna", 401),
        ("person:anna", "POST /v1/sessions", "anna", 201),
    ]
    assert "hunter2" not in (await operator.get("/v1/audit")).text
    assert await audit(operator, caller="person:anna", action="POST /v1/groups") == [
        ("person:anna", "POST /v1/groups", "", 201)
    ]
    later = (await operator.get("/v1/audit", params={"since": "2100-01-01T00:00:00Z"})).json()
    assert later["items"] == []
    check_problem(await operator.get("/v1/audit", params={"since": "yesterday"}), 400, "invalid-parameter")


async def test_a_session_that_was_signed_out_is_over(site, check_problem) -> None:
    client, _ = await person(site)
    assert (await client.delete("/v1/sessions/current")).status_code == 204
    check_problem(await client.get("/v1/sessions/current"), 401, "auth-invalid")
    check_problem(await client.get("/v1/devices"), 401, "auth-invalid")


async def test_a_key_has_no_session_and_a_token_of_nobody_is_refused(site, operator, check_problem) -> None:
    check_problem(await operator.get("/v1/sessions/current"), 401, "auth-invalid")
    check_problem(await site.client().get("/v1/sessions/current"), 401, "auth-missing")
    check_problem(await site.client("Bearer lws_x").get("/v1/devices"), 401, "auth-invalid")


async def test_wrong_passwords_are_rationed(site, check_problem) -> None:
    await person(site)
    client = site.client()
    for _ in range(5):
        answer = await client.post("/v1/sessions", json={"name": "anna", "password": "wrong"})
        check_problem(answer, 401, "auth-invalid")
    answer = await client.post("/v1/sessions", json={"name": "anna", "password": "wrong"})
    check_problem(answer, 429, "rate-limited")


async def test_people_are_listed_changed_and_removed(site, operator, check_problem) -> None:
    client, _ = await person(site)
    await operator.post("/v1/people", json={"name": "bert", "role": "admin"})
    first = (await operator.get("/v1/people", params={"limit": 1})).json()
    assert [(one["name"], one["role"]) for one in first["items"]] == [("anna", "viewer")]
    assert first["items"][0]["last_login_at"] is not None
    second = (await operator.get("/v1/people", params={"cursor": first["next_cursor"]})).json()
    assert [(one["name"], one["must_change_password"]) for one in second["items"]] == [("bert", True)]
    assert (await operator.patch("/v1/people/anna", json={"role": "operator"})).json()["role"] == "operator"
    assert (await operator.patch("/v1/people/anna", json={"is_disabled": True})).json()["is_disabled"]
    check_problem(await client.get("/v1/devices"), 401, "auth-invalid")
    assert (await operator.delete("/v1/people/anna")).status_code == 204
    check_problem(await operator.delete("/v1/people/anna"), 404, "not-found")
    check_problem(await operator.patch("/v1/people/anna", json={"role": "king"}), 400, "invalid-parameter")
    check_problem(await operator.post("/v1/people", json={"name": "bert", "role": "viewer"}), 409, "already-exists")


async def test_an_admin_cannot_lock_themselves_out(site, check_problem) -> None:
    client, _ = await person(site, PersonRole.ADMIN)
    for answer in (
        await client.patch("/v1/people/anna", json={"is_disabled": True}),
        await client.delete("/v1/people/anna"),
        await client.post("/v1/people/anna/password"),
    ):
        check_problem(answer, 409, "state-conflict")


async def test_a_one_time_password_is_not_kept_under_an_idempotency_key(site, operator, check_problem) -> None:
    body = {"name": "anna", "role": "viewer"}
    key = {"Idempotency-Key": "k"}
    assert "one_time_password" in (await operator.post("/v1/people", json=body, headers=key)).json()
    again = await operator.post("/v1/people", json=body, headers=key)
    assert "one_time_password" not in again.json()
