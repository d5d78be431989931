"""Where a node's numbers stand, for who shows them."""

from typing import NamedTuple

from longwire.gateway.broadcasts import Broadcasts
from longwire.gateway.counters import Counters
from longwire.gateway.drain import Drain
from longwire.gateway.fan_out import FanOut
from longwire.gateway.hub import Hub
from longwire.gateway.lag import LoopWatch
from longwire.gateway.reconcile import Reconcile
from longwire.gateway.session import Session
from longwire.limits import Limits
from longwire.net.connection import DevicePort
from longwire.ports.across import Across
from longwire.ports.messages import MessageStore
from longwire.ports.uplink import UplinkWriter


class NodeFacts(NamedTuple):
    """References, to be read and never changed."""

    counters: Counters
    hub: Hub
    port: DevicePort[Session]
    watch: LoopWatch
    broadcasts: Broadcasts
    fan_out: FanOut
    reconcile: Reconcile
    drain: Drain
    messages: MessageStore
    uplink: UplinkWriter
    across: Across | None
    """None: a node alone has no routes to drift and no link."""
    limits: Limits
