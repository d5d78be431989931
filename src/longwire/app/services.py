"""What handlers may do: the application's Services on the ports of this process."""

from longwire.clock import Clock
from longwire.ids import is_device_id
from longwire.limits import MAX_KIND_CHARACTERS, MAX_TTL_S, Limits
from longwire.model import APPLICATION_NO, Device, Envelope
from longwire.ports.accounts import AccountStore
from longwire.ports.link import Link
from longwire.reasons import Status


class HandlerServices:
    """application.Services."""

    def __init__(self, accounts: AccountStore, link: Link, clock: Clock, limits: Limits) -> None:
        self._accounts = accounts
        self._link = link
        self._clock = clock
        self._limits = limits

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
        if len(payload) > self._limits.max_payload_bytes:
            return Status.TOO_LARGE
        if not 0 < len(kind) <= MAX_KIND_CHARACTERS or not -1 <= ttl_s <= MAX_TTL_S:
            return Status.BAD_REQUEST
        scheme, _, name = to.partition(":")
        if scheme in ("group", "topic"):
            return Status.UNSUPPORTED
        if scheme not in ("device", "user") or not is_device_id(name):
            return Status.BAD_REQUEST
        receivers = await self._receivers(scheme, name)
        if not receivers:
            return Status.UNKNOWN_TARGET
        now_ms = self._clock.now_ms()
        lifetime_s = self._limits.default_ttl_s if ttl_s < 0 else ttl_s
        return await self._link.send(
            Envelope(
                APPLICATION_NO,
                "",
                message_id,
                to if scheme == "user" else "",
                kind,
                payload,
                collapse_key,
                now_ms,
                now_ms + lifetime_s * 1000,
                receivers,
                trace=trace,
            )
        )

    async def find_device(self, device_id: str) -> Device | None:
        return (await self._accounts.find_devices([device_id]))[0]

    async def _receivers(self, scheme: str, name: str) -> tuple[int, ...]:
        if scheme == "user":
            return tuple(device.device_no for device in (await self._accounts.devices_of_users([name]))[0])
        device = (await self._accounts.find_devices([name]))[0]
        return () if device is None else (device.device_no,)
