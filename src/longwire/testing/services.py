"""The services of handlers, kept in memory: run a handler in a test and look at what it sent.

services = MemoryServices([device("d-1")])
app.bind(services)
result = await call(app.find_uplink("order.created"), b"{}", context("order.created", services))
assert services.sent[0].to == "device:d-1"
"""

from collections.abc import Iterable

from msgspec import Struct

from longwire.application import Context
from longwire.errors import StoreUnavailable
from longwire.model import Device
from longwire.reasons import Status


class Sent(Struct, frozen=True):
    """A message that a handler sent and that was accepted."""

    to: str
    kind: str
    payload: bytes
    message_id: bytes
    ttl_s: int
    collapse_key: str
    trace: bytes


class MemoryServices:
    """Behaves as a node does: knows its devices, users and groups, and takes a message id once."""

    def __init__(self, devices: Iterable[Device] = (), groups: Iterable[str] = ()) -> None:
        self.devices = {device.device_id: device for device in devices}
        self.groups = set(groups)
        self.sent: list[Sent] = []
        self.is_away = False
        """Whether the store is away: every call raises StoreUnavailable."""
        self._ids: set[bytes] = set()

    async def send(
        self,
        to: str,
        kind: str,
        payload: bytes,
        *,
        message_id: bytes,
        ttl_s: int,
        collapse_key: str,
        trace: bytes,
    ) -> Status:
        self._need_store()
        scheme, _, name = to.partition(":")
        users = {device.user for device in self.devices.values()}
        known = {"device": self.devices.keys(), "user": users, "group": self.groups}
        if name not in known[scheme]:
            return Status.UNKNOWN_TARGET
        if message_id in self._ids:
            return Status.DUPLICATE
        self._ids.add(message_id)
        self.sent.append(Sent(to, kind, payload, message_id, ttl_s, collapse_key, trace))
        return Status.OK

    async def find_device(self, device_id: str) -> Device | None:
        self._need_store()
        return self.devices.get(device_id)

    def sent_to(self, to: str) -> list[Sent]:
        """What was sent to ``device:ID``, ``user:ID`` or ``group:ID``, in order."""
        return [message for message in self.sent if message.to == to]

    def _need_store(self) -> None:
        if self.is_away:
            raise StoreUnavailable("the store is away")


def device(device_id: str, device_no: int = 1, user: str | None = None, platform: str = "linux") -> Device:
    """A registered device."""
    return Device(
        device_no=device_no,
        device_id=device_id,
        user=user,
        platform=platform,
        app_version="1.0",
        registered_at_ms=1_764_000_000_000,
        is_disabled=False,
    )


def context(
    kind: str,
    services: MemoryServices | None = None,
    *,
    device_id: str = "d-1",
    device_no: int = 1,
    message_id: bytes = b"",
    attempt: int = 1,
    user: str | None = None,
    trace: bytes = b"",
    sent_at_ms: int = 1_764_000_000_000,
) -> Context:
    """The context of a message from a device; each has a message id of its own unless one is given."""
    return Context(
        kind=kind,
        device_id=device_id,
        device_no=device_no,
        sent_at_ms=sent_at_ms,
        services=services,
        message_id=message_id,
        user=user,
        trace=trace,
        attempt=attempt,
    )
