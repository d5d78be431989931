"""Devices as operators see them: provisioned, looked up, given to users, cut off and let in again.

Whoever is cut off is cut off in the store first, so that no later connect succeeds, and then on the live session.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace
from pyroaring import BitMap

from longwire import bitmaps
from longwire.accounts.each import register_each
from longwire.accounts.refusals import RefusalCode, Refused
from longwire.accounts.token_copies import CHANGED_FOR_S, REVOKED_FOR_S
from longwire.accounts.tokens import IssuedToken, Tokens, hash_of, new_secrets
from longwire.clock import Clock
from longwire.model import Device
from longwire.ports.accounts import AccountStore, DeviceChange, DeviceFilter, NewDevice, TooManyTags
from longwire.ports.link import Link
from longwire.ports.registry import Registry
from longwire.ports.routes import RouteTable
from longwire.reasons import CloseCode

BarTokens = Callable[[Sequence[bytes], int], Awaitable[None]]
"""Has copies of what these tokens prove forgotten, and none taken for so many seconds."""

MAX_BATCH = 1_000
MAX_SAMPLE = 10
_MINT_SLICE = 250
"""Devices whose secrets are made in one go: about 1 ms of the loop."""


class Provision(Struct, frozen=True):
    """A device that an operator wants to exist."""

    device_id: str
    user: str | None = None
    tags: tuple[str, ...] = ()


class Provisioned(NamedTuple):
    """A device that exists now, with a token for it. ``refresh_token`` None: it goes on with the one it has."""

    device: Device
    is_new: bool
    token: str
    expires_at_ms: int
    refresh_token: str | None


class Unresolved(Struct, frozen=True):
    """Names that mean nothing: how many, and the first of them."""

    count: int
    sample: tuple[str, ...]

    @classmethod
    def of(cls, names: Sequence[str]) -> "Unresolved":
        return cls(len(names), tuple(names[:MAX_SAMPLE]))


class DeviceView(NamedTuple):
    """A device and its tags."""

    device: Device
    tags: tuple[str, ...]


class Devices:
    """The operator's calls. Each raises Refused (not-found) for an unknown device, and StoreUnavailable."""

    def __init__(
        self,
        store: AccountStore,
        clock: Clock,
        tokens: Tokens,
        link: Link,
        routes: RouteTable | None = None,
        registry: Registry | None = None,
        bar_tokens: BarTokens | None = None,
    ) -> None:
        """``routes`` None: nobody counts as online. ``registry`` None: every node that has routes lives.

        ``bar_tokens`` None: there are no copies of what tokens prove.
        """
        self._store = store
        self._clock = clock
        self._tokens = tokens
        self._link = link
        self._routes = routes
        self._registry = registry
        self._bar_tokens = bar_tokens

    async def provision(self, wanted: Sequence[Provision]) -> list[Provisioned | Refused]:
        """Registers devices on the operator's word, at most MAX_BATCH different ones.

        A known device gets a further token, the user and the tags named for it, and a refresh token if it has
        none: so "revoke, then provision" is how a device that lost its proof gets back in. Refused stands for one
        that would have too many tags.
        """
        if len(wanted) > MAX_BATCH:
            raise ValueError(f"{len(wanted)} devices in one batch; at most {MAX_BATCH}")
        secrets = iter(new_secrets(2 * len(wanted)))
        known = await self._store.find_registrations([item.device_id for item in wanted])
        minted: list[tuple[IssuedToken, str | None]] = []
        new: list[NewDevice] = []
        for at in range(0, len(wanted), _MINT_SLICE):
            await asyncio.sleep(0)
            for item, entry in zip(wanted[at : at + _MINT_SLICE], known[at : at + _MINT_SLICE], strict=True):
                token, refresh_token = next(secrets), next(secrets)
                issued, refresh = self._tokens.mint(token), None
                if entry is None or entry[1] is None:
                    refresh = refresh_token
                minted.append((issued, refresh))
                new.append(_new_device(item, issued, refresh))
        registered = await register_each(self._store, new, self._clock.now_ms())
        return [
            Refused(RefusalCode.INVALID_PARAMETER, str(outcome))
            if isinstance(outcome, TooManyTags)
            else Provisioned(*outcome, issued.token, issued.expires_at_ms, refresh_token)
            for outcome, (issued, refresh_token) in zip(registered, minted, strict=True)
        ]

    async def find(self, device_id: str) -> DeviceView:
        """The device and its tags."""
        return await self._view(await self._find(device_id))

    async def page(
        self, below_no: int, limit: int, wanted: DeviceFilter | None = None, is_online: bool | None = None
    ) -> tuple[Sequence[DeviceView], int | None]:
        """A page of devices with numbers below ``below_no`` (0: from the newest); and where the next one starts."""
        wanted = wanted or DeviceFilter()
        if is_online is not None:
            online = await self._online()
            wanted = replace(wanted, among=online) if is_online else replace(wanted, without=online)
        if wanted == DeviceFilter():
            devices = await self._store.list_devices(below_no, limit + 1)
        else:
            devices = await self._store.page(wanted, below_no, limit + 1)
        page = devices[:limit]
        tags = await self._store.tags_of([device.device_no for device in page])
        views = [DeviceView(device, own) for device, own in zip(page, tags, strict=True)]
        return views, page[-1].device_no if len(devices) > limit else None

    async def change(self, device_id: str, change: DeviceChange) -> DeviceView:
        """Changes what is given."""
        device = await self._find(device_id)
        await self._store.change_device(device.device_no, change, self._clock.now_ms())
        return await self.find(device_id)

    async def set_user(self, device_id: str, user: str | None) -> DeviceView:
        """Makes the device one of this user's, or of nobody's."""
        device = await self._find(device_id)
        await self._store.set_user(device.device_no, user)
        await self._bar(device, CHANGED_FOR_S)
        return await self.find(device_id)

    async def delete(self, device_id: str) -> None:
        """Forgets the device with what waits for it, and closes its session (4102)."""
        device = await self._find(device_id)
        hashes = await self._store.token_hashes(device.device_no) if self._bar_tokens is not None else []
        await self._store.delete_device(device.device_no, self._clock.now_ms())
        if self._bar_tokens is not None:
            await self._bar_tokens(hashes, REVOKED_FOR_S)
        await self._link.close_session(device.device_no, CloseCode.DISABLED, "device deleted")

    async def revoke(self, device_id: str) -> tuple[DeviceView, bool]:
        """Ends the device's tokens and refresh token, and its session (4102); whether it had one."""
        device = await self._find(device_id)
        await self._store.revoke_tokens(device.device_no, self._clock.now_ms())
        await self._bar(device, REVOKED_FOR_S)
        was_online = await self._link.close_session(device.device_no, CloseCode.DISABLED, "credentials revoked")
        return await self.find(device_id), was_online

    async def set_disabled(self, device_id: str, is_disabled: bool) -> tuple[DeviceView, bool]:
        """Keeps the device out, closing its session (4102), or lets it in again; whether a session was closed."""
        device = await self._find(device_id)
        await self._store.set_disabled(device.device_no, is_disabled)
        await self._bar(device, CHANGED_FOR_S)
        was_online = is_disabled and await self._link.close_session(
            device.device_no, CloseCode.DISABLED, "device disabled"
        )
        return await self.find(device_id), was_online

    async def disconnect(
        self, device_id: str, code: CloseCode = CloseCode.KICKED, ban_s: int | None = None
    ) -> tuple[DeviceView, bool]:
        """Closes the device's session; whether it had one. What it may do next is for ``code`` to say.

        With ``ban_s`` its tokens do not connect for so long (4103); 0 ends a ban.
        """
        device = await self._find(device_id)
        if ban_s is not None:
            await self._store.ban(device.device_no, self._clock.now_ms() + ban_s * 1000 if ban_s else 0)
            await self._bar(device, CHANGED_FOR_S)
        was_online = await self._link.close_session(device.device_no, code, "disconnected by an operator")
        return await self.find(device_id), was_online

    async def _bar(self, device: Device, for_s: int) -> None:
        """Once the store has the change, so that the store alone is asked what the device's tokens prove."""
        if self._bar_tokens is not None:
            await self._bar_tokens(await self._store.token_hashes(device.device_no), for_s)

    async def _online(self) -> BitMap:
        """Who has a session, by the route table and on a node that lives."""
        online = BitMap()
        newest = await self._store.list_devices(0, 1) if self._routes is not None else ()
        if self._routes is not None and newest:
            for segment in range(bitmaps.segment_of(newest[0].device_no) + 1):
                where = await self._routes.whereabouts(segment)
                online = BitMap.union(online, *(there for node_id, there in where.items() if self._lives(node_id)))
        return online

    def _lives(self, node_id: str) -> bool:
        return self._registry is None or any(node.node_id == node_id for node in self._registry.nodes())

    async def _find(self, device_id: str) -> Device:
        device = (await self._store.find_devices([device_id]))[0]
        if device is None:
            raise Refused(RefusalCode.NOT_FOUND, f"there is no device {device_id}")
        return device

    async def _view(self, device: Device) -> DeviceView:
        return DeviceView(device, (await self._store.tags_of([device.device_no]))[0])


def _new_device(item: Provision, issued: IssuedToken, refresh_token: str | None) -> NewDevice:
    return NewDevice(
        item.device_id,
        hash_of(issued.token),
        issued.expires_at_ms,
        None if refresh_token is None else hash_of(refresh_token),
        item.user,
        item.tags,
    )
