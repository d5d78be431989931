"""Nodes as operators steer them: draining one, taking it back, and evening out."""

import pytest
from msgspec.structs import replace

from longwire.accounts.api_keys import Scope
from longwire.errors import StoreUnavailable
from longwire.model import NodeInfo
from longwire.operations_model import DrainState, NodeReport

NODES = ("n1~0a", "n2~0b", "n3~0c")
BEGAN_MS = 1_764_000_000_000


def report(node_id: str, connections: int = 0, drain: DrainState | None = None) -> NodeReport:
    return NodeReport(node_id, connections, 18_000, 10, 20, 30, 40, 0.25, 1 << 20, 0.5, 3.0, 99, drain=drain)


def draining(state: str = "draining", left: int = 30) -> DrainState:
    return DrainState(state, BEGAN_MS, 60.0, 100, left, 80, 0, 12.5)


@pytest.fixture
async def nodes(site):
    """Three nodes that live and answer."""
    for node_id in NODES:
        await site.registry.register(NodeInfo(node_id, "h", 7300, None, ""))
        site.link.report_of[node_id] = report(node_id)
    return site


async def test_a_node_is_drained_and_tells_how_far_it_is(nodes, operator) -> None:
    nodes.link.report_of["n2~0b"] = report("n2~0b", 30, draining())
    answer = await operator.post("/v1/nodes/n2~0b/drain", json={"within_s": 90})
    assert answer.status_code == 202
    assert nodes.link.told == [("n2~0b", "drain", 90)]
    node = answer.json()
    assert (node["state"], node["is_draining"]) == ("draining", True)
    assert node["drain"] == {
        "began_at": "2025-11-24T16:00:00.000Z",
        "within_s": 60.0,
        "sessions": 100,
        "left": 30,
        "told": 80,
        "closed": 0,
        "eta_s": 12.5,
    }
    (listed,) = [one for one in (await operator.get("/v1/nodes")).json()["items"] if one["node_id"] == "n2~0b"]
    assert listed == node


async def test_without_a_body_a_drain_takes_a_minute(nodes, operator) -> None:
    assert (await operator.post("/v1/nodes/n1~0a/drain")).status_code == 202
    assert nodes.link.told == [("n1~0a", "drain", 60)]


@pytest.mark.parametrize("body", [{"within_s": 0}, {"within_s": 3_601}, {"within": 60}, {"within_s": "60"}])
async def test_a_time_that_cannot_be_is_refused(nodes, operator, check_problem, body) -> None:
    for path in ("/v1/nodes/n1~0a/drain", "/v1/rebalance"):
        answer = await operator.post(path, json=body)
        check_problem(answer, 400, "unknown-field" if "within" in body else "invalid-parameter")
    assert nodes.link.told == []


async def test_a_node_whose_devices_have_nowhere_to_go_is_not_drained(nodes, operator, check_problem) -> None:
    for node_id in NODES[1:]:
        await nodes.registry.register(NodeInfo(node_id, "h", 7300, None, "", is_draining=True))
    problem = check_problem(await operator.post("/v1/nodes/n1~0a/drain"), 409, "state-conflict")
    assert "nowhere to go" in problem["detail"]
    nodes.link.report_of["n1~0a"] = report("n1~0a", 5, draining())
    assert (await operator.post("/v1/nodes/n1~0a/drain", json={"within_s": 5})).status_code == 202


async def test_a_drained_node_takes_devices_again(nodes, operator) -> None:
    answer = await operator.post("/v1/nodes/n1~0a/undrain")
    assert (answer.status_code, answer.json()["state"]) == (200, "live")
    assert nodes.link.told == [("n1~0a", "undrain")]


async def test_a_node_whose_process_stops_is_not_taken_back(nodes, operator, check_problem) -> None:
    nodes.link.report_of["n1~0a"] = report("n1~0a", 5, draining("stopping"))
    check_problem(await operator.post("/v1/nodes/n1~0a/undrain"), 409, "state-conflict")
    assert nodes.link.told == []


@pytest.mark.parametrize("verb", ["drain", "undrain"])
async def test_a_node_that_is_not_there_or_does_not_answer_is_told_of(nodes, operator, check_problem, verb) -> None:
    check_problem(await operator.post(f"/v1/nodes/n9~0f/{verb}"), 404, "not-found")
    nodes.link.silent.add("n1~0a")
    check_problem(await operator.post(f"/v1/nodes/n1~0a/{verb}"), 503, "store-unavailable")


