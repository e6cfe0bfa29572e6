"""Results of every experiment, journey, copy and segment at one `as_of`: moments read, compared, and written down."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from upnext.analytics.comparisons import (
    GOAL,
    Arm,
    Moments,
    Row,
    compare_experiments,
    compare_segments,
    rank_copies,
    with_decision,
)
from upnext.analytics.experiment_users import keep_up, snapshot

_MOMENTS = """
    select experiment, metric, type, split, arm, users, conversions, mean, variance, other_mean, other_variance,
        covariance
    from analytics.experiment_moments
"""
_ARMS = "select * from analytics.experiment_arms order by experiment, split, arm"
_GENERIC = """
    select experience, array_agg(variants.key) as arms
    from experiences.definitions
    cross join jsonb_each(definition -> 'variants') as variants
    where cast(variants.value ->> 'generic' as boolean)
    group by experience
"""
# The look before has the minimum of all before it, as long as the goal is the same.
_EARLIER = sa.text("""
    select looks.experiment, looks.metric, looks.arm, earlier.p_always_valid
    from unnest(cast(:experiments as text[]), cast(:metrics as text[]), cast(:arms as text[]), cast(:goals as text[]))
        as looks (experiment, metric, arm, goal_version)
    cross join lateral (
        select results.p_always_valid
        from analytics.experiment_results as results
        where
            results.experiment = looks.experiment
            and results.metric = looks.metric
            and results.arm = looks.arm
            and results.goal_version = looks.goal_version
            and results.as_of < :as_of
        order by results.as_of desc
        limit 1
    ) as earlier
""")
_FUNNEL = """
    select journey, step, entered, sent, opened, clicked, converted from analytics.journey_steps
"""


@dataclass(frozen=True)
class Analysed:
    """Rows of users that were written, as something had changed for them, and rows of the tables of results."""

    users: int
    results: int
    funnel_steps: int
    copies: int
    segments: int


def analyse(engine: Engine, *, as_of: datetime) -> Analysed:
    """Write the results at `as_of` to `analytics.*`, in place of what stood there for the same instant."""
    with snapshot(engine) as connection:
        users = keep_up(connection)
        compared = compare_experiments(
            (Moments(**row) for row in _rows(connection, _MOMENTS)),
            (Arm(**row) for row in _rows(connection, _ARMS)),
            as_of=as_of,
        )
        earlier = _earlier_looks(connection, compared, as_of)
        arms = Counter(row["experiment"] for row in compared if row["metric"] == GOAL)
        results = [
            with_decision(
                row, earlier.get((row["experiment"], row["metric"], row["arm"])), arms=arms[row["experiment"]]
            )
            for row in compared
        ]
        generic = {row["experience"]: set(row["arms"]) for row in _rows(connection, _GENERIC)}
        segments = compare_segments(_rows(connection, "select * from analytics.segment_counts"), generic)
        copies = rank_copies(_rows(connection, "select * from analytics.copy_counts"))
        funnel = _rows(connection, _FUNNEL)
        for table, rows in (
            ("experiment_results", results),
            ("segment_results", segments),
            ("copy_ranking", copies),
            ("journey_funnel", funnel),
        ):
            _replace(connection, f"analytics.{table}", rows, as_of)
    return Analysed(users, len(results), len(funnel), len(copies), len(segments))


def read_results(engine: Engine) -> list[Row]:
    """Return what is known of the goal of each arm at the newest analysis."""
    with engine.connect() as connection:
        return _rows(
            connection,
            "select * from analytics.experiment_results where metric = 'goal'"
            " and as_of = (select max(as_of) from analytics.experiment_results) order by experiment, arm",
        )


def read_history(engine: Engine) -> list[Row]:
    """Return the lift on the goal of each arm at the last look of each day, over a quarter of a year."""
    with engine.connect() as connection:
        return _rows(
            connection,
            "select distinct on (experiment, arm, as_of::date) as_of, experiment, arm, lift, lift_low, lift_high"
            " from analytics.experiment_results where metric = 'goal'"
            " and as_of > (select max(as_of) from analytics.experiment_results) - interval '90 days'"
            " order by experiment, arm, as_of::date, as_of desc",
        )


def _earlier_looks(
    connection: Connection, results: list[Row], as_of: datetime
) -> dict[tuple[str, str, str], float | None]:
    columns = {
        name: [row[column] for row in results]
        for name, column in (
            ("experiments", "experiment"),
            ("metrics", "metric"),
            ("arms", "arm"),
            ("goals", "goal_version"),
        )
    }
    rows = connection.execute(_EARLIER, {**columns, "as_of": as_of})
    return {(row.experiment, row.metric, row.arm): row.p_always_valid for row in rows}


def _rows(connection: Connection, statement: str) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.execute(sa.text(statement)).mappings()]


def _replace(connection: Connection, table: str, rows: list[Row], as_of: datetime) -> None:
    connection.execute(sa.text(f"delete from {table} where as_of = :as_of"), {"as_of": as_of})  # noqa: S608 - our own name
    if rows:
        columns = ["as_of", *rows[0]]
        values = ", ".join(f":{column}" for column in columns)
        insert = f"insert into {table} ({', '.join(columns)}) values ({values})"  # noqa: S608 - our own names
        connection.execute(sa.text(insert), [{"as_of": as_of, **row} for row in rows])
