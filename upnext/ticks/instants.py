"""Instants: how they are written, and which ones a tick may compute at. Pure."""

from datetime import UTC, datetime, timedelta

from upnext.errors import UpnextError

CLOCK_TOLERANCE = timedelta(minutes=5)


def parse_instant(text: str, *, option: str) -> datetime:
    """Parse an ISO 8601 instant with a zone. Raises `UpnextError` for anything else."""
    try:
        value = datetime.fromisoformat(text)
        if value.tzinfo is not None:
            return value.astimezone(UTC)
    except (ValueError, OverflowError):
        raise UpnextError(f"{option}: '{text}' is not an ISO 8601 time, such as 2026-03-01T00:00:00Z") from None
    raise UpnextError(f"{option}: '{text}' has no zone; write it like {value.isoformat()}Z, which is UTC")


def check_explicit(as_of: datetime, *, last: datetime | None, now: datetime) -> datetime:
    """Return an `as_of` asked for by name. Raises `UpnextError` where it is earlier than the last, or future."""
    if last is not None and as_of < last:
        raise UpnextError(
            f"as_of {as_of.isoformat()} is earlier than the last tick, {last.isoformat()}; it never goes back"
        )
    if as_of > now + CLOCK_TOLERANCE:
        raise UpnextError(f"as_of {as_of.isoformat()} is in the future; it is {now.isoformat(timespec='seconds')} now")
    return as_of


def later_of(asked: datetime, last: datetime | None) -> datetime:
    """Return the instant that a schedule or a sensor computes at: never earlier than the last tick."""
    return asked if last is None else max(asked, last)
