"""What is expected of an experiment before it starts, and whether it comes true: by simulation."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from upnext.analytics.decision import decide, users_needed
from upnext.analytics.plan import Design, expected
from upnext.analytics.statistics import compare_proportions
from upnext.analytics.text import plan_in_words

DESIGN = Design(
    segment="s", entry=None, goal={"any_of": ["login"]}, within=timedelta(days=14), control=0.1, arms=1,
    minimum_lift=0.2, starts_with_members=False,
)  # fmt: skip


@pytest.mark.parametrize(
    ("control", "arms", "mean", "lift"), [(0.5, 1, 0.1, 0.2), (0.1, 1, 0.2, 0.2), (0.25, 3, 0.1, 0.3)]
)
def test_the_users_that_were_planned_decide_as_often_as_was_said(
    control: float, arms: int, mean: float, lift: float
) -> None:
    share = (1 - control) / arms
    users = users_needed(share_control=control, share_arm=share, mean_control=mean, lift=lift, arms=arms)
    assert users is not None
    random = np.random.default_rng(20261128)
    n_control, n_arm = round(users * control), round(users * share)
    decided = 0
    for _ in range(400):
        x_control, x_arm = random.binomial(n_control, mean), random.binomial(n_arm, mean * (1 + lift))
        compared = compare_proportions(n_control=n_control, x_control=int(x_control), n_arm=n_arm, x_arm=int(x_arm))
        word = decide(compared=compared, mean_control=x_control / n_control, srm_p=1, minimum_lift=lift, arms=arms)
        decided += word == "ship"
    # Four in five, give or take three standard errors of 400 runs.
    assert 0.74 < decided / 400 < 0.9


def test_more_for_less_lift_and_for_fewer_in_control() -> None:
    def needed(control: float = 0.5, lift: float = 0.1) -> int:
        users = users_needed(share_control=control, share_arm=1 - control, mean_control=0.1, lift=lift)
        assert users is not None
        return users

    assert needed(lift=0.05) > 3.5 * needed() > 3.5 * needed(lift=0.2)
    assert needed(control=0.1) > 2 * needed()
    assert users_needed(share_control=0, share_arm=1, mean_control=0.1, lift=0.1) is None
    assert users_needed(share_control=0.5, share_arm=0.5, mean_control=1e-9, lift=1e-6) is None


def test_days() -> None:
    users = users_needed(share_control=0.1, share_arm=0.9, mean_control=0.25, lift=0.2)
    assert users is not None
    plan = expected(DESIGN, members=1000, entrants=2800, converted=700, days=28)
    assert (plan.users, plan.baseline, plan.entrants_a_day) == (users, 0.25, 100)
    assert plan.days == -(-users // 100) + 14
    with_members = expected(
        replace(DESIGN, starts_with_members=True), members=1000, entrants=2800, converted=700, days=28
    )
    assert with_members.days == plan.days - 10
    at_once = expected(replace(DESIGN, starts_with_members=True), members=users, entrants=28, converted=7, days=28)
    assert at_once.days == 7 + 14, "a full week at least"


@pytest.mark.parametrize(
    ("members", "entrants", "converted", "control", "reason"),
    [
        (100, 0, 0, 0.1, "nobody entered in the past four weeks, so nobody can say how long it takes"),
        (100, 500, 0, 0.1, "nobody who entered reached the goal, so nobody can say how long it takes"),
        (100, 500, 50, 0, "there is no control group: hold out a share to measure it"),
    ],
)
def test_what_cannot_be_planned_has_a_reason(
    members: int, entrants: int, converted: int, control: float, reason: str
) -> None:
    design = replace(DESIGN, control=control)
    plan = expected(design, members=members, entrants=entrants, converted=converted, days=28)
    assert (plan.days, plan.reason) == (None, reason)
    assert reason in plan_in_words("spring", plan.__dict__)


def test_in_words() -> None:
    plan = expected(DESIGN, members=1000, entrants=2800, converted=700, days=28)
    assert plan_in_words("spring", plan.__dict__) == (
        "spring: 1,000 users could take part now, and 100.0 a day enter.\n"
        "Of 2,800 past entrants, 25.00 % reached the goal.\n"
        f"{plan.users:,} users, which takes about {plan.days} days, decide on a lift of 20 % (in 4 of 5 cases). The"
        " results say so by themselves: look as often as you like."
    )
