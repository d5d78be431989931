"""What webhooks are told of pushes: put into the outbox in the transaction of the deed, and only where it is wanted.

Nothing is told of notices of a withdrawal, nor of what devices send to large groups: operators made neither.
"""

import json
from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import asdict
from pyroaring import BitMap
from sqlalchemy import Connection

from longwire.adapters.sql import bulk
from longwire.ids import prefixed
from longwire.model import APPLICATION_NO
from longwire.operations_model import Event
from longwire.push_model import Push

NoteEvents = Callable[[Connection, Sequence[Event]], None]
ACKED = "push.acked"
COMPLETED = "push.completed"
_DEVICES_AN_EVENT = 1_000
_IDS = "SELECT device_id FROM devices WHERE device_no IN ({rows}) ORDER BY device_no"
_PUSH = "SELECT push_id FROM pushes WHERE push_no = ? AND sender_no = ? AND notice_of IS NULL"


class PushEvents:
    """``note`` writes events in a transaction; ``wants`` says from memory whether anybody takes a kind."""

    def __init__(self, note: NoteEvents | None, wants: Callable[[str], bool]) -> None:
        self._note = note
        self._wants = wants

    def acked(self, connection: Connection, push_no: int, devices: BitMap, now_ms: int) -> None:
        """The devices have acknowledged the push for the first time."""
        if self._note is None or not devices or not self._wants(ACKED):
            return
        push_id = connection.exec_driver_sql(_PUSH, (push_no, APPLICATION_NO)).scalar()
        if push_id is None:
            return
        names = [name for (name,) in bulk.select_in(connection, _IDS, devices)]
        events = [
            _event(
                ACKED, now_ms, {"push_id": prefixed("psh", push_id), "device_ids": names[at : at + _DEVICES_AN_EVENT]}
            )
            for at in range(0, len(names), _DEVICES_AN_EVENT)
        ]
        self._note(connection, events)

    def wants_completed(self) -> bool:
        """Whether anybody wants to know which pushes have completed."""
        return self._note is not None and self._wants(COMPLETED)

    def completed(self, connection: Connection, push: Push, now_ms: int) -> None:
        """The push has completed, with these numbers."""
        if self._note is None or push.new.sender_no != APPLICATION_NO or push.new.notice_of is not None:
            return
        told = {"push_id": prefixed("psh", push.new.push_id), "stats": asdict(push.stats)}
        self._note(connection, [_event(COMPLETED, now_ms, told)])


def _event(kind: str, now_ms: int, body: Mapping[str, object]) -> Event:
    return Event(kind, now_ms, 0, json.dumps(body, separators=(",", ":")).encode())
