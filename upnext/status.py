"""The output of `upnext status`: watermarks, members, messages, the last tick, what is held, and drift."""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.engine import Engine

from upnext.sql import SQL
from upnext.switches import started


def read_status(
    engine: Engine, *, segments: Collection[str], experiments: Collection[str], now: datetime
) -> dict[str, Any]:
    """Return the state of the warehouse as plain values; None for what has not happened yet.

    `segments` and `experiments` (journeys and experiences) are those declared: each has a line, whatever it holds.
    """
    with engine.connect() as connection:
        at_work = started(connection)
        counts = connection.execute(SQL["load_counts"]).one()
        last = connection.execute(SQL["last_tick"]).first()
        as_of = connection.scalar(SQL["published_as_of"])
        inbox = connection.execute(SQL["inbox"]).one()
        members = {row.segment: row.members for row in connection.execute(SQL["members"])}
        return {
            "watermarks": {
                "last_event_at": connection.scalar(SQL["last_event_at"]),
                "last_loaded_at": counts.last_loaded_at,
                "as_of": as_of,
                "as_of_age": None if as_of is None else age(now - as_of),
            },
            "events": {name: int(getattr(counts, name)) for name in ("received", "stored", "duplicate", "rejected")},
            "inbox": {
                "waiting": inbox.waiting,
                "oldest": None if inbox.oldest_at is None else age(now - inbox.oldest_at),
            },
            "refused_files": connection.scalar(SQL["count_refused_files"]),
            "members": {**dict.fromkeys(sorted(segments), 0), **members},
            "messages": {row.status: row.messages for row in connection.execute(SQL["messages"])},
            "last_run": None
            if last is None
            else {
                "tick_id": last.tick_id,
                "as_of": last.as_of,
                "published_at": last.published_at,
                "is_published": last.published_at is not None,
            },
            "started": {
                name: f"{at_work[name].since:%Y-%m-%d %H:%M} by {at_work[name].by}" if name in at_work else "no"
                for name in sorted(experiments)
            },
            "paused": list(connection.scalars(SQL["paused"])),
            "held": {row.segment: row.changes for row in connection.execute(SQL["held"])},
            "drift": connection.scalar(SQL["drift"]),
        }


def age(length: timedelta) -> str:
    """Return a length of time in its two largest units.

    >>> age(timedelta(days=3, hours=2, minutes=5)), age(timedelta(seconds=20))
    ('3 days 2 hours', '0 minutes')
    """
    minutes = max(0, int(length.total_seconds()) // 60)
    units = {"day": minutes // 1440, "hour": minutes // 60 % 24, "minute": minutes % 60}
    named = [f"{count} {unit}{'' if count == 1 else 's'}" for unit, count in units.items() if count]
    return " ".join(named[:2]) or "0 minutes"
