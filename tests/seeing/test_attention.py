"""What is said to need attention, and what is not."""

from msgspec.structs import replace

from longwire.model import NodeInfo
from longwire.operations_model import DrainState, NodeReport
from longwire.ports.backlog import Backlog
from longwire.seeing.attention import NodeSeen, Notice, notices

INFO = NodeInfo("n1~0a", "h", 7300, None, "")
REPORT = NodeReport("n1~0a", 100, 1_000, 10, 20, 30, 40, 0.25, 1 << 20, 0.5, 3.0, 99)
WELL = NodeSeen(INFO, REPORT, 0.0, 0.0, 0.0)


def found(node: NodeSeen = WELL, **more: object) -> list[Notice]:
    given = {"backlog": None, "unready": None, "count_drift": 0} | more
    return notices([node], **given)  # type: ignore[arg-type]


def codes(node: NodeSeen = WELL, **more: object) -> list[tuple[str, str]]:
    return [(notice.level, notice.code) for notice in found(node, **more)]


def test_a_system_that_is_well_needs_none() -> None:
    assert found() == []
    assert found(WELL._replace(report=replace(REPORT, connections=849, loop_late_ms=100.0, route_drift=5))) == []


def test_each_fault_of_a_node_is_told_once_with_its_node() -> None:
    drain = DrainState("draining", 0, 60.0, 100, 30, 80, 0, 12.5)
    for node, level, code in (
        (WELL._replace(report=None), "critical", "node-silent"),
        (WELL._replace(report=replace(REPORT, connections=850)), "warning", "node-full"),
        (WELL._replace(report=replace(REPORT, connections=1_000)), "critical", "node-full"),
        (WELL._replace(report=replace(REPORT, loop_late_ms=100.1)), "warning", "node-late"),
        (WELL._replace(shed_per_s=0.5), "warning", "node-sheds"),
        (WELL._replace(slow_per_s=2.0), "warning", "slow-consumers"),
        (WELL._replace(report=replace(REPORT, route_drift=3), drifts_s=60.0), "warning", "route-drift"),
        (WELL._replace(report=replace(REPORT, behind=3)), "warning", "link-behind"),
        (WELL._replace(report=replace(REPORT, drain=drain)), "warning", "node-draining"),
    ):
        (notice,) = found(node)
        assert (notice.level, notice.code, notice.node_id) == (level, code, "n1~0a")
        assert "n1~0a" in notice.text


def test_faults_of_the_system_stand_first_where_they_are_critical() -> None:
    backlog = Backlog(at_ms=0, inbox=5, oldest_ms=0, push_pending=0, webhook_events=0, dead_letters=2)
    told = codes(WELL._replace(shed_per_s=1.0), backlog=backlog, unready="the store is away", count_drift=1)
    assert told == [
        ("critical", "not-ready"),
        ("critical", "push-counts"),
        ("warning", "dead-letters"),
        ("warning", "node-sheds"),
    ]
    assert [notice.code for notice in notices([], None, None, 0)] == ["no-node"]
