"""Offsets: how far each consumer of membership changes and of events has come."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from upnext.ticks.lifecycle import newest_published


class Consumed(NamedTuple):
    """Up to which tick a consumer has acted on membership changes, and up to which instant it has looked at events."""

    tick_id: int
    as_of: datetime | None


def consumed(connection: Connection, consumer: str) -> Consumed | None:
    """Return how far `consumer` has come; None before its first time."""
    row = connection.execute(
        sa.text("select tick_id, as_of from segments.consumer_offsets where consumer = :consumer"),
        {"consumer": consumer},
    ).one_or_none()
    return Consumed(row.tick_id, row.as_of) if row is not None else None


def record_consumed(connection: Connection, consumer: str, tick_id: int, as_of: datetime) -> None:
    """Remember, in the transaction of the work, how far `consumer` has come; and where it began, the first time."""
    connection.execute(
        sa.text(
            "insert into segments.consumer_offsets (consumer, tick_id, as_of, begun_at)"
            " values (:consumer, :tick_id, :as_of, :as_of)"
            " on conflict (consumer) do update set tick_id = excluded.tick_id, as_of = excluded.as_of"
        ),
        {"consumer": consumer, "tick_id": tick_id, "as_of": as_of},
    )


def consumers_behind(engine: Engine, segments_by_consumer: Mapping[str, Collection[str]]) -> set[str]:
    """Return the consumers whose segments have published changes that they have not acted on."""
    waiting = sa.text(
        "select exists (select from segments.published_changes where segment = any(:segments)"
        " and tick_id > coalesce((select tick_id from segments.consumer_offsets where consumer = :consumer), 0))"
    )
    with engine.connect() as connection:
        return {
            consumer
            for consumer, segments in segments_by_consumer.items()
            if connection.scalar(waiting, {"consumer": consumer, "segments": list(segments)})
        }


def consumers_with_new_events(engine: Engine, events_by_consumer: Mapping[str, Collection[str]]) -> set[str]:
    """Return the consumers whose events published ticks have taken in since they last looked."""
    waiting = sa.text(
        "select exists (select from events.user_events where event = any(:events) and load_id = any(array("
        "select load_id from raw.loads where tick_id <= :published and tick_id > coalesce("
        "(select tick_id from segments.consumer_offsets where consumer = :consumer), 0))))"
    )
    with engine.connect() as connection:
        published = newest_published(connection)
        return {
            consumer
            for consumer, events in events_by_consumer.items()
            if published
            and connection.scalar(waiting, {"consumer": consumer, "events": list(events), "published": published})
        }
