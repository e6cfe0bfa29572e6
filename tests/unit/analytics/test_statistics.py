"""Comparisons, held against scipy and against the formulas written out."""

import doctest
from math import exp, log, sqrt

import numpy as np
import pytest
from scipy import stats

from assets.analytics import statistics
from assets.analytics.statistics import adjust, compare_means, compare_proportions, sample_ratio_p, wilson


def test_the_examples_in_the_docstrings_run() -> None:
    assert doctest.testmod(statistics).attempted >= 8
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
    assert compare_proportions(n_control=n_c, x_control=24, n_arm=n_a, x_arm=50).p_always_valid is None


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


@pytest.mark.parametrize(("x_control", "x_arm"), [(0, 0), (50, 50)])
def test_all_or_none_converted_is_not_a_certainty(x_control: int, x_arm: int) -> None:
    result = compare_proportions(n_control=50, x_control=x_control, n_arm=50, x_arm=x_arm)
    assert result.p_value == 1
    assert result.diff_low is not None
    assert result.diff_high is not None
    assert result.diff_low < 0 < result.diff_high


def test_means_without_variance_have_no_p() -> None:
    result = compare_means(n_control=5, mean_control=1, var_control=0, n_arm=5, mean_arm=2, var_arm=0)
    assert (result.diff, result.p_value) == (1, None)
    assert result.reason
    assert compare_means(n_control=1, mean_control=1, var_control=0, n_arm=9, mean_arm=2, var_arm=1).reason


def test_a_negative_base_has_a_lift_but_no_ratio() -> None:
    result = compare_means(n_control=50, mean_control=-2, var_control=1, n_arm=50, mean_arm=-1, var_arm=1)
    assert result.lift == pytest.approx(0.5)
    assert result.lift_low is None


def test_counts_that_cannot_be_are_errors() -> None:
    with pytest.raises(ValueError, match="not a share"):
        compare_proportions(n_control=5, x_control=6, n_arm=5, x_arm=1)
    with pytest.raises(ValueError, match="alpha"):
        compare_proportions(n_control=5, x_control=1, n_arm=5, x_arm=1, alpha=1.5)


def test_far_tails_are_not_zero() -> None:
    result = compare_proportions(n_control=100_000, x_control=10_000, n_arm=100_000, x_arm=13_000)
    assert result.p_value is not None
    assert 0 < result.p_value < 1e-50


def test_true_nulls_are_rejected_at_the_level() -> None:
    random = np.random.default_rng(11)
    draws = random.binomial(2000, 0.1, size=(2000, 2))
    p_values = [
        compare_proportions(n_control=2000, x_control=int(c), n_arm=2000, x_arm=int(a)).p_value for c, a in draws
    ]
    rejected = sum(p is not None and p < 0.05 for p in p_values) / len(p_values)
    assert 0.036 < rejected < 0.065


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


def test_wilson_agrees_with_scipy() -> None:
    interval = stats.binomtest(7, 50).proportion_ci(method="wilson")
    assert wilson(n=50, x=7) == pytest.approx((interval.low, interval.high))
    assert wilson(n=0, x=0) is None
