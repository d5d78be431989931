"""RENEW: a session gets a new token, or goes on under one it brings."""

from longwire.accounts.tokens import NotAdopted, Tokens
from longwire.errors import StoreUnavailable
from longwire.gateway.session import DeviceConnection, Session
from longwire.gateway.tasks import Tasks
from longwire.reasons import CloseCode
from longwire.wire.packets import Received, Renew, Renewed


class Renewal:
    """Keeps sessions alive past their first token."""

    def __init__(self, tokens: Tokens, tasks: Tasks) -> None:
        self._tokens = tokens
        self._tasks = tasks

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
            if token:
                expires_at_ms = (await self._tokens.adopt(token, session.device_no)).expires_at_ms
            else:
                token, expires_at_ms = await self._tokens.renew(session.device_no)
        except NotAdopted as error:
            connection.close(error.code, str(error))
            return
        except StoreUnavailable:
            connection.close(CloseCode.OVERLOADED, "the store does not answer")
            return
        finally:
            session.calls -= 1
        if connection.is_closing:
            return
        session.expires_at_ms = expires_at_ms
        connection.port.wheel.add(connection, connection.port.receiver.due(connection))
        connection.send(Renewed(token, self._tokens.expires_in_s(expires_at_ms)), correlation)
