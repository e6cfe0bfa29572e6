"""`upnext plan`: members, entrants and the share that reaches the goal, from the log alone."""

from datetime import timedelta

import pytest

from tests.conftest import AS_OF
from tests.journeys import DAY, HOUR, Journeys, journey
from tests.outcomes import experience
from upnext.errors import UpnextError
from upnext.operations.experiments import plan_experiment

GOAL = {"any_of": ["subscribed to premium plan"], "where": {"seats": {"at_least": 2}}, "within": "3 days"}


def test_of_a_segment(journeys: Journeys) -> None:
    users = [f"user{number}" for number in range(20)]
    journeys.tick(AS_OF + HOUR, "entered", *users[:10])
    journeys.tick(AS_OF + DAY, "exited", *users[:5])
    journeys.tick(AS_OF + 2 * DAY, "entered", *users[:2], *users[10:14])
    for user, at, seats in (
        (users[0], AS_OF + DAY, 2), (users[1], AS_OF + DAY, 1), (users[2], AS_OF + 5 * DAY, 2), (users[10], AS_OF, 2),
        (users[11], AS_OF + 3 * DAY, 5),
    ):  # fmt: skip
        journeys.product.track(user, "subscribed to premium plan", at, properties={"seats": seats})
    journeys.tick(AS_OF + 9 * DAY, "entered", *users[14:])
    journeys.project.journeys = {"spring": journey(goal=GOAL, holdout=0.2, existing_members="enroll")}
    plan = plan_experiment(journeys.project, "spring")
    assert (plan.members, plan.past_entrants) == (17, 14), "of those whose time for the goal is over"
    assert plan.baseline == pytest.approx(2 / 14)
    assert plan.entrants_a_day == pytest.approx(14 / 7), "in the week that the log goes back"
    assert plan.users is not None and plan.days is not None
    journeys.project.experiences = {"banner": experience(goal={k: GOAL[k] for k in ("any_of", "within")})}
    assert plan_experiment(journeys.project, "banner").baseline == pytest.approx(3 / 14)


def test_of_an_event(journeys: Journeys) -> None:
    for user, seats in (("ada", 5), ("ada", 5), ("bob", 1), ("cid", 7)):
        journeys.product.track(user, "book demo", AS_OF + HOUR, properties={"seats": seats})
    journeys.product.track("cid", "subscribed to premium plan", AS_OF + 2 * HOUR, properties={"seats": 2})
    journeys.tick(AS_OF + 9 * DAY, "entered")
    journeys.project.journeys = {"demo": journey(
        segment=None, existing_members=None, exit_on_leaving=False, goal=GOAL, holdout=0.5,
        event={"any_of": ["book demo"], "where": {"seats": {"at_least": 5}}},
    )}  # fmt: skip
    plan = plan_experiment(journeys.project, "demo")
    assert (plan.members, plan.past_entrants, plan.baseline) == (0, 2, 0.5)


def test_what_there_is_not(journeys: Journeys) -> None:
    journeys.tick(AS_OF + timedelta(hours=1), "entered")
    journeys.project.journeys = {"spring": journey(goal={"segment": "busy_users", "within": "3 days"})}
    with pytest.raises(UpnextError, match=r"no journey or experience is called 'sprng'; did you mean 'spring'"):
        plan_experiment(journeys.project, "sprng")
    with pytest.raises(UpnextError, match="only a goal of events can be planned"):
        plan_experiment(journeys.project, "spring")
