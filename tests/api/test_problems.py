"""Every error has one shape, and nothing that a client sends makes it another."""

import asyncio
import dataclasses
import json
import logging

import pytest

from longwire.errors import StoreUnavailable

BATCH = "/v1/devices/batch"
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"nul",
        b"\xff\xfe",
        b'{"items": "\xed\xa0\x80"}',
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"items": NaN}',
        b'{"items": Infinity}',
        b'{"items": -Infinity}',
        b'{"items": ' + b"9" * 5_000 + b"}",
        b'{"items": [], "items": []}',
        b'{"items": [{"device_id": "d", "device_id": "e"}]}',
        b"{}{}",
        b"{'items': []}",
        b'{"items": [],}',
        b'{"items": "\x00"}',
        b'{"items": "\\ud800"}',
        b'{"items": [{"device_id": "\\uDfFf"}]}',
        b'{"\\ud800": 1}',
    ],
)
async def test_what_is_not_strict_json_is_malformed(operator, check_problem, body) -> None:
    check_problem(await operator.post(BATCH, content=body, headers=JSON), 400, "malformed-json")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"0",
        b'"x"',
        b"[]",
        b'{"items": 1e400}',
        b'{"items": [null]}',
        b'{"items": [[[]]]}',
    ],
)
async def test_json_of_the_wrong_kind_is_an_invalid_parameter(operator, check_problem, body) -> None:
    check_problem(await operator.post(BATCH, content=body, headers=JSON), 400, "invalid-parameter")


@pytest.mark.parametrize("name", ["\\ud83d\\ude00", "\\u0000", "x" * 10_000, "\\u202e", "<script>"])
async def test_the_name_of_an_unknown_field_comes_back_harmless(operator, check_problem, name) -> None:
    answer = await operator.post(BATCH, content=f'{{"{name}": 1}}'.encode(), headers=JSON)
    body = check_problem(answer, 400, "unknown-field")
    assert len(body["errors"][0]["pointer"]) <= 200
    assert len(answer.content) < 2_000
    assert answer.content.isascii()


async def test_a_thousand_faults_are_told_by_the_first_twenty(operator, check_problem) -> None:
    body = check_problem(await operator.post(BATCH, json={f"f{n}": n for n in range(1_000)}), 400, "unknown-field")
    assert len(body["errors"]) == 20


@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""]
)
async def test_a_body_that_is_not_declared_as_json_is_refused(operator, check_problem, content_type) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    answer = await operator.post(BATCH, content=b'{"items": [{"device_id": "d"}]}', headers=headers)
    assert "Content-Type" in check_problem(answer, 400, "malformed-json")["detail"]


async def test_json_may_be_declared_with_a_charset(operator) -> None:
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    answer = await operator.post(BATCH, content=b'{"items": [{"device_id": "d"}]}', headers=headers)
    assert answer.status_code == 200


async def pieces(size: int, count: int):
    for _ in range(count):
        yield b" " * size


async def test_a_body_above_the_limit_is_refused_announced_or_not(site, check_problem) -> None:
    site.settings = dataclasses.replace(site.settings, max_body_bytes=10_000)
    operator = await site.operator()
    for content in (b" " * 10_001, pieces(1_000, 11)):
        answer = await operator.post(BATCH, content=content, headers=JSON)
        body = check_problem(answer, 413, "payload-too-large")
        assert (body["limit"], body["actual"] > 10_000) == (10_000, True)
        assert answer.headers["connection"] == "close"
    answer = await operator.post(BATCH, content=b" " * 10_000, headers=JSON)
    check_problem(answer, 400, "malformed-json")


async def test_an_endless_body_is_not_read_to_its_end(site, check_problem) -> None:
    read = 0

    async def endless():
        nonlocal read
        while read < 1_000:
            read += 1
            yield b"x" * 65_536

    answer = await site.client().post("/device/v1/register", content=endless(), headers=JSON)
    check_problem(answer, 413, "payload-too-large")
    # ASGITransport takes one piece ahead.
    assert read <= 3


