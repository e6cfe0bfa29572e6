"""What the statistics promise, by simulation: how often a true null is rejected, how often an interval holds the truth.

`make bench-statistics` runs it at full length; a short run is part of the tests, where mutants have to fail it.
"""

import argparse
import itertools
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy import stats

from upnext.analytics import statistics
from upnext.analytics.statistics import (
    Comparison,
    compare_means,
    compare_means_cuped,
    compare_proportions,
    compare_ratios,
)

SEED = 20260331
RUNS = 4_000
LOOKS = 100


@dataclass(frozen=True)
class Claim:
    """A share of runs that must lie between `least` and `most`; with fewer runs than `RUNS` there is more room."""

    name: str
    share: float
    least: float
    most: float
    runs: int

    @property
    def room(self) -> float:
        """Three standard errors of what fewer runs than `RUNS` add."""
        rate = (max(self.least, 0.0) + min(self.most, 1.0)) / 2
        return 3 * math.sqrt(max(rate * (1 - rate), 0.01) * max(0.0, 1 / self.runs - 1 / RUNS))

    @property
    def holds(self) -> bool:
        return self.least - self.room <= self.share <= self.most + self.room


@dataclass(frozen=True)
class Engine:
    """The functions under test: mutants replace one of them."""

    proportions: Callable[..., Comparison] = compare_proportions
    means: Callable[..., Comparison] = compare_means
    cuped: Callable[..., Comparison] = compare_means_cuped
    ratios: Callable[..., Comparison] = compare_ratios


def rejected_nulls(random: Generator, engine: Engine, runs: int) -> Iterator[Claim]:
    """5 % of true nulls are rejected at the horizon; of shares, every outcome is tried and weighed by its chance."""
    for rate, users, least in ((0.1, 5_000, 0.039), (0.05, 5_000, 0.039), (0.0005, 50_000, 0.039), (0.001, 2_000, 0.0)):
        rejected = 0.0
        for chance, x_control, x_arm in _outcomes(users, rate, users, rate, runs):
            p = engine.proportions(n_control=users, x_control=x_control, n_arm=users, x_arm=x_arm).p_value
            rejected += chance * (p is not None and p < 0.05)
        yield Claim(f"null rejected, rate {rate}, {users:,} a side", rejected, least, 0.061, RUNS)
    users = 4_000
    results = []
    for _ in range(runs):
        both = np.where(random.random((2, users)) < 0.05, random.lognormal(3, 1, (2, users)), 0)
        results.append(engine.means(**_means(*both)))
    yield Claim("null rejected, zero-inflated revenue, 4,000 a side", _rejected(results), 0.039, 0.061, runs)


def rejected_nulls_of_sessions(random: Generator, engine: Engine, runs: int) -> Iterator[Claim]:
    """Users are drawn, sessions are not: those of one user are alike."""
    results = []
    for _ in range(runs):
        users = 1_000
        sessions = 1 + random.poisson(random.gamma(1, 6, (2, users)))
        clicks = random.binomial(sessions, random.beta(0.6, 2.4, (2, users)))
        results.append(engine.ratios(**_ratios(clicks, sessions)))
    yield Claim("null rejected, clicks per session, 1,000 users a side", _rejected(results), 0.039, 0.061, runs)


