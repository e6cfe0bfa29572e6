"""Assigning members to the arms of their segment's experiences, by hash, once; and updating what each user sees."""

from dataclasses import dataclass
from datetime import datetime

import msgspec
from sqlalchemy.engine import Connection, Engine

from upnext.experiences.definition import Experience, as_json
from upnext.experiences.sql import SQL
from upnext.switches import started
from upnext.ticks.lifecycle import newest_published
from upnext.ticks.offsets import consumed, record_consumed
from upnext.warehouse.locks import hold

CONSUMER = "experiences"
_SHOWN = "experiences.live_ctas"


def assign(
    engine: Engine,
    experiences: dict[str, Experience],
    *,
    as_of: datetime,
    global_holdout: float = 0,
) -> int:
    """Give each current member a variant of each experience of the segment, and return the number of new ones.

    Experiences that were never `started` are skipped; stopped ones keep their results. Users of the global holdout, a
    share of all, get none, unless they have one already.
    """
    with engine.begin() as connection:
        hold(connection, "assign")
        # Read under the lock: whoever stops an experience meanwhile is heard.
        at_work = started(connection)
        definitions = {
            name: msgspec.json.encode({**as_json(experience), "is_started": name in at_work}).decode()
            for name, experience in experiences.items()
        }
        known = set(connection.scalars(SQL["declared"]))
        rows = [
            {"experience": name, "as_of": as_of, "definition": definition}
            for name, definition in definitions.items()
            if name in at_work or name in known
        ]
        if rows:
            connection.execute(SQL["record"], rows)
        connection.execute(SQL["forget"], {"experiences": list(experiences)})
        published_tick = newest_published(connection)
        consumed_tick = _consumed_tick(connection, CONSUMER)
        if published_tick:
            connection.execute(SQL["merge"], {"consumed_tick": consumed_tick})
        changed = _changed(connection, CONSUMER, as_of)
        values = {
            "as_of": as_of, "changed": changed, "consumed_tick": consumed_tick, "global_holdout": global_holdout
        }  # fmt: skip
        if global_holdout:
            connection.execute(SQL["keep_out"], values)
        assigned = connection.scalar(SQL["assign"], values)
        record_consumed(connection, CONSUMER, published_tick, as_of)
    return int(assigned or 0)


def withdraw(connection: Connection, name: str) -> None:
    """Let an experience that was stopped be shown to nobody; its results stay."""
    hold(connection, "assign")
    connection.execute(SQL["withdraw"], {"experience": name})


def _consumed_tick(connection: Connection, consumer: str) -> int:
    since = consumed(connection, consumer)
    return 0 if since is None else since.tick_id


def _changed(connection: Connection, consumer: str, as_of: datetime) -> list[str]:
    return list(connection.scalars(SQL["changed_definitions"], {"consumer": consumer, "as_of": as_of}))


@dataclass(frozen=True)
class Shown:
    """The number of live calls to action, and the number of rows changed."""

    live: int
    changed: int


def show(engine: Engine, *, as_of: datetime) -> Shown:
    """Bring `experiences.live_ctas` up to the newest published tick, which is of `as_of`."""
    with engine.begin() as connection:
        # Two concurrent runs would each restore rows that the other removes.
        hold(connection, "live_ctas")
        # Users without an assignment yet are read again by the next call.
        until = min(newest_published(connection), _consumed_tick(connection, CONSUMER))
        values = {
            "consumed_tick": _consumed_tick(connection, _SHOWN), "changed": _changed(connection, _SHOWN, as_of)
        }  # fmt: skip
        changed = connection.scalar(SQL["show"], values)
        live = connection.scalar(SQL["count_live"])
        record_consumed(connection, _SHOWN, until, as_of)
    return Shown(int(live or 0), int(changed or 0))