async def test_a_devices_body_has_a_bound_of_its_own(site, check_problem) -> None:
    answer = await site.client().post("/device/v1/token", content=b" " * 131_073, headers=JSON)
    assert check_problem(answer, 413, "payload-too-large")["limit"] == 131_072


async def test_who_may_not_come_in_is_told_before_the_body_is_read(site, check_problem) -> None:
    async def unread():
        raise AssertionError("the body was read")
        yield b""

    check_problem(await site.client().post(BATCH, content=unread(), headers=JSON), 401, "auth-missing")


async def test_a_body_that_does_not_arrive_is_given_up(site, check_problem) -> None:
    site.settings = dataclasses.replace(site.settings, body_timeout_s=0.01)

    async def stalled():
        yield b"{"
        await asyncio.Event().wait()

    answer = await site.client().post("/device/v1/token", content=stalled(), headers=JSON)
    assert "did not arrive" in check_problem(answer, 400, "malformed-json")["detail"]


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/", "/v1/nothing", "/v1/devices/", "/v1/devices/d/", "/docs/", "/%00", "/é", "/v2/devices"]
)
async def test_a_path_with_nothing_at_it_is_not_found(operator, check_problem, path) -> None:
    check_problem(await operator.get(path), 404, "not-found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/devices/d", "DELETE, GET, PATCH"),
        ("PUT", "/v1/keys", "GET, POST"),
        ("GET", "/device/v1/register", "POST"),
        ("POST", "/livez", "GET"),
        ("TRACE", "/v1/devices", "GET"),
        ("BREW", "/v1/limits", "GET"),
        ("DELETE", "/docs", "GET, HEAD"),
    ],
)
async def test_a_method_that_is_not_here_names_those_that_are(operator, check_problem, method, path, allowed) -> None:
    answer = await operator.request(method, path)
    check_problem(answer, 405, "method")
    assert answer.headers["allow"] == allowed


async def test_every_answer_has_an_id_of_its_own_or_the_clients(site) -> None:
    client = site.client()
    first, second = [(await client.get("/livez")).headers["x-request-id"] for _ in range(2)]
    assert first.startswith("req_")
    assert len(first) == 36
    assert first < second
    answer = await client.get("/livez", headers={"X-Request-Id": "gw-7.a_B"})
    assert answer.headers["x-request-id"] == "gw-7.a_B"


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, "a\tb", "<x>", "é", 'a"b'])
async def test_an_id_that_could_mean_something_elsewhere_is_not_taken_over(site, given) -> None:
    answer = await site.client().get("/livez", headers={"X-Request-Id": given.encode()})
    assert answer.headers["x-request-id"].startswith("req_")


async def test_a_store_that_is_away_is_503_and_says_when_to_come_back(site, operator, check_problem) -> None:
    body = site.registration()
    await site.apps.find(site.app.app_key)
    await site.keys.authenticate_app(site.app.app_key, site.app.master_secret)
    await operator.get("/v1/limits")

    async def away(*_):
        raise StoreUnavailable("disk on fire, path /secret")

    for name in ("find_devices", "use_nonce", "check_tokens", "list_keys", "find_key"):
        setattr(site.store, name, away)
    for answer in (
        await operator.get("/v1/devices/d"),
        await operator.get("/v1/keys"),
        await site.client().post("/device/v1/register", json=body),
        await site.client("Bearer t").get("/device/v1/node"),
        await site.client("Bearer lwk_0_0").get("/v1/keys"),
    ):
        problem = check_problem(answer, 503, "store-unavailable")
        assert "secret" not in json.dumps(problem)


async def test_an_unexpected_error_is_500_and_logged_once_with_the_request(
    site, operator, check_problem, caplog
) -> None:
    async def broken(*_):
        raise ZeroDivisionError("inside 10.0.0.7")

    site.store.find_devices = broken
    with caplog.at_level(logging.WARNING):
        answer = await operator.get("/v1/devices/d", headers={"X-Request-Id": "r-1"})
    body = check_problem(answer, 500, "internal-error")
    assert "10.0.0.7" not in json.dumps(body)
    (record,) = caplog.records
    assert "r-1" in record.getMessage()
    assert record.exc_info
    assert (await operator.get("/livez")).status_code == 200
