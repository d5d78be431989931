"""Who may connect now: the bounds on connections, on their rate, and on one address."""

import asyncio
import ipaddress

from longwire.clock import Clock
from longwire.gateway.counters import Counters
from longwire.gateway.session import Session
from longwire.limits import Limits
from longwire.net.connection import Abortable, DevicePort, Refusal
from longwire.reasons import CloseCode


class Admission:
    """Judges each connection once its first byte has come. A node that drains takes none."""

    def __init__(self, port: DevicePort[Session], clock: Clock, limits: Limits, counters: Counters) -> None:
        self._port = port
        self._clock = clock
        self._limits = limits
        self._counters = counters
        self._allowance = float(limits.accept_per_s)
        self._allowance_at = clock.monotonic()
        self.is_draining = False

    def judge(self, connection: Abortable, transport: asyncio.Transport) -> Refusal | None:
        """Why the connection is turned away, or None."""
        if self.is_draining:
            return CloseCode.DRAINING, "the node is draining"
        reason = self._refusal(connection, transport)
        if reason is None:
            return None
        self._counters.shed += 1
        return CloseCode.OVERLOADED, reason

    def _refusal(self, connection: Abortable, transport: asyncio.Transport) -> str | None:
        limits = self._limits
        if len(self._port.open) >= limits.max_connections:
            return f"the node holds {limits.max_connections} connections already"
        now = self._clock.monotonic()
        passed = now - self._allowance_at
        self._allowance = min(limits.accept_per_s, self._allowance + passed * limits.accept_per_s)
        self._allowance_at = now
        if self._allowance < 1:
            return f"more than {limits.accept_per_s} connections a second"
        self._allowance -= 1
        if limits.max_connections_per_address:
            return self._address_refusal(connection, self._port.client_address(connection, transport))
        return None

    def judge_client(self, connection: Abortable, address: str) -> Refusal | None:
        """Why a connection is turned away that has told late whose it is, or None."""
        if not self._limits.max_connections_per_address:
            return None
        reason = self._address_refusal(connection, address)
        if reason is None:
            return None
        self._counters.shed += 1
        return CloseCode.OVERLOADED, reason

    def _address_refusal(self, connection: Abortable, address: str) -> str | None:
        # A proxy's own address stands for all of its clients; where it tells them apart, they are counted.
        if not address or address in self._port.trusted_proxies or ipaddress.ip_address(address).is_loopback:
            return None
        if self._port.address_counts[address] >= self._limits.max_connections_per_address:
            return f"more than {self._limits.max_connections_per_address} connections of one address"
        self._port.count_address(connection, address)
        return None
