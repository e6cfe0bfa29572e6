"""Comparisons, held against scipy and against the formulas written out."""

import doctest
from dataclasses import replace
from math import exp, log, sqrt
from typing import Any

import numpy as np
import pytest
from scipy import stats

from upnext.analytics import statistics
from upnext.analytics.statistics import (
    adjust,
    compare_means,
    compare_means_cuped,
    compare_means_cuped_by_split,
    compare_proportions,
    compare_ratios,
    sample_ratio_p,
    wilson,
)


def test_the_examples_in_the_docstrings_run() -> None:
    assert doctest.testmod(statistics).attempted >= 11
    assert doctest.testmod(statistics).failed == 0


def test_means_agree_with_scipys_welch() -> None:
    result = compare_means(n_control=80, mean_control=5.0, var_control=9.0, n_arm=120, mean_arm=6.0, var_arm=4.0)
    expected = stats.ttest_ind_from_stats(6.0, 2.0, 120, 5.0, 3.0, 80, equal_var=False)
    assert result.p_value == pytest.approx(expected.pvalue, rel=1e-9)
    interval = expected_interval(5.0, 9.0, 80, 6.0, 4.0, 120)
    assert (result.diff_low, result.diff_high) == pytest.approx(interval, rel=1e-9)


def expected_interval(
    mean_c: float, var_c: float, n_c: int, mean_a: float, var_a: float, n_a: int
) -> tuple[float, float]:
    error = var_c / n_c + var_a / n_a
    freedom = error**2 / ((var_c / n_c) ** 2 / (n_c - 1) + (var_a / n_a) ** 2 / (n_a - 1))
    half = stats.t.ppf(0.975, freedom) * sqrt(error)
    return mean_a - mean_c - half, mean_a - mean_c + half


def test_proportions_use_p_times_one_minus_p() -> None:
    result = compare_proportions(n_control=1000, x_control=100, n_arm=900, x_arm=120)
    p_c, p_a = 0.1, 120 / 900
    assert (result.diff_low, result.diff_high) == pytest.approx(
        expected_interval(p_c, p_c * (1 - p_c), 1000, p_a, p_a * (1 - p_a), 900), rel=1e-9
    )
    half = stats.norm.ppf(0.975) * sqrt((1 - p_c) / 100 + (1 - p_a) / 120)
    assert result.lift == pytest.approx(p_a / p_c - 1)
    assert result.lift_low == pytest.approx(exp(log(p_a / p_c) - half) - 1)
    assert result.lift_high == pytest.approx(exp(log(p_a / p_c) + half) - 1)


def test_always_valid_is_the_contracts_formula() -> None:
    n_c, n_a, x_c, x_a, alpha = 1000, 900, 100, 120, 0.05
    result = compare_proportions(n_control=n_c, x_control=x_c, n_arm=n_a, x_arm=x_a)
    p_c, p_a = x_c / n_c, x_a / n_a
    error = sqrt(p_c * (1 - p_c) / n_c + p_a * (1 - p_a) / n_a)
    n, rho2 = n_c + n_a, (-2 * log(alpha) + log(-2 * log(alpha) + 1)) / 5000
    half = error * sqrt((n * rho2 + 1) / (n * rho2) * log((n * rho2 + 1) / alpha**2))
    z = (p_a - p_c) / error
    assert result.diff_always_low == pytest.approx(p_a - p_c - half)
    assert result.p_always_valid == pytest.approx(
        min(1, sqrt(n * rho2 + 1) * exp(-n * rho2 * z**2 / (2 * (n * rho2 + 1))))
    )
    error_of_log = sqrt((1 - p_c) / (p_c * n_c) + (1 - p_a) / (p_a * n_a))
    assert result.lift_always_low == pytest.approx(p_a / p_c * exp(-half / error * error_of_log) - 1)
    assert result.lift_always_high == pytest.approx(p_a / p_c * exp(half / error * error_of_log) - 1)
    few = compare_proportions(n_control=n_c, x_control=24, n_arm=n_a, x_arm=50)
    assert (few.p_always_valid, few.lift_always_low) == (None, None)
    assert few.reason == "no always-valid interval: it needs 25 conversions in each arm"
    assert result.reason is None
    means = {"mean_control": 1.0, "var_control": 1.0, "mean_arm": 1.5, "var_arm": 1.0}
    small = compare_means(n_control=24, n_arm=90, **means)
    assert small.reason == "no always-valid interval: it needs 25 users in each arm"
    assert compare_means(n_control=25, n_arm=90, **means).reason is None


