"""Deleting what results count, and keeping what it adds to their sums.

The counts of funnels and copies are views over messages, entries and events. What a deletion takes away is the
difference of the view before and after it, in one snapshot.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.engine import Connection, Engine

from upnext.retention.sql import SQL


@contextmanager
def keeping_counts(engine: Engine) -> Iterator[Connection]:
    """Yield a transaction in one snapshot, whose deletions leave the sums of the results as they were.

    An analysis at work ends first.
    """
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection, connection.begin():
        connection.execute(SQL["lock_results"])
        has_results = connection.scalar(SQL["are_results_built"])
        if has_results:
            for statement in ("forget_counts", "keep_steps", "keep_copies"):
                connection.execute(SQL[statement])
        yield connection
        if has_results:
            for statement in ("add_erased_steps", "add_erased_copies"):
                connection.execute(SQL[statement])
