"""What several processes need: a row to lock for each domain, and where an uplink record stood in another log."""

import sqlalchemy as sa
from alembic import op

from longwire.adapters.sql.column_types import name

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_DOMAINS = (
    "accounts",
    "audit",
    "dead_letters",
    "events",
    "messages",
    "pushes",
    "sets",
    "uplink",
    "webhook_letters",
    "webhooks",
)


def upgrade() -> None:
    locks = op.create_table(
        "write_locks",
        sa.Column("name", name(32), nullable=False),
        sa.Column("next", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.bulk_insert(locks, [{"name": domain, "next": 1} for domain in _DOMAINS])
    op.add_column("uplink", sa.Column("log_position", sa.BigInteger(), nullable=True))