def test_few_conversions_get_an_exact_test() -> None:
    result = compare_proportions(n_control=100, x_control=0, n_arm=100, x_arm=7)
    expected = stats.fisher_exact(np.array([[7, 93], [0, 100]])).pvalue
    assert result.p_value == pytest.approx(expected)
    assert result.lift is None
    assert result.reason is not None
    assert "Fisher" in result.reason
    assert result.diff_low is not None
    assert 0 < result.diff_low < 0.07


@pytest.mark.parametrize(("control", "arm"), [((0, 0), (10, 5)), ((10, 5), (0, 0)), ((0, 0), (0, 0))])
def test_an_empty_arm_says_nothing_but_why(control: tuple[int, int], arm: tuple[int, int]) -> None:
    result = compare_proportions(n_control=control[0], x_control=control[1], n_arm=arm[0], x_arm=arm[1])
    assert (result.diff, result.p_value, result.lift) == (None, None, None)
    assert result.reason


def test_means_without_variance_have_no_p() -> None:
    result = compare_means(n_control=5, mean_control=1, var_control=0, n_arm=5, mean_arm=2, var_arm=0)
    assert (result.diff, result.p_value) == (1, None)
    assert result.reason
    assert compare_means(n_control=1, mean_control=1, var_control=0, n_arm=9, mean_arm=2, var_arm=1).reason


def test_counts_that_cannot_be_are_errors() -> None:
    with pytest.raises(ValueError, match="not a share"):
        compare_proportions(n_control=5, x_control=6, n_arm=5, x_arm=1)
    with pytest.raises(ValueError, match="alpha"):
        compare_proportions(n_control=5, x_control=1, n_arm=5, x_arm=1, alpha=1.5)


def test_sample_ratio() -> None:
    expected = stats.chisquare([500, 600, 900], [500, 500, 1000]).pvalue
    assert sample_ratio_p(observed=[500, 600, 900], expected_weights=[1, 1, 2]) == pytest.approx(expected)
    assert sample_ratio_p(observed=[500, 500, 7], expected_weights=[0.5, 0.5, 0]) == 1
    assert sample_ratio_p(observed=[0, 0], expected_weights=[0.5, 0.5]) is None
    with pytest.raises(ValueError, match="zip"):
        sample_ratio_p(observed=[1], expected_weights=[0.5, 0.5])


def test_adjusted_p_values() -> None:
    p_values = [0.01, 0.04, None, 0.03, 0.5]
    assert adjust(p_values, method="holm") == [0.04, pytest.approx(0.09), None, 0.09, 0.5]
    known = [p for p in p_values if p is not None]
    assert [p for p in adjust(p_values, method="benjamini-hochberg") if p is not None] == pytest.approx(
        list(stats.false_discovery_control(known))
    )
    with pytest.raises(ValueError, match="known: holm"):
        adjust([0.1], method="bonferroni")  # type: ignore[arg-type]


# What others compute


def test_cuped_is_the_coefficient_of_a_regression() -> None:
    import statsmodels.api as sm

    random = np.random.default_rng(5)
    pre, arm = random.gamma(2, 3, 900), random.random(900) < 0.3
    during = 2 + 0.8 * pre + 0.5 * arm + random.normal(0, 2, 900)
    fitted = sm.OLS(during, sm.add_constant(np.column_stack([arm, pre]))).fit()
    result = compare_means_cuped(**cuped_moments(pre, during, arm))
    assert result.diff == pytest.approx(fitted.params[1], rel=1e-9)


def test_agrees_with_statsmodels() -> None:
    from statsmodels.stats.multitest import multipletests
    from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint
    from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

    random = np.random.default_rng(6)
    control, arm = random.gamma(2, 3, 400), random.gamma(2, 3.3, 700)
    compared = CompareMeans(DescrStatsW(arm), DescrStatsW(control))
    result = compare_means(**mean_moments(control, arm))
    assert result.p_value == pytest.approx(compared.ttest_ind(usevar="unequal")[1], rel=1e-9)
    assert (result.diff_low, result.diff_high) == pytest.approx(compared.tconfint_diff(usevar="unequal"), rel=1e-9)
    few = compare_proportions(n_control=300, x_control=2, n_arm=200, x_arm=7)
    newcombe = confint_proportions_2indep(7, 200, 2, 300, compare="diff", method="newcomb")
    assert (few.diff_low, few.diff_high) == pytest.approx(newcombe, rel=1e-9)
    many = compare_proportions(n_control=3000, x_control=200, n_arm=2000, x_arm=170)
    ratio = confint_proportions_2indep(170, 2000, 200, 3000, compare="ratio", method="log")
    assert (many.lift_low, many.lift_high) == pytest.approx([end - 1 for end in ratio], rel=1e-9)
    assert wilson(n=50, x=7) == pytest.approx(proportion_confint(7, 50, method="wilson"), rel=1e-9)
    p_values = list(random.random(40) ** 3)
    for ours, theirs in (("holm", "holm"), ("benjamini-hochberg", "fdr_bh")):
        assert adjust(p_values, method=ours) == pytest.approx(  # type: ignore[arg-type]
            list(multipletests(p_values, method=theirs)[1]), rel=1e-9
        )


