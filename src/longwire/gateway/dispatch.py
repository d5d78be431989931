"""What each command of a device calls: one table, read downward."""

import logging
from collections.abc import Callable, Sequence
from typing import cast

from longwire.clock import Clock
from longwire.gateway.catch_up import CatchUp
from longwire.gateway.commands import Commands
from longwire.gateway.counters import Counters
from longwire.gateway.delivery import Delivery
from longwire.gateway.handshake import Handshake
from longwire.gateway.renewal import Renewal
from longwire.gateway.requests import Requests
from longwire.gateway.sending import Sending
from longwire.gateway.session import DeviceConnection, Session
from longwire.ports.messages import MessageStore
from longwire.reasons import CloseCode, Status
from longwire.wire.native import PONG_PACKET
from longwire.wire.packets import Command, Received, Subscribe, Subscribed, Unsubscribe, Unsubscribed

log = logging.getLogger(__name__)

Handler = Callable[[DeviceConnection, Received], None]


class Dispatch:
    """The node's net.Receiver: from a frame to its handler, and from the wheel to what is due."""

    def __init__(
        self,
        handshake: Handshake,
        sending: Sending,
        delivery: Delivery,
        catch_up: CatchUp,
        commands: Commands,
        requests: Requests,
        renewal: Renewal,
        store: MessageStore,
        clock: Clock,
        counters: Counters,
        ended: Callable[[Session, CloseCode | None], None],
    ) -> None:
        self._handshake = handshake
        self._delivery = delivery
        self._catch_up = catch_up
        self._store = store
        self._clock = clock
        self._counters = counters
        self._ended = ended
        self._handlers = _table(
            {
                Command.CONNECT: _second_connect,
                Command.PING: _pong,
                Command.PONG: _ignore,
                Command.CLOSE: _peer_closes,
                Command.RENEW: renewal.renew,
                Command.SEND: sending.sent,
                Command.ACK: delivery.acked,
                Command.REQUEST: requests.requested,
                Command.REPLY: commands.replied,
                Command.SUBSCRIBE: _subscribe,
                Command.UNSUBSCRIBE: _subscribe,
            }
        )

    def received(self, connection: DeviceConnection, frame: Received) -> None:
        session = connection.session
        if session is None:
            if connection.held is None:
                self._handshake.connect(connection, frame)
            else:
                self._handshake.hold(connection, frame)
            return
        if session.told_missed:
            self._store.told_missed(session.device_no, session.told_missed)
            session.told_missed = 0
        self._handlers[frame.command](connection, frame)

    def closed(self, connection: DeviceConnection, code: CloseCode | None) -> None:
        self._counters.closes["peer" if code is None else code.label] += 1
        session = connection.session
        if session is not None:
            self._counters.connected[connection.flavour] -= 1
            if log.isEnabledFor(logging.DEBUG):
                reason = "peer" if code is None else code.label
                labels = {"device_id": session.device_id, "close_reason": reason}
                log.debug("%s disconnected: %s", session.device_id, reason, extra={"labels": labels})
            self._delivery.close(session)
            self._ended(session, code)

    def drained(self, connection: DeviceConnection) -> None:
        if connection.session is not None:
            self._delivery.fill(connection.session)
            # It may have been closed as it was filled.
            if connection.session is not None:
                self._catch_up.drained(connection.session)

    def due(self, connection: DeviceConnection) -> int:
        session = connection.session
        if session is None:
            # A CONNECT that is being checked has come in time, however long the store takes.
            if connection.held is not None:
                return connection.port.handshake_ticks
            connection.close(CloseCode.HANDSHAKE_TIMEOUT)
            return 0
        left_ms = session.expires_at_ms - self._clock.now_ms()
        if left_ms <= 0:
            connection.close(CloseCode.TOKEN_EXPIRED)
            return 0
        silent = connection.port.wheel.tick - connection.heard
        if silent >= session.silent_ticks:
            connection.close(CloseCode.HEARTBEAT_TIMEOUT)
            return 0
        # Four ticks a second; the look after the token's end is the one that closes.
        return min(session.silent_ticks - silent, left_ms // 250 + 1)


def _table(handlers: dict[Command, Handler]) -> Sequence[Handler]:
    # Commands that devices may not send never get this far: the decoder refuses them.
    return [handlers.get(cast("Command", command), _ignore) for command in range(256)]


def _second_connect(connection: DeviceConnection, _frame: Received) -> None:
    connection.close(CloseCode.PROTOCOL_ERROR, "a second CONNECT")


def _pong(connection: DeviceConnection, frame: Received) -> None:
    connection.send(PONG_PACKET, frame.correlation, 0, frame.trace)


def _ignore(connection: DeviceConnection, frame: Received) -> None:
    """Its coming was all it had to say."""


def _peer_closes(connection: DeviceConnection, _frame: Received) -> None:
    connection.let_go()


def _subscribe(connection: DeviceConnection, frame: Received) -> None:
    packet = frame.packet
    if isinstance(packet, Subscribe):
        connection.send(Subscribed([int(Status.UNSUPPORTED)] * len(packet.topics)), frame.correlation)
    elif isinstance(packet, Unsubscribe):
        connection.send(Unsubscribed([int(Status.UNSUPPORTED)] * len(packet.topics)), frame.correlation)
