"""dbt's connections, kept open from one node to the next.

dbt closes its connection after each node, and a new server process has to map every page that it touches: that was
two thirds of the time of a small tick. dbt's own bookkeeping takes up a connection that is still open.
"""

from typing import Any

from dbt.adapters.postgres.connections import PostgresConnectionManager

_close = PostgresConnectionManager.release


def keep_open() -> None:
    """Let dbt, in this process, end the transaction of a node and keep the connection for the next one."""
    PostgresConnectionManager.release = _end_transaction  # type: ignore[method-assign, assignment]


def _end_transaction(manager: Any) -> None:
    connection = manager.get_if_exists()
    if connection is None or connection.state != "open":
        _close(manager)
        return
    connection.handle.rollback()
    connection.transaction_open = False
