"""The edge's connections for look-ups, and for what a user's click changes; each statement is a transaction."""

import asyncio
from typing import Any

import psycopg
from psycopg.rows import namedtuple_row
from psycopg_pool import AsyncConnectionPool
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from upnext.edge.sql import SQL
from upnext.warehouse.engine import SESSION

_DIALECT = PGDialect_psycopg()  # type: ignore[no-untyped-call]
STATEMENTS = {name: str(statement.compile(dialect=_DIALECT)) for name, statement in SQL.items()}
WITHIN = 5.0
"""Seconds for an answer."""


class Warehouse:
    """A few connections that several requests share."""

    def __init__(self, database: str) -> None:
        self._database = database
        self._pool: AsyncConnectionPool[Any]

    async def open(self) -> None:
        """Begin to connect; the warehouse may still be away."""
        self._pool = AsyncConnectionPool(
            self._database, min_size=1, max_size=4, open=False, timeout=3.0,
            check=AsyncConnectionPool.check_connection,
            kwargs={"autocommit": True, "row_factory": namedtuple_row, "connect_timeout": 5,
                    "options": f"{SESSION} -c statement_timeout=3s"},
        )  # fmt: skip
        await self._pool.open()

    async def close(self) -> None:
        """Close the connections."""
        await self._pool.close()

    async def ask(self, name: str, **values: Any) -> list[Any]:
        """Return the rows of a statement. Raises `psycopg.Error` or `OSError` while the warehouse is away."""
        async with asyncio.timeout(WITHIN), self._pool.connection() as connection:
            cursor = await connection.execute(STATEMENTS[name], values)
            return list(await cursor.fetchall()) if cursor.description is not None else []

    async def connect(self) -> Any:
        """Return a connection of its own, for the inbox."""
        return await psycopg.AsyncConnection.connect(
            self._database, connect_timeout=5, options=f"{SESSION} -c statement_timeout=12s"
        )