def rejected_while_peeking(random: Generator, engine: Engine, runs: int) -> Iterator[Claim]:
    """At most 5 % of true nulls are ever rejected over 100 looks, by the always-valid p-value."""
    for rate, users in ((0.1, 1_000), (0.02, 50)):
        x = random.binomial(users // 2, rate, size=(runs, LOOKS, 2)).cumsum(axis=1)
        ever = 0
        for run in range(runs):
            for look in range(LOOKS):
                n = (look + 1) * (users // 2)
                p = engine.proportions(
                    n_control=n, x_control=int(x[run, look, 0]), n_arm=n, x_arm=int(x[run, look, 1])
                ).p_always_valid
                if p is not None and p < 0.05:
                    ever += 1
                    break
        most = 0.05 + 3 * math.sqrt(0.05 * 0.95 / RUNS)
        yield Claim(f"null ever rejected, {LOOKS} looks of {users} users, rate {rate}", ever / runs, 0, most, runs)


def covered_lifts(random: Generator, engine: Engine, runs: int) -> Iterator[Claim]:
    """The interval of the lift holds the truth in 95 % of all outcomes, and misses it on both sides alike."""
    for n_control, n_arm, rate in ((5_000, 5_000, 0.1), (500, 19_500, 0.02)):
        for lift in (0.0, 0.3, 1.0) if runs >= RUNS else (0.0, 1.0):
            results = [
                (chance, engine.proportions(n_control=n_control, x_control=x_control, n_arm=n_arm, x_arm=x_arm))
                for chance, x_control, x_arm in _outcomes(n_control, rate, n_arm, rate * (1 + lift), runs)
            ]
            yield from _coverage(f"lift {lift:+.0%}, {n_control:,} and {n_arm:,} at {rate}", results, lift, RUNS)


def adjusted_by_the_pre_period(random: Generator, engine: Engine, runs: int) -> Iterator[Claim]:
    """CUPED takes rho squared of the variance away, and its interval still holds the truth, at large lifts too."""
    for rho, lift in ((0.7, 0.0), (0.95, 0.0), (0.95, 1.0)):
        results, plain = [], []
        # A spread of estimates is known to a share of sqrt(2 / runs) only.
        many = 8 * runs
        for _ in range(many):
            pre = random.normal(10, 2, (2, 1_000))
            during = 10 + rho * (pre - 10) + random.normal(0, 2 * math.sqrt(1 - rho**2), (2, 1_000))
            during[1] += 10 * lift
            moments = _cuped(pre, during)
            results.append(engine.cuped(**moments))
            plain.append(engine.means(**_means(*during)))
        if lift == 0.0:
            ratio = np.var([r.diff for r in results]) / np.var([r.diff for r in plain]) / (1 - rho**2)
            widths = np.mean([(r.diff_high or 0) - (r.diff_low or 0) for r in results])
            widths /= np.mean([(r.diff_high or 0) - (r.diff_low or 0) for r in plain])
            room = 3 * 2 * math.sqrt(max(0.0, 1 / many - 1 / (8 * RUNS)))
            yield Claim(f"variance over 1 - rho^2, rho {rho}", float(ratio), 0.95 - room, 1.05 + room, RUNS)
            yield Claim(f"width squared over 1 - rho^2, rho {rho}", float(widths**2 / (1 - rho**2)), 0.95, 1.05, RUNS)
        weighed = [(1 / many, result) for result in results]
        yield from _coverage(f"CUPED lift {lift:+.0%}, rho {rho}", weighed, lift, many)


PROOFS = (
    rejected_nulls,
    rejected_nulls_of_sessions,
    rejected_while_peeking,
    covered_lifts,
    adjusted_by_the_pre_period,
)


def _outcomes(
    n_control: int, rate_control: float, n_arm: int, rate_arm: float, runs: int
) -> Iterator[tuple[float, int, int]]:
    """Yield how many may convert on both sides, with its chance; what is left out is rare, in a short run less so."""
    tail = 5e-7 if runs >= RUNS else 1e-4
    sides = []
    for n, rate in ((n_control, rate_control), (n_arm, rate_arm)):
        counts = np.arange(stats.binom.ppf(tail, n, rate), stats.binom.isf(tail, n, rate) + 1)
        sides.append(list(zip(stats.binom.pmf(counts, n, rate), map(int, counts), strict=True)))
    for (chance_control, x_control), (chance_arm, x_arm) in itertools.product(*sides):
        yield chance_control * chance_arm, x_control, x_arm


def _coverage(name: str, results: list[tuple[float, Comparison]], truth: float, runs: int) -> Iterator[Claim]:
    too_high = sum(chance for chance, r in results if r.lift_low is not None and r.lift_low > truth)
    too_low = sum(chance for chance, r in results if r.lift_high is not None and r.lift_high < truth)
    unknown = sum(chance for chance, r in results if r.lift_low is None)
    yield Claim(f"covered: {name}", 1 - too_high - too_low - unknown, 0.939, 0.961, runs)
    yield Claim(f"  missed above: {name}", too_high, 0, 0.035, runs)
    yield Claim(f"  missed below: {name}", too_low, 0, 0.035, runs)


def _rejected(results: list[Comparison]) -> float:
    return sum(r.p_value is not None and r.p_value < 0.05 for r in results) / len(results)


def _means(control: Any, arm: Any) -> dict[str, float]:
    return {
        "n_control": len(control), "mean_control": control.mean(), "var_control": control.var(ddof=1),
        "n_arm": len(arm), "mean_arm": arm.mean(), "var_arm": arm.var(ddof=1),
    }  # fmt: skip


def _cuped(pre: Any, during: Any) -> dict[str, float]:
    moments = _means(*during)
    for side, name in enumerate(("control", "arm")):
        moments[f"pre_mean_{name}"] = pre[side].mean()
        moments[f"pre_var_{name}"] = pre[side].var(ddof=1)
        moments[f"cov_{name}"] = np.cov(pre[side], during[side])[0, 1]
    return moments


def _ratios(num: Any, den: Any) -> dict[str, float]:
    moments: dict[str, float] = {}
    for side, name in enumerate(("control", "arm")):
        moments |= {
            f"n_{name}": len(num[side]),
            f"mean_num_{name}": num[side].mean(),
            f"mean_den_{name}": den[side].mean(),
            f"var_num_{name}": num[side].var(ddof=1),
            f"var_den_{name}": den[side].var(ddof=1),
            f"cov_{name}": np.cov(num[side], den[side])[0, 1],
        }
    return moments


def main() -> None:
    """Run every proof, print a table, and fail where a claim does not hold."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--seed", type=int, default=SEED)
    arguments = parser.parse_args()
    table = Table(title=f"{statistics.__name__}: {arguments.runs:,} runs each, seed {arguments.seed}")
    for heading in ("claim", "share", "from", "to", ""):
        table.add_column(heading, justify="left" if heading == "claim" else "right")
    claims: list[Claim] = []
    for nth, proof in enumerate(track(PROOFS, console=Console(stderr=True), description="simulating")):
        claims += proof(np.random.default_rng([arguments.seed, nth]), Engine(), arguments.runs)
    for claim in claims:
        row = (f"{claim.share:.4f}", f"{claim.least:.4f}", f"{claim.most:.4f}", "" if claim.holds else "does not hold")
        table.add_row(claim.name, *row)
    Console(width=110).print(table)
    sys.exit(0 if all(claim.holds for claim in claims) else 1)


if __name__ == "__main__":
    main()
