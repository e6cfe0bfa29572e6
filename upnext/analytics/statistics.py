"""Compares an arm with its control: the difference, its uncertainty, and the reason if there is none. Pure.

Every function is keyword-only. A comparison is a frozen `Comparison`; a number that cannot be computed is None,
and `reason` says why. Intervals are two-sided at level 1 - alpha. Users are counted, means are in the metric's unit,
variances in its square, and a lift is a part of the control mean (0.1 is +10 %).

If the traffic split changed during the experiment, each split is a stratum: `compare_*_by_split` take a mapping for
each, with the arguments of the function without strata. Arms are compared within each stratum, and the strata are
combined with weights n_control n_arm / (n_control + n_arm) (Mantel and Haenszel 1959). If variances are equal these
are the inverse of the variance of each difference. An estimate of that variance would depend on who converted, and bias
the result; these weights do not. A stratum without users in one of the arms is left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, expm1, inf, isfinite, log, log1p, sqrt
from sys import float_info
from typing import Any, Literal

import numpy as np
from scipy import special

MIN_CONVERSIONS_ALWAYS_VALID = 25
MIN_COUNT_WELCH = 5
TUNED_FOR_USERS = 5_000
# Prior concentrations of the shares, in users. Wide priors detect large deviations early, narrow priors detect small
# deviations eventually.
SRM_PRIORS = (10, 100, 1_000, 10_000)

# Sums over a constant value deviate in the last digits. This tolerance treats that as no variance.
ROUNDING = 1e-10

_SIDES = ("control", "arm")
_NAMES = {"control": "control", "arm": "the arm"}


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
    lift_always_low: float | None = None
    lift_always_high: float | None = None
    reason: str | None = None


Stratum = Mapping[str, Any]


@dataclass(frozen=True)
class _Mean:
    """A mean of `n` users, and `error`: the square of its standard error."""

    n: int
    mean: float
    error: float


@dataclass(frozen=True)
class _Arm:
    """A mean over all strata, and the squares of the standard errors that the strata add to it."""

    n: int
    mean: float
    parts: tuple[_Mean, ...]

    @property
    def error(self) -> float:
        """The square of the mean's standard error."""
        return sum(part.error for part in self.parts)


def compare_proportions(*, n_control: int, x_control: int, n_arm: int, x_arm: int, alpha: float = 0.05) -> Comparison:
    """Compare two shares of users: `x` of `n` converted, variance p(1 - p).

    Welch's t on the difference, Satterthwaite's degrees of freedom (Welch 1947). With fewer than 5 conversions or 5
    non-conversions in an arm the p-value is Fisher's exact test (1935) and the interval Newcombe's hybrid score (1998,
    method 10); `reason` says so. The interval of the lift is that of the log of the ratio (Katz et al. 1978).
    Raises `ValueError` for impossible counts.

    >>> result = compare_proportions(n_control=5000, x_control=500, n_arm=5000, x_arm=600)
    >>> round(result.diff, 4), round(result.lift, 4), round(result.p_value, 5)
    (0.02, 0.2, 0.00139)
    """
    split = {"n_control": n_control, "x_control": x_control, "n_arm": n_arm, "x_arm": x_arm}
    return compare_proportions_by_split(splits=[split], alpha=alpha)


