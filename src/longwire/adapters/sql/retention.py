"""The sweeper: deletes what has been kept long enough, in small steps, so that no commit waits for it.

How long each table is kept stands with the table (tables.py); the rules are here, one a table. A step takes one rule
and at most ``STEP_ROWS`` rows; steps follow one another at a pace, faster while there is much to do.
"""

import asyncio
import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection

from longwire.adapters.sql import bulk, push_records
from longwire.adapters.sql.database import Database
from longwire.adapters.sql.device_sets import sweep_sets
from longwire.adapters.sql.domains import Domain
from longwire.adapters.sql.events import sweep_events
from longwire.clock import Clock
from longwire.errors import StoreUnavailable
from longwire.model import Outcome

log = logging.getLogger(__name__)

STEP_ROWS = 2_000
_BUSY_PAUSE_S = 0.1
_IDLE_PAUSE_S = 30.0
_DAY_MS = 86_400_000
_PUSHES_A_STEP = 20
_ROW_BYTES = 200
_SAMPLES = 64
_NEIGHBOURS = 16
_NEWEST = 1 << 62
_SESSIONS_COUNTED = 100_000
"""Entries of the index passed over in a step: some milliseconds."""
_SESSIONS_FURTHER = (
    "SELECT ended_at_ms FROM past_sessions WHERE ended_at_ms < ? ORDER BY ended_at_ms DESC LIMIT 1 OFFSET ?"
)
# Added up here: MariaDB 10.11 has crashed on freeing the temporary table that a sum over these rows needs.
_SAMPLE = 'SELECT LENGTH(payload), "offset" FROM uplink WHERE "offset" >= ? ORDER BY "offset" LIMIT ?'


_Rule = Callable[[Connection, int], int]
"""One step of one rule, at a time in ms; how many rows it looked at or deleted."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How long things are kept. Messages must be kept at least as long as the longest TTL."""

    messages_ms: int = 10 * _DAY_MS
    uplink_ms: int = 7 * _DAY_MS
    uplink_bytes: int = 1 << 30
    dead_letters_ms: int = 30 * _DAY_MS
    expired_tokens_ms: int = _DAY_MS
    pushes_ms: int = 90 * _DAY_MS
    """From the push's end on; its numbers stay that long."""
    push_segments_ms: int = 7 * _DAY_MS
    """From the push's end on: what became of each device."""
    audit_ms: int = 90 * _DAY_MS
    commands_ms: int = 7 * _DAY_MS
    imports_ms: int = 7 * _DAY_MS
    idempotency_ms: int = _DAY_MS
    events_ms: int = 2 * _DAY_MS
    """Longer than a webhook is tried: what waits behind a batch that is given up has its turn."""
    events_bytes: int = 1 << 30
    webhook_letters_ms: int = 30 * _DAY_MS
    traces_ms: int = 7 * _DAY_MS
    """What belongs to a trace, and past connections."""
    past_sessions: int = 5_000_000
    """Rows at the most; the oldest go first."""
    directives_ms: int = _DAY_MS
    """Past their end."""


