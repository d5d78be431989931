"""The same write once more: the first answer, never a second deed."""

import asyncio
import dataclasses

import pytest

from longwire.errors import StoreUnavailable

PUSH = {"audience": {"all": True}, "message": {"kind": "news"}}
KEY = {"Idempotency-Key": "k-1"}


@pytest.fixture
async def device(site):
    (number,) = await site.devices("d-1")
    return number


async def test_a_repeat_gives_the_first_answer_and_says_so(operator, device) -> None:
    first = await operator.post("/v1/pushes", json=PUSH, headers=KEY)
    second = await operator.post("/v1/pushes", json=PUSH, headers=KEY)
    assert (first.status_code, second.status_code) == (202, 202)
    assert (second.content, second.headers["location"]) == (first.content, first.headers["location"])
    assert second.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert second.headers["x-request-id"] != first.headers["x-request-id"]
    assert len((await operator.get("/v1/pushes")).json()["items"]) == 1


async def test_fifty_at_once_make_one_push(site, device, check_problem) -> None:
    site.settings = dataclasses.replace(site.settings, calls_per_s=0)
    operator = await site.operator()

    async def post() -> str:
        while True:
            answer = await operator.post("/v1/pushes", json=PUSH, headers=KEY)
            if answer.status_code == 202:
                return answer.json()["id"]
            check_problem(answer, 409, "idempotency-in-progress")
            assert answer.headers["retry-after"] == "1"
            await asyncio.sleep(0.001)

    assert len(set(await asyncio.gather(*(post() for _ in range(50))))) == 1
    assert len((await operator.get("/v1/pushes")).json()["items"]) == 1


async def test_fifty_at_once_over_two_processes_make_one_push(site, operator, device) -> None:
    _, text = await site.keys.create("shared", ["admin"])
    clients = [site.client(f"Bearer {text}") for _ in range(2)]
    answers = await asyncio.gather(*(client.post("/v1/pushes", json=PUSH, headers=KEY) for client in clients * 25))
    assert {answer.status_code for answer in answers} <= {202, 409}
    assert len({answer.json()["id"] for answer in answers if answer.status_code == 202}) == 1
    assert len((await operator.get("/v1/pushes")).json()["items"]) == 1


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/pushes", PUSH | {"options": {"ttl_s": 5}}),
        ("POST", "/v1/groups", {"group_id": "g"}),
        ("DELETE", "/v1/devices/d-1", None),
    ],
)
async def test_another_call_under_the_key_is_refused(operator, device, check_problem, method, path, body) -> None:
    await operator.post("/v1/pushes", json=PUSH, headers=KEY)
    answer = await operator.request(method, path, headers=KEY, **({} if body is None else {"json": body}))
    check_problem(answer, 422, "idempotency-key-reused")
    assert (await operator.get("/v1/devices/d-1")).status_code == 200


async def test_an_answer_is_kept_across_a_restart_and_for_a_day(site, operator, device) -> None:
    first = await operator.post("/v1/pushes", json=PUSH, headers=KEY)
    _, text = await site.keys.create("other", ["admin"])
    operator._transport = site.client(f"Bearer {text}")._transport  # another process, the same key
    site.clock.advance(86_399)
    assert (await operator.post("/v1/pushes", json=PUSH, headers=KEY)).json()["id"] == first.json()["id"]
    site.clock.advance(2)
    again = await operator.post("/v1/pushes", json=PUSH, headers=KEY)
    assert again.json()["id"] != first.json()["id"]
    assert "idempotency-replayed" not in again.headers


async def test_each_caller_has_keys_of_its_own(site, operator, device) -> None:
    other = await site.operator()
    ids = {(await client.post("/v1/pushes", json=PUSH, headers=KEY)).json()["id"] for client in (operator, other)}
    assert len(ids) == 2


async def test_what_was_refused_is_not_kept(site, operator, check_problem) -> None:
    body = {"audience": {"devices": ["d-1"]}, "message": {"kind": "a"}}
    check_problem(await operator.post("/v1/pushes", json=body, headers=KEY), 422, "no-target")
    await site.devices("d-1")
    assert (await operator.post("/v1/pushes", json=body, headers=KEY)).status_code == 202


@pytest.mark.parametrize("key", ["", "x" * 256, "a b", "é".encode()])
async def test_a_key_that_cannot_be_is_refused(operator, device, check_problem, key) -> None:
    answer = await operator.post("/v1/pushes", json=PUSH, headers={"Idempotency-Key": key})
    check_problem(answer, 400, "invalid-parameter")


async def test_two_keys_on_one_call_are_refused(operator, device, check_problem) -> None:
    answer = await operator.post("/v1/pushes", json=PUSH, headers=[("Idempotency-Key", "a"), ("Idempotency-Key", "b")])
    check_problem(answer, 400, "invalid-parameter")


async def test_every_write_takes_a_key(operator, device) -> None:
    for _ in range(2):
        answer = await operator.put("/v1/devices/d-1/user", json={"user": "ann"}, headers={"Idempotency-Key": "put"})
        assert answer.json()["user"] == "ann"
    assert answer.headers["idempotency-replayed"] == "true"
    for _ in range(2):
        answer = await operator.delete("/v1/devices/d-1", headers={"Idempotency-Key": "delete"})
        assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["idempotency-replayed"] == "true"


async def test_a_call_that_tells_secrets_is_not_repeated_and_not_replayed(site, operator, check_problem) -> None:
    body = {"name": "ci", "scopes": ["admin"]}
    made = await operator.post("/v1/keys", json=body, headers=KEY)
    assert made.status_code == 201
    again = await operator.post("/v1/keys", json=body, headers=KEY)
    check_problem(again, 409, "state-conflict")
    assert made.json()["key"] not in again.text
    rows = await site.database.read(lambda c: c.exec_driver_sql("SELECT status, body FROM idempotency").all())
    assert [tuple(row) for row in rows] == [(0, b"")]


async def test_a_body_that_is_read_in_pieces_is_known_again(operator, device, check_problem) -> None:
    headers = KEY | {"Content-Type": "text/plain"}
    first = await operator.post("/v1/audience-uploads", content="d-1\n", headers=headers)
    second = await operator.post("/v1/audience-uploads", content="d-1\n", headers=headers)
    assert (second.status_code, second.content) == (201, first.content)
    third = await operator.post("/v1/audience-uploads", content="d-1\n\n", headers=headers)
    check_problem(third, 422, "idempotency-key-reused")


async def test_a_deed_is_answered_though_its_answer_cannot_be_kept(site, operator, device, caplog) -> None:
    async def refuse(_answer):
        raise StoreUnavailable("full")

    site.idempotency.keep = refuse
    answer = await operator.post("/v1/groups", json={"group_id": "g"}, headers=KEY)
    assert answer.status_code == 201
    assert "is not kept: full" in caplog.text
