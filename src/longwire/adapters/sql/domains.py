"""Who writes what: the domains whose writers go one after another, also across processes, and their numbers.

Every gathered write names the domains whose tables it changes. On a shared engine a group begins by taking the rows
of its domains in ``write_locks`` (FOR UPDATE, in one order for everybody), so that

- read-modify-write of a blob is safe, whoever else writes;
- a domain's numbers rise in the order of commits: a reader who has seen one will never see a smaller one appear.

On SQLite the one writer is the lock, and tables number their rows themselves.
"""

from collections.abc import Sequence
from enum import StrEnum

from sqlalchemy import Connection

LOCK_ONE = 'SELECT "next" FROM write_locks WHERE name = ? FOR UPDATE'
HELD = "longwire.held"
"""Where a connection keeps the numbers of its group: a dict from domain to the next number (Connection.info)."""


class Domain(StrEnum):
    """What is written by one group at a time, and the number that it gives."""

    ACCOUNTS = "accounts"
    """devices, tokens, nonces, apps, api_keys; gives device_no."""
    SETS = "sets"
    """device_sets, device_set_segments, device_memberships, group_users; gives set_no."""
    MESSAGES = "messages"
    """messages, inbox, receipts, devices.missed, trace_refs of messages; gives seq."""
    PUSHES = "pushes"
    """pushes, push_segments, push_failures, push_minutes; gives push_no."""
    EVENTS = "events"
    """events; gives event_no. Held from the first event of a group on, and last of all: most groups have none."""
    WEBHOOKS = "webhooks"
    """webhooks; gives webhook_no."""
    WEBHOOK_LETTERS = "webhook_letters"
    """webhook_letters; gives letter_no."""
    UPLINK = "uplink"
    """uplink, uplink_cursors; gives offset."""
    DEAD_LETTERS = "dead_letters"
    """dead_letters; gives letter_no."""
    AUDIT = "audit"
    """audit; gives audit_no."""
    DIRECTIVES = "directives"
    """directives; gives directive_no."""
    PEOPLE = "people"
    """people, person_sessions; gives person_no."""


def take(connection: Connection, domain: Domain, count: int) -> Sequence[int | None]:
    """The next ``count`` numbers of a domain that the group holds; all None where the table numbers its rows (SQLite).

    Numbers that a failing item took are not given again.
    """
    if connection.dialect.name == "sqlite":
        return [None] * count
    held: dict[str, int] = connection.info[HELD]
    if domain is Domain.EVENTS and domain not in held:
        held[domain] = connection.exec_driver_sql(LOCK_ONE, (domain,)).scalar_one()
    first = held[domain]
    held[domain] = first + count
    return range(first, first + count)
