"""What every PushProgress tells: counts by the minute, that add up to the push's own."""

from push_stores import SEGMENT, receipts

from longwire.adapters.sql.domains import Domain
from longwire.adapters.sql.push_minutes import SqlPushProgress
from longwire.adapters.sql.push_segments import forget_device
from longwire.ids import new_message_id
from longwire.ports.push_progress import Minute


async def test_minutes_add_up_to_the_stats_whatever_is_told_twice(pushing) -> None:
    progress = SqlPushProgress(pushing.database)
    assert await progress.of(new_message_id()) is None
    push, other = await pushing.push([1, 2, 3, SEGMENT + 1]), await pushing.push([1])
    begin_ms = pushing.clock.now_ms()
    await pushing.send(push, [1, 2])
    # Of two segments in one merge, and the same again: what was counted is not counted anew.
    parts = receipts(push, [1], latency_ms=5), receipts(push, [SEGMENT + 1, SEGMENT + 99], latency_ms=700)
    await pushing.tell(*parts)
    await pushing.tell(*parts)
    pushing.clock.advance(120)
    await pushing.ack(push, [1, 2])
    await pushing.database.write(lambda c: forget_device(c, 3, pushing.clock.now_ms()), Domain.PUSHES)

    course = await progress.of(push.new.push_id)
    assert course is not None
    assert course.minutes == (Minute(begin_ms, 3, 2), Minute(begin_ms + 120_000, 0, 1))
    assert course.reasons == {"device-deleted": 1}
    stats = await pushing.stats(push)
    assert (stats.written, stats.acked) == (3, 3)
    assert course.latency.total >= stats.acked
    assert (await progress.of(other.new.push_id)).minutes == ()