def compare_proportions_by_split(*, splits: Sequence[Stratum], alpha: float = 0.05) -> Comparison:
    """Compare two shares of users within each traffic split, and combine them: see `compare_proportions`.

    With few conversions or non-conversions in all, the p-value is the exact conditional test of the strata together
    (Gart 1970) and the interval Newcombe's, combined as by Yan and Su (2010).

    >>> before = {"n_control": 500, "x_control": 150, "n_arm": 4500, "x_arm": 1350}
    >>> after = {"n_control": 2500, "x_control": 250, "n_arm": 2500, "x_arm": 250}
    >>> compare_proportions_by_split(splits=[before, after]).diff
    0.0
    """
    check_alpha(alpha)
    for split in splits:
        for n, x in ((split["n_control"], split["x_control"]), (split["n_arm"], split["x_arm"])):
            if n < 0 or not 0 <= x <= n:
                raise ValueError(f"{x} of {n} is not a share")
    used, nobody = _comparable(splits)
    if nobody is not None:
        return nobody

    def share(n: int, x: int) -> _Mean:
        return _Mean(n, x / n, x / n * (1 - x / n) / n)

    control, arm = _combined(
        [(share(one["n_control"], one["x_control"]), share(one["n_arm"], one["x_arm"])) for one in used]
    )
    x_control, x_arm = (sum(one[name] for one in used) for name in ("x_control", "x_arm"))
    if min(x_control, x_arm, control.n - x_control, arm.n - x_arm) < MIN_COUNT_WELCH:
        result = _exact(used, alpha)
    else:
        result = _welch(control, arm, alpha)
    result = _with_lift(result, control, arm, alpha)
    if min(x_control, x_arm) >= MIN_CONVERSIONS_ALWAYS_VALID and min(control.error, arm.error) > 0:
        return _with_always_valid(result, control, arm, alpha)
    return _without_always_valid(result, "conversions")


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
    (1.0, 0.1, 0.000507)
    """
    check_alpha(alpha)
    too_few = _too_few(n_control, n_arm)
    if too_few is not None:
        return too_few
    check_moments(mean_control=mean_control, var_control=var_control, mean_arm=mean_arm, var_arm=var_arm)
    means = (_Mean(n_control, mean_control, var_control / n_control), _Mean(n_arm, mean_arm, var_arm / n_arm))
    return _compare(*_combined([means]), alpha)


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
    """Compare two means, adjusted by the same metric before the exposure (CUPED).

    Deng, Xu, Kohavi and Walker (2013): each mean becomes `mean - theta * (pre_mean - pre_mean of all)`, where theta is
    the covariance with the pre-period over its variance, both pooled within the arms, (n - 1)-weighted. `diff` is
    tested as by `compare_means`, with the variance `var - 2 theta cov + theta^2 pre_var`. `lift` is over the adjusted
    control mean. The mean of all depends on both arms, which the gradient of the log of the ratio includes:
    with A, C the adjusted means, w the shares of users and g = theta (w_control / A + w_arm / C), its variance is
    (var / A^2 - 2 g cov / A + g^2 pre_var) / n over the arm, plus the same with C over control.
    Variances and covariances are of the sample (n - 1). If the pre-period does not vary, the means are compared
    unadjusted, and `reason` says so. Raises `ValueError` for moments that cannot be.

    >>> result = compare_means_cuped(
    ...     n_control=100, mean_control=10, var_control=4, pre_mean_control=5.0, pre_var_control=4, cov_control=3,
    ...     n_arm=100, mean_arm=11, var_arm=4, pre_mean_arm=5.2, pre_var_arm=4, cov_arm=3)
    >>> round(result.diff, 2), round(result.lift, 4), round(result.p_value, 7)
    (0.85, 0.0844, 9.6e-06)
    """
    split = {
        "n_control": n_control, "mean_control": mean_control, "var_control": var_control,
        "pre_mean_control": pre_mean_control, "pre_var_control": pre_var_control, "cov_control": cov_control,
        "n_arm": n_arm, "mean_arm": mean_arm, "var_arm": var_arm, "pre_mean_arm": pre_mean_arm,
        "pre_var_arm": pre_var_arm, "cov_arm": cov_arm,
    }  # fmt: skip
    return compare_means_cuped_by_split(splits=[split], alpha=alpha)


def compare_means_cuped_by_split(*, splits: Sequence[Stratum], alpha: float = 0.05) -> Comparison:
    """Compare two means within each traffic split, adjusted by the pre-period: see `compare_means_cuped`.

    Theta is pooled within arms and strata, and the pre-period is centred within each stratum.
    """
    check_alpha(alpha)
    used, nobody = _comparable(splits, at_least=2)
    if nobody is not None:
        return nobody
    used = [_checked_cuped(split) for split in used]
    spread = sum((split[f"n_{side}"] - 1) * split[f"pre_var_{side}"] for split in used for side in _SIDES)
    shared = sum((split[f"n_{side}"] - 1) * split[f"cov_{side}"] for split in used for side in _SIDES)
    theta = shared / spread if spread > 0 else 0.0
    control, arm = _combined([_adjusted_means(split, theta) for split in used])
    result = _compare(control, arm, alpha, log_error=_log_error_of_cuped(used, theta, control, arm))
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
    """Compare two ratios of means, such as orders per session, if users are the unit of randomisation.

    R = mean_num / mean_den, its variance by the delta method (var_num - 2 R cov + R^2 var_den) / (n mean_den^2)
    (Deng, Knoblich and Lu 2018), then as `compare_means`. Moments are per user, of the sample (n - 1).
    Without a positive denominator there is no ratio. Raises `ValueError` for moments that cannot be.

    >>> result = compare_ratios(
    ...     n_control=1000, mean_num_control=1, mean_den_control=4, var_num_control=1, var_den_control=4, cov_control=1,
    ...     n_arm=1000, mean_num_arm=1.2, mean_den_arm=4, var_num_arm=1, var_den_arm=4, cov_arm=1)
    >>> round(result.diff, 3), round(result.lift, 3), round(result.p_value, 7)
    (0.05, 0.2, 3e-07)
    """
    split = {
        "n_control": n_control, "mean_num_control": mean_num_control, "mean_den_control": mean_den_control,
        "var_num_control": var_num_control, "var_den_control": var_den_control, "cov_control": cov_control,
        "n_arm": n_arm, "mean_num_arm": mean_num_arm, "mean_den_arm": mean_den_arm, "var_num_arm": var_num_arm,
        "var_den_arm": var_den_arm, "cov_arm": cov_arm,
    }  # fmt: skip
    return compare_ratios_by_split(splits=[split], alpha=alpha)


def compare_ratios_by_split(*, splits: Sequence[Stratum], alpha: float = 0.05) -> Comparison:
    """Compare two ratios of means within each traffic split, and combine them: see `compare_ratios`."""
    check_alpha(alpha)
    used, nobody = _comparable(splits, at_least=2)
    if nobody is not None:
        return nobody
    for split in used:
        for side in _SIDES:
            _check_pair(split, side, ("mean_num_", "var_num_"), ("mean_den_", "var_den_"))
    for side in _SIDES:
        if any(split[f"mean_den_{side}"] <= 0 for split in used):
            return Comparison(reason=f"the denominator of {_NAMES[side]} is not positive")

    def ratio(split: Stratum, side: str) -> _Mean:
        n, den = split[f"n_{side}"], split[f"mean_den_{side}"]
        value = split[f"mean_num_{side}"] / den
        variance = _adjusted_variance(
            split[f"var_num_{side}"], split[f"cov_{side}"], split[f"var_den_{side}"], value
        )  # fmt: skip
        return _Mean(n, value, variance / (n * den**2))

    return _compare(*_combined([(ratio(split, "control"), ratio(split, "arm")) for split in used]), alpha)


def sample_ratio_p(*, observed: Sequence[int], expected_weights: Sequence[float]) -> float | None:
    """Return the chi-square p-value (Pearson 1900) of sample-ratio mismatch; None with nothing to compare.

    Arms of weight 0 are left out. Alarm below 0.001. Raises `ValueError` where the lengths differ, and for counts or
    weights below 0.

    >>> round(sample_ratio_p(observed=[5000, 5100], expected_weights=[0.5, 0.5]), 3)
    0.32
    """
    pairs = _counts_and_shares(observed, expected_weights)
    total = sum(count for count, _ in pairs)
    if len(pairs) < 2 or total == 0:
        return None
    statistic = sum((count - total * share) ** 2 / (total * share) for count, share in pairs)
    return _above_zero(float(special.chdtrc(len(pairs) - 1, statistic)))


def sample_ratio_p_always_valid(
    *, observed: Sequence[Sequence[int]], expected_weights: Sequence[Sequence[float]]
) -> float | None:
    """Return the p-value of sample-ratio mismatch, valid at every look; None with nothing to compare.

    `observed` and `expected_weights` have a row for each traffic split. One over the Bayes factor of multinomial counts
    under a Dirichlet prior around the expected shares (Lindon and Malek 2022), averaged over priors of several widths,
    multiplied over the splits. Over all looks together it falls below alpha in at most alpha of the experiments without
    mismatch. Alarm below 0.001. Raises `ValueError` as `sample_ratio_p` does.

    >>> round(sample_ratio_p_always_valid(observed=[[5000, 5300]], expected_weights=[[0.5, 0.5]]), 3)
    0.124
    """
    factors = [
        factor
        for counts, weights in zip(observed, expected_weights, strict=True)
        if (factor := _log_bayes_factor(counts, weights)) is not None
    ]
    return _above_zero(exp(min(0.0, -sum(factors)))) if factors else None


def adjust(p_values: Sequence[float | None], *, method: Literal["holm", "benjamini-hochberg"]) -> list[float | None]:
    """Return the p-values adjusted within their family, in their order; None stays None and does not count.

    Sources: Holm (1979), family-wise error; Benjamini and Hochberg (1995), false discovery rate.
    Raises `ValueError` for an unknown method, and for values that are not p-values.

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
    """Return Wilson's score interval (1927) of a share `x / n`; None without users.

    >>> low, high = wilson(n=100, x=10)
    >>> round(low, 4), round(high, 4)
    (0.0552, 0.1744)
    """
    if n == 0:
        return None
    z = normal_quantile(alpha)
    p = x / n
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def _compare(control: _Arm, arm: _Arm, alpha: float, *, log_error: float | None = None) -> Comparison:
    if min(control.error, arm.error) == 0:
        constant = _NAMES["arm" if control.error > 0 else "control"]
        result = Comparison(diff=arm.mean - control.mean, reason=f"{constant} has no variance: nothing to test with")
        return _with_lift(result, control, arm, alpha)
    result = _with_lift(_welch(control, arm, alpha), control, arm, alpha, log_error=log_error)
    if min(control.n, arm.n) >= MIN_CONVERSIONS_ALWAYS_VALID:
        return _with_always_valid(result, control, arm, alpha)
    return _without_always_valid(result, "users")