class Sweeper:
    """Keeps every table to its retention."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        retention: Retention | None = None,
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        """``leads``: whether this process is the one that sweeps."""
        self._database = database
        self._leads = leads
        self._clock = clock
        self._retention = retention or Retention()
        self._inbox_at = (0, 0)
        self._pushes_at = (0, 0)
        self._presence_at = 0
        self._sessions_at = (_NEWEST, 0)
        self._sessions_before_ms = 0
        # What is only deleted, because it is old, needs no lock.
        self._rules: tuple[_Rule, ...] = (
            self._old_messages,
            self._old_uplink,
            self._large_uplink,
            self._old_nonces,
            self._old_pushes,
            self._old_rows("audit", "audit_no", "at_ms", self._retention.audit_ms),
            self._old_rows("commands", "command_id", "created_at_ms", self._retention.commands_ms),
            self._old_rows("imports", "import_id", "ended_at_ms", self._retention.imports_ms),
            self._old_rows("idempotency", 'caller, "key"', "created_at_ms", self._retention.idempotency_ms),
            self._old_rows("webhook_letters", "letter_no", "buried_at_ms", self._retention.webhook_letters_ms),
            self._old_rows("dead_letters", "letter_no", "buried_at_ms", self._retention.dead_letters_ms),
            self._old_rows("tokens", "token_hash", "expires_at_ms", self._retention.expired_tokens_ms),
            self._old_rows("past_sessions", "device_no, epoch", "ended_at_ms", self._retention.traces_ms),
            self._old_rows("trace_refs", "trace_id, kind, ref", "at_ms", self._retention.traces_ms),
            self._old_rows("directives", "directive_no", "until_ms", self._retention.directives_ms),
            self._old_rows("person_sessions", "token_hash", "expires_at_ms", 0),
            self._too_many_sessions,
            self._old_events,
            self._presence_of_nobody,
        )
        if database.is_shared:
            self._rules += (_ended_imports,)
        self._locked_rules: tuple[tuple[_Rule, Domain], ...] = (
            (self._expired_inbox, Domain.MESSAGES),
            (self._ended_pushes, Domain.PUSHES),
            (lambda connection, now_ms: sweep_sets(connection, now_ms, STEP_ROWS), Domain.SETS),
        )

    async def run(self) -> None:
        """Sweeps until it is cancelled."""
        while True:
            try:
                swept = await self.sweep_once() if self._leads() else 0
            except StoreUnavailable as error:
                log.warning("nothing was swept: %s", error)
                swept = 0
            except Exception:
                log.exception("a sweep failed; the next one is tried")
                swept = 0
            await asyncio.sleep(_BUSY_PAUSE_S if swept >= STEP_ROWS else _IDLE_PAUSE_S)

    async def sweep_once(self) -> int:
        """One step of every rule; the rows of the rule that had most to do. Raises StoreUnavailable."""
        now_ms = self._clock.now_ms()
        most = 0
        for rule in self._rules:
            most = max(most, await self._database.write(partial(_step, rule, now_ms)))
        for rule, domain in self._locked_rules:
            most = max(most, await self._database.write(partial(_step, rule, now_ms), domain))
        return most

    def _expired_inbox(self, connection: Connection, now_ms: int) -> int:
        """Walks the inboxes round and round: an expired row is invisible already, and rarely many are."""
        rows = connection.exec_driver_sql(
            "SELECT device_no, seq, expires_at_ms FROM inbox WHERE device_no >= ? AND (device_no > ? OR seq > ?)"
            " ORDER BY device_no, seq LIMIT ?",
            (self._inbox_at[0], *self._inbox_at, STEP_ROWS),
        ).fetchall()
        self._inbox_at = (rows[-1][0], rows[-1][1]) if len(rows) == STEP_ROWS else (0, 0)
        expired = [(device_no, seq) for device_no, seq, expires_at_ms in rows if expires_at_ms <= now_ms]
        bulk.execute(connection, "DELETE FROM inbox WHERE (device_no, seq) IN (VALUES {rows})", expired)
        bulk.execute(
            connection,
            "INSERT OR IGNORE INTO receipts (seq, device_no, outcome, at_ms, node_id) VALUES {rows}",
            [(seq, device_no, int(Outcome.EXPIRED), now_ms, "") for device_no, seq in expired],
        )
        return len(rows)

    def _old_messages(self, connection: Connection, now_ms: int) -> int:
        oldest = connection.exec_driver_sql(
            "SELECT seq, sent_at_ms FROM messages ORDER BY seq LIMIT ?", (STEP_ROWS + 1,)
        ).fetchall()
        before_ms = now_ms - self._retention.messages_ms
        # The newest message stays: after a restart the next place is counted from it.
        old = [seq for seq, _ in itertools.takewhile(lambda row: row[1] < before_ms, oldest[:-1])]
        if not old:
            return 0
        connection.exec_driver_sql("DELETE FROM receipts WHERE seq <= ?", (old[-1],))
        connection.exec_driver_sql("DELETE FROM messages WHERE seq <= ?", (old[-1],))
        return len(old)

    def _old_uplink(self, connection: Connection, now_ms: int) -> int:
        """From the log's beginning: a replayed dead letter stands at the end, older than what is before it."""
        oldest = connection.exec_driver_sql(
            'SELECT "offset", sent_at_ms FROM uplink ORDER BY "offset" LIMIT ?', (STEP_ROWS,)
        ).fetchall()
        before_ms = now_ms - self._retention.uplink_ms
        old = [offset for offset, _ in itertools.takewhile(lambda row: row[1] < before_ms, oldest)]
        return _delete_uplink(connection, old)

    def _large_uplink(self, connection: Connection, _now_ms: int) -> int:
        if _uplink_bytes(connection) <= self._retention.uplink_bytes:
            return 0
        oldest = connection.exec_driver_sql(
            'SELECT "offset" FROM uplink ORDER BY "offset" LIMIT ?', (STEP_ROWS,)
        ).fetchall()
        return _delete_uplink(connection, [offset for (offset,) in oldest])

    def _old_nonces(self, connection: Connection, now_ms: int) -> int:
        gone = connection.exec_driver_sql(
            "DELETE FROM nonces WHERE (app_key, nonce) IN"
            " (SELECT app_key, nonce FROM nonces WHERE expires_at_ms < ? LIMIT ?)",
            (now_ms, STEP_ROWS),
        )
        return gone.rowcount

    def _ended_pushes(self, connection: Connection, now_ms: int) -> int:
        """Walks the ended pushes round and round: the totals of an old one are kept, and its segments go.

        Of a cancelled one they stay while somebody may acknowledge it.
        """
        rows = connection.exec_driver_sql(
            "SELECT ended_at_ms, push_no, totals IS NULL AND (status <> 'canceled' OR expires_at_ms <= ?)"
            " FROM pushes WHERE ended_at_ms < ? AND ended_at_ms >= ? AND (ended_at_ms > ? OR push_no > ?)"
            " ORDER BY ended_at_ms, push_no LIMIT ?",
            (now_ms, now_ms - self._retention.push_segments_ms, self._pushes_at[0], *self._pushes_at, STEP_ROWS),
        ).fetchall()
        folded = 0
        for ended_at_ms, push_no, is_whole in rows:
            if is_whole:
                if folded == _PUSHES_A_STEP or not _fold(connection, push_no, now_ms):
                    return STEP_ROWS
                folded += 1
            self._pushes_at = (ended_at_ms, push_no)
        if len(rows) < STEP_ROWS:
            self._pushes_at = (0, 0)
        return folded

    def _old_pushes(self, connection: Connection, now_ms: int) -> int:
        gone = connection.exec_driver_sql(
            "DELETE FROM pushes WHERE push_no IN"
            " (SELECT push_no FROM pushes WHERE ended_at_ms < ? AND totals IS NOT NULL LIMIT ?)",
            (now_ms - self._retention.pushes_ms, STEP_ROWS),
        )
        return gone.rowcount

    def _old_events(self, connection: Connection, now_ms: int) -> int:
        return sweep_events(connection, now_ms, self._retention.events_ms, self._retention.events_bytes, STEP_ROWS)

    def _presence_of_nobody(self, connection: Connection, _now_ms: int) -> int:
        """Walks through how devices were last seen: the end of a session may be noted behind its device's deletion."""
        rows = connection.exec_driver_sql(
            "SELECT p.device_no, d.device_no FROM presence p LEFT JOIN devices d ON d.device_no = p.device_no"
            " WHERE p.device_no > ? ORDER BY p.device_no LIMIT ?",
            (self._presence_at, STEP_ROWS),
        ).fetchall()
        self._presence_at = rows[-1][0] if len(rows) == STEP_ROWS else 0
        gone = [(device_no,) for device_no, known in rows if known is None]
        bulk.execute(connection, "DELETE FROM presence WHERE (device_no) IN (VALUES {rows})", gone)
        return len(gone)

    def _too_many_sessions(self, connection: Connection, _now_ms: int) -> int:
        """Counts from the newest down, some a step; what is found behind as many as may be goes."""
        before_ms, counted = self._sessions_at
        step = min(_SESSIONS_COUNTED, self._retention.past_sessions - counted)
        found = connection.exec_driver_sql(_SESSIONS_FURTHER, (before_ms, step - 1)).scalar()
        self._sessions_at = (_NEWEST, 0) if found is None else (found, counted + step)
        if found is not None and counted + step >= self._retention.past_sessions:
            self._sessions_at, self._sessions_before_ms = (_NEWEST, 0), found
        gone = connection.exec_driver_sql(
            "DELETE FROM past_sessions WHERE (device_no, epoch) IN"
            " (SELECT device_no, epoch FROM past_sessions WHERE ended_at_ms < ? LIMIT ?)",
            (self._sessions_before_ms, STEP_ROWS),
        )
        return gone.rowcount

    @staticmethod
    def _old_rows(table: str, key: str, stamp: str, kept_ms: int) -> _Rule:
        """The rule that deletes what was stamped longer ago than ``kept_ms``."""
        statement = f"DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM {table} WHERE {stamp} < ? LIMIT ?)"

        def sweep(connection: Connection, now_ms: int) -> int:
            return connection.exec_driver_sql(statement, (now_ms - kept_ms, STEP_ROWS)).rowcount

        return sweep


