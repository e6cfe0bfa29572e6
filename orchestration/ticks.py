"""Ticks: which instant a tick computes at, and the row that is published last."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from orchestration.errors import UpnextError
from orchestration.warehouse import exclusive

CLOCK_TOLERANCE = timedelta(minutes=5)
# Logs of membership changes, and the members by them: of users, and of accounts.
CHANGES = ("segments.membership_changes", "segments.account_membership_changes")
MEMBERS = ("segments.members", "segments.account_members")
UNITS = ("user_id", "account_id")
_FENCE = sa.text("select upnext.fence_tick(:tick_id)")
_TAKE_BACK = (
    "delete from segments.membership_changes where tick_id = :tick_id",
    "delete from segments.account_membership_changes where tick_id = :tick_id",
    "delete from segments.evaluations where tick_id = :tick_id",
    "delete from segments.ticks where tick_id = :tick_id",
)
_PUBLISH = (
    "insert into {log} (tick_id, segment, {unit}, change, as_of)"
    " select :tick_id, segment, {unit}, 'exited', :as_of from {members}"
    " where segment <> all(cast(:segments as text[])) order by segment, {unit}",
    "delete from {members} as members using {log} as changes"
    " where changes.tick_id = :tick_id and changes.change = 'exited'"
    " and members.segment = changes.segment and members.{unit} = changes.{unit}",
    "insert into {members} (segment, {unit}, entered_at)"
    " select segment, {unit}, as_of from {log} where tick_id = :tick_id and change = 'entered'",
    "select segment || ' ' || change as name, count(*) as changes from {log} where tick_id = :tick_id group by 1",
)
# Users who are another's since a tick that a consumer names, and whose they are.
MERGED_SINCE = """
    select links.id as absorbed, links.user_id
    from events.identity_links as links
    where
        links.kind = 'user'
        and links.user_id <> links.id
        and links.id in (select user_id from segments.moved_users where tick_id > :consumed_tick)
"""
_KEEP_MOVED = (
    "insert into segments.moved_users (tick_id, user_id)"
    " select distinct :tick_id, key from features.touched where model = 'identity_links' and tick_id <= :tick_id"
)

_CHANGED_STATES = """
    with states as ({states}),

    gone as (
        delete from experiences.acted_on
        where consumer = :consumer and experience not in (select experience from states)
        returning experience
    ),

    written as (
        insert into experiences.acted_on as before (consumer, experience, state)
        select :consumer, experience, state from states
        on conflict (consumer, experience) do update set state = excluded.state
        where before.state <> excluded.state
        returning experience
    )

    select experience from gone
    union all
    select experience from written
