"""Visitors who are not identified: members of segments that include them, and then the users they turn out to be."""

import random
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from tests.conftest import AS_OF, Product, rows, start
from tests.journeys import DAY, HOUR
from upnext.errors import UpnextError
from upnext.loop import assign_experiences, build, dispatch_journeys, ingest_landing, rebuild, show_ctas
from upnext.operations.previews import preview_segment
from upnext.project import Project

CURIOUS = "select user_id from {{ ref('user_features') }} where upgrade_plan_views_5d >= 1"


@pytest.fixture
def curious(content: Path) -> Path:
    """Two segments by the same condition, of which one includes visitors."""
    for name, meta in (("curious_people", {"include_anonymous": True}), ("curious_users", {})):
        (content / "models" / "segments" / f"{name}.sql").write_text(CURIOUS + "\n")
        described = {"models": [{"name": name, "description": "Curious.", "config": {"meta": meta}}]}
        (content / "models" / "segments" / f"_{name}.yml").write_text(yaml.safe_dump(described))
    experience = yaml.safe_load((content / "campaigns" / "experiences" / "upsell_banner.yml").read_text())
    experience["segment"] = "curious_people"
    (content / "campaigns" / "experiences" / "welcome_banner.yml").write_text(yaml.safe_dump(experience))
    journey = {
        "description": "A welcome.", "owner": "growth@otto.example", "segment": "curious_people",
        "existing_members": "enroll", "reentry": "never", "exit_on_leaving": False, "holdout": 0, "late": "send",
        "goal": {"any_of": ["subscribed to premium plan"], "within": "14 days"},
        "steps": [{"do": "email", "name": "hello", "after": "0 days", "subject": "Hi", "template": "catch_up"},
                  {"do": "email", "name": "again", "after": "2 days", "subject": "Hi", "template": "catch_up"}],
    }  # fmt: skip
    (content / "campaigns" / "journeys" / "welcome.yml").write_text(yaml.safe_dump(journey))
    return content


def variants(project: Project) -> dict[str, str]:
    drawn = "select user_id, variant from experiences.assignments where experience = 'welcome_banner'"
    return dict(rows(project, drawn))


def members(project: Project, segment: str) -> list[str]:
    found = rows(project, "select user_id from segments.members where segment = :segment order by 1", segment=segment)
    return [user for (user,) in found]


def tick(project: Project, after: timedelta) -> None:
    build(project, AS_OF + after, is_explicit=True)
    dispatch_journeys(project, AS_OF + after)
    assign_experiences(project, AS_OF + after)
    show_ctas(project)


def test_a_visitor_is_a_member_and_goes_on_as_the_user(curious: Path, project: Project, product: Product) -> None:
    start(project, "welcome", "welcome_banner")
    product.track(None, "viewed upgrade plan", AS_OF - HOUR, anonymous_id="phone")
    product.track(None, "viewed upgrade plan", AS_OF - HOUR, anonymous_id="tablet")
    product.track(None, "viewed upgrade plan", AS_OF - HOUR, anonymous_id="ann")
    product.track("ann", "viewed upgrade plan", AS_OF - HOUR)
    tick(project, timedelta())
    people = ["ann", "visitor:ann", "visitor:phone", "visitor:tablet"]
    assert members(project, "curious_people") == people
    assert members(project, "curious_users") == ["ann"]
    arms = dict(
        rows(project, "select user_id, variant from experiences.assignments where experience = 'welcome_banner'")
    )
    assert sorted(arms) == people
    steps = "select user_id, step, status, reason from journeys.messages order by 1, 2"
    assert rows(project, steps)[1:] == [(one, "hello", "skipped", "no address") for one in people[1:]]
    shown = "select user_id from experiences.live_ctas where source = 'welcome_banner' and user_id like 'visitor:p%'"
    assert rows(project, shown) == [("visitor:phone",)]

    product.store("identify", AS_OF + HOUR, user_id="bob", anonymous_id="phone",
                  properties={"email": "bob@customer.example"})  # fmt: skip
    tick(project, DAY)
    assert members(project, "curious_people") == ["ann", "bob", "visitor:ann", "visitor:tablet"]
    assert members(project, "curious_users") == ["ann", "bob"]
    after = dict(
        rows(project, "select user_id, variant from experiences.assignments where experience = 'welcome_banner'")
    )
    assert after == {**arms, "bob": arms["visitor:phone"]}
    entries = "select user_id, status from journeys.entries where journey = 'welcome' order by 1"
    assert [user for user, _ in rows(project, entries)] == ["ann", "bob", "visitor:ann", "visitor:tablet"]
    tick(project, 2 * DAY + HOUR)
    sent = "select step, status from journeys.messages where user_id = 'bob' order by 1"
    assert rows(project, sent) == [("again", "sent"), ("hello", "skipped")]
    assert not any(rebuild(project).values())