def _without_always_valid(result: Comparison, what: str) -> Comparison:
    reason = f"no always-valid interval: it needs {MIN_CONVERSIONS_ALWAYS_VALID} {what} in each arm"
    return replace(result, reason=result.reason or reason)


def _welch(control: _Arm, arm: _Arm, alpha: float) -> Comparison:
    error = control.error + arm.error
    # Terms are shares of their sum, so that squares of tiny errors do not underflow.
    parts = ((part.error / error) ** 2 / (part.n - 1) for part in (*control.parts, *arm.parts) if part.error > 0)
    freedom = 1 / sum(parts)
    diff = arm.mean - control.mean
    half = -float(special.stdtrit(freedom, alpha / 2)) * sqrt(error)
    p_value = 2 * float(special.stdtr(freedom, -abs(diff) / sqrt(error)))
    return Comparison(diff=diff, diff_low=diff - half, diff_high=diff + half, p_value=_above_zero(p_value))


def _exact(splits: Sequence[Stratum], alpha: float) -> Comparison:
    weights = _weights(splits)
    shares = [(split["x_control"] / split["n_control"], split["x_arm"] / split["n_arm"]) for split in splits]
    diffs = [p_arm - p_control for p_control, p_arm in shares]
    diff = sum(weight * one for weight, one in zip(weights, diffs, strict=True))
    ends = [
        _newcombe(split["n_control"], split["x_control"], split["n_arm"], split["x_arm"], alpha) for split in splits
    ]
    below, above = (
        sqrt(sum((weight * (end[side] - one)) ** 2 for weight, end, one in zip(weights, ends, diffs, strict=True)))
        for side in (0, 1)
    )
    result = Comparison(diff=diff, diff_low=diff - below, diff_high=diff + above)
    users = sum(split["n_control"] + split["n_arm"] for split in splits)
    converted = sum(split["x_control"] + split["x_arm"] for split in splits)
    if converted in (0, users):
        who = "everybody" if converted else "nobody"
        return replace(result, reason=f"{who} converted, in either arm: nothing to test; Newcombe's interval")
    return replace(
        result,
        p_value=_above_zero(_conditional_p(splits)),
        reason="Fisher's exact test, Newcombe's interval: too few conversions or non-conversions for Welch",
    )


