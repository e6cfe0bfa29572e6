"""The clock: the one place that reads it. Rules are handed their instants."""

from datetime import UTC, datetime


def utc_now() -> datetime:
    """Return the clock's time: for the edges of the system, never for a rule."""
    return datetime.now(UTC)