def test_without_such_a_segment_visitors_are_nobody(
    content: Path, project: Project, product: Product, request: pytest.FixtureRequest
) -> None:
    product.track(None, "viewed upgrade plan", AS_OF - HOUR, anonymous_id="phone")
    build(project, AS_OF, is_explicit=True)
    assert rows(project, "select user_id from features.user_features") == []
    request.getfixturevalue("curious")
    project = Project(project.settings)
    build(project, AS_OF + HOUR, is_explicit=True)
    assert rows(project, "select user_id from segments.members order by 1") == [("visitor:phone",)]
    found = preview_segment(project, "curious_users", with_ids=False)
    assert (found.size, preview_segment(project, "curious_people", with_ids=False).size) == (0, 1)
    for name in ("curious_people", "curious_users"):
        (content / "models" / "segments" / f"{name}.sql").unlink()
        (content / "models" / "segments" / f"_{name}.yml").unlink()
    project = Project(project.settings)
    build(project, AS_OF + 2 * HOUR, is_explicit=True)
    assert rows(project, "select user_id from features.user_features") == []


@pytest.mark.parametrize("seed", range(3))
def test_what_ticks_keep_is_what_a_rebuild_computes(
    curious: Path, project: Project, product: Product, seed: int
) -> None:
    draw = random.Random(seed)  # noqa: S311 - a history, no secret
    people, devices = ["ann", "bob", "cid"], ["d1", "d2", "d3", "ann"]
    for hour in range(6):
        for _ in range(8):
            at = AS_OF + hour * HOUR - timedelta(minutes=draw.randrange(1, 200))
            kind = draw.choice(["visit", "visit", "visit", "use", "identify", "alias"])
            if kind == "visit":
                product.track(None, "viewed upgrade plan", at, anonymous_id=draw.choice(devices))
            elif kind == "use":
                product.track(draw.choice(people), "viewed upgrade plan", at)
            elif kind == "identify":
                product.store("identify", at, user_id=draw.choice(people), anonymous_id=draw.choice(devices))
            else:
                product.store("alias", at, user_id=draw.choice(people), previous_id=draw.choice([*people, *devices]))
        build(project, AS_OF + hour * HOUR, is_explicit=True)
        assert not any(rebuild(project).values())
    persons = "select user_id from features.user_features where user_id like 'visitor:%' order by 1"
    nobodies = """
        select distinct 'visitor:' || anonymous_id from raw.events
        where user_id is null and anonymous_id not in (
            select id from events.identity_links where kind = 'visitor' and not upnext.is_visitor(linked_to)
        )
        order by 1
    """
    assert rows(project, persons) == rows(project, nobodies)


def test_no_user_is_called_like_a_visitor(project: Project) -> None:
    folder = project.settings.landing / "segment"
    folder.mkdir(parents=True)
    line = '{"type": "track", "event": "login", "messageId": "1", "userId": "visitor:phone"}\n'
    (folder / "one.jsonl").write_text(line)
    assert ingest_landing(project).rejected == 1
    assert rows(project, "select reason from raw.rejected_events") == [("invalid_id",)]


def test_a_misspelt_key_is_said(content: Path, project: Project) -> None:
    path = content / "models" / "segments" / "_people.yml"
    path.write_text(
        "models:\n  - name: busy_users\n    config:\n      meta:\n        include_anonymus: true\n", encoding="utf-8"
    )
    with pytest.raises(UpnextError, match=r"_people.yml:5: .*include_anonymus.*include_anonymous"):
        project.check_segments(project.segment_files)
