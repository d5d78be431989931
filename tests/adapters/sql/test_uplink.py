"""The uplink log on SQLite, where readers on threads meet the loop."""

import asyncio
from pathlib import Path

from longwire.adapters.sql.sqlite import SqliteDatabase
from longwire.adapters.sql.uplink import SqlUplinkLog
from longwire.ids import new_message_id
from longwire.model import UplinkRecord
from longwire.testing import ManualClock

HANG_GUARD_S = 20.0


class HeldReads(SqliteDatabase):
    """Gives what a read found when it is let go on."""

    gate: asyncio.Event | None = None

    async def read(self, call):
        gate = self.gate
        found = await super().read(call)
        if gate is not None:
            await gate.wait()
        return found


async def test_a_reader_that_looks_again_does_not_take_anothers_wake_up(tmp_path: Path) -> None:
    database = HeldReads(tmp_path)
    await database.start()
    log = SqlUplinkLog(database, ManualClock())
    await log.start()
    slow_gate = database.gate = asyncio.Event()
    slow = asyncio.ensure_future(log.read("slow", 10))
    await asyncio.sleep(0.05)  # its cursor is being read
    slow_gate.set()
    slow_gate = database.gate = asyncio.Event()
    while slow_gate._waiters is None or not len(slow_gate._waiters):
        await asyncio.sleep(0.001)  # it has found an empty log, and is not told yet
    database.gate = None
    told: list[object] = []
    log.append(UplinkRecord(1, "d-1", new_message_id(), "k", b"x", 1), lambda r, s: told.append(s))
    while not told:
        await asyncio.sleep(0.001)
    async with asyncio.timeout(HANG_GUARD_S):
        assert len(await log.read("quick", 10)) == 1
        slow_gate.set()
        assert len(await slow) == 1
    await database.stop()
