"""``/v1/log-levels``."""

import logging

import pytest

from longwire.api.shapes.logs import AREAS


async def test_a_level_is_set_listed_and_taken_back(site, operator) -> None:
    for level in ("debug", "warning"):
        made = await operator.put("/v1/log-levels", json={"area": "gateway", "level": level, "for_s": 60})
        assert made.status_code == 200
        assert (made.json()["area"], made.json()["level"]) == ("gateway", level)
        assert made.json()["by"].startswith("key_")
    told = (await operator.get("/v1/log-levels")).json()
    assert told["items"] == [made.json()], "the second took the place of the first"
    assert told["base"] == logging.getLevelName(logging.getLogger().level).lower()
    assert told["areas"] == list(AREAS)
    assert (await operator.delete("/v1/log-levels/gateway")).status_code == 204
    assert (await operator.get("/v1/log-levels")).json()["items"] == []


async def test_a_level_ends_by_itself(site, operator) -> None:
    await operator.put("/v1/log-levels", json={"area": "sql", "level": "debug"})
    site.clock.advance(3_599)
    assert len((await operator.get("/v1/log-levels")).json()["items"]) == 1
    site.clock.advance(1)
    assert (await operator.get("/v1/log-levels")).json()["items"] == []


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"area": "gateway"},
        {"area": "longwire.gateway", "level": "debug"},
        {"area": "gateway", "level": "trace"},
        {"area": "gateway", "level": "debug", "for_s": 86_401},
    ],
)
async def test_what_is_no_level_is_refused(operator, check_problem, body) -> None:
    check_problem(await operator.put("/v1/log-levels", json=body), 400, "invalid-parameter")


async def test_an_area_without_a_level_is_not_found(operator, check_problem) -> None:
    check_problem(await operator.delete("/v1/log-levels/net"), 404, "not-found")


async def test_a_call_is_counted_by_door_and_status_and_leaves_its_context(site, operator) -> None:
    from longwire.traces import CALL

    tally = operator._transport.app.state.tally
    before = dict(tally.counts)
    assert (await operator.get("/v1/log-levels")).status_code == 200
    assert (await operator.get("/v1/nothing")).status_code == 404
    assert (await operator.get("/readyz")).status_code == 200
    grown = {key: count - before[key] for key, count in tally.counts.items() if count != before[key]}
    assert grown == {("operator", "2xx"): 1, ("operator", "4xx"): 1, ("health", "2xx"): 1}
    assert CALL.get() is None


async def test_a_caller_with_a_trace_is_told_it_and_others_are_not(operator) -> None:
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    answer = await operator.get("/v1/log-levels", headers={"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"})
    assert answer.headers["traceparent"].startswith(f"00-{trace_id}-")
    assert "traceparent" not in (await operator.get("/v1/log-levels")).headers
