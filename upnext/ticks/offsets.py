"""Offsets: the position of each consumer in membership changes and events."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import NamedTuple

from sqlalchemy.engine import Connection, Engine

from upnext.ticks.lifecycle import newest_published
from upnext.ticks.sql import SQL


class Consumed(NamedTuple):
    """The last tick whose membership changes a consumer processed, and the instant up to which it has read events."""

    tick_id: int
    as_of: datetime | None


def consumed(connection: Connection, consumer: str) -> Consumed | None:
    """Return the offset of `consumer`; None before its first run."""
    row = connection.execute(SQL["consumed"], {"consumer": consumer}).one_or_none()
    return Consumed(row.tick_id, row.as_of) if row is not None else None


def record_consumed(connection: Connection, consumer: str, tick_id: int, as_of: datetime) -> None:
    """Store the offset of `consumer` in the transaction of the work; the first time, also its start."""
    values = {"consumer": consumer, "tick_id": tick_id, "as_of": as_of}
    connection.execute(SQL["record_consumed"], values)


def consumers_behind(engine: Engine, segments_by_consumer: Mapping[str, Collection[str]]) -> set[str]:
    """Return the consumers whose segments have published changes that they have not processed."""
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
