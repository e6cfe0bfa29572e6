"""An experience that learns: from what it has shown to rules in a file, and to what the rules are worth."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.conftest import AS_OF, Product, rows, start
from tests.journeys import DAY, HOUR, Journeys
from upnext.errors import UpnextError
from upnext.experiences.definition import bucket
from upnext.loop import analyse_results, assign_experiences, build, rebuild
from upnext.operations.experiments import learn_experience
from upnext.project import Project

USERS = [f"user{number:04}" for number in range(2400)]
OFFER = """\
description: Which offer is for whom.
owner: growth@otto.example
segment: busy_users
surface: web
slot: homepage_banner
trigger: {when: page_view}
priority: 1
control: 0.1
policy: learn
goal: {any_of: [subscribed to premium plan], within: 5 days}
variants:
  try_free: {copy: Try Premium free, url: /try}
  unlock: {copy: Unlock reports, url: /unlock}
"""


@pytest.fixture
def offer(content: Path, journeys: Journeys) -> Journeys:
    """An experience that 2,400 users have seen; `unlock` is for those who look at many products."""
    campaigns = content / "campaigns"
    for path in (campaigns / "experiences").glob("*.yml"):
        path.unlink()
    (campaigns / "experiences" / "offer.yml").write_text(OFFER)
    project = journeys.project
    journeys.write(
        "insert into features.user_features (user_id, products_viewed, logins_30d, ml_tasks_created_30d)"
        " select 'user' || lpad(n::text, 4, '0'), n % 10, n % 7, 0 from generate_series(0, 2599) as n"
    )
    start(project, "offer")
    journeys.tick(AS_OF + HOUR, "entered", *USERS, segment="busy_users")
    assert assign_experiences(project, AS_OF + HOUR) == len(USERS)
    random = np.random.default_rng(3)
    seen = dict(rows(project, "select user_id, variant from experiences.assignments"))
    journeys.product.track_all(USERS, "experience viewed", AS_OF + 2 * HOUR, {"experience": "offer"})
    converted = []
    for nth, user in enumerate(USERS):
        is_keen = nth % 10 >= 5
        rate = {"control": 0.1, "try_free": 0.1 if is_keen else 0.5, "unlock": 0.6 if is_keen else 0.1}[seen[user]]
        if random.random() < rate:
            converted.append(user)
    journeys.product.track_all(converted, "subscribed to premium plan", AS_OF + DAY, {})
    journeys.tick(AS_OF + 6 * DAY, "entered")
    analyse_results(project, AS_OF + 6 * DAY)
    return journeys


def set_live(path: Path) -> None:
    path.write_text(path.read_text().replace("state: draft", "state: live"))


def test_from_results_to_rules_and_to_what_they_are_worth(offer: Journeys, content: Path) -> None:
    project = offer.project
    sentence, path = learn_experience(project, "offer")
    assert path == content / "campaigns" / "policies" / "offer.yml"
    assert re.fullmatch(r"\+\d+\.\d points of the goal over '(try_free|unlock)' for all \(\+.* to \+.*, 95 %\), of"
                        r" [\d,]+ users\.", sentence)  # fmt: skip
    declared = yaml.safe_load(path.read_text())
    assert declared["rules"] == [{"when": {"products_viewed": {"at_least": 5}}, "show": "unlock"}, {"show": "try_free"}]
    assert "#     when products_viewed >= 5 then 'unlock'\n#     else 'try_free'\n# end\n" in path.read_text()
    assert rows(project, "select count(*) from experiences.assignments where mode <> 'chance'") == [(0,)]

    assert Project(project.settings).experiences["offer"].learned is None, "nothing follows a draft"
    with pytest.raises(UpnextError, match=r"offer\.yml has rules already: keep them elsewhere or remove them"):
        learn_experience(project, "offer")
    set_live(path)
    anew = Project(project.settings)
    learned = anew.experiences["offer"].learned
    assert learned is not None
    newcomers = [f"user{number:04}" for number in range(2400, 2600)]
    offer.tick(AS_OF + 7 * DAY, "entered", *newcomers, segment="busy_users")
    assert assign_experiences(anew, AS_OF + 7 * DAY) == len(newcomers)
    newest = "select user_id, variant, mode from experiences.assignments where assigned_at > :at order by 1"
    found = rows(project, newest, at=AS_OF + 6 * DAY)
    for user, variant, mode in found:
        draw = bucket("policy:offer", user)
        assert mode == ("chance" if draw < 0.2 else "single" if draw < 0.6 else "rules")
        if bucket("experience:offer", user) < 0.1:
            assert variant == "control"
        elif mode == "rules":
            assert variant == ("unlock" if int(user[4:]) % 10 >= 5 else "try_free")
        elif mode == "single":
            assert variant == declared["single"]
    everyone = [user for user, *_ in found]
    offer.product.track_all(everyone, "experience viewed", AS_OF + 7 * DAY + HOUR, {"experience": "offer"})
    offer.tick(AS_OF + 13 * DAY, "entered")
    assign_experiences(anew, AS_OF + 13 * DAY)
    analyse_results(anew, AS_OF + 13 * DAY)
    shown = {user: mode for user, variant, mode in found if variant != "control"}
    count = {name: list(shown.values()).count(name) for name in ("chance", "single", "rules")}
    measured = rows(
        project,
        "select experiment, n_control, n_arm from analytics.experiment_results where metric = 'goal' and as_of = :at"
        " and experiment like 'offer%' order by experiment, arm",
        at=AS_OF + 13 * DAY,
    )
    of_chance = [row[1:] for row in measured if row[0] == "offer"]
    assert measured[-2:] == [
        ("offer/rules_over_chance", count["chance"], count["rules"]),
        ("offer/rules_over_single", count["single"], count["rules"]),
    ]
    everybody = rows(project, "select count(*) from experiences.assignments where mode = 'chance'")[0][0]
    assert of_chance[0][0] + sum(arm for _, arm in of_chance) == everybody, "chance alone is the experiment as before"


def test_rules_that_change_are_measured_anew(offer: Journeys, content: Path) -> None:
    _, path = learn_experience(offer.project, "offer")
    assert path is not None
    set_live(path)
    anew = Project(offer.project.settings)
    offer.tick(AS_OF + 7 * DAY, "entered", "user2400", "user2401", segment="busy_users")
    assign_experiences(anew, AS_OF + 7 * DAY)
    path.write_text(path.read_text().replace("at_least: 5", "at_least: 6"))
    offer.tick(AS_OF + 8 * DAY, "entered", "user2402", segment="busy_users")
    assign_experiences(Project(offer.project.settings), AS_OF + 8 * DAY)
    versions = "select rules from experiences.assignments where rules is not null order by user_id"
    first, second, third = rows(offer.project, versions)
    assert first == second != third

    everybody = [f"user{number}" for number in range(2400, 2403)]
    offer.product.track_all(everybody, "experience viewed", AS_OF + 9 * DAY, {"experience": "offer"})
    offer.tick(AS_OF + 20 * DAY, "entered")
    analyse_results(offer.project, AS_OF + 20 * DAY)
    of_rules = "from analytics.experiment_users where experiment like 'offer/rules%'"
    assert rows(offer.project, f"select distinct user_id {of_rules}") in ([], [("user2402",)])
    before = rows(offer.project, "select count(*) from analytics.experiment_users where experiment = 'offer'")
    path.write_text(path.read_text().replace("at_least: 6", "at_least: 7"))
    assign_experiences(Project(offer.project.settings), AS_OF + 20 * DAY)
    analyse_results(offer.project, AS_OF + 20 * DAY)
    assert rows(offer.project, f"select count(*) {of_rules}") == [(0,)], "nobody is under the rules of now"
    assert rows(offer.project, "select count(*) from analytics.experiment_users where experiment = 'offer'") == before
    assert rebuild(offer.project)["experiment_users"] == 0


def test_without_enough_users_nothing_is_written(content: Path, project: Project, product: Product) -> None:
    (content / "campaigns" / "experiences" / "offer.yml").write_text(OFFER)
    build(project, AS_OF, is_explicit=True)
    sentence, path = learn_experience(project, "offer")
    assert (path, sentence) == (None, "No rules: each copy needs 400 users and 50 goals, in both halves.")
    assert not (content / "campaigns" / "policies").exists()
    with pytest.raises(UpnextError, match="'upsell_banner' keeps no features to learn from: set `policy: learn`"):
        learn_experience(project, "upsell_banner")


RULES = "single: unlock\nrules:\n  - {when: {logins_30d: {at_least: 3}}, show: unlock}\n  - {show: try_free}\n"
MISTAKES = {
    ("show: try_free", "show: tryfree"): r"offer.yml:4: unknown variant 'tryfree'; did you mean 'try_free'",
    ("single: unlock", "single: unlok"): r"offer.yml:1: unknown variant 'unlok'",
    ("logins_30d", "logins_31d"): r"offer.yml:3: unknown feature 'logins_31d'; did you mean 'logins_30d'",
    ("  - {show: try_free}\n", ""): r"offer.yml:3: the last rule is for all others",
    ("{when: {logins_30d: {at_least: 3}}, show", "{show"): r"offer.yml:3: it holds for all, so no rule after it",
    ("at_least", "atleast"): r"offer.yml:3: unknown key 'atleast'; did you mean 'at_least'",
    ("single", "chance: 0.01\nsingle"): r"offer.yml:1: 'chance' is 0.01; it must be a number of at least 0.05",
}


@pytest.mark.parametrize(("change", "message"), MISTAKES.items(), ids=[new for _, new in MISTAKES])
def test_a_mistake_in_rules_has_its_line(
    content: Path, project: Project, change: tuple[str, str], message: str
) -> None:
    (content / "campaigns" / "experiences" / "offer.yml").write_text(OFFER)
    folder = content / "campaigns" / "policies"
    folder.mkdir()
    (folder / "offer.yml").write_text(RULES.replace(*change))
    with pytest.raises(UpnextError, match=message):
        _ = project.experiences


def test_rules_stand_apart_and_are_of_an_experience(content: Path, project: Project) -> None:
    folder = content / "campaigns" / "policies"
    folder.mkdir()
    (folder / "ofer.yml").write_text(RULES)
    (content / "campaigns" / "experiences" / "offer.yml").write_text(OFFER)
    with pytest.raises(UpnextError, match=r"ofer.yml: no experience is called 'ofer'; did you mean 'offer'"):
        _ = project.experiences
    inline: dict[str, Any] = {**yaml.safe_load(OFFER), "learned": yaml.safe_load(RULES)}
    (content / "campaigns" / "experiences" / "offer.yml").write_text(yaml.safe_dump(inline))
    with pytest.raises(
        UpnextError, match=r"what was learned stands in a file of its own, campaigns/policies/offer.yml"
    ):
        _ = project.experiences
