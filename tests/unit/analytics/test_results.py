"""Results from moments."""

from assets.analytics.results import Moments, compare_arms, rank_copies

WEIGHTS = {"x": {"control": 0.5, "a": 0.25, "b": 0.25}}


def moments(arm: str, users: int, conversions: int) -> Moments:
    return Moments("x", "s", "goal", arm, users, conversions)


def test_each_arm_is_compared_with_control() -> None:
    rows = compare_arms([moments("control", 500, 50), moments("a", 250, 40), moments("b", 250, 25)], weights=WEIGHTS)
    assert [(row["arm"], row["n_control"], row["n_arm"]) for row in rows] == [("a", 500, 250), ("b", 500, 250)]
    assert rows[0]["lift"] > 0
    assert rows[0]["p_adjusted"] == min(1, 2 * rows[0]["p_value"])
    assert rows[0]["srm_p"] == 1


def test_an_arm_that_nobody_saw_is_a_broken_ratio() -> None:
    rows = compare_arms([moments("control", 500, 50), moments("a", 250, 40)], weights=WEIGHTS)
    assert rows[0]["srm_p"] < 0.001


def test_without_control_there_is_no_result() -> None:
    assert compare_arms([moments("a", 250, 40)], weights=WEIGHTS) == []


def test_copies_are_ranked_by_rate_within_their_segment() -> None:
    counts = [
        {"segment": "s", "experiment": "x", "variant": "a", "exposed": 100, "clicked": 5},
        {"segment": "s", "experiment": "x", "variant": "b", "exposed": 100, "clicked": 9},
        {"segment": "t", "experiment": "y", "variant": "c", "exposed": 0, "clicked": 0},
    ]
    ranked = {row["variant"]: (row["rank"], row["rate"]) for row in rank_copies(counts)}
    assert ranked == {"a": (2, 0.05), "b": (1, 0.09), "c": (1, None)}
