"""Which instant a tick computes at."""

from datetime import UTC, datetime, timedelta

import pytest

from upnext.errors import UpnextError
from upnext.ticks.instants import check_explicit, later_of, parse_instant

NOW = datetime(2026, 4, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.mark.parametrize("text", ["2026-04-01T00:00:00Z", "2026-04-01T02:00:00+02:00"])
def test_an_instant_is_utc(text: str) -> None:
    assert parse_instant(text, option="--as-of") == NOW


@pytest.mark.parametrize(("text", "expected"), [("tomorrow", "not an ISO 8601"), ("2026-04-01T00:00:00", "no zone")])
def test_a_malformed_or_naive_instant_is_refused(text: str, expected: str) -> None:
    with pytest.raises(UpnextError, match=expected):
        parse_instant(text, option="--as-of")


def test_an_explicit_instant_neither_goes_back_nor_ahead() -> None:
    assert check_explicit(NOW, last=NOW, now=NOW) == NOW
    assert check_explicit(NOW + timedelta(minutes=5), last=None, now=NOW) == NOW + timedelta(minutes=5)
    with pytest.raises(UpnextError, match="earlier than the last"):
        check_explicit(NOW - HOUR, last=NOW, now=NOW)
    with pytest.raises(UpnextError, match="future"):
        check_explicit(NOW + timedelta(minutes=5, microseconds=1), last=None, now=NOW)


def test_schedules_take_the_later_one() -> None:
    assert later_of(NOW, None) == NOW
    assert later_of(NOW, NOW + HOUR) == NOW + HOUR
    assert later_of(NOW, NOW - HOUR) == NOW
