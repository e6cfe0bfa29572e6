"""Comparing an arm with its control: what the difference is, how sure we are, and what cannot be said. Pure.

Every function is keyword-only. A comparison is a frozen `Comparison`; a number that cannot be said is None, and
`reason` says why. Intervals are two-sided at level 1 - alpha. Users are counted, means are in the metric's unit,
variances in its square, and a lift is a part of the control mean (0.1 is +10 %).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, exp, inf, isfinite, log, sqrt
from sys import float_info
from typing import Literal

import numpy as np
from scipy import special, stats

MIN_CONVERSIONS_ALWAYS_VALID = 25
MIN_COUNT_WELCH = 5
TUNED_FOR_USERS = 5_000
SRM_ALARM = 0.001

Decision = Literal["ship", "stop", "keep going", "broken: sample ratio"]


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
    """A mean, and `error`: the square of its standard error."""

    n: int
    mean: float
    error: float


def compare_proportions(*, n_control: int, x_control: int, n_arm: int, x_arm: int, alpha: float = 0.05) -> Comparison:
    """Compare two shares of users: `x` of `n` converted, variance p(1 - p).

    Welch's t on the difference, Satterthwaite's degrees of freedom (Welch 1947). With fewer than 5 conversions or 5
    non-conversions in an arm the p-value is Fisher's exact test (1935) and the interval Newcombe's hybrid score (1998,
    method 10); `reason` says so. The interval of the lift is that of the log of the ratio (Katz et al. 1978).
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
        return Comparison(reason=_nobody(n_control))
    p_control, p_arm = x_control / n_control, x_arm / n_arm
    control = _Arm(n_control, p_control, p_control * (1 - p_control) / n_control)
    arm = _Arm(n_arm, p_arm, p_arm * (1 - p_arm) / n_arm)
    if min(x_control, x_arm, n_control - x_control, n_arm - x_arm) < MIN_COUNT_WELCH:
        result = _exact(n_control, x_control, n_arm, x_arm, alpha)
    else:
        result = _welch(control, arm, alpha)
    result = _with_lift(result, control, arm, alpha)
    if min(x_control, x_arm) >= MIN_CONVERSIONS_ALWAYS_VALID and min(control.error, arm.error) > 0:
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

    Welch's t on the difference, Satterthwaite's degrees of freedom (Welch 1947); the interval of the lift is that of
    the log of the ratio, by the delta method. Raises `ValueError` for moments that cannot be.

    >>> result = compare_means(n_control=100, mean_control=10, var_control=4, n_arm=100, mean_arm=11, var_arm=4)
    >>> round(result.diff, 2), round(result.lift, 2), round(result.p_value, 6)
    (1, 0.1, 0.000507)
    """
    _check_alpha(alpha)
    too_few = _too_few(n_control, n_arm)
    if too_few is not None:
        return too_few
    _check_moments(mean_control=mean_control, var_control=var_control, mean_arm=mean_arm, var_arm=var_arm)
    return _compare(
        _Arm(n_control, mean_control, var_control / n_control), _Arm(n_arm, mean_arm, var_arm / n_arm), alpha
    )


def compare_means_cuped(
    *,
    n_control: int,
    mean_control: float,
    var_control: float,
    pre_mean_control: float,
    pre_var_control: float,
    cov_control: float,
    n_arm: int,
    mean_arm: float,
    var_arm: float,
    pre_mean_arm: float,
    pre_var_arm: float,
    cov_arm: float,
    alpha: float = 0.05,
) -> Comparison:
    """Compare two means, less what the same metric before the exposure foretold of them.

    Deng, Xu, Kohavi and Walker (2013): each mean becomes `mean - theta * (pre_mean - pre_mean of all)`, where theta is
    the covariance with the pre-period over its variance, both pooled within the arms, (n - 1)-weighted. `diff` is
    tested as by `compare_means`, with the variance `var - 2 theta cov + theta^2 pre_var`. `lift` is over the adjusted
    control mean. That the mean of all moves with both arms is in the gradient of the log of its ratio:
    with A, C the adjusted means, w the shares of users and g = theta (w_control / A + w_arm / C), its variance is
    (var / A^2 - 2 g cov / A + g^2 pre_var) / n over the arm, plus the same with C over control.
    Variances and covariances are of the sample (n - 1). Where the pre-period does not vary the means are compared as
    they are, and `reason` says so. Raises `ValueError` for moments that cannot be.

    >>> result = compare_means_cuped(
    ...     n_control=100, mean_control=10, var_control=4, pre_mean_control=5.0, pre_var_control=4, cov_control=3,
    ...     n_arm=100, mean_arm=11, var_arm=4, pre_mean_arm=5.2, pre_var_arm=4, cov_arm=3)
    >>> round(result.diff, 2), round(result.lift, 4), round(result.p_value, 7)
    (0.85, 0.0844, 9.6e-06)
    """
    _check_alpha(alpha)
    too_few = _too_few(n_control, n_arm)
    if too_few is not None:
        return too_few
    _check_moments(
        mean_control=mean_control, var_control=var_control, pre_mean_control=pre_mean_control,
        pre_var_control=pre_var_control, mean_arm=mean_arm, var_arm=var_arm, pre_mean_arm=pre_mean_arm,
        pre_var_arm=pre_var_arm,
    )  # fmt: skip
    _check_covariance(cov_control, var_control, pre_var_control)
    _check_covariance(cov_arm, var_arm, pre_var_arm)
    spread = (n_control - 1) * pre_var_control + (n_arm - 1) * pre_var_arm
    theta = ((n_control - 1) * cov_control + (n_arm - 1) * cov_arm) / spread if spread > 0 else 0.0
    share_arm = n_arm / (n_control + n_arm)
    ahead = pre_mean_arm - pre_mean_control
    control = _Arm(
        n_control,
        mean_control + theta * share_arm * ahead,
        _adjusted_variance(var_control, cov_control, pre_var_control, theta) / n_control,
    )
    arm = _Arm(
        n_arm,
        mean_arm - theta * (1 - share_arm) * ahead,
        _adjusted_variance(var_arm, cov_arm, pre_var_arm, theta) / n_arm,
    )
    log_error = None
    if control.mean > 0 and arm.mean > 0:
        # The mean of all is the same in both: what moves it moves them apart, the more the further they lie apart.
        pull = theta * ((1 - share_arm) / arm.mean + share_arm / control.mean)
        log_error = (
            _adjusted_variance(var_arm, cov_arm, pre_var_arm, pull * arm.mean) / (n_arm * arm.mean**2)
            + _adjusted_variance(var_control, cov_control, pre_var_control, pull * control.mean)
            / (n_control * control.mean**2)
        )  # fmt: skip
    result = _compare(control, arm, alpha, log_error=log_error)
    if spread == 0 and result.reason is None:
        return replace(result, reason="not adjusted: the pre-period does not vary")
    return result


def compare_ratios(
    *,
    n_control: int,
    mean_num_control: float,
    mean_den_control: float,
    var_num_control: float,
    var_den_control: float,
    cov_control: float,
    n_arm: int,
    mean_num_arm: float,
    mean_den_arm: float,
    var_num_arm: float,
    var_den_arm: float,
    cov_arm: float,
    alpha: float = 0.05,
) -> Comparison:
    """Compare two ratios of means, such as orders per session, where users are what was drawn by lot.

    R = mean_num / mean_den, its variance by the delta method (var_num - 2 R cov + R^2 var_den) / (n mean_den^2)
    (Deng, Knoblich and Lu 2018), then as `compare_means`. Moments are per user, of the sample (n - 1).
    A denominator that is not positive has no ratio. Raises `ValueError` for moments that cannot be.

    >>> result = compare_ratios(
    ...     n_control=1000, mean_num_control=1, mean_den_control=4, var_num_control=1, var_den_control=4, cov_control=1,
    ...     n_arm=1000, mean_num_arm=1.2, mean_den_arm=4, var_num_arm=1, var_den_arm=4, cov_arm=1)
    >>> round(result.diff, 3), round(result.lift, 3), round(result.p_value, 7)
    (0.05, 0.2, 3e-07)
    """
    _check_alpha(alpha)
    too_few = _too_few(n_control, n_arm)
    if too_few is not None:
        return too_few
    _check_moments(
        mean_num_control=mean_num_control, mean_den_control=mean_den_control, var_num_control=var_num_control,
        var_den_control=var_den_control, mean_num_arm=mean_num_arm, mean_den_arm=mean_den_arm, var_num_arm=var_num_arm,
        var_den_arm=var_den_arm,
    )  # fmt: skip
    _check_covariance(cov_control, var_num_control, var_den_control)
    _check_covariance(cov_arm, var_num_arm, var_den_arm)
    if mean_den_control <= 0 or mean_den_arm <= 0:
        return Comparison(reason=f"the denominator of {_which(mean_den_control > 0)} is not positive")

    def ratio(n: int, num: float, den: float, var_num: float, var_den: float, cov: float) -> _Arm:
        value = num / den
        return _Arm(n, value, _adjusted_variance(var_num, cov, var_den, value) / (n * den**2))

    return _compare(
        ratio(n_control, mean_num_control, mean_den_control, var_num_control, var_den_control, cov_control),
        ratio(n_arm, mean_num_arm, mean_den_arm, var_num_arm, var_den_arm, cov_arm),
        alpha,
    )


def sample_ratio_p(*, observed: Sequence[int], expected_weights: Sequence[float]) -> float | None:
    """Return the chi-square p-value (Pearson 1900) that arms got the users they should; None with nothing to compare.

    Arms of weight 0 are left out. Alarm below 0.001. Raises `ValueError` where the lengths differ, and for counts or
    weights below 0.

    >>> round(sample_ratio_p(observed=[5000, 5100], expected_weights=[0.5, 0.5]), 3)
    0.32
    """
    if any(count < 0 for count in observed) or not all(weight >= 0 for weight in expected_weights):
        raise ValueError("neither a number of users nor a weight is negative")
    pairs = [(count, weight) for count, weight in zip(observed, expected_weights, strict=True) if weight > 0]
    total_count, total_weight = sum(count for count, _ in pairs), sum(weight for _, weight in pairs)
    if len(pairs) < 2 or total_count == 0:
        return None
    expected = [total_count * weight / total_weight for _, weight in pairs]
    statistic = sum((count - mean) ** 2 / mean for (count, _), mean in zip(pairs, expected, strict=True))
    return _above_zero(float(special.chdtrc(len(pairs) - 1, statistic)))


def adjust(p_values: Sequence[float | None], *, method: Literal["holm", "benjamini-hochberg"]) -> list[float | None]:
    """Return the p-values adjusted within their family, in their order; None stays None and does not count.

    Sources: Holm (1979), family-wise error; Benjamini and Hochberg (1995), false discovery rate.
    Raises `ValueError` for another method, and for what is no p-value.

    >>> adjust([0.01, None, 0.04], method="holm")
    [0.02, None, 0.04]
    """
    ranked = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    if not all(0 <= p <= 1 for p, _ in ranked):
        raise ValueError("a p-value lies between 0 and 1")
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
    z = _normal_quantile(alpha)
    p = x / n
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def minimal_detectable_lift(
    *, n_control: int, mean_control: float, var_control: float, n_arm: int, alpha: float = 0.05, power: float = 0.8
) -> float | None:
    """Return the smallest lift that these users would show with `power`, at one look; None without mean or variance.

    (z_(alpha/2) + z_power) sqrt(var (1 / n_control + 1 / n_arm)) / |mean|, the arm varying like control
    (Lachin 1981). Raises `ValueError` for moments that cannot be.

    >>> round(minimal_detectable_lift(n_control=5000, mean_control=0.1, var_control=0.09, n_arm=5000), 3)
    0.168
    """
    _check_alpha(alpha)
    if min(n_control, n_arm) < 1:
        return None
    _check_moments(mean_control=mean_control, var_control=var_control)
    if mean_control == 0 or var_control == 0:
        return None
    error = sqrt(var_control * (1 / n_control + 1 / n_arm))
    return (_normal_quantile(alpha) - float(special.ndtri(1 - power))) * error / abs(mean_control)


def days_left(
    *, n_control: int, mean_control: float, var_control: float, n_arm: int, per_day: float, lift: float,
    alpha: float = 0.05, power: float = 0.8,
) -> int | None:  # fmt: skip
    """Return in how many days `per_day` more users, split as until now, make `lift` detectable; None where unknown.

    What can be detected shrinks with the root of the number of users. 0 where there are enough already.

    >>> days_left(n_control=5000, mean_control=0.1, var_control=0.09, n_arm=5000, per_day=1000, lift=0.1)
    19
    """
    detectable = minimal_detectable_lift(
        n_control=n_control, mean_control=mean_control, var_control=var_control, n_arm=n_arm, alpha=alpha, power=power
    )
    if detectable is None or per_day <= 0 or lift <= 0:
        return None
    users = n_control + n_arm
    return max(0, ceil(users * ((detectable / lift) ** 2 - 1) / per_day))


def decide(
    *,
    compared: Comparison,
    mean_control: float | None,
    srm_p: float | None,
    minimum_lift: float,
    arms: int = 1,
    alpha: float = 0.05,
) -> Decision:
    """Return what to do, by a rule that stays right however often one looks.

    - `broken: sample ratio` where the arms did not get the users they should (p below 0.001): nothing else counts.
    - `ship` where the always-valid p-value, times the number of `arms` tried, is below alpha and the arm is ahead.
    - `stop` where it is below alpha and the arm is behind, or where the always-valid interval leaves out every lift
      from `minimum_lift` on, the smallest that is worth having.
    - `keep going` otherwise.

    >>> won = compare_proportions(n_control=9000, x_control=900, n_arm=9000, x_arm=1200)
    >>> decide(compared=won, mean_control=0.1, srm_p=0.5, minimum_lift=0.05)
    'ship'
    """
    if srm_p is not None and srm_p < SRM_ALARM:
        return "broken: sample ratio"
    if compared.p_always_valid is None or compared.diff is None:
        return "keep going"
    if compared.p_always_valid * arms < alpha:
        return "ship" if compared.diff > 0 else "stop"
    is_hopeless = (
        compared.diff_always_high is not None
        and mean_control is not None
        and compared.diff_always_high < minimum_lift * abs(mean_control)
    )
    return "stop" if is_hopeless else "keep going"


def _compare(control: _Arm, arm: _Arm, alpha: float, *, log_error: float | None = None) -> Comparison:
    if min(control.error, arm.error) == 0:
        result = Comparison(
            diff=arm.mean - control.mean, reason=f"{_which(control.error > 0)} has no variance: nothing to test with"
        )
        return _with_lift(result, control, arm, alpha)
    result = _with_lift(_welch(control, arm, alpha), control, arm, alpha, log_error=log_error)
    if min(control.n, arm.n) >= MIN_CONVERSIONS_ALWAYS_VALID:
        result = _with_always_valid(result, control, arm, alpha)
    return result


def _welch(control: _Arm, arm: _Arm, alpha: float) -> Comparison:
    error = control.error + arm.error
    # As shares of the whole, so that tiny errors do not vanish when they are squared.
    parts = (control.error / error) ** 2 / (control.n - 1) + (arm.error / error) ** 2 / (arm.n - 1)
    freedom = 1 / parts
    diff = arm.mean - control.mean
    half = -float(special.stdtrit(freedom, alpha / 2)) * sqrt(error)
    p_value = 2 * float(special.stdtr(freedom, -abs(diff) / sqrt(error)))
    return Comparison(diff=diff, diff_low=diff - half, diff_high=diff + half, p_value=_above_zero(p_value))


def _exact(n_control: int, x_control: int, n_arm: int, x_arm: int, alpha: float) -> Comparison:
    low, high = _newcombe(n_control, x_control, n_arm, x_arm, alpha)
    result = Comparison(diff=x_arm / n_arm - x_control / n_control, diff_low=low, diff_high=high)
    if x_control + x_arm in (0, n_control + n_arm):
        who = "everybody" if x_control else "nobody"
        return replace(result, reason=f"{who} converted, in either arm: nothing to test; Newcombe's interval")
    table = np.array([[x_arm, n_arm - x_arm], [x_control, n_control - x_control]])
    return replace(
        result,
        p_value=_above_zero(float(stats.fisher_exact(table).pvalue)),
        reason="Fisher's exact test, Newcombe's interval: too few conversions or non-conversions for Welch",
    )


def _with_lift(
    result: Comparison, control: _Arm, arm: _Arm, alpha: float, *, log_error: float | None = None
) -> Comparison:
    """Add the lift, and its interval by the log of the ratio of means; a mean without variance has no interval."""
    if control.mean == 0:
        return replace(result, reason=result.reason or "the control mean is 0: no lift")
    result = replace(result, lift=(arm.mean - control.mean) / abs(control.mean))
    if control.mean < 0 or arm.mean <= 0:
        return replace(result, reason=result.reason or "a mean is not positive: no interval of the lift")
    if min(control.error, arm.error) == 0:
        return result
    if log_error is None:
        log_error = control.error / control.mean**2 + arm.error / arm.mean**2
    centre = log(arm.mean / control.mean)
    half = _normal_quantile(alpha) * sqrt(log_error)
    # Means that are all but 0 have a ratio beyond every number.
    high = exp(centre + half) - 1 if centre + half < log(float_info.max) else None
    return replace(result, lift_low=exp(centre - half) - 1, lift_high=high)


def _with_always_valid(result: Comparison, control: _Arm, arm: _Arm, alpha: float) -> Comparison:
    """Add the normal-mixture asymptotic confidence sequence, valid at every look (Waudby-Smith et al. 2021)."""
    error = sqrt(control.error + arm.error)
    n = control.n + arm.n
    diff = arm.mean - control.mean
    rho2 = (-2 * log(alpha) + log(-2 * log(alpha) + 1)) / TUNED_FOR_USERS
    spread = n * rho2 + 1
    half = error * sqrt(spread / (n * rho2) * log(spread / alpha**2))
    exponent = -n * rho2 * (diff / error) ** 2 / (2 * spread)
    return replace(
        result,
        p_always_valid=_above_zero(min(1.0, sqrt(spread) * exp(exponent))),
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


def _adjusted_variance(variance: float, covariance: float, other: float, slope: float) -> float:
    """Return the variance of a value less `slope` times another; rounding does not make it negative."""
    return max(0.0, variance - 2 * slope * covariance + slope**2 * other)


def _normal_quantile(alpha: float) -> float:
    return -float(special.ndtri(alpha / 2))


def _above_zero(p_value: float) -> float:
    """Nothing is impossible: a p-value too small for a number is the smallest number."""
    return max(p_value, float_info.min)


def _which(is_arm: bool) -> str:
    return "the arm" if is_arm else "control"


def _nobody(n_control: int) -> str:
    return f"no users in {_which(n_control > 0)}"


def _too_few(n_control: int, n_arm: int) -> Comparison | None:
    if min(n_control, n_arm) < 0:
        raise ValueError("a number of users is not negative")
    if min(n_control, n_arm) == 0:
        return Comparison(reason=_nobody(n_control))
    if min(n_control, n_arm) == 1:
        return Comparison(reason=f"one user in {_which(n_control > 1)}: no variance")
    return None


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is between 0 and 1, not {alpha}")


def _check_moments(**moments: float) -> None:
    for name, value in moments.items():
        if value is None or not isfinite(value):
            raise ValueError(f"{name} is {value}: means and variances are numbers")
        if value < 0 and "var_" in name:
            raise ValueError(f"{name} is {value}: a variance is not negative")


def _check_covariance(covariance: float, variance: float, other: float) -> None:
    if covariance is None or not isfinite(covariance):
        raise ValueError(f"a covariance is {covariance}: it is a number")
    if abs(covariance) > sqrt(variance * other) * (1 + 1e-6):
        raise ValueError(f"a covariance of {covariance} cannot be, with variances {variance} and {other}")
