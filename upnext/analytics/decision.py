"""What to do about an experiment, by a rule that holds at every look, and how long until the rule can say it. Pure."""

from math import ceil, sqrt
from typing import Literal

from scipy import special

from upnext.analytics.statistics import (
    MIN_CONVERSIONS_ALWAYS_VALID,
    Comparison,
    always_valid_bound,
    check_alpha,
    check_moments,
    normal_quantile,
)

SRM_ALARM = 0.001
# A plan that needs more than this multiple of today's users is useless.
LONGEST_PLAN = 2.0**20

Decision = Literal["ship", "stop", "keep going", "broken: sample ratio"]


def decide(
    *,
    compared: Comparison,
    mean_control: float | None,
    srm_p: float | None,
    minimum_lift: float,
    arms: int = 1,
    alpha: float = 0.05,
) -> Decision:
    """Return the decision, by a rule that is valid at every look.

    - `broken: sample ratio` on sample-ratio mismatch (p below 0.001), whatever the other values are.
    - `ship` if the always-valid p-value, times the number of `arms` tested, is below alpha and the arm is ahead.
    - `stop` if it is below alpha and the arm is behind, or if the always-valid interval excludes every lift of at
      least `minimum_lift`, the smallest that is worth having.
    - `keep going` otherwise.

    >>> from upnext.analytics.statistics import compare_proportions
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


def days_left(
    *, n_control: float, mean_control: float, var_control: float, n_arm: float, per_day: float, lift: float,
    users: int | None = None, arms: int = 1, alpha: float = 0.05, power: float = 0.8,
) -> int | None:  # fmt: skip
    """Return in how many days `per_day` more users, split as until now, let `lift` be called with `power`.

    By the rule of `decide`: the days until the lift lies z_power standard errors beyond the always-valid bound.
    `users` is the number that the bound counts (default `n_control + n_arm`), `arms` the number of arms tested.
    0 if there are enough users already, None if the rate is unknown or no number of users is enough.

    >>> days_left(n_control=5000, mean_control=0.1, var_control=0.09, n_arm=5000, per_day=1000, lift=0.1)
    51
    """
    check_alpha(alpha)
    if min(n_control, n_arm) < 1 or per_day <= 0 or lift <= 0:
        return None
    check_moments(mean_control=mean_control, var_control=var_control)
    if mean_control <= 0 or var_control == 0:
        return None
    counted = users or round(n_control + n_arm)
    error = var_control * (1 / n_control + 1 / n_arm)
    z_power = -float(special.ndtri(1 - power))

    def is_enough(times: float) -> bool:
        n = counted * times
        z = lift * mean_control / sqrt(error / times)
        conversions = min(n_control, n_arm) * times * mean_control
        return (
            z >= always_valid_bound(n, alpha / arms) + z_power
            and conversions - z_power * sqrt(conversions) >= MIN_CONVERSIONS_ALWAYS_VALID
        )

    enough = 1.0
    while not is_enough(enough):
        enough *= 2
        if enough > LONGEST_PLAN:
            return None
    least = enough / 2 if enough > 1 else 1.0
    for _ in range(50):
        middle = (least + enough) / 2
        least, enough = (least, middle) if is_enough(middle) else (middle, enough)
    return max(0, ceil(counted * (enough - 1) / per_day - 1e-6))


def users_needed(
    *, share_control: float, share_arm: float, mean_control: float, lift: float,
    arms: int = 1, alpha: float = 0.05, power: float = 0.8,
) -> int | None:  # fmt: skip
    """Return how many users, of all arms, let a `lift` of a share of users be called with `power`, by `decide`.

    `share_control` and `share_arm` are the parts of the users in control and in one of the `arms`. None if no number
    of users is enough.

    >>> users_needed(share_control=0.5, share_arm=0.5, mean_control=0.1, lift=0.1)
    66540
    """
    smallest = min(share_control, share_arm)
    if smallest <= 0:
        return None
    with_lift = min(1.0, mean_control * (1 + lift))
    pair = (share_control + share_arm) / smallest
    more = days_left(
        n_control=share_control / smallest,
        n_arm=share_arm / smallest,
        mean_control=mean_control,
        var_control=max(mean_control * (1 - mean_control), with_lift * (1 - with_lift)),
        users=round(pair),
        per_day=1,
        lift=lift,
        arms=arms,
        alpha=alpha,
        power=power,
    )
    return None if more is None else ceil((round(pair) + more) / (share_control + share_arm))


def minimal_detectable_lift(
    *, n_control: int, mean_control: float, var_control: float, n_arm: int, alpha: float = 0.05, power: float = 0.8
) -> float | None:
    """Return the smallest lift that these users can detect with `power`, at one look; None without mean or variance.

    (z_(alpha/2) + z_power) sqrt(var (1 / n_control + 1 / n_arm)) / |mean|, the arm varying like control
    (Lachin 1981). Raises `ValueError` for moments that cannot be.

    >>> round(minimal_detectable_lift(n_control=5000, mean_control=0.1, var_control=0.09, n_arm=5000), 3)
    0.168
    """
    check_alpha(alpha)
    if min(n_control, n_arm) < 1:
        return None
    check_moments(mean_control=mean_control, var_control=var_control)
    if mean_control == 0 or var_control == 0:
        return None
    error = sqrt(var_control * (1 / n_control + 1 / n_arm))
    return (normal_quantile(alpha) - float(special.ndtri(1 - power))) * error / abs(mean_control)
