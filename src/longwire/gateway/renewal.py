"""RENEW: a session gets a new token, or goes on under one it brings.

While the store is away it is tried again and again: the session goes on under the token it has, until that ends.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from longwire.accounts.tokens import NotAdopted, Tokens
from longwire.errors import StoreUnavailable
from longwire.gateway.session import DeviceConnection, Session
from longwire.gateway.tasks import Tasks
from longwire.reasons import CloseCode
from longwire.wire.packets import Received, Renew, Renewed

log = logging.getLogger(__name__)

_RETRY_FIRST_S = 1.0
_RETRY_MOST_S = 15.0


class Renewal:
    """Keeps sessions alive past their first token."""

    def __init__(self, tokens: Tokens, tasks: Tasks, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._tokens = tokens
        self._tasks = tasks
        self._sleep = sleep

    def renew(self, connection: DeviceConnection, frame: Received) -> None:
        """RENEW. One at a time for a session counts; a flood of them is a flood of calls and bounded as those."""
        session = connection.session
        packet = frame.packet
        assert session is not None
        assert isinstance(packet, Renew)
        if session.calls > 0 and session.calls >= connection.port.limits.max_requests_per_session:
            connection.close(CloseCode.OVERLOADED, "too many calls run")
            return
        session.calls += 1
        self._tasks.start(self._run(session, connection, frame.correlation, packet.token), "renewing a token")

    async def _run(self, session: Session, connection: DeviceConnection, correlation: int, token: str) -> None:
        try:
            token, expires_at_ms = await self._until_it_answers(session, connection, token)
        except NotAdopted as error:
            connection.close(error.code, str(error))
            return
        finally:
            session.calls -= 1
        if connection.is_closing:
            return
        session.expires_at_ms = expires_at_ms
        connection.port.wheel.add(connection, connection.port.receiver.due(connection))
        connection.send(Renewed(token, self._tokens.expires_in_s(expires_at_ms)), correlation)

    async def _until_it_answers(self, session: Session, connection: DeviceConnection, token: str) -> tuple[str, int]:
        """The token and when it ends; as the session has them, where the connection closed first.

        Raises NotAdopted.
        """
        pause_s = _RETRY_FIRST_S
        while not connection.is_closing:
            try:
                if token:
                    return token, (await self._tokens.adopt(token, session.device_no)).expires_at_ms
                return await self._tokens.renew(session.device_no)
            except StoreUnavailable as error:
                if pause_s == _RETRY_FIRST_S:
                    log.info("the token of device %d is not renewed yet: %s", session.device_no, error)
            await self._sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311
            pause_s = min(pause_s * 2, _RETRY_MOST_S)
        return token, session.expires_at_ms
