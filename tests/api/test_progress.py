"""``/v1/pushes/{id}/progress``: how a push went, by the minute."""

from longwire.adapters.sql import push_segments
from longwire.adapters.sql.domains import Domain


async def test_a_course_adds_up_to_the_stats(site, operator, check_problem) -> None:
    numbers = await site.devices(*(f"d-{n}" for n in range(10)))
    await site.connect(*numbers[:6])
    push_id = (await operator.post("/v1/pushes", json={"audience": {"all": True}, "message": {"kind": "a"}})).json()[
        "id"
    ]
    empty = (await operator.get(f"/v1/pushes/{push_id}/progress")).json()
    assert empty == {"step_s": 60, "at": [], "written": [], "acked": [], "latency_buckets": [], "reasons": {}}
    await site.dispatch()
    await site.acknowledge(push_id, *numbers[:2])
    site.clock.advance(180)
    await site.acknowledge(push_id, *numbers[1:4])
    await site.database.write(lambda c: push_segments.forget_device(c, numbers[9], site.clock.now_ms()), Domain.PUSHES)
    course = (await operator.get(f"/v1/pushes/{push_id}/progress")).json()
    assert course["at"] == [f"2025-11-24T16:0{minute}:00.000Z" for minute in range(4)]
    assert (course["written"], course["acked"]) == ([6, 0, 0, 0], [2, 0, 0, 2])
    assert course["reasons"] == {"device-deleted": 1}
    assert course["latency_buckets"] == [{"below_ms": 16, "count": 5}]
    stats = (await operator.get(f"/v1/pushes/{push_id}")).json()["stats"]
    assert (sum(course["written"]), sum(course["acked"])) == (stats["written"], stats["acked"])
    check_problem(await operator.get(f"/v1/pushes/psh_{'0' * 32}/progress"), 404, "not-found")


async def test_a_course_of_days_is_told_in_at_most_240_steps(site, operator) -> None:
    numbers = await site.devices("d-1", "d-2")
    await site.connect(*numbers)
    body = {"audience": {"all": True}, "message": {"kind": "a"}, "options": {"ttl_s": 604_800}}
    push_id = (await operator.post("/v1/pushes", json=body)).json()["id"]
    await site.dispatch()
    await site.acknowledge(push_id, numbers[0])
    site.clock.advance(500_000)
    await site.acknowledge(push_id, numbers[1])
    course = (await operator.get(f"/v1/pushes/{push_id}/progress")).json()
    assert course["step_s"] == 35 * 60
    assert len(course["at"]) == 239
    assert (course["acked"][0], course["acked"][-1], sum(course["acked"])) == (1, 1, 2)
