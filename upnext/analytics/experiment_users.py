"""Keeping `analytics.experiment_users` up: whom something has changed for is looked up again, and nobody else.

Beside it `analytics.daily_moments`, the moments of its rows by day of exposure: only days that are touched are summed
again.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from upnext.ticks.offsets import changed_states, consumed, record_consumed
from upnext.warehouse.locks import exclusive

TABLE = "analytics.experiment_users"

_NEWEST = sa.text("select max(tick_id) as tick_id, max(as_of) as as_of from segments.published_ticks")
_GOALS = "select experiment as name, goal_version as hash from analytics.experiments"

_TOUCH_ALL = sa.text("""
    with changed as (
        delete from analytics.invalidated_users
    )

    insert into analytics.stale_users
    select user_id from experiences.assignments
    union
    select user_id from journeys.entries
    union
    select user_id from analytics.experiment_users
""")

# Windows that have closed; new goals; entries; merges; events that came late, for whatever they say of a window that
# was over already; and what was seen for the first time, or in another arm. `offset 0` keeps that a look-up by index;
# in the order of the index it is a third quicker.
_TOUCH = sa.text("""
    with changed as (
        delete from analytics.invalidated_users returning user_id
    ),

    views as (
        select user_id, properties, occurred_at
        from events.user_events
        where event = 'experience viewed' and occurred_at >= :since and occurred_at <= :as_of
        order by user_id
    )

    insert into analytics.stale_users
    select user_id from analytics.experiment_users where not is_window_over and closes_at <= :as_of
    union
    select user_id from experiences.assignments where experience = any(:new_goals)
    union
    select user_id from journeys.entries where journey = any(:new_goals)
    union
    select user_id from changed
    union
    select user_id from segments.merged_users where tick_id > :since_tick
    union
    select user_id
    from events.identified_events
    where
        load_id = any(array(select raw.loads_since(:since_tick)))
        and occurred_at <= :since
    union
    select views.user_id
    from views
    where not exists (
        select from analytics.experiment_users as known
        where
            known.user_id = views.user_id
            and known.experiment = views.properties ->> 'experience'
            and (known.is_in_both_arms or known.arm = views.properties ->> 'variant')
        offset 0
    )
    order by user_id
""")

_LOOK_UP = sa.text("create temporary table fresh as select * from analytics.stale_outcomes")
_DIFFER = sa.text("""
    create temporary table differing as
    with live as (
        select known.*
        from analytics.stale_users as touched
        cross join lateral (
            select * from analytics.experiment_users where user_id = touched.user_id offset 0
        ) as known
    )

    select
        coalesce(fresh.user_id, live.user_id) as user_id,
        coalesce(fresh.experiment, live.experiment) as experiment,
        array[fresh.exposed_on, live.exposed_on] as days
    from fresh
    full join live on fresh.user_id = live.user_id and fresh.experiment = live.experiment
    where fresh is distinct from live
""")
_REMOVE = sa.text("""
    delete from analytics.experiment_users as live using differing
    where live.user_id = differing.user_id and live.experiment = differing.experiment
""")
_ADD = sa.text("""
    insert into analytics.experiment_users
    select fresh.*
    from fresh
    inner join differing on fresh.user_id = differing.user_id and fresh.experiment = differing.experiment
""")
_TOUCH_DAYS = sa.text("""
    insert into analytics.stale_days
    select distinct experiment, day
    from differing
    cross join unnest(days) as day
    where day is not null
""")
_TOUCH_ALL_DAYS = sa.text("""
    insert into analytics.stale_days
    select experiment, exposed_on from analytics.experiment_users
    union
    select experiment, exposed_on from analytics.daily_moments
""")
_REMOVE_MOMENTS = sa.text("""
    delete from analytics.daily_moments as live using analytics.stale_days as touched
    where live.experiment = touched.experiment and live.exposed_on = touched.exposed_on
""")
_ADD_MOMENTS = sa.text("insert into analytics.daily_moments select * from analytics.stale_moments")


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """Yield a transaction that sees the warehouse at one instant and has the table to itself.

    Two at once would each put back what the other takes away.
    """
    with (
        exclusive(engine, TABLE),
        engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection,
        connection.begin(),
    ):
        yield connection


def keep_up(connection: Connection) -> int:
    """Bring both tables up to the newest published tick, and return how many users' rows differed.

    Whom nothing has changed for since the last time is left alone; the first time everybody is looked up.
    """
    newest = connection.execute(_NEWEST).one()
    if newest.tick_id is None:
        return 0
    since = consumed(connection, TABLE)
    new_goals = changed_states(connection, TABLE, _GOALS)
    connection.execute(sa.text("truncate analytics.stale_users, analytics.stale_days"))
    if since is None:
        connection.execute(_TOUCH_ALL)
    else:
        values = {"since_tick": since.tick_id, "since": since.as_of, "as_of": newest.as_of, "new_goals": new_goals}
        connection.execute(_TOUCH, values)
    connection.execute(sa.text("analyze analytics.stale_users"))
    connection.execute(_LOOK_UP)
    differing = connection.execute(_DIFFER).rowcount
    connection.execute(_REMOVE)
    connection.execute(_ADD)
    connection.execute(_TOUCH_ALL_DAYS if since is None else _TOUCH_DAYS)
    connection.execute(sa.text("analyze analytics.stale_days"))
    connection.execute(_REMOVE_MOMENTS)
    connection.execute(_ADD_MOMENTS)
    connection.execute(sa.text("drop table fresh, differing"))
    record_consumed(connection, TABLE, newest.tick_id, newest.as_of)
    return differing


def forget(connection: Connection) -> None:
    """Let the next look be at everybody."""
    connection.execute(sa.text("delete from segments.consumer_offsets where consumer = :table"), {"table": TABLE})


def rebuild(engine: Engine) -> int:
    """Look everybody up afresh, mend what differs, and return how many rows were wrong: 0, or there is a mistake."""
    with snapshot(engine) as connection:
        if consumed(connection, TABLE) is None:
            return 0
        keep_up(connection)
        forget(connection)
        return keep_up(connection)
