"""Numbers and times as the pages say them."""

import datetime as dt
import zoneinfo

import pytest

from longwire.console import words

NOW = dt.datetime(2026, 11, 24, 9, 0, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (words.count(1_204_331), "1,204,331"),
        (words.count(None), "–"),
        (words.short(99_999), "99,999"),
        (words.short(123_456), "123 k"),
        (words.short(1_234_567), "1.2 M"),
        (words.short(2.5e9), "2.5 G"),
        (words.rate(0.42), "0.4"),
        (words.rate(1_204.4), "1,204"),
        (words.size(1_023), "1023 B"),
        (words.size(1_536), "1.5 KiB"),
        (words.size(5 << 30), "5.0 GiB"),
        (words.size(3 << 40), "3.0 TiB"),
        (words.millis(0.44), "0.4 ms"),
        (words.millis(412), "412 ms"),
        (words.millis(1_200), "1.2 s"),
        (words.duration(119), "119 s"),
        (words.duration(120), "2 min"),
        (words.duration(7_500), "2 h 5 min"),
        (words.duration(86_400 * 6), "6 d"),
        (words.percent(1, 3), "33 %"),
        (words.percent(1, 30), "3.3 %"),
        (words.percent(999, 1_000), "99.9 %"),
        (words.percent(1, 0), "–"),
        (words.plural(1, "device"), "1 device"),
        (words.plural(1_204, "device"), "1,204 devices"),
        (words.tone_of("Live"), "good"),
        (words.tone_of("what is this"), "idle"),
    ],
)
def test_numbers_are_said_short_and_whole(said, expected) -> None:
    assert said == expected


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("2026-11-24T08:59:58Z", "just now"),
        ("2026-11-24T08:56:00.000Z", "4 min ago"),
        ("2026-11-24T11:00:00Z", "in 2 h"),
        ("2026-11-22T08:05:06Z", "22 Nov 2026, 09:05:06"),
        (None, "–"),
        ("<b>", "<b>"),
    ],
)
def test_times_are_relative_for_a_day_and_then_the_reader_s_own(at, expected) -> None:
    assert words.when(at, zoneinfo.ZoneInfo("Europe/Berlin"), NOW) == expected
    assert words.clock(1_764_000_000_000, dt.UTC) == "16:00:00"
    assert words.utc("2026-11-24T08:56:00.120Z") == "2026-11-24 08:56:00.120 UTC"


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "/etc/localtime", "Nowhere/At_All", "x" * 99])
def test_a_zone_that_is_none_is_utc(name) -> None:
    assert words.zone_of(name) is dt.UTC
    assert str(words.zone_of("Europe/Berlin")) == "Europe/Berlin"
