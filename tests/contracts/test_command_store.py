"""The contract of ports.commands.CommandStore; every adapter passes it."""

import pytest
from msgspec.structs import replace

from longwire.adapters.sql.commands import SqlCommands
from longwire.adapters.sql.database import Database
from longwire.operations_model import Command, CommandStatus
from longwire.ports.commands import CommandStore

SENT = Command(b"c" * 16, 7, "d-7", "lights.off", b"\x00payload", 1_000, 5_000)
REPLIED = replace(SENT, status=CommandStatus.REPLIED, reply_status=0, reply=b"yes", replied_at_ms=2_000)
LATE = replace(REPLIED, reply=b"late", replied_at_ms=9_000, is_late=True)
TIMED_OUT = replace(SENT, status=CommandStatus.TIMED_OUT, detail="the device did not reply")


@pytest.fixture
async def store(database: Database) -> CommandStore:
    return SqlCommands(database)


async def test_a_command_is_found_as_it_was_kept(store: CommandStore) -> None:
    assert await store.find(SENT.command_id) is None
    assert await store.add(SENT)
    assert await store.find(SENT.command_id) == SENT


async def test_a_command_of_the_same_id_is_not_kept_again(store: CommandStore) -> None:
    await store.add(SENT)
    await store.finish(REPLIED)
    assert not await store.add(replace(SENT, method="other"))
    assert await store.find(SENT.command_id) == REPLIED


@pytest.mark.parametrize("order", [[TIMED_OUT, LATE], [LATE, TIMED_OUT], [TIMED_OUT, LATE, REPLIED]])
async def test_a_reply_is_never_replaced(store: CommandStore, order: list[Command]) -> None:
    await store.add(SENT)
    for outcome in order:
        await store.finish(outcome)
    assert await store.find(SENT.command_id) == LATE


async def test_the_outcome_of_an_unknown_command_goes_nowhere(store: CommandStore) -> None:
    await store.finish(REPLIED)
    assert await store.find(SENT.command_id) is None


async def test_a_detail_beyond_all_measure_is_cut(store: CommandStore) -> None:
    await store.add(SENT)
    await store.finish(replace(REPLIED, detail="x" * 1_000))
    found = await store.find(SENT.command_id)
    assert found is not None
    assert len(found.detail) == 255
