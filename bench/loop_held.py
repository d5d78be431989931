"""How long the node's event loop was held at most: the time nobody's heartbeat, message or connect could get on.

OPEN: the node does not tell this yet. `longest_hold_ms` is the one function to fill in when it does.
"""

from bench.servers import Endpoint


def longest_hold_ms(node: Endpoint) -> float | None:
    """The longest that the loop of this running node was held since it started, in ms; None: it does not tell.

    Called after the load, while the node still runs: `node.http_url` is its HTTP port, `node.process.log` the file
    that its output goes to.
    """
    del node
    return None
