"""Keeping `analytics.experiment_users` up: whom something has changed for is looked up again, and nobody else.

Beside it `analytics.daily_moments`, the moments of its rows by day of exposure: only days that are touched are summed
again.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.engine import Connection, Engine

from upnext.analytics.sql import SQL
from upnext.ticks.offsets import changed_states, consumed, record_consumed
from upnext.warehouse.locks import exclusive

TABLE = "analytics.experiment_users"

_GOALS = "select experiment as name, goal_version as hash from analytics.experiments"


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
    newest = connection.execute(SQL["newest"]).one()
    if newest.tick_id is None:
        return 0
    since = consumed(connection, TABLE)
    new_goals = changed_states(connection, TABLE, _GOALS)
    connection.execute(SQL["clear"])
    if since is None:
        connection.execute(SQL["find_all_stale_users"])
    else:
        values = {"since_tick": since.tick_id, "since": since.as_of, "as_of": newest.as_of, "new_goals": new_goals}
        connection.execute(SQL["find_stale_users"], values)
    connection.execute(SQL["analyze_users"])
    connection.execute(SQL["look_up"])
    differing = connection.execute(SQL["differ"]).rowcount
    connection.execute(SQL["remove"])
    connection.execute(SQL["add"])
    connection.execute(SQL["find_all_stale_days"] if since is None else SQL["find_stale_days"])
    connection.execute(SQL["analyze_days"])
    connection.execute(SQL["remove_moments"])
    connection.execute(SQL["add_moments"])
    connection.execute(SQL["drop_temporary"])
    record_consumed(connection, TABLE, newest.tick_id, newest.as_of)
    return differing


def forget(connection: Connection) -> None:
    """Let the next look be at everybody."""
    connection.execute(SQL["forget_offset"], {"table": TABLE})


def rebuild(engine: Engine) -> int:
    """Look everybody up afresh, mend what differs, and return how many rows were wrong: 0, or there is a mistake."""
    with snapshot(engine) as connection:
        if consumed(connection, TABLE) is None:
            return 0
        keep_up(connection)
        forget(connection)
        return keep_up(connection)
