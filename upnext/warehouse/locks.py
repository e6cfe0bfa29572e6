"""Named locks of the warehouse: advisory locks of Postgres, which go with the session that holds them."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import sqlalchemy as sa
from psycopg.errors import DeadlockDetected
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError


def hold(connection: Connection, lock: str, *, shared: bool = False) -> None:
    """Take the warehouse-wide lock `lock` to the end of the transaction, waiting for whoever has it.

    Many may hold it `shared` at a time, and meanwhile nobody holds it alone.
    """
    take = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
    connection.execute(sa.text(f"select {take}(hashtextextended(:key, 0))"), {"key": f"upnext:{lock}"})


def is_deadlock(error: Exception) -> bool:
    """Whether Postgres ended a statement because two sessions waited for each other, told by the driver or not."""
    return isinstance(getattr(error, "orig", error), DeadlockDetected)


@contextmanager
def transaction(engine: Engine, lock: str) -> Iterator[Connection]:
    """Yield a transaction that holds the warehouse-wide lock `lock` to its end, waiting for whoever has it.

    Lock and writes share a session, so a session that has lost the lock can no longer write.
    """
    with engine.begin() as connection:
        hold(connection, lock)
        yield connection


@contextmanager
def exclusive(engine: Engine, name: str) -> Iterator[Connection]:
    """Hold the warehouse-wide lock `name` (`tick`, `dispatch`), waiting for whoever has it.

    The lock belongs to the yielded connection's session, so it goes with a killed process, and with a session that is
    lost: transactions that write under it have to be safe without it.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        key = {"key": f"upnext:{name}"}
        connection.execute(sa.text("select pg_advisory_lock(hashtextextended(:key, 0))"), key)
        try:
            yield connection
        finally:
            # If the session is lost, the lock is released already.
            with suppress(DBAPIError):
                connection.execute(sa.text("select pg_advisory_unlock(hashtextextended(:key, 0))"), key)


def taken(engine: Engine, name: str) -> Connection | None:
    """Take the warehouse-wide lock `name` without waiting; return the connection that holds it, None if others do."""
    connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    taken = sa.text("select pg_try_advisory_lock(hashtextextended(:key, 0))")
    if connection.scalar(taken, {"key": f"upnext:{name}"}):
        return connection
    connection.close()
    return None


def is_held(connection: Connection, name: str) -> bool:
    """Whether anybody holds the warehouse-wide lock `name`."""
    return bool(connection.scalar(sa.text("select upnext.is_locked(:lock)"), {"lock": name}))


def is_at_work(engine: Engine, run_id: str) -> bool:
    """Whether the process of a run is alive."""
    with engine.connect() as connection:
        return is_held(connection, f"run {run_id}")
