"""Lengths of time as people write them: `2 days`, `12 hours`, `1 week`. A day is 24 hours. Pure."""

import re
from datetime import timedelta
from typing import Annotated

from upnext.errors import UpnextError
from upnext.wording import worded

MINUTES = {"minute": 1, "hour": 60, "day": 24 * 60, "week": 7 * 24 * 60}
_UNITS = "|".join(MINUTES)
_SHORT = {"m": "minute", "h": "hour", "d": "day", "w": "week"}

Duration = Annotated[str, worded(rf"^[0-9]{{1,6}} ({_UNITS})s?$", "a length of time such as 2 days, 3 hours, 1 minute")]
"""A length of time, in words that Postgres reads as an interval; it may be 0."""

Window = Annotated[
    str, worded(rf"^[1-9][0-9]{{0,5}} ({_UNITS})s?$", "a length of time such as 30 days, 12 hours, 1 week")
]
"""A length of time that is longer than nothing."""


def minutes(duration: str) -> int:
    """Return a declared length of time in minutes.

    >>> minutes("2 days"), minutes("1 week")
    (2880, 10080)
    """
    number, unit = duration.split()
    return int(number) * MINUTES[unit.removesuffix("s")]


def parse_duration(text: str, *, option: str) -> timedelta:
    """Parse a length of time of the command line, such as `1d`, `6h` or `30 minutes`. Raises `UpnextError` for others.

    >>> parse_duration("6h", option="--every") == parse_duration("6 hours", option="--every")
    True
    """
    found = re.fullmatch(rf"([1-9][0-9]{{0,5}}) ?({'|'.join(_SHORT)}|(?:{_UNITS})s?)", text)
    if found is None:
        raise UpnextError(f"{option}: '{text}' is not a length of time such as 1d, 6h or 30m")
    return timedelta(minutes=minutes(f"{found[1]} {_SHORT.get(found[2], found[2])}"))
