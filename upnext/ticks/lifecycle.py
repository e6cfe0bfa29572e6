"""The life of a tick: opened under a lock, taken back after a failure, published last."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy.engine import Connection, Engine

from upnext.ticks.instants import check_explicit, later_of
from upnext.ticks.sql import SQL
from upnext.warehouse.locks import exclusive

_TAKE_BACK = (
    "take_back_changes_of_users",
    "take_back_changes_of_accounts",
    "take_back_evaluations",
    "take_back_tick",
)
_EXIT_UNDECLARED = ("exit_undeclared_users", "exit_undeclared_accounts", "forget_undeclared_evaluations")
_APPLY = ("remove_exited_users", "add_entered_users", "remove_exited_accounts", "add_entered_accounts")
_FORGET = ("keep_merged_users", "forget_changed_keys")


def last_as_of(engine: Engine) -> datetime | None:
    """Return the `as_of` of the newest tick, published or open; None before the first."""
    with engine.connect() as connection:
        last: datetime | None = connection.scalar(SQL["last_as_of"])
    return last


@dataclass
class Tick:
    """An open tick; `changes` counts membership changes by `segment change` once it is published.

    `together` are the segments that it evaluates with their features, so that dbt leaves them out.
    """

    tick_id: int
    as_of: datetime
    together: list[str] = field(default_factory=list)
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
    """Open a tick under the tick lock, and publish it if the body succeeds; `segments` are those declared.

    After a failure the tick stays open and unseen, until the next one takes it back. Raises `UpnextError`
    for an explicit `asked` that is earlier than the last tick or in the future; otherwise the later of the two counts.
    """
    with exclusive(engine, "tick") as session:
        last = last_as_of(engine)
        as_of = check_explicit(asked, last=last, now=clock()) if is_explicit else later_of(asked, last)
        holder = session.scalar(SQL["backend_pid"])
        tick = Tick(_begin(engine, as_of, holder), as_of)
        yield tick
        tick.changes = _publish(engine, tick, segments=segments, published_at=clock())


def last_published_as_of(engine: Engine) -> datetime | None:
    """Return the `as_of` of the newest published tick; None before the first."""
    with engine.connect() as connection:
        last: datetime | None = connection.scalar(SQL["last_published_as_of"])
    return last


def _begin(engine: Engine, as_of: datetime, holder: int) -> int:
    """Open a tick over the loads so far, and roll back the one that a failure left open.

    `holder` is the process of the server whose session holds the tick lock.
    """
    with engine.begin() as connection:
        # A session that still writes for that tick has to end its transaction first, and may have published it.
        left_open = connection.scalar(SQL["find_open_tick"])
        for statement in _TAKE_BACK if left_open is not None else ():
            connection.execute(SQL[statement], {"tick_id": left_open})
        tick_id = connection.scalar(SQL["open_tick"], {"as_of": as_of, "holder": holder})
        connection.execute(SQL["claim_loads"], {"tick_id": tick_id})
    return int(tick_id)


def _publish(engine: Engine, tick: Tick, *, segments: Collection[str], published_at: datetime) -> dict[str, int]:
    """Make the tick visible, and return its membership changes by `segment change`.

    Members of a segment that is no longer declared exit with it. Every table has consumed what was touched.
    """
    values = {
        "tick_id": tick.tick_id,
        "as_of": tick.as_of,
        "segments": list(segments),
        "published_at": published_at,
    }
    with engine.begin() as connection:
        connection.execute(SQL["fence_tick"], values)
        undeclared = list(connection.scalars(SQL["undeclared_segments"], values))
        for statement in _EXIT_UNDECLARED if undeclared else ():
            connection.execute(SQL[statement], {**values, "undeclared": undeclared})
        for statement in _APPLY:
            connection.execute(SQL[statement], values)
        changes = {
            row.name: row.changes
            for statement in ("count_changes_of_users", "count_changes_of_accounts")
            for row in connection.execute(SQL[statement], values)
        }
        for statement in _FORGET:
            connection.execute(SQL[statement], values)
        connection.execute(SQL["publish_tick"], values)
    return dict(sorted(changes.items()))


def newest_published(connection: Connection) -> int:
    """Return the id of the newest published tick, 0 before the first."""
    newest = connection.scalar(SQL["newest_published"])
    return int(newest or 0)


def loads_to_take_in(connection: Connection, *, of_the_inbox: bool = False) -> int:
    """Return how many loads no published tick has taken in: those of a tick that failed among them.

    `of_the_inbox` counts those of lines that came through the edge alone.
    """
    values = {"published": newest_published(connection), "path": "edge:%" if of_the_inbox else "%"}
    waiting = connection.scalar(SQL["count_loads_to_take_in"], values)
    return int(waiting or 0)
