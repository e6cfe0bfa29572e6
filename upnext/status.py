"""What `upnext status` says: watermarks, members, messages, the last tick, what is held, and drift."""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from upnext.switches import started


def read_status(
    engine: Engine, *, segments: Collection[str], experiments: Collection[str], now: datetime
) -> dict[str, Any]:
    """Return the state of the warehouse as plain values; None for what has not happened yet.

    `segments` and `experiments` (journeys and experiences) are those declared: each has a line, whatever it holds.
    """
    with engine.connect() as connection:
        at_work = started(connection)
        counts = connection.execute(
            sa.text(
                "select coalesce(sum(received), 0) as received, coalesce(sum(stored), 0) as stored,"
                " coalesce(sum(duplicate), 0) as duplicate, coalesce(sum(rejected), 0) as rejected,"
                " max(loaded_at) as last_loaded_at from raw.loads"
            )
        ).one()
        last = connection.execute(
            sa.text("select tick_id, as_of, published_at from segments.ticks order by tick_id desc limit 1")
        ).first()
        members = connection.execute(
            sa.text("select segment, count(*) as members from segments.current_members group by 1 order by 1")
        )
        messages = connection.execute(
            sa.text("select status, count(*) as messages from journeys.messages group by 1 order by 1")
        )
        held = connection.execute(
            sa.text(
                "select segment, entered + exited as changes from segments.evaluations"
                " where is_held and tick_id = (select max(tick_id) from segments.evaluations) order by segment"
            )
        )
        as_of = connection.scalar(sa.text("select max(as_of) from segments.published_ticks"))
        return {
            "watermarks": {
                "last_event_at": connection.scalar(
                    sa.text(
                        "select greatest((select max(occurred_at) from raw.events"
                        " where event is null and occurred_at <= now()), max(last.occurred_at))"
                        " from raw.event_names cross join lateral (select max(occurred_at) as occurred_at"
                        " from raw.events where events.event = event_names.event and occurred_at <= now()) as last"
                    )
                ),
                "last_loaded_at": counts.last_loaded_at,
                "as_of": as_of,
                "as_of_age": None if as_of is None else age(now - as_of),
            },
            "events": {name: int(getattr(counts, name)) for name in ("received", "stored", "duplicate", "rejected")},
            "refused_files": connection.scalar(sa.text("select count(*) from raw.refused_files")),
            "members": {**dict.fromkeys(sorted(segments), 0), **{row.segment: row.members for row in members}},
            "messages": {row.status: row.messages for row in messages},
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
            "paused": list(connection.scalars(sa.text("select journey from journeys.pauses order by journey"))),
            "held": {row.segment: row.changes for row in held},
            "drift": connection.scalar(
                sa.text(
                    "select sum(coalesce(drift, 0))::bigint from (select distinct on (model) drift"
                    " from features.rebuilds where drift is not null order by model, rebuilt_at desc) as newest"
                )
            ),
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
