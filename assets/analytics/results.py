"""Results of every experiment, journey and copy at one `as_of`: moments in SQL, inference in `statistics`."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from assets.analytics.statistics import adjust, compare_proportions, sample_ratio_p, wilson

CONTROL = "control"


@dataclass(frozen=True)
class Moments:
    """One row of `analytics.experiment_moments`."""

    experiment: str
    segment: str
    metric: str
    arm: str
    users: int
    conversions: int


@dataclass(frozen=True)
class Analysed:
    """Rows written to the three tables of results."""

    results: int
    funnel_steps: int
    copies: int


def compare_arms(
    moments: Iterable[Moments], *, weights: Mapping[str, Mapping[str, float]], alpha: float = 0.05
) -> list[dict[str, Any]]:
    """Compare each arm with its control, per experiment and metric; p-values adjusted over the family by Holm.

    `weights` is the share of users that each arm of each experiment should get; an arm that got nobody counts too.

    Returns rows of `analytics.experiment_results` without `as_of`. An experiment without control has no row.
    """
    families: dict[tuple[str, str, str], dict[str, Moments]] = defaultdict(dict)
    for row in moments:
        families[row.experiment, row.segment, row.metric][row.arm] = row
    results: list[dict[str, Any]] = []
    for (experiment, segment, metric), arms in sorted(families.items()):
        control = arms.get(CONTROL)
        if control is None:
            continue
        shares = weights.get(experiment, {})
        srm_p = sample_ratio_p(
            observed=[arms[name].users if name in arms else 0 for name in shares],
            expected_weights=list(shares.values()),
        )
        for name, arm in sorted(arms.items()):
            if name == CONTROL:
                continue
            compared = compare_proportions(
                n_control=control.users,
                x_control=control.conversions,
                n_arm=arm.users,
                x_arm=arm.conversions,
                alpha=alpha,
            )
            results.append(
                {
                    "experiment": experiment,
                    "segment": segment,
                    "metric": metric,
                    "arm": name,
                    "n_control": control.users,
                    "n_arm": arm.users,
                    "mean_control": control.conversions / control.users if control.users else None,
                    "mean_arm": arm.conversions / arm.users if arm.users else None,
                    "diff": compared.diff,
                    "diff_low": compared.diff_low,
                    "diff_high": compared.diff_high,
                    "lift": compared.lift,
                    "lift_low": compared.lift_low,
                    "lift_high": compared.lift_high,
                    "p_value": compared.p_value,
                    "p_always_valid": compared.p_always_valid,
                    "srm_p": srm_p,
                    "reason": compared.reason,
                }
            )
    adjusted = adjust([row["p_value"] for row in results], method="holm")
    return [{**row, "p_adjusted": p} for row, p in zip(results, adjusted, strict=True)]


def rank_copies(counts: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rank variants by click rate within their segment, each with Wilson's 95 % interval."""
    by_segment: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in counts:
        interval = wilson(n=row["exposed"], x=row["clicked"])
        rate = row["clicked"] / row["exposed"] if row["exposed"] else None
        low, high = interval or (None, None)
        by_segment[row["segment"]].append({**row, "rate": rate, "rate_low": low, "rate_high": high})
    return [
        {**row, "rank": rank}
        for rows in by_segment.values()
        for rank, row in enumerate(sorted(rows, key=lambda row: -(row["rate"] or 0)), start=1)
    ]


def analyse(engine: Engine, *, as_of: datetime) -> Analysed:
    """Write the results at `as_of` to `analytics.*`, in place of what stood there for the same instant."""
    with engine.begin() as connection:
        moments = [
            Moments(
                row["experiment"],
                row["segment"],
                row["metric"],
                row["arm"],
                row["users"],
                row["conversions"],
            )
            for row in _rows(connection, "select * from analytics.experiment_moments")
        ]
        results = compare_arms(moments, weights=_weights(connection))
        ranked = rank_copies(_rows(connection, "select * from analytics.copy_counts"))
        earlier = _earlier_looks(connection, as_of)
        for row in results:
            key = (row["experiment"], row["segment"], row["metric"], row["arm"])
            looks = [p for p in (row["p_always_valid"], earlier.get(key)) if p is not None]
            row["p_always_valid"] = min(looks, default=None)
        _replace(connection, "analytics.experiment_results", results, as_of)
        _replace(connection, "analytics.copy_ranking", ranked, as_of)
        connection.execute(sa.text("delete from analytics.journey_funnel where as_of = :as_of"), {"as_of": as_of})
        steps = connection.execute(
            sa.text(
                "insert into analytics.journey_funnel"
                " (as_of, journey, step, entered, sent, opened, clicked, converted)"
                " select :as_of, journey, step, entered, sent, opened, clicked, converted from analytics.journey_steps"
            ),
            {"as_of": as_of},
        )
        return Analysed(len(results), steps.rowcount, len(ranked))


def _weights(connection: Connection) -> dict[str, dict[str, float]]:
    weights: dict[str, dict[str, float]] = {
        row["experience"]: row["weights"]
        for row in _rows(
            connection, "select experience, definition -> 'weights' as weights from experiences.definitions"
        )
    }
    for row in _rows(
        connection,
        "select distinct on (journey) journey, cast(definition ->> 'holdout' as double precision) as holdout"
        " from journeys.definitions order by journey, first_dispatched_at desc",
    ):
        weights[row["journey"]] = {CONTROL: row["holdout"], "treated": 1 - row["holdout"]}
    return weights


def _earlier_looks(connection: Connection, as_of: datetime) -> dict[tuple[str, str, str, str], float]:
    """Return the smallest always-valid p-value of the looks before: it is valid at every one of them."""
    rows = connection.execute(
        sa.text(
            "select experiment, segment, metric, arm, min(p_always_valid) from analytics.experiment_results"
            " where as_of < :as_of and p_always_valid is not null group by 1, 2, 3, 4"
        ),
        {"as_of": as_of},
    )
    return {(row[0], row[1], row[2], row[3]): row[4] for row in rows}


def _rows(connection: Connection, statement: str) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.execute(sa.text(statement)).mappings()]


def _replace(connection: Connection, table: str, rows: list[dict[str, Any]], as_of: datetime) -> None:
    connection.execute(sa.text(f"delete from {table} where as_of = :as_of"), {"as_of": as_of})  # noqa: S608 - our own name
    if rows:
        columns = ["as_of", *rows[0]]
        values = ", ".join(f":{column}" for column in columns)
        insert = f"insert into {table} ({', '.join(columns)}) values ({values})"  # noqa: S608 - our own names
        connection.execute(sa.text(insert), [{"as_of": as_of, **row} for row in rows])
