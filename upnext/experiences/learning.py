"""Which copy for whom: a shallow tree over features, learned from a randomised experience and checked on others. Pure.

Scores are doubly robust (Robins, Rotnitzky and Zhao 1994): a regression of each arm, fitted on other users
(cross-fitting, Chernozhukov et al. 2018), corrected by what the user of the arm did, over the chance of the arm. The
tree is the best of depth two, searched over all splits (Athey and Wager 2021). It is learned from one half of the users
and measured on the other, so its gain over the best single copy has a plain interval.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FOLDS = 5
CUTS = 12
"""Thresholds that are tried for each feature."""
LEAST_USERS = 200
"""Users of each arm, and in each half, below which nothing is learned."""
LEAST_CONVERSIONS = 25
LEAST_LEAF = 0.05
"""The part of the users that a leaf has at least."""
Z = 1.959963984540054


@dataclass(frozen=True)
class Sample:
    """Users of a randomised experience: features (users by columns; nan where null), arms by number, outcomes.

    `chances` are those of each arm, by user. `is_learned_from` tells the halves apart, and `fold` those who are fitted
    together; both are drawn without looking at anything else.
    """

    features: Floats
    names: Sequence[str]
    arms: NDArray[np.int64]
    outcomes: Floats
    chances: Floats
    is_learned_from: NDArray[np.bool_]
    fold: NDArray[np.int64]


@dataclass(frozen=True)
class Rule:
    """Users whose features are at least these, or true, get an arm; without features, all others do."""

    at_least: Mapping[str, float]
    arm: int


@dataclass(frozen=True)
class Proposal:
    """Rules, of which the first that holds counts, and what they gain over the best single copy for all.

    The gain is in the unit of the outcome for each user, with a 95 % interval; `reason` says why there are no rules.
    """

    rules: tuple[Rule, ...]
    single: int | None
    users: int
    gain: float | None = None
    gain_low: float | None = None
    gain_high: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class _Split:
    column: int
    threshold: float


@dataclass(frozen=True)
class _Tree:
    """An arm for all, or a split with what follows for users at or above it, and below."""

    arm: int
    split: _Split | None = None
    above: "_Tree | None" = None
    below: "_Tree | None" = None


def propose(sample: Sample) -> Proposal:
    """Return rules that beat the best single copy on users they were not learned from; none where none do."""
    users = len(sample.arms)
    count = sample.chances.shape[1]
    for half in (sample.is_learned_from, ~sample.is_learned_from):
        for arm in range(count):
            outcomes = sample.outcomes[half & (sample.arms == arm)]
            if len(outcomes) < LEAST_USERS or np.count_nonzero(outcomes) < LEAST_CONVERSIONS:
                reason = f"each copy needs {2 * LEAST_USERS} users and {2 * LEAST_CONVERSIONS} goals, in both halves"
                return Proposal((), None, users, reason=reason)
    learned, measured = sample.is_learned_from, ~sample.is_learned_from
    tree, single = _learned(sample.features[learned], _scores(sample, learned))
    scores = _scores(sample, measured)
    chosen = _arms_of(tree, sample.features[measured])
    differences = scores[np.arange(len(scores)), chosen] - scores[:, single]
    gain, error = float(differences.mean()), float(differences.std(ddof=1) / np.sqrt(len(differences)))
    known: dict[str, Any] = {"single": single, "users": users}
    if error == 0 or gain / error < Z:
        return Proposal((), reason="no rule is clearly better than one copy for all", **known)
    rules = tuple(_rules(tree, sample.names))
    return Proposal(rules, gain=gain, gain_low=gain - Z * error, gain_high=gain + Z * error, **known)


def _scores(sample: Sample, chosen: NDArray[np.bool_]) -> Floats:
    """Return the doubly robust score of each arm for each of the chosen users, fitted on users of other folds."""
    features, arms = _regressors(sample.features[chosen]), sample.arms[chosen]
    outcomes, chances, fold = sample.outcomes[chosen], sample.chances[chosen], sample.fold[chosen]
    expected = np.zeros_like(chances)
    for one in range(FOLDS):
        for arm in range(chances.shape[1]):
            fitted = (fold != one) & (arms == arm)
            expected[fold == one, arm] = features[fold == one] @ _ridge(features[fitted], outcomes[fitted])
    taken = np.arange(len(arms)), arms
    expected[taken] += (outcomes - expected[taken]) / chances[taken]
    return expected


def _regressors(features: Floats) -> Floats:
    """Return features around zero, of one spread, with whether each is known, and a constant."""
    known = ~np.isnan(features)
    filled = np.where(known, features, 0.0)
    spread = filled.std(axis=0)
    scaled = np.clip((filled - filled.mean(axis=0)) / np.where(spread > 0, spread, 1.0), -4, 4)
    return np.column_stack([np.ones(len(features)), scaled, known.astype(float)])


def _ridge(features: Floats, outcomes: Floats) -> Floats:
    penalty = np.eye(features.shape[1])
    solved: Floats = np.linalg.solve(features.T @ features + penalty, features.T @ outcomes).astype(np.float64)
    return solved


def _learned(features: Floats, scores: Floats) -> tuple[_Tree, int]:
    """Return the tree of depth two with the highest sum of scores, and the single arm with the highest.

    A tree of depth one is taken where a deeper one gains less than a standard error: people have to read it.
    """
    splits = _splits(features)
    single = int(scores.sum(axis=0).argmax())
    if not splits:
        return _Tree(single), single
    is_above = np.stack([features[:, split.column] >= split.threshold for split in splits])
    least = LEAST_LEAF * len(features)
    best, best_value = _Tree(single), float(scores.sum(axis=0).max())
    for number, split in enumerate(splits):
        above = is_above[number]
        sides = [_best_below(scores[side], is_above[:, side], splits, least) for side in (above, ~above)]
        value = sum(side_value for _, side_value in sides)
        if above.sum() >= least and (~above).sum() >= least and value > best_value + 1e-9:
            best_value = value
            best = _Tree(single, split, sides[0][0], sides[1][0])
    flat, _ = _best_below(scores, is_above, splits, least)
    every = np.arange(len(scores))
    gains = scores[every, _arms_of(best, features)] - scores[every, _arms_of(flat, features)]
    return (best if gains.sum() > gains.std() * np.sqrt(len(gains)) else flat), single


def _best_below(scores: Floats, is_above: NDArray[np.bool_], splits: list[_Split], least: float) -> tuple[_Tree, float]:
    """Return the best tree of depth one for these users, and its sum of scores."""
    total = scores.sum(axis=0)
    leaf, value = _Tree(int(total.argmax())), float(total.max())
    above = is_above.astype(float) @ scores
    sizes = is_above.sum(axis=1)
    values = above.max(axis=1) + (total - above).max(axis=1)
    values[(sizes < least) | (len(scores) - sizes < least)] = -np.inf
    number = int(values.argmax())
    if values[number] <= value + 1e-9:
        return leaf, value
    arms = int(above[number].argmax()), int((total - above[number]).argmax())
    return _Tree(leaf.arm, splits[number], _Tree(arms[0]), _Tree(arms[1])), float(values[number])


def _splits(features: Floats) -> list[_Split]:
    found = []
    for column in range(features.shape[1]):
        known = features[:, column][~np.isnan(features[:, column])]
        if len(known):
            cuts = np.quantile(known, np.linspace(0, 1, CUTS + 2)[1:-1], method="higher")
            found += [_Split(column, float(cut)) for cut in np.unique(cuts) if cut > known.min()]
    return found


def _arms_of(tree: _Tree, features: Floats) -> NDArray[np.int64]:
    if tree.split is None or tree.above is None or tree.below is None:
        return np.full(len(features), tree.arm)
    is_above = features[:, tree.split.column] >= tree.split.threshold
    return np.where(is_above, _arms_of(tree.above, features), _arms_of(tree.below, features))


def _rules(tree: _Tree, names: Sequence[str]) -> list[Rule]:
    """Return a tree as rules of which the first that holds counts; rules that change nothing are left out."""
    rules: list[Rule] = []
    for rule in reversed(_paths(tree, names, {})):
        after = rules[0] if rules else None
        is_wider = after is not None and set(after.at_least.items()) <= set(rule.at_least.items())
        if after is None or after.arm != rule.arm or not is_wider:
            rules.insert(0, rule)
    return rules


def _paths(tree: _Tree, names: Sequence[str], above: Mapping[str, float]) -> list[Rule]:
    if tree.split is None or tree.above is None or tree.below is None:
        return [Rule(dict(above), tree.arm)]
    name = names[tree.split.column]
    least = max(tree.split.threshold, above.get(name, tree.split.threshold))
    return [*_paths(tree.above, names, {**above, name: least}), *_paths(tree.below, names, above)]
