"""One grammar for lengths of time: what is declared, and what the command line takes."""

import doctest
import re
from datetime import timedelta

import pytest
from msgspec import Meta

from upnext import durations
from upnext.durations import Duration, Window, minutes, parse_duration
from upnext.errors import UpnextError


def pattern(kind: object) -> str:
    (meta,) = [one for one in kind.__metadata__ if isinstance(one, Meta)]  # type: ignore[attr-defined]
    return str(meta.pattern)


def test_the_examples() -> None:
    assert doctest.testmod(durations).attempted >= 2
    assert doctest.testmod(durations).failed == 0


@pytest.mark.parametrize(
    ("text", "is_duration", "is_window"),
    [
        ("1 minute", True, True), ("30 days", True, True), ("2 weeks", True, True), ("0 days", True, False),
        ("1 month", False, True), ("5 seconds", False, True),
        ("-1 days", False, False), ("1.5 hours", False, False), ("days", False, False),
        ("1  day", False, False), ("1d", False, False), ("1 day ", False, False), ("1\u0661 days", False, False),
        ("1234567 days", False, False),
    ],
)  # fmt: skip
def test_what_can_be_declared(text: str, is_duration: bool, is_window: bool) -> None:
    assert (re.search(pattern(Duration), text) is not None) is is_duration
    assert (re.search(pattern(Window), text) is not None) is is_window
    if is_duration:
        assert minutes(text) >= 0


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("1d", timedelta(days=1)), ("6h", timedelta(hours=6)), ("30m", timedelta(minutes=30)),
        ("2w", timedelta(weeks=2)), ("3 hours", timedelta(hours=3)), ("1 day", timedelta(days=1)),
    ],
)  # fmt: skip
def test_what_the_command_line_takes(text: str, length: timedelta) -> None:
    assert parse_duration(text, option="--every") == length


@pytest.mark.parametrize("text", ["0d", "", "d", "1", "1y", "1 d d", "-1d", "1.5h", "1\u0661d"])
def test_what_it_does_not_take(text: str) -> None:
    with pytest.raises(UpnextError, match=re.escape(f"--every: '{text}' is not a length of time such as 1d")):
        parse_duration(text, option="--every")
