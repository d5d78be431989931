"""What an operator should look at now: each with a code, a sentence, and the node that it is about.

The rules stand here alone; the console, ``longwire top`` and whoever reads ``/v1/stats`` show what they find.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from longwire.model import NodeInfo
from longwire.operations_model import NodeReport
from longwire.ports.backlog import Backlog

FULL_SHARE = 0.85
LATE_MS = 100.0
DRIFT_S = 60.0
"""Routes of devices that come and go differ for moments; a node compares and mends within this time."""


class Notice(NamedTuple):
    """Something that needs attention."""

    level: Literal["warning", "critical"]
    code: str
    text: str
    node_id: str | None = None


class NodeSeen(NamedTuple):
    """A node as it was last looked at; ``report`` None: it does not answer."""

    info: NodeInfo
    report: NodeReport | None
    shed_per_s: float | None
    slow_per_s: float | None
    drifts_s: float


def notices(nodes: Sequence[NodeSeen], backlog: Backlog | None, unready: str | None, count_drift: int) -> list[Notice]:
    """What needs attention, the critical first. ``unready``: why this process takes no work, None where it does."""
    found = [*_of_system(nodes, backlog, unready, count_drift)]
    for node in nodes:
        found += _of_node(node)
    return sorted(found, key=lambda notice: notice.level)


def _of_system(
    nodes: Sequence[NodeSeen], backlog: Backlog | None, unready: str | None, count_drift: int
) -> Iterator[Notice]:
    if unready is not None:
        yield Notice("critical", "not-ready", f"The API takes no work: {unready}.")
    if not nodes:
        yield Notice("critical", "no-node", "No node lives: devices cannot connect. Start `longwire serve`.")
    if count_drift:
        yield Notice(
            "critical", "push-counts", f"Counts of {count_drift} push segments do not add up; the log says of which."
        )
    if backlog is not None and backlog.dead_letters:
        text = f"{_many(backlog.dead_letters, 'message')} of devices failed in the application: dead letters."
        yield Notice("warning", "dead-letters", text)


def _of_node(node: NodeSeen) -> Iterator[Notice]:
    name, report = node.info.node_id, node.report
    if report is None:
        yield Notice("critical", "node-silent", f"{name} is listed and does not answer.", name)
        return
    share = report.connections / report.max_connections if report.max_connections else 0.0
    if share >= FULL_SHARE:
        text = f"{name} holds {report.connections:,} of {report.max_connections:,} connections ({share:.0%})."
        yield Notice("critical" if share >= 1 else "warning", "node-full", text, name)
    if report.loop_late_ms > LATE_MS:
        text = f"{name} runs late by {report.loop_late_ms:,.0f} ms: it has more to do than one core can."
        yield Notice("warning", "node-late", text, name)
    if node.shed_per_s:
        yield Notice("warning", "node-sheds", f"{name} turns away {node.shed_per_s:,.1f} connections a second.", name)
    if node.slow_per_s:
        text = f"{name} closes {node.slow_per_s:,.1f} connections a second of devices that do not read."
        yield Notice("warning", "slow-consumers", text, name)
    if node.drifts_s >= DRIFT_S:
        places = _many(report.route_drift, "place")
        text = f"Sessions of {name} and its routes have differed in {places} for over a minute."
        yield Notice("warning", "route-drift", text, name)
    if report.behind:
        text = f"{name} cannot carry messages to the nodes of {_many(report.behind, 'device')}; it tries on."
        yield Notice("warning", "link-behind", text, name)
    if node.info.is_draining or report.drain is not None:
        left = "" if report.drain is None else f"; {_many(report.drain.left, 'device')} left"
        yield Notice("warning", "node-draining", f"{name} sends its devices elsewhere{left}.", name)


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