async def test_steering_nodes_needs_a_key_for_it(nodes, check_problem) -> None:
    reader = await nodes.operator(Scope.NODE_READ)
    for path in ("/v1/nodes/n1~0a/drain", "/v1/nodes/n1~0a/undrain", "/v1/rebalance"):
        check_problem(await reader.post(path), 403, "scope-missing")


async def test_a_drain_under_a_key_is_told_once(nodes, operator) -> None:
    headers = {"Idempotency-Key": "drain-1"}
    for _ in range(2):
        assert (await operator.post("/v1/nodes/n1~0a/drain", headers=headers)).status_code == 202
    assert len(nodes.link.told) == 1


async def test_nodes_above_their_share_by_weight_send_the_surplus_elsewhere(nodes, operator) -> None:
    held = {"n1~0a": 1_000, "n2~0b": 150, "n3~0c": 50}
    await nodes.registry.register(NodeInfo("n3~0c", "h", 7300, None, "", weight=2.0))
    for node_id, connections in held.items():
        nodes.link.report_of[node_id] = report(node_id, connections)
    answer = await operator.post("/v1/rebalance", json={"within_s": 120})
    assert answer.status_code == 202
    assert answer.json() == {
        "moves": [
            {"node_id": "n1~0a", "connections": 1_000, "target": 300, "moving": 700},
            {"node_id": "n2~0b", "connections": 150, "target": 300, "moving": 0},
            {"node_id": "n3~0c", "connections": 50, "target": 600, "moving": 0},
        ]
    }
    assert nodes.link.told == [("n1~0a", "move", 700, 120)]


@pytest.mark.parametrize(("held", "moving"), [((1_050, 1_000, 950), 0), ((1_080, 960, 960), 80), ((18, 6, 6), 0)])
async def test_a_little_above_its_share_is_not_worth_a_reconnect(nodes, operator, held, moving) -> None:
    for node_id, connections in zip(NODES, held, strict=True):
        nodes.link.report_of[node_id] = report(node_id, connections)
    moves = (await operator.post("/v1/rebalance")).json()["moves"]
    assert [one["moving"] for one in moves] == [moving, 0, 0]


async def test_nodes_that_drain_have_no_share(nodes, operator) -> None:
    await nodes.registry.register(NodeInfo("n3~0c", "h", 7300, None, "", is_draining=True))
    for node_id, connections in zip(NODES, (300, 100, 900), strict=True):
        nodes.link.report_of[node_id] = report(node_id, connections)
    moves = (await operator.post("/v1/rebalance")).json()["moves"]
    assert [(one["node_id"], one["target"], one["moving"]) for one in moves] == [("n1~0a", 200, 100), ("n2~0b", 200, 0)]


async def test_of_a_node_that_does_not_answer_a_rebalance_takes_what_it_published(nodes, operator) -> None:
    await nodes.registry.register(NodeInfo("n1~0a", "h", 7300, None, "", connections=400))
    del nodes.link.report_of["n1~0a"]
    nodes.link.silent.add("n1~0a")
    moves = (await operator.post("/v1/rebalance")).json()["moves"]
    assert moves[0] == {"node_id": "n1~0a", "connections": 400, "target": 133, "moving": None}


async def test_without_the_route_table_nodes_are_listed_all_the_same(nodes, operator, monkeypatch) -> None:
    async def away(_node_id: str) -> int:
        raise StoreUnavailable("Redis does not answer")

    monkeypatch.setattr(nodes.routes, "count", away)
    listed = (await operator.get("/v1/nodes")).json()["items"]
    assert [(one["routed"], one["drift"]) for one in listed] == [(None, None)] * 3


async def test_what_a_node_says_of_the_link_is_shown(nodes, operator) -> None:
    nodes.link.report_of["n1~0a"] = replace(report("n1~0a"), repaired=3, behind=7, link_queued_bytes=512)
    node = (await operator.get("/v1/nodes/n1~0a")).json()
    assert (node["state"], node["repaired"], node["behind"], node["link_queued_bytes"]) == ("live", 3, 7, 512)
    del nodes.link.report_of["n1~0a"]
    assert (await operator.get("/v1/nodes/n1~0a")).json()["state"] == "silent"
