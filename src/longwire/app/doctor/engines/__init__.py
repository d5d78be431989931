"""The engines of a cluster, each asked by its own means: whether it answers, its version, its settings, its clock.

Nothing is written to any of them but what a session of ZooKeeper leaves in its log. Every question has a deadline.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

from longwire.app.doctor.report import Finding, failure, ok, unknown, warning
from longwire.app.settings import Settings

_SKEW_WARN_S = 1.0
_SKEW_FAIL_S = 30.0


async def look(settings: Settings) -> list[Finding]:
    """Every check of every engine of a cluster's settings. Raises StartFailed where the extra is not installed."""
    from longwire.app.engines import extra_is_named

    with extra_is_named():
        from longwire.app.doctor.engines import kafka, redis, store, zookeeper

    asked: dict[str, Callable[[Settings], Awaitable[list[Finding]]]] = {
        store.AREA: store.look,
        redis.AREA: redis.look,
        kafka.AREA: kafka.look,
        zookeeper.AREA: zookeeper.look,
    }
    results = await asyncio.gather(*(one(settings) for one in asked.values()), return_exceptions=True)
    return [finding for area, found in zip(asked, results, strict=True) for finding in _told(area, found)]


def _told(area: str, found: list[Finding] | BaseException) -> list[Finding]:
    """What an engine's library raises beside its own errors keeps nobody from the other findings."""
    if isinstance(found, Exception):
        # Without its text: nobody knows what is in it.
        fact = f"looking at it failed with {type(found).__name__}"
        return [unknown(area, "reached", fact, "see whether the setting's URL and options are what its library takes")]
    if isinstance(found, BaseException):
        raise found
    return found


def answered(area: str, place: str, began: float, told: str = "") -> Finding:
    """``began``: when the question was put, by ``time.perf_counter``."""
    took_ms = (time.perf_counter() - began) * 1_000
    return ok(area, "reached", f"{place} answers in {took_ms:.1f} ms{told and ', '}{told}")


def away(area: str, setting: str, place: str, why: str, what: str) -> Finding:
    """It does not answer; ``what`` waits for it."""
    return failure(
        area, "reached", f"{place} does not answer: {why}", f"see that it runs and that {setting} names it; {what}"
    )


def version_of(area: str, name: str, found: tuple[int, ...], least: tuple[int, int]) -> Finding:
    """``least`` is the oldest that Longwire's statements and scripts can work with."""
    fact = f"{name} {'.'.join(map(str, found))}"
    if found >= least:
        return ok(area, "version", fact)
    return failure(area, "version", fact, f"Longwire needs {name} {least[0]}.{least[1]} or later")


def skew(area: str, theirs_s: float, before_s: float, after_s: float) -> Finding:
    """Their clock beside ours, which was ``before_s`` when they were asked and ``after_s`` at the answer."""
    doubt_s = (after_s - before_s) / 2
    ahead_s = theirs_s - (before_s + doubt_s)
    least_s = max(0.0, abs(ahead_s) - doubt_s)
    way = "ahead of" if ahead_s > 0 else "behind"
    fact = f"{abs(ahead_s) * 1_000:.0f} ms {way} ours (± {doubt_s * 1_000:.0f} ms)"
    if least_s < _SKEW_WARN_S:
        return ok(area, "clock", fact)
    advice = "set both clocks by the network's time (NTP)"
    return (failure if least_s >= _SKEW_FAIL_S else warning)(area, "clock", fact, advice, "timedatectl set-ntp true")
