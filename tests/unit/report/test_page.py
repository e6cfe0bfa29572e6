"""The page of the report: what it says of facts, of few and of none."""

import json
import re
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser

import pytest

from tests.reports import AS_OF, HOSTILE, SCRIPTS, made_up, result
from upnext.report.facts import Facts, Subject
from upnext.report.page import data, render
from upnext.report.words import action, evidence, leaders, percent, signed

SHOWN = Subject("experience")


class Reader(HTMLParser):
    """Collects what a reader sees, and which scripts and handlers a browser would run."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self.scripts, self.handlers, self._in = [], 0, 0, ""  # type: ignore[var-annotated]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in = tag
        self.scripts += tag == "script" and dict(attrs).get("type") != "application/json"
        self.handlers += sum(name.startswith("on") for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        if self._in not in ("script", "style"):
            self.text.append(data)


def read(facts: Facts) -> tuple[str, Reader]:
    page = render(facts, bundle="/* Vega */", slots_css=":host{color:red}")
    reader = Reader()
    reader.feed(page)
    return " ".join(" ".join(reader.text).split()), reader


def test_a_home_in_which_nothing_happened_says_what_to_do() -> None:
    text, reader = read(Facts())
    assert "Nothing has been computed yet." in text
    assert text.count("Nothing yet.") >= 4
    assert "upnext journeys start NAME" in text
    assert reader.scripts == 2


@pytest.mark.parametrize("name", [*HOSTILE, *SCRIPTS])
def test_a_name_is_a_name_and_nothing_that_runs(name: str) -> None:
    text, reader = read(made_up(segments=3, experiences=8, names=(name,) * 8))
    assert (reader.scripts, reader.handlers) == (2, 0)
    assert " ".join(name.split()) in text


def test_the_data_of_charts_cannot_end_their_element() -> None:
    page = render(made_up(segments=2, experiences=1, names=HOSTILE), bundle="", slots_css="")
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert json.loads(text)["members"].keys() == set(HOSTILE[:2])
    assert "\u2028" not in text


def test_charts_get_days_and_per_cent() -> None:
    facts = made_up(segments=2, experiences=1, journeys=1, days=3)
    found = data(facts)
    today = (AS_OF.date() - AS_OF.date().replace(year=1970, month=1, day=1)).days
    assert found["today"] == today
    (first, _) = facts.segments
    assert found["members"][first["name"]] == [
        [today - back, 5000 + place, 10, 9] for place, back in enumerate((2, 1, 0))
    ]
    assert [row["name"] for row in found["forest"]] == sorted(
        (row["name"] for row in found["forest"]), key=lambda name: "journey" not in name
    )
    assert found["forest"][0] | {"name": "", "segment": ""} == {
        "name": "", "segment": "", "decision": "keep going", "lift": -10.0, "low": -25.0, "high": 10.0,
    }  # fmt: skip
    assert {row["label"] for row in found["overlaps"]} == {"2%"}


def test_a_segment_without_members_and_an_experiment_without_exposures_read_well() -> None:
    facts = made_up(segments=1, experiences=1, journeys=1)
    nothing = dict.fromkeys(
        ("mean_control", "mean_arm", "diff", "diff_always_low", "diff_always_high", "lift", "lift_always_low",
         "lift_always_high", "p_adjusted", "days_left")
    )  # fmt: skip
    empty = result("e", "s", 1, **{**nothing, "n_arm": 0, "n_control": 0, "reason": "no users in control"})
    text, _ = read(
        Facts(
            as_of=AS_OF,
            analysed_at=AS_OF + timedelta(hours=1),
            segments=[{**facts.segments[0], "members": 0}],
            experiences=facts.experiences,
            journeys=[{**facts.journeys[0], "started": None}],
            tables={"results": [empty]},
        )
    )
    assert "no member so far" in text
    assert "Nothing: e is no longer declared." in text
    assert "Let variant a of e run on: no users in control." in action(empty, SHOWN)
    assert "Nobody has entered this journey." in text
    assert "too few to tell" in text
    assert "31 March 2026, 12:00 UTC; results of 31 March 2026, 13:00 UTC" in text


def test_each_decision_says_what_to_do_and_why() -> None:
    shipped = result("banner", "s", 4)
    assert action(shipped, SHOWN) == "Show variant a of banner to everyone in the segment."
    assert (
        action(shipped, SHOWN, "b")
        == "Show variant b rather than variant a of banner: both beat control, and b is ahead."
    )
    assert leaders([shipped, {**shipped, "arm": "b", "lift": 9.0}]) == {"banner": "b"}
    assert action({**shipped, "experiment": "mails"}, Subject("journey")) == "Send mails to everyone in the segment."
    assert "24.0 % of 1,000" in (evidence(shipped, SHOWN) or "").replace("\N{NO-BREAK SPACE}", " ")
    behind = result("banner", "s", 2, diff=-0.1, diff_always_high=-0.05)
    assert "less often" in action(behind, SHOWN)
    assert "no lift that is worth having" in action(result("banner", "s", 2), SHOWN)
    assert "12 more days" in action(result("banner", "s", 1), SHOWN)
    assert "get lost" in action(result("banner", "s", 3), SHOWN)
    few = result("banner", "s", 1, diff_always_low=None, reason="Fisher's exact test")
    assert "each side needs 25 users who reached the goal" in action(few, SHOWN)


def test_no_advice_that_cannot_be_followed() -> None:
    waiting = result("banner", "s", 1)
    assert action(waiting, Subject("experience", is_started=False)) == "Nothing now: banner is not started."
    assert action(waiting, Subject("broadcast")).endswith("the difference is too small to tell.")
    alone = {**waiting, "reason": "no control group", "diff": None}
    assert action(alone, SHOWN) == "Nothing to decide: variant a of banner has no control group."


@pytest.mark.parametrize(("name", "ship", "otherwise"), [
    ("programme", "Go on with the programme as a whole.", "without it"),
    ("e/rules_over_single", "Keep the rules of e.", "with the best single copy for all"),
    ("e/rules_over_chance", "Keep the rules of e.", "with a copy drawn at chance"),
])  # fmt: skip
def test_the_programme_and_learned_rules_have_advice_of_their_own(name: str, ship: str, otherwise: str) -> None:
    row = {**result(name, "s", 4), "metric": "goal"}
    facts = made_up(segments=1, experiences=1, names=("e",))
    facts = replace(facts, tables={**facts.tables, "results": [row]})
    subject = facts.subjects[name]
    assert action(row, subject) == ship
    assert otherwise in (evidence(row, subject) or "")
    text, _ = read(facts)
    assert ship in text
    assert "no longer declared" not in text
    assert (percent(None), signed(None)) == ("-", "-")


def test_a_step_of_any_kind_is_drawn() -> None:
    """Delays, waits and branches have neither a subject nor a time after the start."""
    facts = made_up(segments=1, experiences=1, journeys=1)
    (step,) = facts.rows("steps")
    kinds: dict[str, dict[str, str]] = {
        "delay": {"do": "delay", "for": "2 days"}, "wait": {"do": "wait", "within": "3 days"}, "exit": {"do": "exit"},
        "webhook": {"do": "webhook", "endpoint": "crm", "after": "0 days"},
    }  # fmt: skip
    steps = [{**step, "step": kind, "kind": kind, "definition": made_of} for kind, made_of in kinds.items()]
    text, _ = read(replace(facts, tables={**facts.tables, "steps": steps}))
    assert "delay, for 2 days" in text
    assert "crm" in text
    assert "built-in" not in text


@pytest.mark.parametrize("name", ["constructor", "items", "values", "__proto__", "hasOwnProperty"])
def test_a_segment_may_be_called_as_what_every_object_has(name: str) -> None:
    facts = made_up(segments=1, experiences=1, names=(name,))
    text, _ = read(replace(facts, tables={**facts.tables, "segment_days": []}))
    assert "built-in" not in text
    assert "no member so far" in text


def test_a_lift_beyond_all_bounds_is_shown_as_that() -> None:
    facts = made_up(segments=1, experiences=1, journeys=0)
    (goal, *_) = facts.rows("results")
    huge = {**goal, "lift": 1e300, "lift_always_high": 1.7e308}
    text, _ = read(replace(facts, tables={**facts.tables, "results": [huge]}))
    assert "over +1,000,000" in text
    assert data(replace(facts, tables={**facts.tables, "results": [huge]}))["forest"][0]["high"] == 1_000_000


def test_two_hundred_segments_and_a_hundred_experiences_stay_small() -> None:
    page = render(made_up(segments=200, experiences=100, days=366), bundle="x" * 900_000, slots_css="")
    assert len(page.encode()) < 6_000_000


def test_a_metric_that_is_money_has_a_column() -> None:
    facts = made_up(segments=1, experiences=1, journeys=0)
    (goal, *_) = facts.rows("results")
    money = {**goal, "metric": "revenue", "diff": 2.5, "diff_always_low": 1.0, "diff_always_high": 4.0}
    programme = {**(facts.programme or {}), "revenue_metric": "revenue", "revenue": 9.0, "revenue_low": 1.0,
                 "revenue_high": 17.0}  # fmt: skip
    shown = replace(facts, programme=programme, tables={**facts.tables, "results": [goal, money]})
    text, _ = read(shown)
    assert "revenue more" in text
    assert "2,500 1,000 to 4,000" in text
    assert "They brought 9 of revenue more" in text
