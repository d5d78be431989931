"""The migrations make exactly the tables that the code knows, also when they run again."""

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from longwire.adapters.sql import migrate
from longwire.adapters.sql.tables import metadata


def test_migrations_and_tables_are_equal(tmp_path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/x.db")
    with engine.connect() as connection:
        migrate.upgrade(connection)
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_what_comparison_does_not_see_is_equal_too(tmp_path) -> None:
    """Primary keys without a rowid, AUTOINCREMENT and checks stand in the text only."""

    def texts(engine) -> dict[str, str]:
        with engine.connect() as connection:
            rows = connection.exec_driver_sql(
                "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'alembic%'"
            ).fetchall()
        return {name: "".join(sql.split()).replace('"', "").lower() for name, sql in rows}

    migrated, made = create_engine(f"sqlite:///{tmp_path}/a.db"), create_engine(f"sqlite:///{tmp_path}/b.db")
    with migrated.connect() as connection:
        migrate.upgrade(connection)
    metadata.create_all(made)
    assert texts(migrated) == texts(made)
    migrated.dispose()
    made.dispose()


def test_migrating_again_changes_nothing(tmp_path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/x.db")
    for _ in range(2):
        with engine.connect() as connection:
            migrate.upgrade(connection)
            connection.exec_driver_sql("INSERT OR IGNORE INTO uplink_cursors VALUES ('c', 1)").close()
            connection.commit()
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT COUNT(*) FROM uplink_cursors").scalar() == 1
    engine.dispose()