def _conditional_p(splits: Sequence[Stratum]) -> float:
    """Return the probability of all tables no likelier than the observed one, given the conversions per stratum."""
    from scipy import stats  # noqa: PLC0415 - half a second, for small samples alone

    if len(splits) == 1:
        (split,) = splits
        table = [[split[f"x_{side}"], split[f"n_{side}"] - split[f"x_{side}"]] for side in ("arm", "control")]
        return float(stats.fisher_exact(np.array(table)).pvalue)
    chances, seen = np.ones(1), 0
    for split in splits:
        users, converted = split["n_control"] + split["n_arm"], split["x_control"] + split["x_arm"]
        drawn = stats.hypergeom(users, converted, split["n_arm"])
        # Further out, probabilities are too small to change a double.
        low, high = int(drawn.ppf(1e-16)), int(drawn.isf(1e-16))
        low, high = min(low, split["x_arm"]), max(high, split["x_arm"])
        chances = np.convolve(chances, drawn.pmf(np.arange(low, high + 1)))
        seen += split["x_arm"] - low
    return float(min(1.0, chances[chances <= chances[seen] * (1 + 1e-7)].sum()))


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
    half = normal_quantile(alpha) * sqrt(log_error)
    # The ratio of means close to 0 can overflow.
    high = exp(centre + half) - 1 if centre + half < log(float_info.max) else None
    return replace(result, lift_low=exp(centre - half) - 1, lift_high=high)


