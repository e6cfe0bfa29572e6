"""The only module that reads the clock. Rules receive their instants as arguments."""

from datetime import UTC, datetime


def utc_now() -> datetime:
    """Return the current time. Call it at the edges of the system, never in a rule."""
    return datetime.now(UTC)