def test_agrees_with_tea_tasting() -> None:
    import pandas as pd
    import tea_tasting as tt

    random = np.random.default_rng(7)
    sessions = 1 + random.poisson(4, 3000)
    data = pd.DataFrame(
        {
            "variant": random.integers(0, 2, 3000), "sessions": sessions, "revenue": random.gamma(2, 3, 3000),
            "orders": random.binomial(sessions, 0.2), "bought": random.binomial(1, 0.3, 3000),
        }
    )  # fmt: skip
    theirs = tt.Experiment(
        revenue=tt.Mean("revenue"), bought=tt.Mean("bought"), per_session=tt.RatioOfMeans("orders", "sessions"),
        ratio=tt.SampleRatio(method="norm", correction=False),
    ).analyze(data)  # fmt: skip
    control, arm = (data[data.variant == side] for side in (0, 1))
    ratio_moments = {
        key: value
        for side, rows in (("control", control), ("arm", arm))
        for key, value in {
            f"n_{side}": len(rows), f"mean_num_{side}": rows.orders.mean(), f"mean_den_{side}": rows.sessions.mean(),
            f"var_num_{side}": rows.orders.var(), f"var_den_{side}": rows.sessions.var(),
            f"cov_{side}": rows.orders.cov(rows.sessions),
        }.items()
    }  # fmt: skip
    for ours, their in (
        (compare_means(**mean_moments(control.revenue, arm.revenue)), theirs["revenue"]),
        (compare_ratios(**ratio_moments), theirs["per_session"]),
    ):
        assert ours.p_value == pytest.approx(their.pvalue, rel=1e-9)
        assert ours.lift == pytest.approx(their.rel_effect_size, rel=1e-9)
        assert (ours.diff_low, ours.diff_high) == pytest.approx(
            (their.effect_size_ci_lower, their.effect_size_ci_upper), rel=1e-9
        )
    assert sample_ratio_p(observed=[len(control), len(arm)], expected_weights=[1, 1]) == pytest.approx(
        theirs["ratio"].pvalue, rel=1e-9
    )


# What cannot be said


def test_a_pre_period_that_does_not_vary_changes_nothing() -> None:
    flat = {"pre_mean_control": 0, "pre_var_control": 0, "cov_control": 0} | {
        "pre_mean_arm": 0, "pre_var_arm": 0, "cov_arm": 0,
    }  # fmt: skip
    means = {"n_control": 50, "mean_control": 1, "var_control": 2, "n_arm": 60, "mean_arm": 2, "var_arm": 3}
    result = compare_means_cuped(**means, **flat)
    assert result.reason
    assert replace(result, reason=None) == compare_means(**means)


def test_a_ratio_without_a_denominator_is_none() -> None:
    side = {"mean_num": 0, "mean_den": 0, "var_num": 0, "var_den": 0, "cov": 0}
    sides = {f"{key}_{arm}": value for arm in ("control", "arm") for key, value in side.items()}
    result = compare_ratios(n_control=9, n_arm=9, **sides)
    assert (result.diff, result.reason) == (None, "the denominator of control is not positive")


@pytest.mark.parametrize("counts", [(50, 0, 50, 0), (50, 50, 50, 50), (1, 1, 50, 50), (10**9, 0, 10**9, 0)])
def test_where_all_did_the_same_there_is_no_test(counts: tuple[int, int, int, int]) -> None:
    n_control, x_control, n_arm, x_arm = counts
    result = compare_proportions(n_control=n_control, x_control=x_control, n_arm=n_arm, x_arm=x_arm)
    assert (result.p_value, result.p_always_valid, result.lift_low) == (None, None, None)
    assert result.reason
    assert result.diff_low is not None
    assert result.diff_high is not None
    assert result.diff_low < 0 < result.diff_high


