"""The rule of the decision, and how long until it can decide."""

import doctest

from upnext.analytics import decision
from upnext.analytics.decision import days_left, decide
from upnext.analytics.statistics import Comparison, compare_proportions


def test_the_examples_in_the_docstrings_run() -> None:
    assert doctest.testmod(decision).attempted >= 5
    assert doctest.testmod(decision).failed == 0


def test_the_rule_of_the_decision() -> None:
    won = compare_proportions(n_control=9000, x_control=900, n_arm=9000, x_arm=1200)
    lost = compare_proportions(n_control=9000, x_control=1200, n_arm=9000, x_arm=900)
    open_ = compare_proportions(n_control=900, x_control=90, n_arm=900, x_arm=100)
    level = compare_proportions(n_control=900_000, x_control=90_000, n_arm=900_000, x_arm=90_100)
    empty = compare_proportions(n_control=0, x_control=0, n_arm=0, x_arm=0)

    def word(compared: Comparison, srm_p: float | None = 0.4, arms: int = 1) -> str:
        return decide(compared=compared, mean_control=0.1, srm_p=srm_p, minimum_lift=0.05, arms=arms)

    assert [word(c) for c in (won, lost, open_, level, empty)] == ["ship", "stop", "keep going", "stop", "keep going"]
    assert word(won, srm_p=0.0001) == "broken: sample ratio"
    assert word(won, srm_p=None) == "ship"
    assert won.p_always_valid is not None
    assert word(won, arms=int(0.05 / won.p_always_valid) + 1) == "keep going", "many arms, many chances"


def test_days_left_need_a_rate_and_a_lift() -> None:
    now = {"n_control": 800, "mean_control": 0.1, "var_control": 0.09, "n_arm": 1200}
    assert days_left(**now, per_day=50, lift=5) == 0
    assert days_left(**now, per_day=0, lift=0.2) is None
    assert days_left(**now, per_day=1, lift=1e-9) is None, "no number of users is enough"
    assert days_left(n_control=9, mean_control=0, var_control=0, n_arm=9, per_day=1, lift=0.2) is None
    one, three = (days_left(**now, per_day=50, lift=0.2, arms=arms) for arms in (1, 3))
    assert one is not None
    assert three is not None
    assert one < three
