"""Who devices are, as this node knows it: their numbers, kept for those it met lately.

A device's number never changes and is never given to another, so that a copy can be wrong in one way only: the
device was deleted. So copies are kept for a minute.
"""

from longwire.clock import Clock
from longwire.ports.accounts import AccountStore

_KEPT = 200_000
_FRESH_S = 60.0


class Directory:
    """Look-ups of targets by name."""

    def __init__(self, accounts: AccountStore, clock: Clock, kept: int = _KEPT) -> None:
        self._accounts = accounts
        self._clock = clock
        self._kept = kept
        self._numbers: dict[str, tuple[int, float]] = {}

    def find(self, device_id: str) -> int | None:
        """The device's number, where it is known here; never waits."""
        known = self._numbers.get(device_id)
        if known is None:
            return None
        device_no, until = known
        if self._clock.monotonic() < until:
            return device_no
        del self._numbers[device_id]
        return None

    async def look_up(self, device_id: str) -> int | None:
        """The device's number, None where it is not registered. Raises StoreUnavailable."""
        device = (await self._accounts.find_devices([device_id]))[0]
        if device is None:
            return None
        if len(self._numbers) >= self._kept:
            del self._numbers[next(iter(self._numbers))]
        self._numbers[device_id] = (device.device_no, self._clock.monotonic() + _FRESH_S)
        return device.device_no

    async def devices_of(self, user: str) -> tuple[int, ...]:
        """The numbers of the user's devices; empty where nobody is this user. Raises StoreUnavailable."""
        devices = (await self._accounts.devices_of_users([user]))[0]
        return tuple(device.device_no for device in devices)
