"""`upnext prune`: deletes what is older than the policy keeps it, and what nobody reads after a month.

Each step is safe at any moment, and a prune that was killed is continued by the next one. What it deletes of raw events
is a day at a time; the next tick recomputes the users who have no other event.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from upnext.journeys.policy import Retention
from upnext.retention.counts import keeping_counts
from upnext.retention.needs import kept_since
from upnext.retention.sql import SQL
from upnext.warehouse.locks import transaction

RECENT = timedelta(days=30)
DAILY = timedelta(days=90)
"""Results of the last 30 days are all kept; then the last of each day, and after 90 days the last of each week."""
RESULTS = ("experiment_results", "segment_results", "journey_funnel", "copy_ranking")
_ALWAYS = {
    "segments.evaluations": "prune_evaluations",
    "segments.merged_users": "prune_merged_users",
    "segments.ticks": "prune_ticks",
    "raw.loads": "prune_loads",
    "edge.refusals": "prune_refusals",
    "features.rebuilds": "prune_rebuilds",
}
_BY_POLICY = {
    "raw.rejected_events": "prune_rejects",
    "segments.membership_changes": "prune_changes_of_users",
    "segments.account_membership_changes": "prune_changes_of_accounts",
}
Count = tuple[str, int]


@dataclass(frozen=True)
class Span:
    """What is old: `recent` ends a month ago; `since` is where the policy ends, None where it keeps everything."""

    recent: datetime
    since: datetime | None

    @classmethod
    def of(cls, retention: Retention | None, as_of: datetime) -> "Span":
        """Return what is old at an instant."""
        return cls(as_of - RECENT, None if retention is None else kept_since(as_of, retention.after))


def prune(
    engine: Engine, retention: Retention | None, *, as_of: datetime, on_stage: Callable[[str], None] = lambda _: None
) -> dict[str, int]:
    """Delete what is old at `as_of`, and return the rows by table."""
    counts: dict[str, int] = {}
    for table, rows in _prune(engine, retention, Span.of(retention, as_of), on_stage):
        counts[table] = counts.get(table, 0) + rows
    return {table: rows for table, rows in counts.items() if rows}


def _prune(engine: Engine, retention: Retention | None, span: Span, on_stage: Callable[[str], None]) -> Iterator[Count]:
    if retention is not None and span.since is not None:
        with transaction(engine, "ingest") as connection:
            connection.execute(SQL["keep_since"], {"since": span.since, "events": sorted(retention.keep)})
        on_stage("journeys.messages")
        with keeping_counts(engine) as connection:
            yield "journeys.messages", connection.execute(SQL["prune_messages"], {"since": span.since}).rowcount
        yield from _delete_events(engine, on_stage)
        for table, statement in _BY_POLICY.items():
            on_stage(table)
            with transaction(engine, "tick") as connection:
                yield table, connection.execute(SQL[statement], {"since": span.since}).rowcount
    for table, statement in _ALWAYS.items():
        on_stage(table)
        with transaction(engine, "tick") as connection:
            yield table, connection.execute(SQL[statement], {"recent": span.recent}).rowcount
    for name in RESULTS:
        on_stage(f"analytics.{name}")
        with engine.begin() as connection:
            yield f"analytics.{name}", _thin(connection, name, span.recent)


def _delete_events(engine: Engine, on_stage: Callable[[str], None]) -> Iterator[Count]:
    """Delete the raw events of each old day, in a transaction of its own."""
    after = datetime.min.replace(tzinfo=UTC)
    while True:
        with transaction(engine, "tick") as connection:
            since, kept = connection.execute(SQL["kept"]).one()
            day = connection.scalar(SQL["first_day"], {"after": after, "since": since, "kept": kept})
            if day is None:
                return
            on_stage(f"raw.events of {day:%Y-%m-%d}")
            connection.execute(SQL["forget_old_events"])
            connection.execute(SQL["old_events_of_day"], {"day": day, "since": since, "kept": kept})
            has_identities = connection.scalar(SQL["has_identities"])
            if has_identities:
                connection.execute(SQL["forget_users_of_day"])
                connection.execute(SQL["users_of_day"], {"day": day})
            deleted = connection.scalar(SQL["delete_day"], {"day": day})
            if has_identities:
                connection.execute(SQL["recompute_users"])
        after = day + timedelta(days=1)
        yield "raw.events", int(deleted or 0)


def _thin(connection: Connection, name: str, recent: datetime) -> int:
    """Keep of the older results the last of each day, and of still older ones the last of each week."""
    deletion = sa.text(  # a name of our own
        f"""
        delete from analytics.{name}
        where as_of < :recent and as_of not in (
            select max(as_of) from analytics.{name}
            where as_of < :recent
            group by case when as_of < :daily then date_trunc('week', as_of, 'UTC')
                else date_trunc('day', as_of, 'UTC') end
        )
        """  # noqa: S608
    )
    return connection.execute(deletion, {"recent": recent, "daily": recent + RECENT - DAILY}).rowcount
