"""Offsets: how far each consumer of membership changes and of events has come."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import NamedTuple

from sqlalchemy.engine import Connection, Engine

from upnext.ticks.lifecycle import newest_published
from upnext.ticks.sql import SQL


class Consumed(NamedTuple):
    """Up to which tick a consumer has acted on membership changes, and up to which instant it has looked at events."""

    tick_id: int
    as_of: datetime | None


def consumed(connection: Connection, consumer: str) -> Consumed | None:
    """Return how far `consumer` has come; None before its first time."""
    row = connection.execute(SQL["consumed"], {"consumer": consumer}).one_or_none()
    return Consumed(row.tick_id, row.as_of) if row is not None else None


def record_consumed(connection: Connection, consumer: str, tick_id: int, as_of: datetime) -> None:
    """Remember, in the transaction of the work, how far `consumer` has come; and where it began, the first time."""
    values = {"consumer": consumer, "tick_id": tick_id, "as_of": as_of}
    connection.execute(SQL["record_consumed"], values)


def consumers_behind(engine: Engine, segments_by_consumer: Mapping[str, Collection[str]]) -> set[str]:
    """Return the consumers whose segments have published changes that they have not acted on."""
    with engine.connect() as connection:
        return {
            consumer
            for consumer, segments in segments_by_consumer.items()
            if connection.scalar(SQL["is_behind"], {"consumer": consumer, "segments": list(segments)})
        }


def consumers_with_new_events(engine: Engine, events_by_consumer: Mapping[str, Collection[str]]) -> set[str]:
    """Return the consumers whose events published ticks have taken in since they last looked."""
    with engine.connect() as connection:
        published = newest_published(connection)
        return {
            consumer
            for consumer, events in events_by_consumer.items()
            if published
            and connection.scalar(
                SQL["has_new_events"], {"consumer": consumer, "events": list(events), "published": published}
            )
        }
