"""Comparing an arm with its control: what the difference is, how sure we are, and what cannot be said. Pure.

Every function is keyword-only and returns a frozen `Comparison`; a number that cannot be said is None and `reason`
says why. Intervals are two-sided at level 1 - alpha.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import exp, inf, isfinite, log, sqrt
from typing import Literal

import numpy as np
from scipy import stats

MIN_CONVERSIONS_ALWAYS_VALID = 25
MIN_COUNT_WELCH = 5
TUNED_FOR_USERS = 5_000


@dataclass(frozen=True)
class Comparison:
    """An arm against control. `diff` in the metric's unit, `lift` as a part of the control mean (0.1 is +10 %)."""

    diff: float | None = None
    diff_low: float | None = None
    diff_high: float | None = None
    lift: float | None = None
    lift_low: float | None = None
    lift_high: float | None = None
    p_value: float | None = None
    p_always_valid: float | None = None
    diff_always_low: float | None = None
    diff_always_high: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class _Arm:
    n: int
    mean: float
    variance: float

    @property
    def error(self) -> float:
        """Squared standard error of the mean."""
        return self.variance / self.n


def compare_proportions(*, n_control: int, x_control: int, n_arm: int, x_arm: int, alpha: float = 0.05) -> Comparison:
    """Compare two shares of users: `x` of `n` converted, variance p(1 - p).

    Welch's t on the difference. With fewer than 5 conversions or 5 non-conversions in an arm the p-value is Fisher's
    exact test and the interval Newcombe's hybrid score (Newcombe 1998, method 10); `reason` says so.
    Raises `ValueError` for counts that cannot be.

    >>> result = compare_proportions(n_control=5000, x_control=500, n_arm=5000, x_arm=600)
    >>> round(result.diff, 4), round(result.lift, 4), round(result.p_value, 5)
    (0.02, 0.2, 0.00139)
    """
    _check_alpha(alpha)
    for n, x in ((n_control, x_control), (n_arm, x_arm)):
        if n < 0 or not 0 <= x <= n:
            raise ValueError(f"{x} of {n} is not a share")
    if not n_control or not n_arm:
        return Comparison(reason=f"no users in {'control' if not n_control else 'the arm'}")
    p_control, p_arm = x_control / n_control, x_arm / n_arm
    control = _Arm(n_control, p_control, p_control * (1 - p_control))
    arm = _Arm(n_arm, p_arm, p_arm * (1 - p_arm))
    if min(x_control, x_arm, n_control - x_control, n_arm - x_arm) < MIN_COUNT_WELCH:
        table = np.array([[x_arm, n_arm - x_arm], [x_control, n_control - x_control]])
        low, high = _newcombe(n_control, x_control, n_arm, x_arm, alpha)
        result = Comparison(
            diff=p_arm - p_control,
            diff_low=low,
            diff_high=high,
            p_value=float(stats.fisher_exact(table).pvalue),
            reason="Fisher's exact test, Newcombe's interval: too few conversions or non-conversions for Welch",
        )
    else:
        result = _welch(control, arm, alpha)
    result = _with_lift(result, control, arm, alpha)
    if min(x_control, x_arm) >= MIN_CONVERSIONS_ALWAYS_VALID:
        result = _with_always_valid(result, control, arm, alpha)
    return result


def compare_means(
    *,
    n_control: int,
    mean_control: float,
    var_control: float,
    n_arm: int,
    mean_arm: float,
    var_arm: float,
    alpha: float = 0.05,
) -> Comparison:
    """Compare two means; variances are sample variances (n - 1) in the metric's squared unit.

    Welch's t with Welch-Satterthwaite degrees of freedom. Raises `ValueError` for moments that cannot be.

    >>> result = compare_means(n_control=100, mean_control=10, var_control=4, n_arm=100, mean_arm=11, var_arm=4)
    >>> round(result.diff, 2), round(result.lift, 2), round(result.p_value, 6)
    (1, 0.1, 0.000507)
    """
    _check_alpha(alpha)
    if min(n_control, n_arm) < 0:
        raise ValueError("a number of users is not negative")
    if min(n_control, n_arm) < 2:
        return Comparison(reason="fewer than two users in an arm: no variance")
    if not all(isfinite(value) for value in (mean_control, var_control, mean_arm, var_arm)):
        raise ValueError("means and variances are finite")
    if min(var_control, var_arm) < 0:
        raise ValueError("a variance is not negative")
    control, arm = _Arm(n_control, mean_control, var_control), _Arm(n_arm, mean_arm, var_arm)
    if min(var_control, var_arm) == 0:
        return Comparison(diff=mean_arm - mean_control, reason="an arm has no variance: nothing to test with")
    result = _with_lift(_welch(control, arm, alpha), control, arm, alpha)
    if min(n_control, n_arm) >= MIN_CONVERSIONS_ALWAYS_VALID:
        result = _with_always_valid(result, control, arm, alpha)
    return result


