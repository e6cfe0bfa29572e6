"""Results from moments: who is compared with whom, what is adjusted, and which word is said."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from upnext.analytics.comparisons import (
    Arm,
    Look,
    Moments,
    compare_experiments,
    compare_segments,
    rank_copies,
    with_decision,
    with_note,
)
from upnext.analytics.statistics import compare_means_cuped, compare_ratios
from upnext.analytics.text import notes

AS_OF = datetime(2026, 3, 31, tzinfo=UTC)
Row = dict[str, Any]


def moments(arm: str, users: int, conversions: int | None, metric: str = "goal", **values: Any) -> Moments:
    values = {"type": "proportion", "split": "s", **values}
    return Moments("x", metric, arm=arm, users=users, conversions=conversions, **values)


def arm(name: str, users: int, expected: float, *, split: str = "s", **values: Any) -> Arm:
    begun = AS_OF - timedelta(days=10)
    return Arm("x", "experience", "s", "g", 0.1, split, name, expected, users, first_exposed_at=begun, **values)


def arms(**users: int) -> list[Arm]:
    """A control half, and the rest in equal parts."""
    total = sum(users.values())
    share = 0.5 / (len(users) - 1)
    return [arm(name, count, total * (0.5 if name == "control" else share)) for name, count in users.items()]


def compared(*rows: Moments, of: list[Arm]) -> list[Row]:
    return [with_decision(row, Look(), arms=1) for row in compare_experiments(rows, of, as_of=AS_OF)]


def test_each_arm_is_compared_with_control() -> None:
    found = [moments("control", 500, 50), moments("a", 250, 40), moments("b", 250, 25)]
    drawn = [arm("control", 500, 500, open_users=7), arm("a", 250, 250, users_in_both_arms=3), arm("b", 250, 250)]
    a, b = compared(*found, of=drawn)
    assert (a["arm"], a["n_control"], a["n_arm"], a["n_open_control"], a["n_both_arm"]) == ("a", 500, 250, 7, 3)
    assert (b["arm"], b["mean_arm"]) == ("b", 0.1)
    assert a["lift"] == pytest.approx(0.6)
    assert a["p_adjusted"] == min(1, 2 * a["p_value"])
    assert a["srm_p"] == 1
    assert a["days_left"] > 0
    assert a["minimal_detectable_lift"] > 0.5


def test_goals_and_other_metrics_are_families_of_their_own() -> None:
    found = [
        moments(name, 400, conversions, metric=metric)
        for metric, by_arm in {
            "goal": {"control": 40, "a": 60}, "clicked": {"control": 0, "a": 65},
            "stayed": {"control": 40, "a": 65}, "kept": {"control": 40, "a": 41},
        }.items()
        for name, conversions in by_arm.items()
    ]  # fmt: skip
    rows = {row["metric"]: row for row in compared(*found, of=arms(control=400, a=400))}
    assert rows["goal"]["p_adjusted"] == rows["goal"]["p_value"]
    assert rows["clicked"]["p_adjusted"] == rows["clicked"]["p_value"]
    assert rows["stayed"]["p_adjusted"] == pytest.approx(2 * rows["stayed"]["p_value"]), "clicks make room for nobody"
    assert [rows[name]["decision"] for name in ("goal", "clicked", "kept")] == ["keep going", None, None]


def test_an_arm_that_nobody_saw_has_a_row_and_breaks_the_ratio() -> None:
    a, b = compared(
        moments("control", 500, 50), moments("a", 250, 40), of=[*arms(control=500, a=250), arm("b", 0, 200)]
    )
    assert (b["n_arm"], b["mean_arm"], b["diff"], b["reason"]) == (0, None, None, "no users in the arm")
    assert a["srm_p"] < 0.001
    assert a["decision"] == "broken: sample ratio"


def test_before_any_window_is_over_there_is_a_row() -> None:
    (row,) = compared(of=[arm("control", 40, 40, open_users=40), arm("a", 42, 42, open_users=42)])
    assert (row["metric"], row["n_arm"], row["n_open_arm"], row["p_value"]) == ("goal", 0, 42, None)
    assert (row["reason"], row["decision"]) == ("nobody's time for the goal is over yet in control", "keep going")


def test_without_control_the_reason_says_so() -> None:
    (row,) = compared(moments("a", 250, 40), of=[arm("a", 250, 250), arm("control", 0, 0)])
    assert (row["lift"], row["p_value"], row["srm_p"], row["reason"]) == (None, None, None, "no control group")


def test_means_are_adjusted_and_ratios_are_of_users() -> None:
    both = {"mean": 2.0, "variance": 4.0, "covariance": 2.5}
    for kind, second, expected in (
        ("mean", "covariate", compare_means_cuped(
            n_control=90, mean_control=2, var_control=4, pre_mean_control=3, pre_var_control=5, cov_control=2.5,
            n_arm=80, mean_arm=2.5, var_arm=4, pre_mean_arm=3, pre_var_arm=5, cov_arm=2.5)),
        ("ratio", "denominator", compare_ratios(
            n_control=90, mean_num_control=2, mean_den_control=3, var_num_control=4, var_den_control=5, cov_control=2.5,
            n_arm=80, mean_num_arm=2.5, mean_den_arm=3, var_num_arm=4, var_den_arm=5, cov_arm=2.5)),
    ):  # fmt: skip
        values = {**both, f"{second}_mean": 3.0, f"{second}_variance": 5.0}
        sides: list[Row] = [{**values}, {**values, "mean": 2.5}]
        (row,) = compared(
            *(
                moments(name, users, None, metric="m", type=kind, **side)
                for name, users, side in (("control", 90, sides[0]), ("a", 80, sides[1]))
            ),
            of=arms(control=90, a=80),
        )
        assert (row["diff"], row["p_value"], row["lift_low"]) == (expected.diff, expected.p_value, expected.lift_low)
    assert row["mean_arm"] == pytest.approx(2.5 / 3)


@pytest.mark.parametrize("users", [0, 1])
def test_a_metric_of_nobody_is_none_with_a_reason(users: int) -> None:
    (row,) = compared(
        moments("control", 90, None, metric="m", type="mean", mean=1, variance=1, covariate_mean=1,
                covariate_variance=1, covariance=0.5),
        moments("a", users, None, metric="m", type="mean"),
        of=arms(control=90, a=users),
    )  # fmt: skip
    assert (row["diff"], row["p_value"]) == (None, None)
    assert row["reason"] in ("no users in the arm", "one user in the arm: no variance")


def test_the_smallest_p_of_all_looks_counts() -> None:
    (row,) = compare_experiments(
        [moments("control", 9000, 900), moments("a", 9000, 1000)], arms(control=9000, a=9000), as_of=AS_OF
    )
    assert row["p_always_valid"] > 0.05
    assert with_decision(row, Look(), arms=1)["decision"] == "keep going"
    later = with_decision(row, Look(0.01, "arm"), arms=1)
    assert (later["p_always_valid"], later["p_favours"], later["decision"]) == (0.01, "arm", "ship")
    assert with_note(later, [])["note"] is None
    assert with_decision(row, Look(0.03, "arm"), arms=2)["decision"] == "keep going"
    assert with_decision(row, Look(0.01), arms=1)["decision"] == "keep going", "whom it was for, nobody knows"
    assert with_decision(row, Look(0.2, "control"), arms=1)["note"] is None, "that look told nothing either"


@pytest.mark.parametrize(("conversions", "favours"), [(885, "arm"), (915, "control")])
def test_a_look_that_was_for_the_other_side_decides_nothing(conversions: int, favours: str) -> None:
    (row,) = compare_experiments(
        [moments("control", 9000, 900), moments("a", 9000, conversions)], arms(control=9000, a=9000), as_of=AS_OF
    )
    later = with_decision(row, Look(0.001, favours), arms=1)
    assert (later["p_always_valid"], later["p_favours"], later["decision"]) == (0.001, favours, "keep going")
    ahead = "the arm" if favours == "arm" else "control"
    note = f"an earlier look, in which {ahead} was ahead, has the smallest p-value"
    assert with_note(later, [])["note"] == note


def test_nothing_is_always_valid_where_nearly_everybody_converts() -> None:
    rows = [moments("control", 500, 480), moments("a", 9500, 8000)]
    (row,) = compare_experiments(rows, [arm("control", 500, 500), arm("a", 9500, 9500)], as_of=AS_OF)
    assert row["p_value"] < 1e-6
    assert (row["p_always_valid"], row["diff_always_high"], row["lift_always_low"]) == (None, None, None)
    assert with_decision(row, Look(), arms=1)["decision"] == "keep going"


def counts(segment: str, arm: str, users: int, conversions: int, split: str = "s") -> Row:
    return {"segment": segment, "experiment": "x", "split": split, "arm": arm, "minimum_lift": 0.1, "users": users,
            "conversions": conversions}  # fmt: skip


def test_where_personal_copy_works_and_where_generic_does_as_well() -> None:
    rows = compare_segments(
        [
            counts("a", "control", 9000, 900), counts("a", "personal", 9000, 1400), counts("a", "generic", 9000, 910),
            counts("b", "control", 90_000, 30_000), counts("b", "personal", 90_000, 30_010),
            counts("b", "generic", 90_000, 30_000), counts("c", "control", 90, 9), counts("c", "personal", 90, 10),
        ],
        {"x": {"generic"}},
    )  # fmt: skip
    found = {(row["segment"], row["arm"], row["reference"]): row["finding"] for row in rows}
    assert found == {
        ("a", "personal", "control"): "better",
        ("a", "personal", "generic"): "better",
        ("a", "generic", "control"): "not known yet",
        ("b", "personal", "control"): "as well without",
        ("b", "personal", "generic"): "as well without",
        ("b", "generic", "control"): "as well without",
        ("c", "personal", "control"): "not known yet",
    }
    assert all(row["p_adjusted"] >= row["p_value"] for row in rows)
    assert compare_segments([], {}) == []


def test_one_of_many_segments_by_luck_is_not_a_finding() -> None:
    lucky = [counts("lucky", "control", 1000, 100), counts("lucky", "a", 1000, 160)]
    dull = [row for n in range(30) for row in (counts(f"s{n}", "control", 1000, 100), counts(f"s{n}", "a", 1000, 101))]
    (alone,) = compare_segments(lucky, {})
    assert (alone["p_value"] < 0.05, alone["finding"]) == (True, "better")
    assert {row["finding"] for row in compare_segments(lucky + dull, {})} == {"not known yet"}


def copies(variant: str, exposed: int, clicked: int, converted: int = 0, **values: str) -> Row:
    return {"segment": "s", "experiment": "x", "split": "s", "variant": variant, "exposed": exposed,
            "clicked": clicked, "converted": converted, "open": 0, **values}  # fmt: skip


def test_copies_are_ranked_within_their_segment() -> None:
    ranked = rank_copies([copies("a", 1000, 50, 9), copies("b", 1000, 90, 3), copies("c", 0, 0, segment="t")])
    by_variant = {row["variant"]: row for row in ranked}
    assert {name: (row["rank"], row["goal_rank"], row["rate"]) for name, row in by_variant.items()} == {
        "a": (2, 1, 0.05), "b": (1, 2, 0.09), "c": (1, 1, None),
    }  # fmt: skip
    assert {name: row["is_best_by_clicks"] for name, row in by_variant.items()} == {"a": False, "b": True, "c": False}
    assert not any(row["is_best_by_goals"] for row in ranked), "9 of 1000 against 3 says nothing"
    assert by_variant["c"]["rate_low"] is None


def test_the_first_of_equals_is_not_the_best() -> None:
    rows = rank_copies([copies(f"v{n}", 400, 20 + n) for n in range(12)])
    assert rows[0]["variant"] == "v11"
    assert not any(row["is_best_by_clicks"] for row in rows)


def half(arm: str, users: int, conversions: int, *, is_late: bool, days: int = 14) -> dict[str, Any]:
    return {"experiment": "e", "arm": arm, "days": days, "is_late": is_late, "users": users, "conversions": conversions}


def noted(early: int, late: int, *, days: int = 14, decision: str = "ship") -> str | None:
    halves = [
        half("control", 5000, 500, is_late=False, days=days), half("a", 5000, early, is_late=False, days=days),
        half("control", 5000, 500, is_late=True, days=days), half("a", 5000, late, is_late=True, days=days),
        half("b", 5000, 5000, is_late=True, days=days),
    ]  # fmt: skip
    row = {"experiment": "e", "metric": "goal", "arm": "a", "decision": decision, "note": None}
    note = with_note(row, halves)["note"]
    assert note is None or isinstance(note, str)
    return note


def test_what_to_know_beside_ship() -> None:
    assert noted(700, 690) is None
    assert noted(560, 700) is None, "more than at first is no novelty"
    assert noted(900, 560) == "the effect may wear off: later users gained +1.2 points, earlier ones +8.0"
    assert noted(900, 560, days=6) == "less than a full week of users so far, and weekdays differ"
    assert noted(900, 560, decision="keep going") is None
    row = {"experiment": "e", "metric": "goal", "arm": "a", "decision": "ship", "note": None}
    assert with_note(row, [])["note"] is None


def test_notes_stand_below_the_table() -> None:
    rows = [{"experiment": "e", "arm": "a", "note": "weekdays differ"}, {"experiment": "e", "arm": "b", "note": None}]
    assert notes(rows) == ["e: a: weekdays differ"]


def test_one_late_user_is_no_novelty_that_wore_off() -> None:
    row = {"experiment": "e", "metric": "goal", "arm": "a", "decision": "ship", "note": None}
    halves = [
        half("control", 890, 390, is_late=False), half("a", 785, 489, is_late=False),
        half("control", 1, 1, is_late=True), half("a", 1, 0, is_late=True),
    ]  # fmt: skip
    assert with_note(row, halves)["note"] is None
