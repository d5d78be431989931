"""Who is where, for pushes: the route table as far as its nodes live."""

from pyroaring import BitMap

from longwire.ports.registry import Registry
from longwire.ports.routes import RouteTable


async def whereabouts(routes: RouteTable, registry: Registry, segment: int) -> dict[str, BitMap]:
    """By node, who of the segment is there; the routes of a node that has died count as nobody's.

    Raises StoreUnavailable.
    """
    live = {node.node_id for node in registry.nodes()}
    return {node_id: devices for node_id, devices in (await routes.whereabouts(segment)).items() if node_id in live}
