"""Results of every experiment, journey, copy and segment at one `as_of`: read, compare, write."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg import sql
from sqlalchemy.engine import Connection, Engine

from upnext.analytics.comparisons import (
    GOAL,
    Arm,
    Look,
    Moments,
    Row,
    compare_experiments,
    compare_segments,
    rank_copies,
    with_decision,
    with_note,
    with_rates,
)
from upnext.analytics.sql import SQL

# One session computes so few in about a second.
FEW_USERS = 20_000


@dataclass(frozen=True)
class Analysed:
    """Users whose exposures and outcomes were recomputed, and rows written to each table of results."""

    users: int
    results: int
    funnel_steps: int
    copies: int
    segments: int


def analyse(engine: Engine, *, as_of: datetime) -> Analysed:
    """Write the results at `as_of` to `analytics.*`, and replace those of the same instant."""
    computed = compute_all_users(engine)
    with _snapshot(engine) as connection:
        connection.execute(SQL["refresh_users"])
        connection.execute(SQL["refresh_moments"])
        compared = compare_experiments(
            (Moments(**row) for row in _rows(connection, "moments")),
            (Arm(**row) for row in _rows(connection, "arms")),
            as_of=as_of,
        )
        earlier = _earlier_looks(connection, compared, as_of)
        arms = Counter(row["experiment"] for row in compared if row["metric"] == GOAL)
        results = [
            with_decision(
                row, earlier.get((row["experiment"], row["metric"], row["arm"]), Look()), arms=arms[row["experiment"]]
            )
            for row in compared
        ]
        halves = _rows(connection, "halves")
        results = [with_note(row, halves) for row in results]
        generic = {row["experience"]: set(row["arms"]) for row in _rows(connection, "generic_arms")}
        segments = compare_segments(_rows(connection, "segment_counts"), generic)
        copies = rank_copies(_rows(connection, "copy_counts"))
        funnel = with_rates(_rows(connection, "funnel"))
        for table, rows in (
            ("experiment_results", results),
            ("segment_results", segments),
            ("copy_ranking", copies),
            ("journey_funnel", funnel),
        ):
            _replace(connection, f"analytics.{table}", rows, as_of)
        users = computed + int(connection.scalar(SQL["count_stale_users"]) or 0)
    return Analysed(users, len(results), len(funnel), len(copies), len(segments))


def read_results(engine: Engine) -> list[Row]:
    """Return the result on the goal of each arm at the newest analysis."""
    with engine.connect() as connection:
        return _rows(connection, "newest_results")


def compute_all_users(engine: Engine, *, few_users: int = FEW_USERS) -> int:
    """Compute the users of experiments in several sessions, and return how many rows they are.

    It does nothing where users are computed already, or are few: the analysis does that itself. All sessions see the
    warehouse at one instant. If one fails, nothing is noted as done, and the next analysis computes all again.
    """
    with _snapshot(engine) as connection:
        if _sessions(connection, few_users) < 2:
            return 0
        connection.execute(SQL["forget_stale"])
    with _snapshot(engine) as connection:
        # Another analysis may have been first.
        parts = _sessions(connection, few_users)
        if parts < 2:
            return 0
        rows = _compute_parts(engine, parts, snapshot=str(connection.scalar(SQL["snapshot"])))
        connection.execute(SQL["note_as_computed"])
    return rows


def _sessions(connection: Connection, few_users: int) -> int:
    return int(connection.scalar(SQL["sessions"], {"few_users": few_users}) or 0)


def _compute_parts(engine: Engine, parts: int, *, snapshot: str) -> int:
    """Compute each part in a session of its own, and commit them when all are computed; return how many rows they are.

    Whoever interrupts this, or fails, ends them all.
    """
    adopt = sql.SQL("set transaction snapshot {}").format(snapshot).as_string()
    with ExitStack() as sessions, ThreadPoolExecutor(parts) as pool:
        connections = [sessions.enter_context(_repeatable(engine)) for _ in range(parts)]
        for connection in connections:
            connection.exec_driver_sql(adopt)
        drivers: list[Any] = [connection.connection.driver_connection for connection in connections]
        computing = [
            pool.submit(connection.scalar, SQL["compute_part"], {"part": part, "parts": parts})
            for part, connection in enumerate(connections)
        ]
        try:
            return sum(int(part.result() or 0) for part in as_completed(computing))
        except BaseException:
            for driver in drivers:
                with suppress(psycopg.Error):
                    driver.cancel_safe()
            raise


@contextmanager
def _snapshot(engine: Engine) -> Iterator[Connection]:
    """Yield a transaction that sees the warehouse at one instant; two analyses at once wait for each other."""
    with _repeatable(engine) as connection:
        connection.execute(SQL["lock"])
        yield connection


@contextmanager
def _repeatable(engine: Engine) -> Iterator[Connection]:
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection, connection.begin():
        yield connection


def _earlier_looks(connection: Connection, results: list[Row], as_of: datetime) -> dict[tuple[str, str, str], Look]:
    columns = {
        name: [row[column] for row in results]
        for name, column in (
            ("experiments", "experiment"),
            ("metrics", "metric"),
            ("arms", "arm"),
            ("goals", "goal_version"),
        )
    }
    rows = connection.execute(SQL["earlier_looks"], {**columns, "as_of": as_of})
    return {(row.experiment, row.metric, row.arm): Look(row.p_always_valid, row.p_favours) for row in rows}


def _rows(connection: Connection, statement: str) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.execute(SQL[statement]).mappings()]


def _replace(connection: Connection, table: str, rows: list[Row], as_of: datetime) -> None:
    connection.execute(sa.text(f"delete from {table} where as_of = :as_of"), {"as_of": as_of})  # noqa: S608 - our own name
    if rows:
        columns = ["as_of", *rows[0]]
        values = ", ".join(f":{column}" for column in columns)
        insert = f"insert into {table} ({', '.join(columns)}) values ({values})"  # noqa: S608 - our own names
        connection.execute(sa.text(insert), [{"as_of": as_of, **row} for row in rows])
