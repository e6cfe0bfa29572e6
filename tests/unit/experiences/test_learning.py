"""What is learned, by simulation: no rule where there is none, and the planted one with its true gain."""

from typing import Any

import numpy as np
import pytest

from upnext.experiences.learning import LEAST_USERS, Proposal, Rule, Sample, propose

NAMES = ("logins_30d", "reports_30d", "seats", "is_on_basic_plan")


def arms_of(rules: Any, features: Any, names: Any) -> Any:
    """Return the arm of each user by rules; a feature that is nan is never at least anything."""
    found = np.full(len(features), -1)
    columns = {name: column for column, name in enumerate(names)}
    for rule in rules:
        holds = found < 0
        for name, least in rule.at_least.items():
            holds &= features[:, columns[name]] >= least
        found[holds] = rule.arm
    return found


def drawn(seed: int, users: int, rates: Any, *, arms: int = 2, chances: tuple[float, ...] | None = None) -> Sample:
    """Return users with features; `rates` gives the chance of the goal by arm from the features."""
    random = np.random.default_rng(seed)
    features = np.column_stack([
        random.poisson(10, users).astype(float), random.poisson(1, users).astype(float),
        np.where(random.random(users) < 0.3, np.nan, random.integers(1, 50, users)), random.random(users) < 0.5,
    ])  # fmt: skip
    shares = np.tile(chances or (1 / arms,) * arms, (users, 1))
    taken = (random.random((users, 1)) > shares.cumsum(axis=1)).sum(axis=1)
    outcomes = (random.random(users) < rates(features)[np.arange(users), taken]).astype(float)
    return Sample(features, NAMES, taken, outcomes, shares, random.random(users) < 0.5, random.integers(0, 5, users))


def same_for_all(features: Any) -> Any:
    # Features tell who converts, but not which copy is better: the second is, for everybody.
    base = 0.1 + 0.01 * np.clip(features[:, 0], 0, 20)
    return np.column_stack([base, base + 0.03, base])


def planted(features: Any) -> Any:
    is_keen = (features[:, 0] >= 11) & (features[:, 1] >= 1)
    return np.column_stack([np.where(is_keen, 0.35, 0.15), np.where(is_keen, 0.15, 0.25)])


def true_gain(found: Proposal, rates: Any) -> float:
    population = drawn(7, 200_000, rates).features
    values = rates(population)
    assert found.single is not None
    return float(
        (values[np.arange(len(values)), arms_of(found.rules, population, NAMES)] - values[:, found.single]).mean()
    )


def test_where_nobody_differs_nothing_is_proposed_in_95_of_100() -> None:
    runs = 200
    found = [propose(drawn(seed, 4000, lambda x: same_for_all(x)[:, :2])) for seed in range(runs)]
    proposed = sum(bool(one.rules) for one in found)
    # 5 % and three standard errors of 200 runs.
    assert proposed / runs < 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)
    assert {one.reason for one in found if not one.rules} == {"no rule is clearly better than one copy for all"}


def test_with_three_copies_of_unequal_chance_neither() -> None:
    runs = 60
    chances = (0.5, 0.3, 0.2)
    found = [propose(drawn(seed, 6000, same_for_all, arms=3, chances=chances)) for seed in range(runs)]
    assert sum(bool(one.rules) for one in found) / runs < 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)
    assert np.mean([one.single == 1 for one in found]) > 0.8


def test_a_planted_rule_is_found_and_its_gain_is_covered_in_95_of_100() -> None:
    runs = 120
    found = [propose(drawn(1000 + seed, 6000, planted)) for seed in range(runs)]
    assert all(one.rules for one in found)
    people = drawn(8, 20_000, planted).features
    best = planted(people).argmax(axis=1)
    right = [np.mean(arms_of(one.rules, people, NAMES) == best) for one in found]
    assert np.mean(right) > 0.95
    covered = []
    for one in found:
        assert one.gain_low is not None and one.gain_high is not None
        covered.append(one.gain_low <= true_gain(one, planted) <= one.gain_high)
    assert np.mean(covered) > 0.95 - 3 * np.sqrt(0.05 * 0.95 / runs)


def test_rules_are_read_in_order_and_null_is_never_at_least() -> None:
    rules = (Rule({"logins_30d": 12, "seats": 5}, 0), Rule({"logins_30d": 12}, 1), Rule({}, 2))
    features = np.array([[12, 0, 5, 0], [12, 0, np.nan, 0], [11, 0, 9, 0]], dtype=float)
    assert list(arms_of(rules, features, NAMES)) == [0, 1, 2]


def test_the_same_sample_has_the_same_rules() -> None:
    assert propose(drawn(5, 6000, planted)) == propose(drawn(5, 6000, planted))


def test_too_few_have_a_reason() -> None:
    few = propose(drawn(1, 3 * LEAST_USERS, planted))
    assert (few.rules, few.gain) == ((), None)
    assert few.reason == "each copy needs 400 users and 50 goals, in both halves"
    rare = propose(drawn(1, 6000, lambda x: planted(x) / 50))
    assert rare.reason == few.reason


@pytest.mark.parametrize("value", [0.0, 3.0, np.nan])
def test_a_feature_that_says_nothing_is_never_split(value: float) -> None:
    sample = drawn(11, 6000, planted)
    features = np.column_stack([sample.features, np.full(6000, value)])
    found = propose(Sample(features, (*NAMES, "constant"), *(getattr(sample, name) for name in (
        "arms", "outcomes", "chances", "is_learned_from", "fold"
    ))))  # fmt: skip
    assert found.rules
    assert all("constant" not in rule.at_least for rule in found.rules)
