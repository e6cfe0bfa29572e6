"""Each row of the guide's table of steps is read, and dispatched for two users who go different ways."""

import re
from datetime import timedelta
from typing import Any, get_args

import msgspec
import pytest
import yaml

from tests.conftest import AS_OF, Product, SmtpServer, rows, start
from upnext.journeys.definition import AnyStep, Journey
from upnext.journeys.mistakes import Names, find_mistakes
from upnext.journeys.plan import ways
from upnext.journeys.policy import Policy
from upnext.loop import build, dispatch_journeys, ingest_landing, open_tick
from upnext.project import Project
from upnext.settings import PROJECT

GUIDE = (PROJECT / "docs" / "journeys.md").read_text()
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
YES, NO = "ada", "bob"


def examples() -> list[str]:
    """Return each step of the guide."""
    table = re.search(r"\| step \| what it does \|\n.*?\n\n", GUIDE, re.DOTALL)
    assert table is not None
    return re.findall(r"^\| `(\{do: .*?\})` \|", table[0], re.MULTILINE)


def mail(name: str) -> dict[str, Any]:
    return {"do": "email", "name": name, "after": "0 days", "subject": "Hi", "template": "check_in"}


def journey_of(text: str) -> Journey:
    """Return a journey with this step, whose ways lead to `went` and to `stayed`."""
    step = yaml.safe_load(text)
    ends = [{"do": "exit", "name": way, "reason": way} for way in ("went", "stayed") if f": {way}" in text]
    first: list[dict[str, Any]] = [mail("hello")] if "hello" in text else []
    if step["do"] == "branch":
        first.append({"do": "delay", "name": "rest", "for": "4 hours", "then": "it"})
    goal = {"any_of": ["subscribed to premium plan"], "within": "100 days"}
    declared = {
        "description": "A journey.", "owner": "growth@otto.example", "event": {"any_of": ["invited team member"]},
        "reentry": "never", "goal": goal, "holdout": 0, "late": "send",
        "steps": [*first, {"name": "it", **step}, *ends],
    }  # fmt: skip
    return msgspec.convert(declared, Journey)


@pytest.fixture
def at_work(project: Project, product: Product, smtp: SmtpServer, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Run a journey for each row: `ada` does all that is asked for, `bob` nothing."""
    monkeypatch.setenv("UPNEXT_CRM_SECRET", "whsec_" + "A" * 32)
    journeys = {f"row{nth}": journey_of(text) for nth, text in enumerate(examples())}
    steps = [{"do": "exit", "name": "done"}]
    journeys["another"] = msgspec.convert({
        "description": "Another.", "owner": "growth@otto.example", "reentry": "never", "holdout": 0, "steps": steps,
        "goal": {"any_of": ["subscribed to premium plan"], "within": "100 days"},
    }, Journey)  # fmt: skip
    endpoint = {"crm": {"url": "https://crm.example/", "secret": "UPNEXT_CRM_SECRET"}}
    project.policy = msgspec.convert({"endpoints": endpoint}, Policy)
    known = Names(
        segments=project.segment_units, events=project.events, features=project.feature_types,
        templates={"check_in"}, endpoints=endpoint, slots=project.surfaces, journeys=journeys, broadcasts=(),
        started={"another"}, topics=(),
    )  # fmt: skip
    for name, journey in journeys.items():
        assert list(find_mistakes(name, journey, known)) == []
    for user in (YES, NO):
        product.identify(user, AS_OF - 80 * DAY, email=f"{user}@customer.example")
    product.identify(YES, AS_OF - 2 * DAY, trial={"ends_at": (AS_OF + DAY).isoformat()})
    product.track(YES, "created object", AS_OF - DAY)
    build(project, AS_OF, is_explicit=True)
    project.journeys = journeys
    start(project, *journeys)
    dispatch_journeys(project, AS_OF)
    at = AS_OF + HOUR
    product.track(YES, "invited team member", at, properties={"seats": 5, "starts_at": (at + 3 * DAY).isoformat()})
    product.track(NO, "invited team member", at, properties={"seats": 4})
    dispatch_journeys(project, at)
    product.track(YES, "login", at + HOUR, times=2, properties={"from": "app"})
    product.track(NO, "login", at + HOUR, properties={"from": "web"})
    product.identify(YES, at + HOUR, plan="premium")
    mails = "select message_id from journeys.messages where step = 'hello' and user_id = :user"
    for (hello,) in rows(project, mails, user=YES):
        for event in ("message opened", "message clicked"):
            product.track(YES, event, at + HOUR, properties={"message_id": hello})
    build(project, at + 2 * HOUR, is_explicit=True)
    with open_tick(project, at + 3 * HOUR, is_explicit=True) as tick, project.engine.begin() as connection:
        connection.exec_driver_sql(
            "insert into segments.membership_changes (tick_id, segment, user_id, change, as_of)"
            f" values ({tick.tick_id}, 'upgrade_curious', '{YES}', 'entered', '{tick.as_of.isoformat()}')"
        )
    for hours in (3, 4, 24, 72, 24 * 10, 24 * 100):
        dispatch_journeys(project, at + hours * HOUR)
    return project


def test_each_step_of_the_guide_does_what_it_says(at_work: Project) -> None:
    steps = examples()
    assert len(steps) >= 25
    reasons = {
        (journey, user): reason
        for journey, user, reason in rows(at_work, "select journey, user_id, reason from journeys.entries")
    }
    messages = dict(rows(at_work, "select journey, channel from journeys.messages where step = 'it'"))
    asked = {
        nth: (reasons[f"row{nth}", YES], reasons[f"row{nth}", NO])
        for nth, text in enumerate(steps)
        if ": stayed" in text
    }
    split = next(nth for nth, text in enumerate(steps) if "do: split" in text)
    assert set(asked.pop(split)) <= {"went", "stayed"}
    assert {steps[nth]: ways for nth, ways in asked.items() if ways != ("went", "stayed")} == {}
    channels = ["email", "webhook", "cta", "event", "event", "start"]
    assert [messages.get(f"row{nth}") for nth in range(len(channels))] == channels
    assert reasons["another", YES] is None
    assert reasons["row6", YES] == "had enough"
    for nth in (7, 8):
        assert "do: delay" in steps[nth]
        ended = rows(at_work, f"select ended_at from journeys.entries where journey = 'row{nth}' and user_id = '{NO}'")
        assert ended != [(None,)]

    assert ingest_landing(at_work).stored == 4
    told = "select type, event, properties from raw.events where source = 'upnext' and user_id = 'ada' order by 1"
    assert rows(at_work, told) == [
        ("identify", None, {"stage": "trial", "seats": 5}), ("track", "invited team member", {"by": "journey"}),
    ]  # fmt: skip


def test_every_kind_of_step_is_in_the_guide() -> None:
    kinds = {kind.__struct_config__.tag for kind in get_args(AnyStep)}
    assert {yaml.safe_load(text)["do"] for text in examples()} == kinds
    for text in examples():
        journey = journey_of(text)
        names = {step.name for step in journey.steps} | {None}
        assert {target for targets in ways(journey).values() for target in targets.values()} <= names
