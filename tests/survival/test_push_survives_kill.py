"""Pushes through kills, crowds and devices that lie: each device holds a push exactly once, and the counts add up."""

import asyncio
import random

import pytest
from push_fleet import Fleet, Operator, ended, states

from longwire.testing.process import RawClient
from longwire.wire.packets import Ack, Ping, Pong, Push

FEW = 400
MANY = 15_000


@pytest.mark.parametrize(
    ("count", "seed"), [(FEW, None), *(pytest.param(MANY, seed, marks=pytest.mark.chaos) for seed in range(1, 11))]
)
async def test_a_push_that_a_kill_cuts_in_two_reaches_every_application_once(new_node, count, seed) -> None:
    node = new_node()
    rng = random.Random(seed)
    # How far it has come when the kill falls: from "committed, nobody has it" to "everybody has it, few acks stored".
    kill_at = rng.randrange(count + 1)
    async with Fleet(node, (f"d-{n:05d}" for n in range(count))) as fleet:
        await fleet.come()
        async with Operator(node) as operator:
            push = await operator.push({"all": True})
        await fleet.got("news", kill_at)
        await asyncio.to_thread(node.kill)
        at_kill = len(fleet.copies["news"])
        await asyncio.to_thread(node.start)
        async with Operator(node) as operator:
            push = await operator.until(push["id"], ended, 180)
            await fleet.got("news", count)
            assert push["status"] == "completed", f"killed at {at_kill} of {count}"
            assert states(push) == {"acked": count}, f"killed at {at_kill} of {count}"
        fleet.assert_once("news", fleet.names)


async def test_a_push_is_there_after_a_kill_right_behind_its_202(new_node) -> None:
    node = new_node()
    names = [f"d-{n}" for n in range(20)]
    async with Fleet(node, names) as fleet:
        async with Operator(node) as operator:
            push = await operator.push({"devices": names})
        await asyncio.to_thread(node.kill)
        await asyncio.to_thread(node.start)
        await fleet.come()
        async with Operator(node) as operator:
            await operator.until(push["id"], ended)
        fleet.assert_once("news", names)


async def test_fifty_equal_posts_at_once_are_one_push(node) -> None:
    async with Fleet(node, [f"d-{n}" for n in range(5)]) as fleet, Operator(node) as operator:
        await fleet.come()
        body = {"audience": {"all": True}, "message": {"kind": "news", "payload": 1}}
        headers = {"Idempotency-Key": "the-same"}
        answers = []
        while len(answers) < 50:
            # 409 is "still running": to be repeated, as its Retry-After says.
            posts = (operator.http.post("/v1/pushes", json=body, headers=headers) for _ in range(50 - len(answers)))
            for answer in await asyncio.gather(*posts):
                if answer.status_code == 409:
                    assert (answer.json()["code"], answer.headers["Retry-After"]) == ("idempotency-in-progress", "1")
                else:
                    assert answer.status_code == 202
                    answers.append(answer)
        assert len({answer.json()["id"] for answer in answers}) == 1
        assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 1
        await operator.until(answers[0].json()["id"], ended)
        assert len((await operator.call("GET", "/v1/pushes"))["items"]) == 1
        fleet.assert_once("news", fleet.names)
        other = await operator.http.post("/v1/pushes", json=body | {"options": {"ttl_s": 5}}, headers=headers)
        assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")


async def test_a_ttl_of_five_seconds_lets_it_arrive_after_four_and_not_after_six(node) -> None:
    async with Fleet(node, ["early", "late"]) as fleet, Operator(node) as operator:
        push = await operator.push({"devices": fleet.names}, ttl_s=5)
        posted = asyncio.get_running_loop().time()
        await asyncio.sleep(4 - (asyncio.get_running_loop().time() - posted))
        await fleet.come(["early"])
        await fleet.got("news", 1, 1)
        await asyncio.sleep(6 - (asyncio.get_running_loop().time() - posted))
        await fleet.come(["late"])
        push = await operator.until(push["id"], ended)
        assert states(push) == {"acked": 1, "expired": 1}
        fleet.assert_once("news", ["early"])


async def test_a_push_cancelled_at_half_writes_to_nobody_two_seconds_after_the_200(node) -> None:
    async with Fleet(node, (f"d-{n:03d}" for n in range(FEW))) as fleet, Operator(node) as operator:
        await fleet.come()
        push = await operator.push({"all": True}, rate_per_s=FEW // 4)
        await fleet.got("news", FEW // 2)
        push = await operator.steer(push["id"], "cancel")
        assert push["status"] == "canceled"
        await asyncio.sleep(2)
        got = len(fleet.copies["news"])
        await asyncio.sleep(2)
        assert FEW // 2 <= got == len(fleet.copies["news"]) < FEW
        push = await operator.until(push["id"], lambda now: not now["stats"]["pending"])
        assert states(push) == {"acked": got, "canceled": FEW - got}
        assert (await operator.steer(push["id"], "cancel"))["status"] == "canceled"
        fleet.assert_once("news", list(fleet.copies["news"]))


async def test_a_hundred_thousand_ids_of_which_ten_do_not_exist(node) -> None:
    names = [f"d-{n:06d}" for n in range(100_000)]
    async with Operator(node) as operator:
        operator.http.headers["Content-Type"] = "text/csv"
        csv = "device_id\n" + "\n".join(names[10:]) + "\n"
        job = (await operator.http.post("/v1/device-imports", content=csv)).json()
        async with asyncio.timeout(300):
            while (job := await operator.call("GET", f"/v1/device-imports/{job['import_id']}"))["status"] == "running":
                await asyncio.sleep(0.1)
        assert (job["done"], job["failed"]) == (99_990, 0)

        operator.http.headers["Content-Type"] = "text/plain"
        text = "\n".join(names)
        upload = await operator.http.post("/v1/audience-uploads", content=text)
        assert upload.status_code == 201, upload.text
        made = upload.json()
        assert made["unresolved"]["count"] == 10
        assert set(made["unresolved"]["sample"]) == set(names[:10])
        del operator.http.headers["Content-Type"]
        push = await operator.push({"upload": made["id"]})
        push = await operator.until(push["id"], lambda now: now["status"] == "dispatched")
        assert states(push) == {"pending": 99_990}


async def test_an_ack_for_what_was_never_sent_changes_nothing(node) -> None:
    tokens = node.register(["receiver", "liar"])
    async with Operator(node) as operator:
        with RawClient(node.port) as receiver, RawClient(node.port) as liar:
            receiver.connect("receiver", tokens["receiver"])
            liar.connect("liar", tokens["liar"])
            push = await operator.push({"devices": ["receiver"]})
            frame = await asyncio.to_thread(receiver.next)
            assert isinstance(frame.packet, Push)
            for handle in (frame.correlation, frame.correlation + 2, frame.correlation + 1, 0, (1 << 32) - 1):
                liar.send(Ack(), handle)
            liar.send(Ping(), 7)
            assert isinstance((await asyncio.to_thread(liar.next)).packet, Pong)
            # Longer than a node gathers acks.
            await asyncio.sleep(1)
            assert states(await operator.find(push["id"])) == {"pending": 1}
            receiver.send(Ack(), frame.correlation)
            assert states(await operator.until(push["id"], ended)) == {"acked": 1}
            receiver.send(Ack(), frame.correlation)
            receiver.send(Ping(), 8)
            assert isinstance((await asyncio.to_thread(receiver.next)).packet, Pong)
            assert states(await operator.find(push["id"])) == {"acked": 1}
