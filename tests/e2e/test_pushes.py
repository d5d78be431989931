"""Pushes from POST to the application, through the public doors of a process of its own."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest
from push_fleet import Fleet, Operator, Push, ended, states

from longwire.client import Message

NAMES = [f"d-{n:03d}" for n in range(120)]


def completed(push: Push) -> bool:
    return push["status"] == "completed"


def dispatched(push: Push) -> bool:
    return push["status"] in ("dispatched", "completed")


async def test_a_push_to_all_reaches_each_application_once_and_completes(node) -> None:
    async with Fleet(node, NAMES) as fleet, Operator(node) as operator:
        await fleet.come()
        push = await operator.push({"all": True}, payload={"title": "Grüße", "n": [1, None]})
        assert push["status"] in ("accepted", "sending", "dispatched", "completed")
        push = await operator.until(push["id"], completed)
        fleet.assert_once("news", NAMES)
        stats = push["stats"]
        assert (stats["targeted"], stats["online_at_send"], stats["written"], stats["acked"]) == (120,) * 4
        assert 0 < stats["latency_ms"]["p50"] <= stats["latency_ms"]["p95"] <= stats["latency_ms"]["p99"]
        assert push["progress"]["dispatched"] == 120
        assert {json.loads(text)["title"] for texts in fleet.payloads.values() for text in texts} == {"Grüße"}
        assert (await operator.call("GET", "/v1/pushes"))["items"][0]["id"] == push["id"]


async def test_who_was_away_gets_what_lives_and_only_what_it_has_not_acknowledged(node) -> None:
    gone, here = NAMES[:40], NAMES[40:]
    async with Fleet(node, NAMES) as fleet, Operator(node) as operator:
        await fleet.come()
        first = await operator.push({"all": True}, kind="first")
        await operator.until(first["id"], completed)
        await fleet.leave(gone)
        second = await operator.push({"all": True}, kind="second")
        third = await operator.push({"all": True}, kind="third")
        for push in (second, third):
            push = await operator.until(push["id"], lambda now: now["stats"]["acked"] == len(here))
            assert states(push) == {"acked": 80, "pending": 40}
        pending = await operator.call("GET", f"/v1/pushes/{second['id']}/recipients?state=pending&limit=500")
        assert sorted(item["device_id"] for item in pending["items"]) == gone
        await fleet.come(gone)
        for push in (second, third):
            await operator.until(push["id"], completed)
        for kind in ("first", "second", "third"):
            fleet.assert_once(kind, NAMES)
        detail = await operator.call("GET", f"/v1/pushes/{second['id']}/recipients/{gone[0]}")
        assert (detail["in_audience"], detail["state"]) == (True, "acked")
        assert detail["verdict"]


async def test_hundreds_of_pushes_wait_for_a_device_and_come_in_order(node) -> None:
    async with Fleet(node, ["d"]) as fleet, Operator(node) as operator:
        for n in range(150):
            await operator.push({"all": True}, payload=n)
        await fleet.come()
        await fleet.got("news", 1)
        await operator.call("GET", "/v1/devices/d/inbox")
        push = (await operator.call("GET", "/v1/pushes?limit=1"))["items"][0]
        await operator.until(push["id"], completed)
        assert fleet.payloads["d"] == [str(n).encode() for n in range(150)]


async def test_an_expression_of_tags_reaches_whom_its_sets_say(node) -> None:
    tags = {"a": set(NAMES[:50]), "b": set(NAMES[40:80]), "vip": set(NAMES[::2]), "muted": set(NAMES[::6])}
    async with Fleet(node, NAMES) as fleet, Operator(node) as operator:
        await fleet.come()
        for tag, names in tags.items():
            answer = await operator.call("POST", f"/v1/tags/{tag}/devices", {"add": sorted(names)})
            assert answer["added"] == len(names)
        listed = (await operator.call("GET", "/v1/tags"))["items"]
        assert {item["tag"]: item["devices"] for item in listed if not item["reserved"]} == {
            tag: len(names) for tag, names in tags.items()
        }
        expression = {"any": ["a", "b"], "all": ["vip"], "none": ["muted"]}
        meant = (tags["a"] | tags["b"]) & tags["vip"] - tags["muted"]
        body = {"audience": {"tags": expression}, "message": {}}
        dry = await operator.call("POST", "/v1/pushes/validate", body)
        assert (dry["targeted"], dry["online"]) == (len(meant), len(meant))
        push = await operator.push({"tags": expression})
        await operator.until(push["id"], completed)
        fleet.assert_once("news", meant)
        today = f"sys:registered={datetime.now(UTC):%Y-%m-%d}"
        lately = await operator.call(
            "POST", "/v1/pushes/validate", {"audience": {"tags": {"all": [today]}}, "message": {}}
        )
        assert lately["targeted"] in (0, 120), "the test ran over midnight"


async def test_a_tag_that_nobody_has_is_a_push_to_nobody_that_is_over(node) -> None:
    async with Operator(node) as operator:
        push = await operator.push({"tags": {"any": ["nobody"]}})
        assert (push["status"], push["stats"]["targeted"]) == ("completed", 0)
        body = {"audience": {"devices": ["ghost-1", "ghost-2"]}, "message": {}}
        problem = await operator.call("POST", "/v1/pushes", body, 422)
        assert problem["code"] == "no-target"


async def test_a_device_matched_several_ways_gets_one_copy(node) -> None:
    async with Fleet(node, ["phone", "tablet", "desk"]) as fleet, Operator(node) as operator:
        await fleet.come()
        for name in ("phone", "tablet"):
            await operator.call("PUT", f"/v1/devices/{name}/user", {"user": "ann"})
        for group in ("one", "two"):
            await operator.call("POST", "/v1/groups", {"group_id": group}, 201)
        await operator.call("POST", "/v1/groups/one/members", {"add": [{"user": "ann"}, {"device": "phone"}]})
        await operator.call("POST", "/v1/groups/two/members", {"add": [{"device": "tablet"}, {"device": "desk"}]})
        for kind, audience, meant in (
            ("users", {"users": ["ann", "nobody"]}, ["phone", "tablet"]),
            ("groups", {"groups": ["one", "two"]}, ["phone", "tablet", "desk"]),
            ("devices", {"devices": ["desk", "desk", "ghost"]}, ["desk"]),
        ):
            push = await operator.push(audience, kind=kind)
            assert push["stats"]["targeted"] == len(meant)
            await operator.until(push["id"], completed)
            fleet.assert_once(kind, meant)
        assert push["unresolved"] == {"count": 1, "sample": ["ghost"]}


async def test_ttl_0_reaches_who_is_online_and_waits_for_nobody(node) -> None:
    async with Fleet(node, ["here", "away"]) as fleet, Operator(node) as operator:
        await fleet.come(["here"])
        push = await operator.push({"all": True}, ttl_s=0)
        await fleet.got("news", 1)
        await fleet.come(["away"])
        push = await operator.until(push["id"], ended)
        assert states(push) == {"acked": 1, "expired": 1}
        fleet.assert_once("news", ["here"])


async def test_a_collapse_key_lets_the_later_push_take_the_place_of_the_earlier(node) -> None:
    async with Fleet(node, ["here", "away"]) as fleet, Operator(node) as operator:
        await fleet.come(["here"])
        first = await operator.push({"all": True}, kind="first", collapse_key="score")
        await operator.until(first["id"], lambda now: now["stats"]["acked"] == 1)
        second = await operator.push({"all": True}, kind="second", collapse_key="score")
        await fleet.come(["away"])
        await operator.until(second["id"], completed)
        assert states(await operator.find(first["id"])) == {"acked": 1, "collapsed": 1}
        fleet.assert_once("first", ["here"])
        fleet.assert_once("second", fleet.names)


async def test_a_scheduled_push_fires_once_also_across_a_restart(node) -> None:
    async with Fleet(node, NAMES[:10]) as fleet:
        await fleet.come()
        async with Operator(node) as operator:
            at = datetime.now(UTC) + timedelta(seconds=3)
            push = await operator.push({"all": True}, send_at=at.isoformat(timespec="milliseconds"))
            assert push["status"] == "scheduled"
        assert await asyncio.to_thread(node.stop) == 0
        await asyncio.to_thread(node.start)
        async with Operator(node) as operator:
            await operator.until(push["id"], completed)
            assert datetime.now(UTC) >= at
        fleet.assert_once("news", fleet.names)


async def test_a_paced_push_pauses_goes_on_and_changes_its_rate(node) -> None:
    async with Fleet(node, NAMES) as fleet, Operator(node) as operator:
        await fleet.come()
        push = await operator.push({"all": True}, rate_per_s=20)
        await fleet.got("news", 1)
        push = await operator.steer(push["id"], "pause")
        assert push["status"] == "paused"
        await asyncio.sleep(1)
        got = len(fleet.copies["news"])
        assert 0 < got < len(NAMES)
        await asyncio.sleep(1)
        assert len(fleet.copies["news"]) == got
        push = await operator.steer(push["id"], "resume")
        changed = await operator.call("PATCH", f"/v1/pushes/{push['id']}", {"rate_per_s": None})
        assert changed["rate_per_s"] is None
        await operator.until(push["id"], completed)
        fleet.assert_once("news", NAMES)


async def test_a_withdrawn_push_is_told_to_who_has_it_and_kept_from_who_has_not(node) -> None:
    async with Fleet(node, ["here", "away"]) as fleet, Operator(node) as operator:
        await fleet.come(["here"])
        withdrawn: asyncio.Queue[Message] = asyncio.Queue()
        fleet.devices["here"].on("longwire.withdrawn")(withdrawn.put_nowait)
        push = await operator.push({"all": True})
        await operator.until(push["id"], lambda now: now["stats"]["acked"] == 1)
        push = await operator.steer(push["id"], "withdraw")
        assert push["status"] == "withdrawn"
        assert states(push) == {"acked": 1, "withdrawn": 1}
        async with asyncio.timeout(10):
            notice = await withdrawn.get()
        assert notice.sender == ""
        later = await operator.push({"all": True}, kind="later")
        await fleet.come(["away"])
        await operator.until(later["id"], completed)
        fleet.assert_once("news", ["here"])
        items = (await operator.call("GET", "/v1/pushes"))["items"]
        assert [item["id"] for item in items] == [later["id"], push["id"]], "the notice is no push of an operator"
        assert (await operator.steer(push["id"], "withdraw"))["status"] == "withdrawn"
        assert (await operator.steer(push["id"], "cancel", 409))["code"] == "state-conflict"


async def test_a_retry_goes_to_those_for_whom_it_expired(node) -> None:
    async with Fleet(node, ["here", "away"]) as fleet, Operator(node) as operator:
        await fleet.come(["here"])
        push = await operator.push({"all": True}, ttl_s=1)
        push = await operator.until(push["id"], ended)
        assert states(push) == {"acked": 1, "expired": 1}
        again = await operator.call("POST", f"/v1/pushes/{push['id']}/retry", {"states": ["expired"]}, 202)
        assert again["stats"]["targeted"] == 1
        await fleet.come(["away"])
        await operator.until(again["id"], completed)
        fleet.assert_once("news", fleet.names)


async def test_progress_streams_until_the_push_is_over(node) -> None:
    async with Fleet(node, NAMES[:20]) as fleet, Operator(node) as operator:
        await fleet.come()
        push = await operator.push({"all": True}, rate_per_s=20)
        seen: list[tuple[str, Push]] = []
        async with operator.http.stream("GET", f"/v1/pushes/{push['id']}/events") as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            name = ""
            async for line in stream.aiter_lines():
                if line.startswith("event:"):
                    name = line.removeprefix("event:").strip()
                elif line.startswith("data:"):
                    seen.append((name, json.loads(line.removeprefix("data:"))))
        assert [name for name, _ in seen[-2:]] == ["progress", "end"]
        assert all(now["stats"]["targeted"] == sum(states(now).values()) == 20 for _, now in seen)
        assert seen[-1][1]["status"] == "completed"
        fleet.assert_once("news", fleet.names)


async def test_a_message_to_one_tells_whether_it_was_acknowledged(node) -> None:
    async with Fleet(node, ["phone", "tablet"]) as fleet, Operator(node) as operator:
        await fleet.come(["phone"])
        for name in fleet.names:
            await operator.call("PUT", f"/v1/devices/{name}/user", {"user": "ann"})
        body = {"to": {"user": "ann"}, "kind": "note", "payload": "hi"}
        sent = await operator.call("POST", "/v1/messages", body, 202)
        assert (sent["delivered_to"], sent["queued_for"]) == (["phone"], ["tablet"])
        body = {"to": "device:phone", "kind": "waited", "payload": "hi", "wait_ack_ms": 10_000}
        sent = await operator.call("POST", "/v1/messages", body, 202)
        assert (sent["delivered_to"], sent["acked"]) == (["phone"], True)
        await fleet.come(["tablet"])
        await fleet.got("note", 2)
        fleet.assert_once("note", fleet.names)
        many = {
            "items": [{"to": {"device": name}, "kind": "many", "payload": name} for name in (*fleet.names, "ghost")]
        }
        answer = await operator.call("POST", "/v1/messages/batch", many)
        assert ["message_id" in item for item in answer["items"]] == [True, True, False]
        await fleet.got("many", 2)
        fleet.assert_once("many", fleet.names)


async def test_a_device_that_is_called_answers_or_is_away(node) -> None:
    async with Fleet(node, ["lamp"]) as fleet, Operator(node) as operator:
        path, body = "/v1/devices/lamp/commands", {"method": "switch", "payload": {"on": True}}
        assert (await operator.call("POST", path, body, 409))["code"] == "device-offline"
        await fleet.come()

        @fleet.devices["lamp"].method("switch")
        async def switch(payload: object) -> dict[str, object]:
            return {"did": payload}

        answer = await operator.call("POST", path, body)
        assert (answer["status"], answer["is_late"]) == ("replied", False)
        made = await operator.call("POST", path, body | {"mode": "async"}, 202)
        async with asyncio.timeout(10):
            while (await operator.call("GET", f"/v1/commands/{made['command_id']}"))["status"] == "sent":
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("count", [2_000])
async def test_a_deleted_device_fails_in_the_pushes_that_wait_for_it(node, count) -> None:
    async with Fleet(node, [f"d-{n:04d}" for n in range(count)]) as fleet, Operator(node) as operator:
        push = await operator.push({"all": True})
        await operator.until(push["id"], dispatched)
        await operator.call("DELETE", f"/v1/devices/{fleet.names[7]}", status=204)
        push = await operator.find(push["id"])
        assert states(push) == {"failed": 1, "pending": count - 1}
        failed = (await operator.call("GET", f"/v1/pushes/{push['id']}/recipients?state=failed"))["items"]
        assert [item["state"] for item in failed] == ["failed"]
