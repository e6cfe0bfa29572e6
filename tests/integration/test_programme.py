"""The programme's number: all journeys and experiences against the global holdout, counted exactly."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.conftest import AS_OF, rows, start
from tests.journeys import DAY, HOUR, Journeys, journey, mail
from tests.outcomes import experience
from upnext.analytics.programme import read
from upnext.analytics.text import programme_sentence
from upnext.errors import UpnextError
from upnext.experiences.definition import bucket
from upnext.journeys.policy import Policy, Programme
from upnext.loop import analyse_results, assign_experiences, rebuild
from upnext.project import Project

SHARE = 0.4
USERS = [f"user{number:03}" for number in range(400)]
HELD_OUT = {user for user in USERS if bucket("global holdout", user) < SHARE}
GOAL = {"any_of": ["subscribed to premium plan"], "within": "7 days"}


@pytest.fixture
def programme(journeys: Journeys) -> Journeys:
    """Two journeys, one of them transactional, and an experience; half of the users enter each of them."""
    declared = msgspec.convert({"goal": GOAL}, Programme)
    journeys.project.policy = Policy(global_holdout=SHARE, programme=declared)
    journeys.project.experiences = {"banner": experience(segment="busy_users", control=0.5)}
    journeys.declare(
        first=journey(mail("hello"), existing_members="enroll", holdout=0.1, exit_on_leaving=False),
        receipts=journey(mail("receipt"), existing_members="enroll", segment="lapsed_payers", transactional=True,
                         exit_on_leaving=False),
    )  # fmt: skip
    start(journeys.project, "banner")
    journeys.person("nobody")
    journeys.tick(AS_OF + HOUR, "entered", *USERS[:200])
    journeys.tick(AS_OF + 2 * HOUR, "entered", *USERS[150:300], segment="busy_users")
    journeys.tick(AS_OF + 3 * HOUR, "entered", *USERS[300:], segment="lapsed_payers")
    work(journeys, AS_OF + 3 * HOUR)
    return journeys


def work(journeys: Journeys, at: Any) -> None:
    assign_experiences(journeys.project, at)
    journeys.dispatch(at)


def results(project: Project) -> dict[str, Any]:
    found = rows(
        project,
        "select n_control, n_arm, mean_control, mean_arm, srm_p from analytics.experiment_results"
        " where experiment = 'programme' and metric = 'goal' order by as_of desc limit 1",
    )
    return dict(zip(("n_control", "n_arm", "mean_control", "mean_arm", "srm_p"), found[0], strict=True))


def convert(journeys: Journeys, users: list[str], at: Any) -> None:
    for user in users:
        journeys.product.track(user, "subscribed to premium plan", at)


def finish(journeys: Journeys, at: Any) -> dict[str, Any]:
    journeys.tick(at, "entered")
    work(journeys, at)
    analyse_results(journeys.project, at)
    return results(journeys.project)


def test_the_number_counts_each_user_once_from_when_the_programme_reached_them(programme: Journeys) -> None:
    project = programme.project
    reached = USERS[:300]
    converted = [user for nth, user in enumerate(reached) if nth % (3 if user in HELD_OUT else 2) == 0]
    convert(programme, converted, AS_OF + DAY)
    convert(programme, reached[1:20], AS_OF + HOUR / 2)
    convert(programme, reached[20:40], AS_OF + 20 * DAY)
    convert(programme, USERS[300:], AS_OF + DAY)
    found = finish(programme, AS_OF + 9 * DAY)
    control = [user for user in reached if user in HELD_OUT]
    treated = [user for user in reached if user not in HELD_OUT]
    won = set(converted)
    assert (found["n_control"], found["n_arm"]) == (len(control), len(treated))
    assert found["mean_control"] == pytest.approx(len(won & set(control)) / len(control))
    assert found["mean_arm"] == pytest.approx(len(won & set(treated)) / len(treated))
    assert found["srm_p"] > 0.01
    number = read(project.engine)
    assert number is not None
    expected = (found["mean_arm"] - found["mean_control"]) * len(treated)
    assert number["goals"] == pytest.approx(expected)
    assert number["goals_low"] < expected < number["goals_high"]
    sentence = programme_sentence(number)
    assert f"have reached {len(treated)} users" in sentence
    assert f"left out {len(control)} to compare with. They brought {expected:,.0f} goals more (" in sentence
    assert set(rebuild(project).values()) == {0}


def test_users_who_are_held_out_get_nothing_from_an_experience_either(programme: Journeys) -> None:
    assigned = {user for (user,) in rows(programme.project, "select user_id from experiences.assignments")}
    assert assigned == set(USERS[150:300]) - HELD_OUT
    kept = {user for (user,) in rows(programme.project, "select user_id from experiences.held_out")}
    assert kept == set(USERS[150:300]) & HELD_OUT
    arms = rows(programme.project, "select distinct arm from journeys.entries where journey = 'receipts'")
    assert arms == [("treated",)], "receipts are for all"


def test_a_person_of_both_arms_is_told(programme: Journeys) -> None:
    held_out = next(user for user in USERS[:150] if user in HELD_OUT)
    reached = next(user for user in USERS[:150] if user not in HELD_OUT)
    programme.merge(AS_OF + DAY, **{held_out: reached})
    found = finish(programme, AS_OF + 9 * DAY)
    assert found["n_control"] + found["n_arm"] == 299
    both = "select count(*) from analytics.experiment_users where experiment = 'programme' and is_in_both_arms"
    assert rows(programme.project, both) == [(1,)]


def test_another_size_of_the_holdout_is_another_stratum(programme: Journeys) -> None:
    policy = programme.project.policy
    programme.project.policy = msgspec.structs.replace(policy, global_holdout=0.1)
    programme.person(*[f"later{number:03}" for number in range(200)])
    later = [f"later{number:03}" for number in range(200)]
    programme.tick(AS_OF + DAY, "entered", *later)
    found = finish(programme, AS_OF + 9 * DAY)
    held_out = {user for user in later if bucket("global holdout", user) < 0.1}
    assert found["n_control"] == len(held_out) + len(HELD_OUT & set(USERS[:300]))
    shares = rows(programme.project, "select share from analytics.programme_shares order by since")
    assert shares == [(SHARE,), (0.1,)]
    splits = "select count(distinct split) from analytics.experiment_users where experiment = 'programme'"
    assert rows(programme.project, splits) == [(2,)]
    assert found["srm_p"] > 0.01


def test_who_was_reached_before_there_was_a_holdout_is_no_part_of_the_programme(journeys: Journeys) -> None:
    journeys.declare(first=journey(mail("hello"), existing_members="enroll", exit_on_leaving=False))
    journeys.tick(AS_OF, "entered", *USERS[:200])
    work(journeys, AS_OF)
    journeys.project.policy = Policy(global_holdout=SHARE, programme=msgspec.convert({"goal": GOAL}, Programme))
    journeys.declare(
        first=journeys.project.journeys["first"],
        second=journey(mail("again"), segment="busy_users", existing_members="enroll", exit_on_leaving=False),
    )
    journeys.tick(AS_OF + DAY, "entered", *USERS[200:])
    journeys.tick(AS_OF + DAY + HOUR, "entered", *USERS[:200], segment="busy_users")
    work(journeys, AS_OF + DAY + HOUR)
    found = finish(journeys, AS_OF + 9 * DAY)
    control = HELD_OUT & set(USERS[200:])
    assert (found["n_control"], found["n_arm"]) == (len(control), 200 - len(control))
    part = "select count(*) from analytics.experiment_users where experiment = 'programme'"
    assert rows(journeys.project, part) == [(200,)]
    assert found["srm_p"] > 0.01


def test_without_a_programme_there_is_no_number(journeys: Journeys) -> None:
    journeys.declare(first=journey(existing_members="enroll"))
    journeys.tick(AS_OF + HOUR, "entered", "ada")
    work(journeys, AS_OF + HOUR)
    journeys.tick(AS_OF + 30 * DAY, "entered")
    analyse_results(journeys.project, AS_OF + 30 * DAY)
    assert read(journeys.project.engine) is None
    assert rows(journeys.project, "select distinct experiment from analytics.experiment_results") == [("first",)]


def test_the_sentence_says_what_nobody_knows() -> None:
    row: dict[str, Any] = {
        "users_reached": 0, "users_held_out": 0, "goals": None, "goals_low": None, "goals_high": None,
        "revenue_metric": "revenue", "revenue": 1234.5, "revenue_low": None, "revenue_high": None,
        "decision": "keep going",
    }  # fmt: skip
    assert programme_sentence(row) == (
        "Journeys and experiences have reached 0 users whose time for the goal is over, and left out 0 to compare with."
        " Nobody knows yet how many goals they brought. They brought 1,234 of revenue more (too few to tell)."
    )
    lost = {**row, "goals": -12.4, "goals_low": -30, "goals_high": 2, "revenue": -0.2}
    sentence = programme_sentence(lost)
    assert "They brought 12 goals fewer (-30 to 2, always valid)." in sentence
    assert "They brought 0 of revenue more (too few to tell)." in sentence
    assert programme_sentence({**lost, "decision": "broken: sample ratio"}).endswith(
        "These numbers do not match the holdout, so nobody can say what they brought."
    )


POLICY = "global_holdout: 0.05\nprogramme:\n  goal: {any_of: [login], within: 7 days}\n"
MISTAKES = {
    ("0.05", "0"): r"policy.yml:2: without a global_holdout there is nobody to compare with",
    ("login", "logn"): r"policy.yml:3: unknown event 'logn'; did you mean 'login'",
    ("7 days", "7 dys"): r"policy.yml:3: 'within' is '7 dys'",
    ("  goal", "  revenue: reports\n  goal"): r"policy.yml:3: unknown metric 'reports'",
}


@pytest.mark.parametrize(("change", "message"), MISTAKES.items(), ids=[new for _, new in MISTAKES])
def test_a_mistake_has_its_line(content: Path, project: Project, change: tuple[str, str], message: str) -> None:
    (content / "campaigns" / "policy.yml").write_text(POLICY.replace(*change))
    with pytest.raises(UpnextError, match=message):
        project.check()


def test_nothing_is_called_like_it(content: Path, project: Project) -> None:
    folder = content / "campaigns" / "journeys"
    (folder / "earn_upgrade.yml").rename(folder / "programme.yml")
    with pytest.raises(UpnextError, match=r"programme.yml:1: 'programme' is the experiment over all journeys"):
        _ = project.journeys