def _with_always_valid(result: Comparison, control: _Arm, arm: _Arm, alpha: float) -> Comparison:
    """Add the normal-mixture asymptotic confidence sequence, valid at every look (Waudby-Smith et al. 2021).

    That of the lift is the sequence of the log of the ratio, whose standard error is in the lift's interval.
    """
    error = sqrt(control.error + arm.error)
    n = control.n + arm.n
    diff = arm.mean - control.mean
    rho2 = _rho2(alpha)
    spread = n * rho2 + 1
    errors = sqrt(spread / (n * rho2) * log(spread / alpha**2))
    half = error * errors
    exponent = -n * rho2 * (diff / error) ** 2 / (2 * spread)
    # A lower end of -1 is rounded, and says nothing about the error any more.
    if result.lift is not None and result.lift_low is not None and result.lift_low > -1:
        centre = log1p(result.lift)
        reach = (centre - log1p(result.lift_low)) / normal_quantile(alpha) * errors
        high = expm1(centre + reach) if centre + reach < log(float_info.max) else None
        result = replace(result, lift_always_low=expm1(centre - reach), lift_always_high=high)
    return replace(
        result,
        p_always_valid=_above_zero(min(1.0, sqrt(spread) * exp(exponent))),
        diff_always_low=diff - half,
        diff_always_high=diff + half,
    )


def _rho2(alpha: float) -> float:
    return (-2 * log(alpha) + log(-2 * log(alpha) + 1)) / TUNED_FOR_USERS