def test_a_billion_users() -> None:
    rare = compare_proportions(n_control=10**9, x_control=3, n_arm=10**9, x_arm=9)
    assert rare.p_value == pytest.approx(stats.binomtest(3, 12).pvalue, rel=1e-6)
    many = compare_proportions(n_control=10**9, x_control=10**8, n_arm=10**9, x_arm=2 * 10**8)
    assert many.p_value is not None
    assert many.p_always_valid is not None
    assert 0 < many.p_value < 1e-300, "too small for a number is not 0"
    assert 0 < many.p_always_valid < 1e-300


@pytest.mark.parametrize(
    "wrong",
    [{"mean_arm": None}, {"var_arm": float("nan")}, {"var_control": -1}, {"mean_control": float("inf")}, {"n_arm": -1}],
)
def test_moments_that_cannot_be_are_errors(wrong: dict[str, Any]) -> None:
    means = {"n_control": 50, "mean_control": 1, "var_control": 2, "n_arm": 60, "mean_arm": 2, "var_arm": 3}
    with pytest.raises(ValueError, match=r"negative|numbers"):
        compare_means(**{**means, **wrong})


@pytest.mark.parametrize("base", [0, -2])
def test_a_base_that_is_not_positive_has_no_ratio(base: float) -> None:
    result = compare_means(n_control=50, mean_control=base, var_control=1, n_arm=50, mean_arm=-1, var_arm=1)
    assert result.lift == (None if base == 0 else 0.5)
    assert (result.lift_low, result.lift_high) == (None, None)
    assert result.p_value is not None
    assert result.reason


# What to do


def mean_moments(control: Any, arm: Any) -> dict[str, float]:
    return {
        "n_control": len(control), "mean_control": np.mean(control), "var_control": np.var(control, ddof=1),
        "n_arm": len(arm), "mean_arm": np.mean(arm), "var_arm": np.var(arm, ddof=1),
    }  # fmt: skip


def cuped_moments(pre: Any, during: Any, arm: Any) -> dict[str, float]:
    moments = mean_moments(during[~arm], during[arm])
    for name, side in (("control", ~arm), ("arm", arm)):
        moments[f"pre_mean_{name}"] = pre[side].mean()
        moments[f"pre_var_{name}"] = pre[side].var(ddof=1)
        moments[f"cov_{name}"] = np.cov(pre[side], during[side])[0, 1]
    return moments


def test_rounding_of_a_constant_pre_period_is_no_error() -> None:
    moments: dict[str, Any] = {}
    for side in ("control", "arm"):
        moments |= {f"n_{side}": 100, f"mean_{side}": 10.0, f"var_{side}": 4.0, f"pre_mean_{side}": 9.99}
        moments |= {f"pre_var_{side}": 0.0, f"cov_{side}": -2e-15}
    for pre_var in (0.0, 1e-30):
        result = compare_means_cuped(**{**moments, "pre_var_control": pre_var, "mean_arm": 10.5})
        assert (result.diff, result.reason) == (0.5, "not adjusted: the pre-period does not vary")
    with pytest.raises(ValueError, match="a covariance of 1 cannot be"):
        compare_means_cuped(**{**moments, "cov_arm": 1})


def test_cuped_by_split_is_a_regression_with_a_constant_for_each_split() -> None:
    """With equal shares in both strata the weights are those of least squares."""
    import statsmodels.api as sm

    random = np.random.default_rng(3)
    pre, split = random.normal(5, 2, 4000), np.repeat([0, 1], 2000)
    arm = np.tile([True, False], 2000)
    during = 0.7 * pre + 3 * split + 0.4 * arm + random.normal(0, 1, 4000)
    strata = [cuped_moments(pre[split == one], during[split == one], arm[split == one]) for one in (0, 1)]
    result = compare_means_cuped_by_split(splits=strata)
    columns = np.column_stack([split == 0, split == 1, arm, pre]).astype(float)
    fitted = sm.OLS(during, columns).fit()
    assert result.diff == pytest.approx(fitted.params[2], rel=1e-3)
    assert result.diff_high is not None
    assert result.diff_high - (result.diff or 0) == pytest.approx(1.96 * fitted.bse[2], rel=0.02)
    assert result.lift_high is not None


def test_a_control_mean_near_zero_has_an_interval_of_the_lift_or_none() -> None:
    wild = compare_means(n_control=100, mean_control=0.2, var_control=1e4, n_arm=100, mean_arm=20.0, var_arm=1e4)
    assert (wild.lift_low, wild.lift_always_low) == (-1.0, None)