"""


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


def last_as_of(engine: Engine) -> datetime | None:
    """Return the `as_of` of the newest tick, published or open; None before the first."""
    with engine.connect() as connection:
        last: datetime | None = connection.scalar(sa.text("select max(as_of) from segments.ticks"))
    return last


@dataclass
class Tick:
    """An open tick; `changes` counts membership changes by `segment change` once it is published."""

    tick_id: int
    as_of: datetime
    changes: dict[str, int] = field(default_factory=dict)


@contextmanager
def published(
    engine: Engine,
    asked: datetime,
    *,
    segments: Collection[str],
    is_explicit: bool,
    clock: Callable[[], datetime],
) -> Iterator[Tick]:
    """Open a tick under the tick lock, and publish it where the body ends well; `segments` are those declared.

    After a failure the tick stays open and unseen, until the next one takes it back. Raises `UpnextError`
    for an explicit `asked` that is earlier than the last tick or in the future; otherwise the later of the two counts.
    """
    with exclusive(engine, "tick") as session:
        last = last_as_of(engine)
        as_of = check_explicit(asked, last=last, now=clock()) if is_explicit else later_of(asked, last)
        holder = session.scalar(sa.text("select pg_backend_pid()"))
        tick = Tick(_begin(engine, as_of, holder), as_of)
        yield tick
        tick.changes = _publish(engine, tick, segments=segments, published_at=clock())


def last_published_as_of(engine: Engine) -> datetime | None:
    """Return the `as_of` of the newest published tick; None before the first."""
    with engine.connect() as connection:
        last: datetime | None = connection.scalar(
            sa.text("select max(as_of) from segments.ticks where published_at is not null")
        )
    return last


def _begin(engine: Engine, as_of: datetime, holder: int) -> int:
    """Open a tick that takes in what has been loaded, and take back the one that a failure left open.

    `holder` is the process of the server whose session holds the tick lock.
    """
    with engine.begin() as connection:
        # Whoever still writes for that tick ends its transaction first, and may have published it.
        left_open = connection.scalar(
            sa.text("select tick_id from segments.ticks where published_at is null for update")
        )
        for statement in _TAKE_BACK if left_open is not None else ():
            connection.execute(sa.text(statement), {"tick_id": left_open})
        tick_id = connection.scalar(
            sa.text("insert into segments.ticks (as_of, holder) values (:as_of, :holder) returning tick_id"),
            {"as_of": as_of, "holder": holder},
        )
        connection.execute(
            sa.text("update raw.loads set tick_id = :tick_id where tick_id is null"), {"tick_id": tick_id}
        )
    return int(tick_id)


def _publish(engine: Engine, tick: Tick, *, segments: Collection[str], published_at: datetime) -> dict[str, int]:
    """Make the tick visible to everybody, and return its membership changes by `segment change`.

    Members of a segment that is no longer declared exit with it. Every table has consumed what was touched.
    """
    changes: dict[str, int] = {}
    with engine.begin() as connection:
        connection.execute(_FENCE, {"tick_id": tick.tick_id})
        for log, members, unit in zip(CHANGES, MEMBERS, UNITS, strict=True):
            values = {"tick_id": tick.tick_id, "as_of": tick.as_of, "segments": list(segments)}
            for statement in _PUBLISH:
                sql = statement.format(log=log, members=members, unit=unit)
                rows = connection.execute(sa.text(sql), values)
            changes |= {row.name: row.changes for row in rows}
        connection.execute(
            sa.text("delete from segments.evaluations where segment <> all(cast(:segments as text[]))"),
            {"segments": list(segments)},
        )
        connection.execute(sa.text(_KEEP_MOVED), {"tick_id": tick.tick_id})
        connection.execute(sa.text("delete from features.touched where tick_id <= :tick_id"), {"tick_id": tick.tick_id})
        connection.execute(
            sa.text("update segments.ticks set published_at = :published_at where tick_id = :tick_id"),
            {"tick_id": tick.tick_id, "published_at": published_at},
        )
    return dict(sorted(changes.items()))


def newest_published(connection: Connection) -> int:
    """Return the id of the newest published tick, 0 before the first."""
    newest = connection.scalar(sa.text("select max(tick_id) from segments.ticks where published_at is not null"))
    return int(newest or 0)


def loads_to_take_in(connection: Connection) -> int:
    """Return how many loads no published tick has taken in: those of a tick that failed among them."""
    waiting = sa.text("select count(*) from raw.loads where stored > 0 and (tick_id is null or tick_id > :published)")
    return int(connection.scalar(waiting, {"published": newest_published(connection)}) or 0)


class Consumed(NamedTuple):
    """Up to which tick a consumer has acted on membership changes, and up to which instant it has looked at events."""

    tick_id: int
    as_of: datetime | None


def consumed(connection: Connection, consumer: str) -> Consumed | None:
    """Return how far `consumer` has come; None before its first time."""
    row = connection.execute(
        sa.text("select tick_id, as_of from segments.consumers where consumer = :consumer"), {"consumer": consumer}
    ).one_or_none()
    return Consumed(row.tick_id, row.as_of) if row is not None else None


def record_consumed(connection: Connection, consumer: str, tick_id: int, as_of: datetime) -> None:
    """Remember, in the transaction of the work, how far `consumer` has come; and where it began, the first time."""
    connection.execute(
        sa.text(
            "insert into segments.consumers (consumer, tick_id, as_of, begun_at)"
            " values (:consumer, :tick_id, :as_of, :as_of)"
            " on conflict (consumer) do update set tick_id = excluded.tick_id, as_of = excluded.as_of"
        ),
        {"consumer": consumer, "tick_id": tick_id, "as_of": as_of},
    )


def changed_states(
    connection: Connection, consumer: str, states: str, values: Mapping[str, object] | None = None
) -> list[str]:
    """Return the experiences, or journeys, that are not what they were when `consumer` last acted on them.

    Edited, new, or gone. `states` is a SELECT of experience and state; what it says now is remembered as acted on.
    """
    return list(
        connection.scalars(sa.text(_CHANGED_STATES.format(states=states)), {**(values or {}), "consumer": consumer})
    )


def unconsumed(engine: Engine, segments_by_consumer: Mapping[str, Collection[str]]) -> set[str]:
    """Return the consumers whose segments have published changes that they have not acted on."""
    waiting = sa.text(
        "select exists (select from segments.published_changes where segment = any(:segments)"
        " and tick_id > coalesce((select tick_id from segments.consumers where consumer = :consumer), 0))"
    )
    with engine.connect() as connection:
        return {
            consumer
            for consumer, segments in segments_by_consumer.items()
            if connection.scalar(waiting, {"consumer": consumer, "segments": list(segments)})
        }


def unheard(engine: Engine, events_by_consumer: Mapping[str, Collection[str]]) -> set[str]:
    """Return the consumers whose events published ticks have taken in since they last looked."""
    waiting = sa.text(
        "select exists (select from events.user_events where event = any(:events) and load_id = any(array("
        "select load_id from raw.loads where tick_id <= :published and tick_id > coalesce("
        "(select tick_id from segments.consumers where consumer = :consumer), 0))))"
    )
    with engine.connect() as connection:
        published = newest_published(connection)
        return {
            consumer
            for consumer, events in events_by_consumer.items()
            if published
            and connection.scalar(waiting, {"consumer": consumer, "events": list(events), "published": published})
        }