def _ended_imports(connection: Connection, now_ms: int) -> int:
    """Ends jobs whose process is gone for good, and with it the file. One that works on says so with its next step."""
    change = "UPDATE imports SET status = 'failed', ended_at_ms = ? WHERE status = 'running' AND created_at_ms < ?"
    return connection.exec_driver_sql(change, (now_ms, now_ms - _DAY_MS)).rowcount


def _step(rule: _Rule, now_ms: int, connection: Connection) -> int:
    return rule(connection, now_ms)


def _fold(connection: Connection, push_no: int, now_ms: int) -> bool:
    """Keeps a push's totals and deletes its segments; False where it takes another step for what failed."""
    failures = connection.exec_driver_sql(
        "DELETE FROM push_failures WHERE push_no = ? AND device_no IN"
        " (SELECT device_no FROM push_failures WHERE push_no = ? LIMIT ?)",
        (push_no, push_no, STEP_ROWS),
    )
    if failures.rowcount == STEP_ROWS:
        return False
    kept = push_records.totals(push_records.read(connection, push_no, now_ms))
    connection.exec_driver_sql("UPDATE pushes SET totals = ? WHERE push_no = ?", (kept, push_no)).close()
    connection.exec_driver_sql("DELETE FROM push_segments WHERE push_no = ?", (push_no,)).close()
    connection.exec_driver_sql("DELETE FROM push_minutes WHERE push_no = ?", (push_no,)).close()
    return True


