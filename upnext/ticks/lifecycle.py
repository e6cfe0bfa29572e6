"""The life of a tick: opened under a lock, taken back after a failure, published last."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from upnext.ticks.instants import check_explicit, later_of
from upnext.warehouse.locks import exclusive

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

_KEEP_MOVED = (
    "insert into segments.merged_users (tick_id, user_id)"
    " select distinct :tick_id, key from features.changed_keys where model = 'identity_links' and tick_id <= :tick_id"
)


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
        last: datetime | None = connection.scalar(sa.text("select max(as_of) from segments.published_ticks"))
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
        connection.execute(
            sa.text("delete from features.changed_keys where tick_id <= :tick_id"), {"tick_id": tick.tick_id}
        )
        connection.execute(
            sa.text("update segments.ticks set published_at = :published_at where tick_id = :tick_id"),
            {"tick_id": tick.tick_id, "published_at": published_at},
        )
    return dict(sorted(changes.items()))


def newest_published(connection: Connection) -> int:
    """Return the id of the newest published tick, 0 before the first."""
    newest = connection.scalar(sa.text("select max(tick_id) from segments.published_ticks"))
    return int(newest or 0)


def loads_to_take_in(connection: Connection) -> int:
    """Return how many loads no published tick has taken in: those of a tick that failed among them."""
    waiting = sa.text("select count(*) from raw.loads where stored > 0 and (tick_id is null or tick_id > :published)")
    return int(connection.scalar(waiting, {"published": newest_published(connection)}) or 0)
