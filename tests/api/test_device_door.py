"""The devices' door: register, refresh, ask for a node."""

import dataclasses
import hmac

import pytest

from longwire.accounts.refusals import RefusalCode, Refused
from longwire.accounts.registration import Admission
from longwire.model import NodeInfo

NODE = {"node_id": "n1~0a", "host": "127.0.0.1", "port": 7300, "tls_port": 7301, "ws_url": "ws://127.0.0.1:7300/ws"}


async def register(client, body):
    answer = await client.post("/device/v1/register", json=body)
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


async def test_a_device_gets_what_it_needs_to_connect(site) -> None:
    answer = await site.client().post("/device/v1/register", json=site.registration(platform="ios", app_version="1"))
    assert answer.status_code == 201
    given = answer.json()
    assert len(given.pop("token")) == 43
    assert len(given.pop("refresh_token")) == 43
    assert given == {
        "device_id": "d-1",
        "expires_in_s": 86_400,
        "node": NODE,
        "backoff": {"base_ms": 1_000, "max_ms": 120_000},
        "heartbeat": {"default_s": 60, "min_s": 10, "max_s": 900},
        "server_time_ms": site.clock.now_ms(),
    }
    assert answer.headers["cache-control"] == "no-store"


async def test_a_known_device_that_proves_itself_is_answered_200(site) -> None:
    client = site.client()
    first = await register(client, site.registration())
    body = site.registration(refresh_token=first["refresh_token"])
    answer = await client.post("/device/v1/register", json=body)
    assert answer.status_code == 200
    assert answer.json()["token"] != first["token"]


async def test_a_replay_is_refused(site, check_problem) -> None:
    client, body = site.client(), site.registration()
    await register(client, body)
    answer = await client.post("/device/v1/register", json=body)
    assert "nonce" in check_problem(answer, 401, "auth-invalid")["detail"]


@pytest.mark.parametrize(
    "changed", [{"proof": "00"}, {"app_key": "other"}, {"ts_ms": 0}, {"nonce": "x"}, {"proof": "é"}]
)
async def test_a_wrong_proof_is_refused(site, check_problem, changed) -> None:
    answer = await site.client().post("/device/v1/register", json=site.registration(**changed))
    check_problem(answer, 401, "auth-invalid")


async def test_a_known_device_without_proof_of_itself_is_refused(site, check_problem) -> None:
    client = site.client()
    await register(client, site.registration())
    check_problem(await client.post("/device/v1/register", json=site.registration()), 401, "auth-invalid")


async def test_nonces_of_any_characters_are_taken(site) -> None:
    nonce = "ü 漢\n😀" + "x" * 59
    body = site.registration(nonce=nonce)
    text = f"d-1\n{body['ts_ms']}\n{nonce}"
    body["proof"] = hmac.digest(site.app.app_secret.encode(), text.encode(), "sha256").hex()
    await register(site.client(), body)


@pytest.mark.parametrize(
    ("changed", "pointer"),
    [
        ({"device_id": "a b"}, "#/device_id"),
        ({"device_id": ""}, "#/device_id"),
        ({"device_id": "a\n"}, "#/device_id"),
        ({"device_id": "x" * 65}, "#/device_id"),
        ({"device_id": 5}, "#/device_id"),
        ({"ts_ms": "1"}, "#/ts_ms"),
        ({"ts_ms": 1.5}, "#/ts_ms"),
        ({"ts_ms": 1e300}, "#/ts_ms"),
        ({"ts_ms": True}, "#/ts_ms"),
        ({"ts_ms": 10**400}, "#/ts_ms"),
        ({"ts_ms": -1}, "#/ts_ms"),
        ({"nonce": ""}, "#/nonce"),
        ({"nonce": "x" * 65}, "#/nonce"),
        ({"nonce": "\0"}, "#/nonce"),
        ({"platform": "a\0b"}, "#/platform"),
        ({"platform": "x" * 65}, "#/platform"),
        ({"app_key": None}, "#/app_key"),
    ],
)
async def test_a_field_that_cannot_be_is_named(site, check_problem, changed, pointer) -> None:
    answer = await site.client().post("/device/v1/register", json=site.registration(**changed))
    assert [error["pointer"] for error in check_problem(answer, 400, "invalid-parameter")["errors"]] == [pointer]


@pytest.mark.parametrize("name", ["user", "tags", "token"])
async def test_a_client_does_not_choose_its_user_or_tags(site, check_problem, name) -> None:
    answer = await site.client().post("/device/v1/register", json=site.registration(**{name: "x"}))
    body = check_problem(answer, 400, "unknown-field")
    assert body["errors"][0]["pointer"] == f"#/{name}"


async def test_the_applications_own_judgement_names_the_user(site, operator, check_problem) -> None:
    async def authenticate(applicant):
        if applicant.credentials == "busy":
            raise Refused(RefusalCode.OVERLOADED, "the log-in does not answer", 2)
        return Admission("ann", ("vip",)) if applicant.credentials == "good" else None

    site.authenticate = authenticate
    client = site.client()
    await register(client, site.registration(credentials="good", proof=""))
    device = (await operator.get("/v1/devices/d-1")).json()
    assert (device["user"], device["tags"]) == ("ann", ["vip"])
    answer = await client.post("/device/v1/register", json=site.registration("d-2", credentials="bad"))
    check_problem(answer, 401, "auth-invalid")
    answer = await client.post("/device/v1/register", json=site.registration("d-2", credentials="busy"))
    check_problem(answer, 503, "overloaded")


