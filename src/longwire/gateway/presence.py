"""Who came and who went, told to those who want to know: the store, the application's hook, the webhooks.

A session's epoch gives the version: even while it lasts, odd when it has ended, rising with every change of a device.
The store gets only the ends; that a device is here is asked of the node.
"""

import msgspec

from longwire.application import Hooks, Presence
from longwire.clock import Clock
from longwire.gateway.session import Session
from longwire.gateway.tasks import Tasks
from longwire.net.connection import Flavour
from longwire.operations_model import Event, LastSession
from longwire.ports.events import EventLog
from longwire.ports.presence import PresenceStore
from longwire.reasons import CloseCode

_ONLINE = "presence.online"
_OFFLINE = "presence.offline"


class Presences:
    """Tells of every session of this node."""

    def __init__(
        self, node_id: str, store: PresenceStore, events: EventLog | None, hooks: Hooks, clock: Clock, tasks: Tasks
    ) -> None:
        self._node_id = node_id
        self._store = store
        self._events = events
        self._hooks = hooks
        self._clock = clock
        self._tasks = tasks

    def came(self, session: Session) -> None:
        """The session has begun."""
        if self._hooks.on_presence is not None or (self._events is not None and self._events.wants(_ONLINE)):
            self._tell(session, session.since_ms, None, is_online=True)

    def went(self, session: Session, code: CloseCode | None) -> None:
        """The session has ended, with this code or without a word."""
        now_ms = self._clock.now_ms()
        self._store.ended(
            LastSession(
                session.device_no,
                version_of(session, is_online=False),
                now_ms,
                self._node_id,
                transport_of(session),
                None if code is None else int(code),
                session.since_ms,
            )
        )
        if self._hooks.on_presence is not None or (self._events is not None and self._events.wants(_OFFLINE)):
            self._tell(session, now_ms, code, is_online=False)

    def _tell(self, session: Session, at_ms: int, code: CloseCode | None, *, is_online: bool) -> None:
        presence = Presence(
            device_id=session.device_id,
            device_no=session.device_no,
            is_online=is_online,
            version=version_of(session, is_online=is_online),
            at_ms=at_ms,
            session_id=session.session_id,
            node_id=self._node_id,
            user=session.user,
            transport=transport_of(session),
            code=code,
        )
        if self._hooks.on_presence is not None:
            self._tasks.start(self._hooks.tell_presence(presence), "on_presence")
        if self._events is not None:
            # By its id and not by its number: the store may know it no more.
            body = {
                "device_id": presence.device_id,
                "version": presence.version,
                "session_id": presence.session_id,
                "node_id": presence.node_id,
                "transport": presence.transport,
            }
            closed = {} if code is None else {"close_code": int(code)}
            kind = _ONLINE if is_online else _OFFLINE
            self._events.append(Event(kind, at_ms, 0, msgspec.json.encode(body | closed)))


def version_of(session: Session, *, is_online: bool) -> int:
    """The version of the device's presence that this session makes: as it begins, or as it ends."""
    return session.epoch * 2 + (not is_online)


def transport_of(session: Session) -> str:
    """How the device is connected."""
    return "native" if session.connection.flavour == Flavour.NATIVE else "websocket"