def sample_ratio_p(*, observed: Sequence[int], expected_weights: Sequence[float]) -> float | None:
    """Return the chi-square p-value that arms got the users they should; None where there is nothing to compare.

    Arms of weight 0 are left out. Alarm below 0.001. Raises `ValueError` where the lengths differ.

    >>> round(sample_ratio_p(observed=[5000, 5100], expected_weights=[0.5, 0.5]), 3)
    0.32
    """
    pairs = [(count, weight) for count, weight in zip(observed, expected_weights, strict=True) if weight > 0]
    total_count, total_weight = sum(count for count, _ in pairs), sum(weight for _, weight in pairs)
    if len(pairs) < 2 or total_count == 0:
        return None
    expected = [total_count * weight / total_weight for _, weight in pairs]
    return float(stats.chisquare([count for count, _ in pairs], expected).pvalue)


def adjust(p_values: Sequence[float | None], *, method: Literal["holm", "benjamini-hochberg"]) -> list[float | None]:
    """Return the p-values adjusted within their family, in their order; None stays None and does not count.

    Sources: Holm (1979), family-wise error; Benjamini and Hochberg (1995), false discovery rate.

    >>> adjust([0.01, None, 0.04], method="holm")
    [0.02, None, 0.04]
    """
    ranked = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    family = len(ranked)
    adjusted: list[float | None] = [None] * len(p_values)
    if method == "holm":
        worst = 0.0
        for rank, (p, index) in enumerate(ranked):
            worst = max(worst, min(1.0, (family - rank) * p))
            adjusted[index] = worst
    elif method == "benjamini-hochberg":
        best = 1.0
        for rank, (p, index) in reversed(list(enumerate(ranked, start=1))):
            best = min(best, family / rank * p)
            adjusted[index] = best
    else:
        raise ValueError(f"no method '{method}'; known: holm, benjamini-hochberg")
    return adjusted


def wilson(*, n: int, x: int, alpha: float = 0.05) -> tuple[float, float] | None:
    """Return Wilson's score interval (1927) of a share `x / n`; None where there is nobody.

    >>> low, high = wilson(n=100, x=10)
    >>> round(low, 4), round(high, 4)
    (0.0552, 0.1744)
    """
    if n == 0:
        return None
    z = float(stats.norm.isf(alpha / 2))
    p = x / n
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def _welch(control: _Arm, arm: _Arm, alpha: float) -> Comparison:
    error = control.error + arm.error
    freedom = error**2 / (control.error**2 / (control.n - 1) + arm.error**2 / (arm.n - 1))
    diff = arm.mean - control.mean
    half = float(stats.t.isf(alpha / 2, freedom)) * sqrt(error)
    p_value = 2 * float(stats.t.sf(abs(diff) / sqrt(error), freedom))
    return Comparison(diff=diff, diff_low=diff - half, diff_high=diff + half, p_value=p_value)


def _with_lift(result: Comparison, control: _Arm, arm: _Arm, alpha: float) -> Comparison:
    """Add the lift, and its interval by the log of the ratio of means."""
    if control.mean == 0:
        return result
    result = replace(result, lift=(arm.mean - control.mean) / abs(control.mean))
    if control.mean < 0 or arm.mean <= 0:
        return result
    centre = log(arm.mean / control.mean)
    half = float(stats.norm.isf(alpha / 2)) * sqrt(control.error / control.mean**2 + arm.error / arm.mean**2)
    return replace(result, lift_low=exp(centre - half) - 1, lift_high=exp(centre + half) - 1)


def _with_always_valid(result: Comparison, control: _Arm, arm: _Arm, alpha: float) -> Comparison:
    """Add the normal-mixture asymptotic confidence sequence, valid at every look (Waudby-Smith et al. 2021)."""
    error = sqrt(control.error + arm.error)
    if error == 0:
        return result
    n = control.n + arm.n
    diff = arm.mean - control.mean
    rho2 = (-2 * log(alpha) + log(-2 * log(alpha) + 1)) / TUNED_FOR_USERS
    spread = n * rho2 + 1
    half = error * sqrt(spread / (n * rho2) * log(spread / alpha**2))
    exponent = -n * rho2 * (diff / error) ** 2 / (2 * spread)
    return replace(
        result,
        p_always_valid=min(1.0, sqrt(spread) * exp(exponent)),
        diff_always_low=diff - half,
        diff_always_high=diff + half,
    )


def _newcombe(n_control: int, x_control: int, n_arm: int, x_arm: int, alpha: float) -> tuple[float, float]:
    low_c, high_c = wilson(n=n_control, x=x_control, alpha=alpha) or (-inf, inf)
    low_a, high_a = wilson(n=n_arm, x=x_arm, alpha=alpha) or (-inf, inf)
    p_c, p_a = x_control / n_control, x_arm / n_arm
    return (
        p_a - p_c - sqrt((p_a - low_a) ** 2 + (high_c - p_c) ** 2),
        p_a - p_c + sqrt((high_a - p_a) ** 2 + (p_c - low_c) ** 2),
    )


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is between 0 and 1, not {alpha}")
