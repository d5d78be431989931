"""What handlers may do: the application's Services on the ports of this process."""

from longwire.model import Device
from longwire.ports.accounts import AccountStore
from longwire.push.messages import Messages, Wanted
from longwire.reasons import Status


class HandlerServices:
    """application.Services."""

    def __init__(self, accounts: AccountStore, messages: Messages) -> None:
        self._accounts = accounts
        self._messages = messages

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
        return await self._messages.status(Wanted(to, kind, payload, message_id, ttl_s, collapse_key, trace))

    async def find_device(self, device_id: str) -> Device | None:
        return (await self._accounts.find_devices([device_id]))[0]