async def test_a_refresh_token_gets_a_token_and_a_node(site, check_problem) -> None:
    client = site.client()
    first = await register(client, site.registration())
    answer = await client.post("/device/v1/token", json={"refresh_token": first["refresh_token"]})
    assert answer.status_code == 200
    given = answer.json()
    assert given["token"] != first["token"]
    assert given["node"] == NODE
    assert "refresh_token" not in given
    answer = await client.post("/device/v1/token", json={"refresh_token": first["token"]})
    check_problem(answer, 401, "auth-invalid")


async def test_a_device_asks_for_a_node_with_its_token(site, check_problem) -> None:
    await site.registry.register(NodeInfo("n2~0b", "127.0.0.1", 7400, None, "ws://127.0.0.1:7400/ws"))
    given = await register(site.client(), site.registration())
    client = site.client(f"Bearer {given['token']}")
    for _ in range(3):
        answer = await client.get("/device/v1/node", params={"avoid": "n1~0a"})
        assert answer.json()["node"]["node_id"] == "n2~0b"
    for node_id in ("n1~0a", "n2~0b"):
        await site.registry.leave(node_id)
    check_problem(await client.get("/device/v1/node"), 503, "no-node")
    check_problem(await client.post("/device/v1/register", json=site.registration("d-2")), 503, "no-node")
    refresh = {"refresh_token": given["refresh_token"]}
    check_problem(await client.post("/device/v1/token", json=refresh), 503, "no-node")


async def test_the_door_takes_only_a_token_that_holds(site, operator, check_problem) -> None:
    given = await register(site.client(), site.registration())
    ask = "/device/v1/node"
    check_problem(await site.client().get(ask), 401, "auth-missing")
    check_problem(await site.client("Bearer unknown").get(ask), 401, "auth-invalid")
    check_problem(await site.client("Basic eDp5").get(ask), 401, "auth-invalid")
    check_problem(await operator.get(ask), 401, "auth-invalid")  # an API key is no device's
    client = site.client(f"bearer {given['token']}")
    assert (await client.get(ask)).status_code == 200
    await operator.post("/v1/devices/d-1/disable")
    check_problem(await client.get(ask), 403, "device-disabled")
    check_problem(await client.post("/device/v1/register", json=site.registration()), 403, "device-disabled")
    refresh = {"refresh_token": given["refresh_token"]}
    check_problem(await client.post("/device/v1/token", json=refresh), 403, "device-disabled")
    await operator.post("/v1/devices/d-1/enable")
    assert (await client.get(ask)).status_code == 200
    site.clock.advance(86_400)
    check_problem(await client.get(ask), 401, "token-expired")


async def test_a_devices_token_opens_no_operators_door(site, check_problem) -> None:
    given = await register(site.client(), site.registration())
    check_problem(await site.client(f"Bearer {given['token']}").get("/v1/devices"), 401, "auth-invalid")


async def test_an_address_is_rationed_and_loopback_is_not(site, check_problem) -> None:
    site.settings = dataclasses.replace(
        site.settings, device_calls_per_s_per_address=1, device_call_burst_per_address=2
    )
    app = site.build()
    for address, expected in [
        ("192.0.2.1", [401, 401, 429]),
        ("192.0.2.2", [401, 401, 429]),
        ("2001:db8::1", [401, 401]),
        ("2001:db8::2", [429]),  # the same /64
        ("::ffff:192.0.2.1", [429]),
        ("127.0.0.1", [401] * 4),
        ("127.8.8.8", [401] * 4),
        ("::1", [401] * 4),
        ("::ffff:127.0.0.1", [401] * 4),
    ]:
        client = site.client(address=address, app=app)
        answers = [await client.get("/device/v1/node") for _ in expected]
        assert [answer.status_code for answer in answers] == expected, address
    check_problem(await site.client(address="192.0.2.1", app=app).get("/device/v1/node"), 429, "rate-limited")
    site.clock.advance(1)
    answer = await site.client(address="192.0.2.1", app=app).get("/device/v1/node")
    check_problem(answer, 401, "auth-missing")


async def test_a_stamp_written_as_a_whole_decimal_is_that_integer(site) -> None:
    body = site.registration()
    await register(site.client(), body | {"ts_ms": float(body["ts_ms"])})


async def test_a_banned_device_gets_neither_a_token_nor_a_node(site, operator, check_problem) -> None:
    given = await register(site.client(), site.registration())
    client = site.client(f"Bearer {given['token']}")
    await operator.post("/v1/devices/d-1/disconnect", json={"ban_s": 60})
    again = site.registration() | {"refresh_token": given["refresh_token"]}
    calls = (
        client.get("/device/v1/node"),
        client.post("/device/v1/token", json={"refresh_token": given["refresh_token"]}),
        client.post("/device/v1/register", json=again),
    )
    for call in calls:
        answer = await call
        check_problem(answer, 403, "device-disabled")
        assert answer.headers["retry-after"] == "60"
        assert "banned for another 60 s" in answer.json()["detail"]
    site.clock.advance(60)
    assert (await client.get("/device/v1/node")).status_code == 200