def _uplink_bytes(connection: Connection) -> int:
    """About what the log weighs: by samples, for to add it up would read all of it.

    A sample is what a few neighbours weigh for each offset they span: records differ in size over time, and
    repeats that were left out leave gaps.
    """
    first, last = connection.exec_driver_sql(
        'SELECT (SELECT MIN("offset") FROM uplink), (SELECT MAX("offset") FROM uplink)'
    ).one()
    if first is None:
        return 0
    span = last + 1 - first
    weight = 0.0
    for sample in range(_SAMPLES):
        at = first + span * sample // _SAMPLES
        neighbours = connection.exec_driver_sql(_SAMPLE, (at, _NEIGHBOURS)).all()
        size = sum(payload + _ROW_BYTES for payload, _ in neighbours)
        weight += size / (neighbours[-1][1] + 1 - at)
    return int(weight / _SAMPLES * span)


def _delete_uplink(connection: Connection, offsets: list[int]) -> int:
    if offsets:
        for consumer, offset in connection.exec_driver_sql(
            'SELECT consumer, "offset" FROM uplink_cursors WHERE "offset" < ?', (offsets[-1],)
        ):
            log.error("uplink records up to %d are deleted and %s has read to %d", offsets[-1], consumer, offset)
        connection.exec_driver_sql('DELETE FROM uplink WHERE "offset" <= ?', (offsets[-1],))
    return len(offsets)