def always_valid_bound(n: float, alpha: float) -> float:
    """Return how many standard errors the difference of `n` users has to be away from 0 for a p-value of alpha."""
    rho2 = _rho2(0.05)
    spread = n * rho2 + 1
    return sqrt(2 * spread / (n * rho2) * log(sqrt(spread) / alpha))


def _comparable(splits: Sequence[Stratum], *, at_least: int = 1) -> tuple[list[Stratum], Comparison | None]:
    """Return the strata with enough users in both arms, or the result for the case that there are none."""
    if any(split[f"n_{side}"] < 0 for split in splits for side in _SIDES):
        raise ValueError("a number of users is not negative")
    used = [split for split in splits if min(split["n_control"], split["n_arm"]) >= at_least]
    if used:
        return used, None
    for least, words in ((1, "no users in {}"), (2, "one user in {}: no variance")):
        for side in _SIDES:
            if all(split[f"n_{side}"] < least for split in splits):
                return [], Comparison(reason=words.format(_NAMES[side]))
    return [], Comparison(reason="no users of one traffic split in both arms")


def _weights(splits: Sequence[Stratum]) -> list[float]:
    """Return the weights of the strata, which add up to 1."""
    sizes = [1 / (1 / split["n_control"] + 1 / split["n_arm"]) for split in splits]
    return [size / sum(sizes) for size in sizes]


def _combined(strata: Sequence[tuple[_Mean, _Mean]]) -> tuple[_Arm, _Arm]:
    """Return control and arm over all strata."""
    weights = _weights([{"n_control": control.n, "n_arm": arm.n} for control, arm in strata])

    def over_all(means: Sequence[_Mean]) -> _Arm:
        weighed = list(zip(weights, means, strict=True))
        return _Arm(
            sum(mean.n for mean in means),
            sum(weight * mean.mean for weight, mean in weighed),
            tuple(_Mean(mean.n, mean.mean, weight**2 * mean.error) for weight, mean in weighed),
        )

    return over_all([control for control, _ in strata]), over_all([arm for _, arm in strata])


def _checked_cuped(split: Stratum) -> Stratum:
    """Return the moments of a stratum without rounding errors: a constant has no variance and no covariance."""
    checked = dict(split)
    for side in _SIDES:
        _check_pair(split, side, ("mean_", "var_"), ("pre_mean_", "pre_var_"))
        if split[f"pre_var_{side}"] <= (ROUNDING * split[f"pre_mean_{side}"]) ** 2:
            checked[f"pre_var_{side}"] = 0.0
        most = sqrt(split[f"var_{side}"] * checked[f"pre_var_{side}"])
        checked[f"cov_{side}"] = max(-most, min(most, split[f"cov_{side}"]))
    return checked


def _adjusted_means(split: Stratum, theta: float) -> tuple[_Mean, _Mean]:
    """Return the means of a stratum adjusted by the pre-period, centred at the stratum's own pre-period."""
    share_arm = split["n_arm"] / (split["n_control"] + split["n_arm"])
    ahead = split["pre_mean_arm"] - split["pre_mean_control"]

    def mean(side: str, shift: float) -> _Mean:
        variance = _adjusted_variance(
            split[f"var_{side}"], split[f"cov_{side}"], split[f"pre_var_{side}"], theta
        )  # fmt: skip
        return _Mean(split[f"n_{side}"], split[f"mean_{side}"] + shift, variance / split[f"n_{side}"])

    return mean("control", theta * share_arm * ahead), mean("arm", -theta * (1 - share_arm) * ahead)


