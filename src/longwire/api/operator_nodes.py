"""``/v1/nodes``: the gateway processes that live."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Path, Query

from longwire.accounts.api_keys import Scope
from longwire.api.dependencies import ServicesHere
from longwire.api.doors import DoorRoute, operator_door
from longwire.api.nodes import NodeView
from longwire.api.problems import Code, Problem
from longwire.api.services import Services
from longwire.api.shapes.operations import NodeAnswer, NodePage

router = APIRouter(prefix="/v1/nodes", route_class=DoorRoute, tags=["operations"])

_NODE_ID = r"^[A-Za-z0-9._-]{1,15}~[0-9a-f]{2,8}$"


@router.get("", **operator_door(Scope.NODE_READ))
async def list_nodes(
    services: ServicesHere,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(pattern=_NODE_ID)] = None,
) -> NodePage:
    """The nodes that live, by id, each with what it says of itself."""
    views = [view for view in await services.nodes.all_nodes() if cursor is None or view.info.node_id > cursor]
    items = await _answers(services, views[:limit])
    return NodePage(items=items, next_cursor=items[-1].node_id if len(views) > limit else None)


@router.get("/{node_id}", **operator_door(Scope.NODE_READ, 404))
async def get_node(node_id: Annotated[str, Path(pattern=_NODE_ID)], services: ServicesHere) -> NodeAnswer:
    """One node."""
    views = [view for view in await services.nodes.all_nodes() if view.info.node_id == node_id]
    if not views:
        raise Problem(Code.NOT_FOUND, f"there is no live node {node_id}")
    return (await _answers(services, views))[0]


async def _answers(services: Services, views: Sequence[NodeView]) -> list[NodeAnswer]:
    routed = await services.nodes.routed([view.info.node_id for view in views])
    return [NodeAnswer.of(view, routed[view.info.node_id]) for view in views]
