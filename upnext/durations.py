"""Lengths of time as people write them: `2 days`, `12 hours`, `1 week`. A day is 24 hours. Pure."""

import re
from datetime import timedelta
from typing import Annotated

from upnext.errors import UpnextError
from upnext.wording import worded

MINUTES = {"minute": 1, "hour": 60, "day": 24 * 60, "week": 7 * 24 * 60}
_UNITS = "|".join(MINUTES)
UNITS = "second|minute|hour|day|week|month|year"
"""Units of the windows of features and metrics. A month is 30 days and a year 365, as in macros/engine/columns.sql."""
_SHORT = {"m": "minute", "h": "hour", "d": "day", "w": "week"}

Duration = Annotated[str, worded(rf"^[0-9]{{1,6}} ({_UNITS})s?$", "a length of time such as 2 days, 3 hours, 1 minute")]
"""A length of time, in words that Postgres reads as an interval; it may be 0."""

Window = Annotated[
    str, worded(rf"^[1-9][0-9]{{0,5}} ({UNITS})s?$", "a length of time such as 30 days, 12 hours, 1 week")
]
"""A length of time that is longer than nothing, in seconds to years."""

WindowOrSession = Annotated[
    str, worded(rf"^([1-9][0-9]{{0,5}} ({UNITS})s?|session)$", "a length of time such as 2 days, or session")
]


_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800, "month": 2592000, "year": 31536000}
_LONGEST = 1000 * _SECONDS["year"]


def short(window: str) -> str:
    """Return a length of time as the end of a name, as macros/engine/columns.sql does.

    >>> short("30 days"), short("5 minutes"), short("1 month")
    ('30d', '5min', '1mo')
    """
    number, unit = window.split()
    unit = unit.removesuffix("s")
    return number + {"minute": "min", "month": "mo"}.get(unit, unit[0])


def check_length(length: str | None) -> None:
    """Raise `ValueError` for a length of time that leaves the calendar of Postgres."""
    found = re.search(rf"(\d+) ({UNITS})", length or "")
    if found and int(found[1]) * _SECONDS[found[2]] > _LONGEST:
        raise ValueError(f"'{length}' is more than 1000 years")


def seconds(length: str) -> int:
    """Return a length of time in seconds, by the units of windows.

    >>> seconds("1 month")
    2592000
    """
    number, unit = length.split()
    return int(number) * _SECONDS[unit.removesuffix("s")]


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
