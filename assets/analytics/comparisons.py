"""From moments to results: arms against control, copies against each other, segments one by one. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from assets.analytics.statistics import (
    Comparison,
    adjust,
    compare_means_cuped,
    compare_proportions,
    compare_ratios,
    days_left,
    decide,
    minimal_detectable_lift,
    sample_ratio_p,
    wilson,
)

CONTROL = "control"
GOAL = "goal"
CLICKED = "clicked"
ALPHA = 0.05
Row = dict[str, Any]


@dataclass(frozen=True)
class Moments:
    """One row of `analytics.experiment_moments`; `other_*` is the time before, or what a ratio is over."""

    experiment: str
    metric: str
    type: str
    arm: str
    users: int
    conversions: int | None = None
    mean: float | None = None
    variance: float | None = None
    other_mean: float | None = None
    other_variance: float | None = None
    covariance: float | None = None

    @property
    def value(self) -> float | None:
        """The mean of the metric over the users of the arm; None where there is nobody."""
        if not self.users:
            return None
        if self.conversions is not None:
            return self.conversions / self.users
        if self.type == "ratio":
            return self.mean / self.other_mean if self.mean is not None and self.other_mean else None
        return self.mean


@dataclass(frozen=True)
class Arm:
    """One row of `analytics.experiment_arms`: users seen, how many it should be, and what is said of the experiment."""

    experiment: str
    kind: str
    segment: str
    goal_version: str
    minimum_lift: float
    arm: str
    expected_users: float
    users: int
    open_users: int = 0
    users_in_both_arms: int = 0
    first_exposed_at: datetime | None = None


def compare_experiments(moments: Iterable[Moments], arms: Iterable[Arm], *, as_of: datetime) -> list[Row]:
    """Compare each arm with its control, per experiment and metric: rows of `analytics.experiment_results`.

    An arm that nobody saw has a row too. P-values are adjusted within an experiment: by Holm over the goal of each arm,
    and over its clicks, by Benjamini and Hochberg over all other metrics. `p_always_valid` is that of this look alone;
    `with_decision` adds the looks before it, and the word.
    """
    found: dict[str, dict[tuple[str, str], dict[str, Moments]]] = defaultdict(lambda: defaultdict(dict))
    for row in moments:
        found[row.experiment][row.metric, row.type][row.arm] = row
    by_experiment: dict[str, dict[str, Arm]] = defaultdict(dict)
    for arm in arms:
        by_experiment[arm.experiment][arm.arm] = arm
    results: list[Row] = []
    for experiment, drawn in sorted(by_experiment.items()):
        srm_p = sample_ratio_p(
            observed=[arm.users for arm in drawn.values()],
            expected_weights=[arm.expected_users for arm in drawn.values()],
        )
        # Where no window is over yet, the goal has a row all the same.
        metrics = found[experiment] or {(GOAL, "proportion"): {}}
        results += _adjusted(
            [
                {**row, "srm_p": srm_p}
                for (metric, kind), by_arm in metrics.items()
                if metric != CLICKED or drawn[next(iter(drawn))].kind == "experience"
                for row in _compare_arms(metric, kind, by_arm, drawn, as_of)
            ]
        )
    return results


def with_decision(row: Row, earlier: float | None, *, arms: int) -> Row:
    """Return a result with the running minimum of its always-valid p-value, and what that says of the goal."""
    looks = [p for p in (row["p_always_valid"], earlier) if p is not None]
    row = {**row, "p_always_valid": min(looks, default=None)}
    minimum_lift = row.pop("minimum_lift")
    if row["metric"] != GOAL:
        return {**row, "decision": None}
    compared = Comparison(**{name: row[name] for name in _COMPARED})
    decision = decide(
        compared=compared, mean_control=row["mean_control"], srm_p=row["srm_p"], minimum_lift=minimum_lift, arms=arms
    )
    return {**row, "decision": decision}


def compare_segments(counts: Iterable[Row], generic: Mapping[str, set[str]]) -> list[Row]:
    """Compare the goal in each segment: every arm with control, and personal copy with the `generic` arms there are.

    Rows of `analytics.segment_results`, p-values adjusted over all of them by Benjamini and Hochberg. `finding` is the
    word; that something does as well is said only where a lift worth having is ruled out, in all rows at once.
    """
    by_segment: dict[tuple[str, str], dict[str, Row]] = defaultdict(dict)
    for row in counts:
        by_segment[row["segment"], row["experiment"]][row["arm"]] = row
    pairs = [
        (arms[reference], arm)
        for (_, experiment), arms in sorted(by_segment.items())
        for name, arm in sorted(arms.items())
        for reference in (CONTROL, *sorted(generic.get(experiment, ())))
        if name != CONTROL and reference in arms and reference != name
        and (reference == CONTROL or name not in generic[experiment])
    ]  # fmt: skip
    compared = [_compare_counts(reference, arm, ALPHA) for reference, arm in pairs]
    adjusted = adjust([result.p_value for result in compared], method="benjamini-hochberg")
    return [
        {
            "segment": arm["segment"],
            "experiment": arm["experiment"],
            "arm": arm["arm"],
            "reference": reference["arm"],
            "n_reference": reference["users"],
            "n_arm": arm["users"],
            "mean_reference": reference["conversions"] / reference["users"],
            "mean_arm": arm["conversions"] / arm["users"],
            **{name: getattr(result, name) for name in ("lift", "lift_low", "lift_high", "p_value", "reason")},
            "p_adjusted": p_adjusted,
            "finding": _finding(
                result, p_adjusted, _compare_counts(reference, arm, ALPHA / len(pairs)), arm["minimum_lift"]
            ),
        }
        for (reference, arm), result, p_adjusted in zip(pairs, compared, adjusted, strict=True)
    ]


def rank_copies(counts: Iterable[Row]) -> list[Row]:
    """Rank variants within their segment by click rate and by goal, with Wilson's intervals.

    Rows of `analytics.copy_ranking`. A variant is best only where it beats each of the others, by Holm.
    """
    by_segment: dict[str, list[Row]] = defaultdict(list)
    for row in counts:
        by_segment[row["segment"]].append(row)
    ranked: list[Row] = []
    for rows in by_segment.values():
        clicks, goals = _ranked(rows, "clicked"), _ranked(rows, "converted")
        ranked += [
            {
                **row,
                **dict(zip(_BY_CLICKS, click, strict=True)),
                **dict(zip(_BY_GOALS, goal, strict=True)),
            }
            for row, click, goal in zip(rows, clicks, goals, strict=True)
        ]
    return sorted(ranked, key=lambda row: (row["segment"], row["rank"], row["experiment"], row["variant"]))


_COMPARED = tuple(asdict(Comparison()))
_BY_CLICKS = ("rate", "rate_low", "rate_high", "rank", "is_best_by_clicks")
_BY_GOALS = ("goal_rate", "goal_low", "goal_high", "goal_rank", "is_best_by_goals")


def _compare_arms(
    metric: str, kind: str, found: Mapping[str, Moments], drawn: Mapping[str, Arm], as_of: datetime
) -> Iterator[Row]:
    def moments(arm: Arm) -> Moments:
        nobody = Moments(arm.experiment, metric, kind, arm.arm, 0, 0 if kind == "proportion" else None)
        return found.get(arm.arm, nobody)

    seen_control = drawn.get(CONTROL)
    for name in sorted(drawn.keys() - {CONTROL}):
        seen_arm = drawn[name]
        seen_control = seen_control or replace(seen_arm, arm=CONTROL, expected_users=0, users=0, open_users=0)
        control, arm = moments(seen_control), moments(seen_arm)
        compared = _compare(control, arm)
        if seen_control.expected_users == 0:
            compared = Comparison(reason="no control group")
        yield {
            "experiment": seen_arm.experiment,
            "segment": seen_arm.segment,
            "metric": metric,
            "type": kind,
            "arm": name,
            "goal_version": seen_arm.goal_version,
            "n_control": control.users,
            "n_arm": arm.users,
            "n_open_control": seen_control.open_users,
            "n_open_arm": seen_arm.open_users,
            "n_both_control": seen_control.users_in_both_arms,
            "n_both_arm": seen_arm.users_in_both_arms,
            "mean_control": control.value,
            "mean_arm": arm.value,
            **asdict(compared),
            **_plan(control, arm, (seen_control, seen_arm), as_of),
            "minimum_lift": seen_arm.minimum_lift,
        }


def _compare(control: Moments, arm: Moments) -> Comparison:
    if control.conversions is not None and arm.conversions is not None:
        return compare_proportions(
            n_control=control.users, x_control=control.conversions, n_arm=arm.users, x_arm=arm.conversions, alpha=ALPHA
        )
    function = compare_ratios if arm.type == "ratio" else compare_means_cuped
    names = ("mean_num", "var_num", "mean_den", "var_den") if arm.type == "ratio" else _CUPED
    moments: dict[str, Any] = {}
    for side, row in ((CONTROL, control), ("arm", arm)):
        values = (row.mean, row.variance, row.other_mean, row.other_variance)
        moments |= {f"{name}_{side}": value for name, value in zip(names, values, strict=True)}
        moments |= {f"n_{side}": row.users, f"cov_{side}": row.covariance}
    return function(**moments, alpha=ALPHA)


_CUPED = ("mean", "var", "pre_mean", "pre_var")


def _plan(control: Moments, arm: Moments, seen: tuple[Arm, Arm], as_of: datetime) -> Row:
    """What the goal could show by now, and in how many days it could show the smallest lift worth having."""
    if arm.metric != GOAL or control.value is None:
        return {"minimal_detectable_lift": None, "days_left": None}
    moments: dict[str, Any] = {
        "n_control": control.users,
        "mean_control": control.value,
        "var_control": control.value * (1 - control.value),
        "n_arm": arm.users,
    }
    begun = min((side.first_exposed_at for side in seen if side.first_exposed_at is not None), default=as_of)
    per_day = sum(side.users for side in seen) / max((as_of - begun) / timedelta(days=1), 1)
    return {
        "minimal_detectable_lift": minimal_detectable_lift(**moments),
        "days_left": days_left(**moments, per_day=per_day, lift=seen[1].minimum_lift),
    }


def _adjusted(rows: list[Row]) -> list[Row]:
    """Adjust p-values by family: the goal, clicks (control has none, so they are sure), and all other metrics."""
    families: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        families[row["metric"] if row["metric"] in (GOAL, CLICKED) else ""].append(row)
    return [
        {**row, "p_adjusted": p}
        for name, family in families.items()
        for row, p in zip(
            family,
            adjust([row["p_value"] for row in family], method="holm" if name else "benjamini-hochberg"),
            strict=True,
        )
    ]


def _compare_counts(reference: Row, arm: Row, alpha: float) -> Comparison:
    return compare_proportions(
        n_control=reference["users"],
        x_control=reference["conversions"],
        n_arm=arm["users"],
        x_arm=arm["conversions"],
        alpha=alpha,
    )


def _finding(result: Comparison, p_adjusted: float | None, in_all_rows: Comparison, minimum_lift: float) -> str:
    if p_adjusted is not None and p_adjusted < ALPHA:
        return "better" if (result.diff or 0) > 0 else "worse"
    if in_all_rows.lift_high is not None and in_all_rows.lift_high < minimum_lift:
        return "as well without"
    return "not known yet"


def _ranked(rows: list[Row], count: str) -> list[tuple[float | None, float | None, float | None, int, bool]]:
    rates = [row[count] / row["exposed"] if row["exposed"] else None for row in rows]
    order = sorted(range(len(rows)), key=lambda index: (rates[index] is None, -(rates[index] or 0), index))
    ranks = {index: rank for rank, index in enumerate(order, start=1)}
    best = order[0] if _is_best(rows[order[0]], [rows[index] for index in order[1:]], count) else None
    return [
        (rate, *(wilson(n=row["exposed"], x=row[count]) or (None, None)), ranks[index], index == best)
        for index, (row, rate) in enumerate(zip(rows, rates, strict=True))
    ]


def _is_best(first: Row, others: list[Row], count: str) -> bool:
    """Whether the one ahead is surely ahead of every other; one alone is not the best of anything."""
    p_values = [
        compare_proportions(
            n_control=other["exposed"], x_control=other[count], n_arm=first["exposed"], x_arm=first[count]
        ).p_value
        for other in others
    ]
    return bool(others) and all(p is not None and p < ALPHA for p in adjust(p_values, method="holm"))
