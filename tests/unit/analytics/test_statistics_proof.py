"""The proof by simulation, in short; and what it would say of the mistakes that are easily made."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tests.benchmarks.proof import (
    PROOFS,
    SEED,
    Claim,
    Engine,
    adjusted_by_the_pre_period,
    rejected_nulls_of_sessions,
    rejected_while_peeking,
)
from upnext.analytics.statistics import Comparison, compare_means, compare_means_cuped, compare_proportions

RUNS = 120
Proof = Callable[[np.random.Generator, Engine, int], Iterator[Claim]]


def broken(proof: Proof, engine: Engine) -> list[str]:
    random = np.random.default_rng([SEED, PROOFS.index(proof)])
    return [f"{claim.name}: {claim.share}" for claim in proof(random, engine, RUNS) if not claim.holds]


@pytest.mark.parametrize("proof", PROOFS, ids=lambda proof: proof.__name__)
def test_claims_hold(proof: Proof) -> None:
    assert broken(proof, Engine()) == []


def uncentred(**moments: Any) -> Comparison:
    """CUPED without the mean of the pre-period: differences are right, lifts are over something else."""
    spread = sum((moments[f"n_{side}"] - 1) * moments[f"pre_var_{side}"] for side in ("control", "arm"))
    theta = sum((moments[f"n_{side}"] - 1) * moments[f"cov_{side}"] for side in ("control", "arm")) / spread
    adjusted: dict[str, Any] = {}
    for side in ("control", "arm"):
        adjusted |= {
            f"n_{side}": moments[f"n_{side}"],
            f"mean_{side}": moments[f"mean_{side}"] - theta * moments[f"pre_mean_{side}"],
            f"var_{side}": moments[f"var_{side}"]
            - 2 * theta * moments[f"cov_{side}"]
            + theta**2 * moments[f"pre_var_{side}"],
        }
    return compare_means(**adjusted)


def without_the_full_gradient(**moments: Any) -> Comparison:
    """CUPED as if the mean of all were known: the interval of the lift is of the adjusted variances alone."""
    right = compare_means_cuped(**moments)
    share = moments["n_arm"] / (moments["n_control"] + moments["n_arm"])
    spread = sum((moments[f"n_{side}"] - 1) * moments[f"pre_var_{side}"] for side in ("control", "arm"))
    theta = sum((moments[f"n_{side}"] - 1) * moments[f"cov_{side}"] for side in ("control", "arm")) / spread
    ahead = moments["pre_mean_arm"] - moments["pre_mean_control"]
    adjusted: dict[str, Any] = {}
    for side, shift in (("control", theta * share * ahead), ("arm", -theta * (1 - share) * ahead)):
        adjusted |= {
            f"n_{side}": moments[f"n_{side}"],
            f"mean_{side}": moments[f"mean_{side}"] + shift,
            f"var_{side}": moments[f"var_{side}"]
            - 2 * theta * moments[f"cov_{side}"]
            + theta**2 * moments[f"pre_var_{side}"],
        }
    wrong = compare_means(**adjusted)
    assert wrong.lift == pytest.approx(right.lift)
    return wrong


def by_session(**moments: Any) -> Comparison:
    """A z-test of sessions, as if each had been drawn by itself."""
    counts = {}
    for side in ("control", "arm"):
        counts[f"n_{side}"] = round(moments[f"n_{side}"] * moments[f"mean_den_{side}"])
        counts[f"x_{side}"] = round(moments[f"n_{side}"] * moments[f"mean_num_{side}"])
    return compare_proportions(**counts)


def naive_while_peeking(**counts: Any) -> Comparison:
    """The p-value of one look, taken at each."""
    result = compare_proportions(**counts)
    return Comparison(p_always_valid=result.p_value)


@pytest.mark.parametrize(
    ("proof", "mutant"),
    [
        (adjusted_by_the_pre_period, {"cuped": uncentred}),
        (adjusted_by_the_pre_period, {"cuped": without_the_full_gradient}),
        (rejected_nulls_of_sessions, {"ratios": by_session}),
        (rejected_while_peeking, {"proportions": naive_while_peeking}),
    ],
    ids=lambda value: next(iter(value.values())).__name__ if isinstance(value, dict) else "",
)
def test_mistakes_are_noticed(proof: Proof, mutant: dict[str, Any]) -> None:
    assert broken(proof, Engine(**mutant))
