"""``/v1/stats`` as it grew: closes by reason, what waits, what needs attention, and the numbers over time."""

from msgspec.structs import replace

from longwire.accounts.api_keys import Scope
from longwire.operations_model import NodeReport
from longwire.ports.backlog import Backlog

REPORT = NodeReport("n1~0a", 2, 18_000, 10, 20, 30, 40, 0.25, 1 << 20, 0.5, 3.0, 99, (1.0, 2.0, 3.0))


async def test_closes_bytes_and_refusals_are_told_as_rates(site, operator) -> None:
    site.link.report_of["n1~0a"] = REPORT
    client = await site.operator(app=site.build())
    first = (await client.get("/v1/stats")).json()
    assert (first["closes_per_s"], first["closes_by_reason"], first["up_bytes_per_s"]) == (None, {}, None)
    site.clock.advance(2)
    site.link.report_of["n1~0a"] = replace(
        REPORT,
        closes={"peer": 6, "kicked": 2},
        bytes_in=1_000,
        bytes_out=3_000,
        shed=4,
        slow=1,
        recent_ack_latency_ms=(4.0, 5.0, None),
    )
    second = (await client.get("/v1/stats")).json()
    assert second["closes_per_s"] == 4.0
    assert second["closes_by_reason"] == {"kicked": 1.0, "peer": 3.0}
    names = ("up_bytes_per_s", "down_bytes_per_s", "shed_per_s", "slow_per_s")
    assert [second[name] for name in names] == [500.0, 1_500.0, 2.0, 0.5]
    assert second["recent_ack_latency_ms"] == {"p50": 4.0, "p95": 5.0, "p99": None}
    assert second["nodes"][0]["closes_by_reason"] == {"kicked": 1.0, "peer": 3.0}
    assert [notice["code"] for notice in second["attention"]] == ["node-sheds", "slow-consumers"]


async def test_what_waits_is_null_until_it_was_counted(site, operator) -> None:
    assert (await operator.get("/v1/stats")).json()["backlog"] is None
    now = site.clock.now_ms()
    site.backlog = Backlog(at_ms=now, inbox=7, oldest_ms=now - 61_500, push_pending=3, webhook_events=2, dead_letters=1)
    assert (await operator.get("/v1/stats")).json()["backlog"] == {
        "at": "2025-11-24T16:00:00.000Z",
        "inbox": 7,
        "inbox_oldest_s": 61.5,
        "push_pending": 3,
        "webhook_events": 2,
        "dead_letters": 1,
    }


async def test_routes_that_differ_need_attention_once_they_have_for_a_minute(site) -> None:
    client = await site.operator(app=site.build())
    site.link.report_of["n1~0a"] = replace(REPORT, route_drift=3)

    async def codes() -> list[str]:
        return [notice["code"] for notice in (await client.get("/v1/stats")).json()["attention"]]

    for _ in range(6):
        assert await codes() == []
        site.clock.advance(10)
    assert await codes() == ["route-drift"]
    site.link.report_of["n1~0a"] = REPORT
    site.clock.advance(1)
    assert await codes() == []


async def test_the_history_tells_the_numbers_that_stats_told(site) -> None:
    site.link.report_of["n1~0a"] = REPORT
    client = await site.operator(app=site.build())
    stats = []
    for second in range(5):
        site.link.report_of["n1~0a"] = replace(REPORT, connects=10 + 3 * second, closes={"peer": second})
        await site.history.sample()
        stats.append((await client.get("/v1/stats")).json())
        site.clock.advance(1)
    told = (await client.get("/v1/stats/history", params={"span_s": 60})).json()
    assert (told["step_s"], len(told["at"])) == (1, 60)
    assert told["since"] == "2025-11-24T16:00:00.000Z"
    assert told["at"][-1] == "2025-11-24T16:00:04.000Z"
    for name, of in (("connects", "connects_per_s"), ("closes", "closes_per_s"), ("online", "online")):
        assert told[name][-5:] == [one[of] for one in stats]
    assert told["closes_by_reason"]["peer"][-2:] == [1.0, 1.0]


async def test_a_span_is_a_minute_to_a_day_and_needs_the_scope(site, operator, check_problem) -> None:
    for span_s in (59, 86_401, "x"):
        check_problem(await operator.get("/v1/stats/history", params={"span_s": span_s}), 400, "invalid-parameter")
    without = await site.operator(Scope.PUSH_READ)
    check_problem(await without.get("/v1/stats/history"), 403, "scope-missing")