def _log_error_of_cuped(splits: Sequence[Stratum], theta: float, control: _Arm, arm: _Arm) -> float | None:
    """Return the variance of the log of the ratio of adjusted means; None where a mean is not positive.

    Both adjusted means contain the same mean of all. Its effect on the ratio grows with their distance.
    """
    if control.mean <= 0 or arm.mean <= 0:
        return None
    total = 0.0
    for weight, split in zip(_weights(splits), splits, strict=True):
        share_arm = split["n_arm"] / (split["n_control"] + split["n_arm"])
        pull = theta * ((1 - share_arm) / arm.mean + share_arm / control.mean)
        for side, mean in (("arm", arm.mean), ("control", control.mean)):
            variance = _adjusted_variance(
                split[f"var_{side}"], split[f"cov_{side}"], split[f"pre_var_{side}"], pull * mean
            )  # fmt: skip
            total += weight**2 * variance / (split[f"n_{side}"] * mean**2)
    return total


def _counts_and_shares(observed: Sequence[int], expected_weights: Sequence[float]) -> list[tuple[int, float]]:
    """Return users and expected share of each arm that has a weight."""
    if any(count < 0 for count in observed) or not all(weight >= 0 for weight in expected_weights):
        raise ValueError("neither a number of users nor a weight is negative")
    pairs = [(count, weight) for count, weight in zip(observed, expected_weights, strict=True) if weight > 0]
    total = sum(weight for _, weight in pairs)
    return [(count, weight / total) for count, weight in pairs]


def _log_bayes_factor(observed: Sequence[int], expected_weights: Sequence[float]) -> float | None:
    """Return the log Bayes factor of shares around the expected ones against exactly the expected ones."""
    pairs = _counts_and_shares(observed, expected_weights)
    users = sum(count for count, _ in pairs)
    if len(pairs) < 2 or users == 0:
        return None
    logs = [
        special.gammaln(prior) - special.gammaln(prior + users)
        + sum(
            special.gammaln(prior * share + count) - special.gammaln(prior * share) - count * log(share)
            for count, share in pairs
        )
        for prior in SRM_PRIORS
    ]  # fmt: skip
    return float(special.logsumexp(logs) - log(len(logs)))


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


def normal_quantile(alpha: float) -> float:
    """Return how many standard errors a two-sided interval at level 1 - alpha reaches."""
    return -float(special.ndtri(alpha / 2))


def _above_zero(p_value: float) -> float:
    """Return a p-value above 0: one that underflows becomes the smallest double."""
    return max(p_value, float_info.min)


def _too_few(n_control: int, n_arm: int) -> Comparison | None:
    return _comparable([{"n_control": n_control, "n_arm": n_arm}], at_least=2)[1]


def check_alpha(alpha: float) -> None:
    """Raise `ValueError` for an alpha that is no probability of an error."""
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is between 0 and 1, not {alpha}")


def check_moments(**moments: float) -> None:
    """Raise `ValueError` for a mean or a variance (`var_...`) that cannot be."""
    for name, value in moments.items():
        if value is None or not isfinite(value):
            raise ValueError(f"{name} is {value}: means and variances are numbers")
        if value < 0 and "var_" in name:
            raise ValueError(f"{name} is {value}: a variance is not negative")


def _check_pair(split: Stratum, side: str, first: tuple[str, str], second: tuple[str, str]) -> None:
    """Raise `ValueError` if two values of an arm, given by their prefixes, have impossible joint moments."""
    names = [f"{prefix}{side}" for prefix in (*first, *second)]
    check_moments(**{name: split[name] for name in names})
    mean, variance, second_mean, second_variance = (split[name] for name in names)
    covariance = split[f"cov_{side}"]
    if covariance is None or not isfinite(covariance):
        raise ValueError(f"a covariance is {covariance}: it is a number")
    # Rounding errors in sums of products of deviations scale with the values, not with the deviations.
    rounding = ROUNDING * (sqrt(variance) + abs(mean)) * (sqrt(second_variance) + abs(second_mean))
    if abs(covariance) > sqrt(variance * second_variance) * (1 + 1e-6) + rounding:
        raise ValueError(f"a covariance of {covariance} cannot be, with variances {variance} and {second_variance}")
