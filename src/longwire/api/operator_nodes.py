"""``/v1/nodes``: the gateway processes that live; sending their devices elsewhere, and evening them out."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Path, Query

from longwire.accounts.api_keys import Scope
from longwire.api.dependencies import ServicesHere
from longwire.api.doors import DoorRoute, operator_door
from longwire.api.nodes import NodeView
from longwire.api.problems import Code, Problem
from longwire.api.services import Services
from longwire.api.shapes.operations import NodeAnswer, NodePage, RebalanceAnswer, WithinBody

router = APIRouter(prefix="/v1", route_class=DoorRoute, tags=["operations"])

_NODE_ID = r"^[A-Za-z0-9._-]{1,15}~[0-9a-f]{2,8}$"
_NodePath = Annotated[str, Path(pattern=_NODE_ID)]


@router.get("/nodes", **operator_door(Scope.NODE_READ))
async def list_nodes(
    services: ServicesHere,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(pattern=_NODE_ID)] = None,
) -> NodePage:
    """The nodes that live, by id, each with what it says of itself."""
    views = [view for view in await services.nodes.all_nodes() if cursor is None or view.info.node_id > cursor]
    items = await _answers(services, views[:limit])
    return NodePage(items=items, next_cursor=items[-1].node_id if len(views) > limit else None)


@router.get("/nodes/{node_id}", **operator_door(Scope.NODE_READ, 404))
async def get_node(node_id: _NodePath, services: ServicesHere) -> NodeAnswer:
    """One node."""
    return await _answer(services, node_id)


@router.post("/nodes/{node_id}/drain", status_code=202, **operator_door(Scope.NODE_WRITE, 404, 409))
async def drain_node(node_id: _NodePath, services: ServicesHere, body: WithinBody | None = None) -> NodeAnswer:
    """Sends the node's devices elsewhere, at an even pace, and takes no new ones; ``drain`` tells how far it is.

    Those that do not go by themselves are closed (4000) in the last part of the time. The process goes on: stop it,
    or let it take devices again with ``undrain``. Draining again takes the new time. 409 where no other node takes
    devices.
    """
    before = await _find(services, node_id)
    if not services.nodes.others_take_devices(node_id) and (before.report is None or before.report.drain is None):
        raise Problem(Code.STATE_CONFLICT, f"devices of {node_id} have nowhere to go: no other node takes devices")
    if not await services.nodes.drain(node_id, (body or WithinBody()).within_s):
        raise _unknown(node_id)
    return await _answer(services, node_id)


@router.post("/nodes/{node_id}/undrain", **operator_door(Scope.NODE_WRITE, 404, 409))
async def undrain_node(node_id: _NodePath, services: ServicesHere) -> NodeAnswer:
    """Has a node that drains take devices again. Repeating it is no error; 409 for one whose process stops."""
    before = await _find(services, node_id)
    if before.report is not None and before.report.drain is not None and before.report.drain.state == "stopping":
        raise Problem(Code.STATE_CONFLICT, f"the process of {node_id} stops: it takes no devices any more")
    if not await services.nodes.undrain(node_id):
        raise _unknown(node_id)
    return await _answer(services, node_id)


@router.post("/rebalance", status_code=202, **operator_door(Scope.NODE_WRITE))
async def rebalance(services: ServicesHere, body: WithinBody | None = None) -> RebalanceAnswer:
    """Has nodes that hold clearly more than their share by weight send the surplus elsewhere, at an even pace.

    Who was told in the last minute and has not gone yet counts: asking again sends no more away.
    """
    return RebalanceAnswer.of(await services.nodes.rebalance((body or WithinBody()).within_s))


async def _answer(services: Services, node_id: str) -> NodeAnswer:
    return (await _answers(services, [await _find(services, node_id)]))[0]


async def _find(services: Services, node_id: str) -> NodeView:
    view = await services.nodes.find(node_id)
    if view is None:
        raise _unknown(node_id)
    return view


def _unknown(node_id: str) -> Problem:
    return Problem(Code.NOT_FOUND, f"there is no live node {node_id}")


async def _answers(services: Services, views: Sequence[NodeView]) -> list[NodeAnswer]:
    routed = await services.nodes.routed([view.info.node_id for view in views])
    return [NodeAnswer.of(view, routed.get(view.info.node_id)) for view in views]
