"""What belongs to a trace: a row for each message, record, push and command that has one.

Written in the transaction of what it points to; nothing is written for what has no trace.
"""

from collections.abc import Sequence

from sqlalchemy import Connection

from longwire.adapters.sql import bulk
from longwire.model import UplinkRecord
from longwire.ports.trace_rows import RefKind

_INSERT = "INSERT OR IGNORE INTO trace_refs (trace_id, kind, ref, at_ms) VALUES {rows}"
_TRACE_ID_BYTES = 16


def note_refs(connection: Connection, kind: RefKind, refs: Sequence[tuple[bytes, bytes, int]]) -> None:
    """Keeps (trace context, id, at_ms) of things of one kind."""
    number = int(kind)
    rows = [(trace[:_TRACE_ID_BYTES], number, ref, at_ms) for trace, ref, at_ms in refs]
    bulk.execute(connection, _INSERT, rows)


def note_uplink_refs(connection: Connection, records: Sequence[UplinkRecord]) -> None:
    """Keeps the records that have a trace."""
    note_refs(connection, RefKind.UPLINK, [(r.trace, r.message_id, r.sent_at_ms) for r in records if r.trace])
