"""Routes as look-ups found them, for a few seconds."""

from longwire.clock import Clock
from longwire.model import NodeInfo
from longwire.ports.registry import Registry
from longwire.ports.routes import Route


class RouteCache:
    """Bounded; the oldest go first. Says nothing of a route whose node is not listed.

    A route that is kept may be old: the node is asked all the same, and says that the device has gone. That a device
    was *not* there is worth nothing to a committed message, for the device may have come a moment ago and have been
    told that nothing waits; so absence is only told apart by ``is_absent``.
    """

    def __init__(
        self, registry: Registry, clock: Clock, *, kept: int = 200_000, fresh_s: float = 10.0, absent_s: float = 1.0
    ) -> None:
        self._registry = registry
        self._clock = clock
        self._kept = kept
        self._fresh_s = fresh_s
        self._absent_s = absent_s
        self._routes: dict[int, tuple[Route | None, float, int]] = {}
        self._step = 0
        self._forgotten: dict[str, int] = {}
        self._listed: list[NodeInfo] = []
        self._nodes: dict[str, NodeInfo] = {}

    @property
    def nodes(self) -> dict[str, NodeInfo]:
        """The nodes that live, by id; not to be changed."""
        listed = self._registry.nodes()
        if listed is not self._listed:
            self._listed = listed
            self._nodes = {node.node_id: node for node in listed}
            self._forgotten = {at: step for at, step in self._forgotten.items() if at in self._nodes}
        return self._nodes

    def find(self, device_no: int) -> Route | None:
        """Where the device was a few seconds ago; None: unknown."""
        kept = self._routes.get(device_no)
        if kept is None:
            return None
        route, until, step = kept
        if route is None:
            return None
        node_id = route.node_id
        if until < self._clock.monotonic() or node_id not in self.nodes or step <= self._forgotten.get(node_id, 0):
            del self._routes[device_no]
            return None
        return route

    def is_absent(self, device_no: int) -> bool:
        """Whether a look-up found no route within the last second."""
        kept = self._routes.get(device_no)
        return kept is not None and kept[0] is None and kept[1] >= self._clock.monotonic()

    def keep(self, device_no: int, route: Route | None) -> None:
        """What a look-up has found just now."""
        self._step += 1
        lasts_s = self._absent_s if route is None else self._fresh_s
        self._routes.pop(device_no, None)
        self._routes[device_no] = (route, self._clock.monotonic() + lasts_s, self._step)
        if len(self._routes) > self._kept:
            del self._routes[next(iter(self._routes))]

    def forget(self, device_no: int) -> None:
        self._routes.pop(device_no, None)

    def forget_node(self, node_id: str) -> None:
        """Every route to the node that was kept so far."""
        self._forgotten[node_id] = self._step
