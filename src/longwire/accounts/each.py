"""Registering many devices of which some may be refused."""

from collections.abc import Sequence

from longwire.model import Device
from longwire.ports.accounts import AccountStore, NewDevice, TooManyTags


async def register_each(
    store: AccountStore, devices: Sequence[NewDevice], now_ms: int
) -> list[tuple[Device, bool] | TooManyTags]:
    """Registers devices together; where one would have too many tags, in halves until that one stands alone.

    With each, in their order, what ``AccountStore.register`` gives, or why it was refused. Raises StoreUnavailable;
    then some of them may be registered, and repeating the call is safe.
    """
    if not devices:
        return []
    try:
        return list(await store.register(devices, now_ms))
    except TooManyTags as error:
        if len(devices) == 1:
            return [error]
        half = len(devices) // 2
        first = await register_each(store, devices[:half], now_ms)
        return first + await register_each(store, devices[half:], now_ms)
