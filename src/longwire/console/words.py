"""Numbers, times and states in words."""

import datetime as dt
import re
import zoneinfo
from functools import lru_cache
from typing import Final

UNKNOWN: Final = "–"
_ZONE = re.compile(r"[A-Za-z0-9_+-]{1,32}(/[A-Za-z0-9_+-]{1,32}){0,2}")
_UTC = dt.UTC

TONES: Final = {
    **dict.fromkeys(
        ("live", "online", "acked", "acknowledged", "delivered", "finished", "completed", "replied", "ok", "enabled",
         "active", "handled", "done", "good"), "good"),
    **dict.fromkeys(
        ("sending", "moving", "running", "resolving", "queued", "written", "in flight", "dispatched",
         "accent"), "accent"),
    **dict.fromkeys(
        ("paused", "draining", "waiting", "pending", "scheduled", "stopping", "late", "warning", "unknown", "warn",
         "ahead", "one-time password"), "warn"),
    **dict.fromkeys(
        ("failed", "silent", "expired", "banned", "disabled", "refused", "timeout", "buried", "missed", "critical",
         "failure", "revoked", "bad"), "bad"),
}  # fmt: skip
"""State to colour; what is not here is idle."""


def tone_of(state: str) -> str:
    """good, accent, warn, bad or idle."""
    return TONES.get(state.lower(), "idle")


def count(value: float | None) -> str:
    """``1,204,331``."""
    return UNKNOWN if value is None else f"{value:,.0f}"


def short(value: float | None) -> str:
    """``1.2 M`` from a hundred thousand on, below it every digit."""
    if value is None:
        return UNKNOWN
    for size, name in ((1e9, "G"), (1e6, "M"), (1e5, "k")):
        if abs(value) >= size:
            scaled = value / (1e3 if name == "k" else size)
            return f"{scaled:.0f} {name}" if abs(scaled) >= 100 else f"{scaled:.1f} {name}"
    return count(value)


def rate(value: float | None) -> str:
    """A number a second: ``0.4``, ``12``, ``1,204``."""
    if value is None:
        return UNKNOWN
    return f"{value:.1f}" if 0 < abs(value) < 10 else count(value)


def size(value: float | None) -> str:
    """Bytes: ``1.4 MiB``."""
    if value is None:
        return UNKNOWN
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def millis(value: float | None) -> str:
    """``0.4 ms``, ``12 ms``, ``1.2 s``."""
    if value is None:
        return UNKNOWN
    if value >= 1000:
        return duration(value / 1000)
    return f"{value:.1f} ms" if value < 10 else f"{value:.0f} ms"


def duration(seconds: float | None) -> str:
    """``4 s``, ``3 min``, ``2 h 5 min``, ``6 d``."""
    if seconds is None:
        return UNKNOWN
    if seconds < 10 and seconds % 1:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    minutes = whole // 60
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} d"


def percent(part: float, whole: float) -> str:
    """``12 %``; of nothing it is nothing."""
    if not whole:
        return UNKNOWN
    share = 100 * part / whole
    return f"{share:.1f} %" if 0 < share < 10 or 99 < share < 100 else f"{share:.0f} %"


def plural(number: float, one: str, many: str = "") -> str:
    """``1 device``, ``1,204 devices``."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"


def moment_of(at: str | float | None) -> dt.datetime | None:
    """A time of the API (RFC 3339), or milliseconds since the epoch."""
    if at is None or at == "":
        return None
    if isinstance(at, str):
        try:
            return dt.datetime.fromisoformat(at)
        except ValueError:
            return None
    return dt.datetime.fromtimestamp(at / 1000, _UTC)


def when(at: str | float | None, zone: dt.tzinfo = _UTC, now: dt.datetime | None = None) -> str:
    """Relative for a day, then the date: ``just now``, ``4 min ago``, ``in 2 h``, ``24 Nov 2026, 09:12``."""
    moment = moment_of(at)
    if moment is None:
        return UNKNOWN if at is None or at == "" else str(at)
    seconds = ((now or dt.datetime.now(_UTC)) - moment).total_seconds()
    if abs(seconds) < 5:
        return "just now"
    if abs(seconds) >= 86_400:
        return dated(at, zone)
    return f"{duration(round(seconds))} ago" if seconds > 0 else f"in {duration(round(-seconds))}"


def dated(at: str | float | None, zone: dt.tzinfo = _UTC) -> str:
    """``24 Nov 2026, 09:12:05`` in the reader's zone."""
    moment = moment_of(at)
    return UNKNOWN if moment is None else f"{moment.astimezone(zone):%-d %b %Y, %H:%M:%S}"


def clock(at: str | float | None, zone: dt.tzinfo = _UTC) -> str:
    """``09:12:05`` in the reader's zone."""
    moment = moment_of(at)
    return UNKNOWN if moment is None else f"{moment.astimezone(zone):%H:%M:%S}"


def moment(at: str | float | None, zone: dt.tzinfo = _UTC, now: dt.datetime | None = None) -> str:
    """``09:12:05`` of today in the reader's zone, ``25 Nov 09:12`` of another day."""
    found = moment_of(at)
    if found is None:
        return UNKNOWN
    there = found.astimezone(zone)
    is_today = there.date() == (now or dt.datetime.now(_UTC)).astimezone(zone).date()
    return f"{there:%H:%M:%S}" if is_today else f"{there:%-d %b %H:%M}"


def utc(at: str | float | None) -> str:
    """``2026-11-24 09:12:05.120 UTC``: what stands behind a time."""
    moment = moment_of(at)
    return "" if moment is None else f"{moment.astimezone(_UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3] + " UTC"


@lru_cache(maxsize=256)
def zone_of(name: str) -> dt.tzinfo:
    """The zone that a browser names; UTC for one that is none."""
    if _ZONE.fullmatch(name) is None:
        return _UTC
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return _UTC
