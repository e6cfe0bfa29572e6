"""The journeys of the product, what makes a journey impossible, and what its versions depend on."""

import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from tests.conftest import DECLARED
from upnext.durations import minutes
from upnext.errors import UpnextError
from upnext.journeys.declared import load_journeys, load_policy
from upnext.journeys.definition import Message, as_json, version
from upnext.journeys.plan import longest, plan, variant_ranges
from upnext.journeys.policy import Policy, Topic

CAMPAIGNS = DECLARED.settings.campaigns
EVENTS = set(DECLARED.catalogue.events)


def load(folder: Path, **known: Any) -> Any:
    return load_journeys(
        **{
            "segments": {**DECLARED.segment_units, "big_accounts": "account_id"},
            "events": EVENTS,
            "features": {"logins_30d": "number", "is_on_basic_plan": "boolean", "last_login_at": "time", "plan": None},
            "slots": {"s": ["web"], "limited_time_offer": ["web", "in_app"], "success_session": ["web"]},
            "policy": Policy(topics={"news": Topic(description="News.", default="opt_out")}),
            "campaigns": folder.parent,
            **known,
        }
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The journeys of a folder of campaigns, with one of the product in it."""
    journeys = tmp_path / "journeys"
    journeys.mkdir()
    shutil.copytree(CAMPAIGNS / "templates", tmp_path / "templates")
    shutil.copy(CAMPAIGNS / "journeys" / "earn_upgrade.yml", journeys)
    for name in ("plain.txt", "plain.mjml"):
        (tmp_path / "templates" / name).write_text("<mjml><mj-body></mj-body></mjml>")
    attachments = tmp_path / "attachments"
    attachments.mkdir()
    (attachments / "terms.pdf").write_bytes(b"%PDF")
    with (attachments / "film.mp4").open("wb") as file:
        file.truncate(100_000_000)
    return journeys


def test_the_two_journeys_of_the_product() -> None:
    journeys = DECLARED.journeys
    offsets = {
        name: [minutes(step.after or "") / 1440 for step in journey.steps if isinstance(step, Message)]
        for name, journey in journeys.items()
    }
    assert offsets == {"earn_upgrade": [0, 2, 5], "regain_payers": [0, 3, 7]}
    assert {journey.holdout for journey in journeys.values()} == {0.1}


def test_an_unknown_segment_names_the_line_and_the_nearest(folder: Path) -> None:
    with pytest.raises(UpnextError, match=r"earn_upgrade.yml:3: unknown segment .* did you mean 'basic_plan_users'"):
        load(folder, segments={"basic_plan_users", "lapsed_payers"})


def email(name: str, **values: Any) -> dict[str, Any]:
    values = {"wait" if "wait" in values else "after": "0 days", **values}
    return {"name": name, "do": "email", "subject": "Hello", "template": "catch_up", **values}


def wait(name: str, **values: Any) -> dict[str, Any]:
    return {"name": name, "do": "wait", "any_of": ["login"], "within": "2 days", **values}


def branch(name: str, **values: Any) -> dict[str, Any]:
    return {"name": name, "do": "branch", "feature": "logins_30d", "at_least": 3, **values}


def delay(**values: Any) -> dict[str, Any]:
    return {"name": "rest", "do": "delay", **values}


def split(to: str = "end", **weights: int) -> dict[str, Any]:
    arms = {name: {"weight": weight, "then": to} for name, weight in weights.items()}
    return {"name": "half", "do": "split", "arms": arms}


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "neither segment nor event": ({"segment": None}, "exactly one of segment and event"),
    "both": ({"event": {"any_of": ["login"]}}, "exactly one of segment and event"),
    "members not stated": ({"existing_members": None}, "existing_members is missing"),
    "members of an event": ({"segment": None, "event": {"any_of": ["login"]}}, "an event has no members"),
    "an unknown goal": ({"goal": {"any_of": ["subscribed to premium"], "within": "1 day"}}, "unknown event .* did you"),
    "a goal in no time": ({"goal": {"any_of": ["login"], "within": "0 days"}}, "no time"),
    "takeover of nothing": ({"takes_over": True}, "without an exclusive_group"),
    "no time to send": (
        {"send_window": {"from": "22:00", "to": "07:00"}, "quiet_hours": {"from": "21:00", "to": "08:00"}},
        "no time to send",
    ),
    "a bad clock": ({"quiet_hours": {"from": "25:00", "to": "08:00"}}, "'from' is '25:00'; it must be a time of day"),
    "two of a name": ({"steps": [email("a"), email("a")]}, "two steps are called 'a'"),
    "a step called end": ({"steps": [email("end")]}, "no name of a step"),
    "nowhere": ({"steps": [email("first", next="secnd"), email("second")]}, "no step is called 'secnd'.* 'second'"),
    "nobody comes": ({"steps": [email("a", next="end"), email("b")]}, "no way leads to step 'b'"),
    "opened of no mail": ({"steps": [email("a"), wait("w", any_of=None, opened="b")]}, "unknown email step 'b'"),
    "two questions": ({"steps": [email("a"), wait("w", clicked="a")]}, "one of any_of, opened, clicked"),
    "no question": ({"steps": [email("a"), branch("w", feature=None, at_least=None)]}, "one of any_of, opened"),
    "no time stated": ({"steps": [email("a", after=None)]}, "exactly one of after"),
    "both times": ({"steps": [email("a", after="1 day", wait="1 day")]}, "exactly one of after"),
    "back in time": ({"steps": [email("a", after="2 days"), email("b", after="1 day")]}, "comes before 'a'"),
    "a circle": ({"steps": [email("a"), branch("b", then="a", otherwise="end")]}, "takes no time"),
    "a circle of itself": ({"steps": [email("a", wait="0 days", next="a")]}, "takes no time"),
    "an unknown test of the entry": (
        {"segment": None, "existing_members": None, "exit_on_leaving": False,
         "event": {"any_of": ["login"], "where": {"plan": {"nt": 1}}}}, "unknown key 'nt'; did you mean 'not'",
    ),
    "a condition of a wait that asks for nothing": (
        {"steps": [{"name": "w", "do": "wait", "opened": "a", "within": "1 day", "where": {"x": 1}}]},
        "where and context go with any_of",
    ),
    "keys without an event": ({"keyed_by": "order_id"}, "keyed_by goes with an event that lets people in"),
    "a key that is no path": (
        {"segment": None, "existing_members": None, "exit_on_leaving": False, "keyed_by": "a..b",
         "event": {"any_of": ["login"]}}, "'keyed_by' is 'a..b'; it must be a path",
    ),
    "a relative date": (
        {"segment": None, "existing_members": None, "exit_on_leaving": False,
         "event": {"any_of": ["login"], "where": {"at": {"before": "1 day ago"}}}}, "only a feature can; give a date",
    ),
    "the event in a journey of a segment": (
        {"steps": [email("a", subject="{{ event.order_id }}")]},
        "step 'a' reads event.order_id, but a segment lets people in here",
    ),
    "a subject without a default": ({"steps": [email("a", subject={"de": "Hallo"})]}, "no text is the `default`"),
    "a subject in no language": (
        {"steps": [email("a", subject={"default": "Hello", "German": "Hallo"})]}, "'German' is no language such as de",
    ),
    "a subject in a language that the template lacks": (
        {"steps": [email("a", template="plain", subject={"default": "Hello", "de": "Hallo"})]},
        "is in 'de', but the template is not: add plain.de.txt and .mjml",
    ),
    "a sender that is none": ({"steps": [email("a", **{"from": "Otto"})]}, "'Otto' is not an address such as Otto <"),
    "a reply to nobody": ({"reply_to": "Otto <help@otto.example>"}, "is not an address such as help@otto.example"),
    "a copy to nobody": ({"steps": [email("a", cc=["help@"])]}, "'help@' is not an address such as"),
    "an attachment that is not there": (
        {"steps": [email("a", attachments=["term.pdf"])]}, "is not there; .* 'terms.pdf'",
    ),
    "an attachment from elsewhere": (
        {"steps": [email("a", attachments=["../policy.yml"])]}, "the name of a file such as",
    ),
    "attachments of 100 MB": (
        {"steps": [email("a", attachments=["terms.pdf", "film.mp4"])]}, "100.0 MB in all; mail servers refuse more",
    ),
    "a preheader that nothing prints": (
        {"steps": [email("a", template="plain", preheader="Soon")]}, "plain.mjml does not print {{ preheader }}",
    ),
    "no template": ({"steps": [email("a", template="cach_up")]}, "unknown template .* 'catch_up'"),
    "bad splits": (
        {"steps": [email("a", variants={"x": {"weight": 50}, "y": {"weight": 40}})]}, "add up to 90; .* 100",
    ),
    "an unknown endpoint": (
        {"steps": [{"name": "a", "do": "webhook", "after": "0 days", "endpoint": "crm"}]}, "unknown endpoint 'crm'",
    ),
    "an unknown feature": ({"steps": [branch("a", feature="logins_31d")]}, "unknown feature .* 'logins_30d'"),
    "two tests": ({"steps": [branch("a", at_most=9)]}, "one of equals, at_least, at_most"),
    "a wait of no time": ({"steps": [wait("a", within="0 days")]}, "a wait of no time"),
    "a script as link": (
        {"steps": [{"name": "a", "do": "cta", "after": "0 days", "surface": "web", "slot": "s", "copy": "c",
                    "url": "javascript:alert(1)", "lasts": "1 day"}]}, "it must be an address such as https",
    ),
    "an unknown slot": (
        {"steps": [{"name": "a", "do": "cta", "after": "0 days", "surface": "web", "slot": "limited_time_ofer",
                    "copy": "c", "url": "/x", "lasts": "1 day"}]}, "unknown slot .* 'limited_time_offer'",
    ),
    "markup in an offer": (
        {"steps": [{"name": "a", "do": "cta", "after": "0 days", "surface": "web", "slot": "s", "copy": "<b>c</b>",
                    "url": "/x", "lasts": "1 day"}]}, "copy is plain text, and '<b>' is markup",
    ),
    "markup in a variant of an offer": (
        {"steps": [{"name": "a", "do": "cta", "after": "0 days", "surface": "web", "slot": "s", "copy": "c",
                    "url": "/x", "lasts": "1 day", "variants": {"x": {"weight": 100, "copy": "a <img src=x>"}}}]},
        "copy is plain text, and '<img src=x>' is markup",
    ),
    "a link to anywhere": (
        {"steps": [{"name": "a", "do": "cta", "after": "0 days", "surface": "web", "slot": "s", "copy": "c",
                    "url": "//evil.example/x", "lasts": "1 day"}]}, "it must be an address such as https",
    ),
    "a delay of no length": ({"steps": [delay()]}, "exactly one of for .* and until"),
    "a delay of two lengths": ({"steps": [delay(until={"at": "09:00"}, **{"for": "1 day"})]}, "exactly one of for"),
    "a delay until nothing": ({"steps": [delay(until={"days": ["mon"]})]}, "until names a date .* or the time `at`"),
    "a delay until two dates": (
        {"steps": [delay(until={"user": "a", "feature": "b"}, otherwise="end")]}, "until names one of user, event",
    ),
    "a date and a time": ({"steps": [delay(until={"user": "a", "at": "09:00"})]}, "until is a date .* not both"),
    "before and after": (
        {"steps": [delay(until={"user": "a", "before": "1 day", "after": "1 day"})]}, "before a date or after it",
    ),
    "before a time": ({"steps": [delay(until={"at": "09:00", "before": "1 day"})]}, "before and after go with a date"),
    "a date that may be missing": ({"steps": [delay(until={"user": "a"})]}, "`otherwise` says where that leads"),
    "otherwise of a time": (
        {"steps": [delay(otherwise="end", **{"for": "1 day"})]}, "this delay always ends; otherwise goes with a date",
    ),
    "a date of no event": ({"steps": [delay(until={"event": "a"}, otherwise="end")]}, "no event lets people in here"),
    "a date of an unknown feature": (
        {"steps": [delay(until={"feature": "logins_31d"}, otherwise="end")]}, "unknown feature .* 'logins_30d'",
    ),
    "a wait for a wrong segment": (
        {"steps": [wait("a", any_of=None, segment="busy_user")]}, "unknown segment .* 'busy_users'",
    ),
    "a wait for two things": ({"steps": [wait("a", segment="busy_users")]}, "a wait asks for one of any_of"),
    "a wait for the past": ({"steps": [wait("a", any_of=None, event={"x": 1})]}, "no event lets people in here"),
    "a test of a trait": (
        {"steps": [wait("a", any_of=None, user={"plan": {"equal": "x"}})]}, "unknown key 'equal'; did you mean",
    ),
    "a test of an unknown feature": (
        {"steps": [branch("a", feature=None, at_least=None, features={"any": [{"logins_31d": 1}]})]},
        "unknown feature .* 'logins_30d'",
    ),
    "a feature twice": ({"steps": [branch("a", features={"logins_30d": 1})]}, "feature is short for features"),
    "arms and a question": ({"steps": [branch("a", arms=[{"segment": "busy_users", "then": "end"}])]}, "or it has"),
    "an arm without a question": (
        {"steps": [branch("a", feature=None, at_least=None, arms=[{"then": "end"}])]}, "an arm that asks for nothing",
    ),
    "an arm to nowhere": (
        {"steps": [branch("a", feature=None, at_least=None, arms=[{"segment": "busy_users", "then": "b"}])]},
        "no step is called 'b'",
    ),
    "arms and then": (
        {"steps": [branch("a", feature=None, at_least=None, then="end",
                          arms=[{"segment": "busy_users", "then": "end"}])]}, "each arm has its own `then`",
    ),
    "a split that does not add up": ({"steps": [split(a=50, b=40)]}, "add up to 90; .* 100"),
    "a split of one": ({"steps": [split(a=100)]}, "a split of one way is none"),
    "a split to nowhere": ({"steps": [split("aend", a=50, b=50)]}, "no step is called 'aend'.* 'end'"),
    "an exit that leads on": ({"steps": [{"do": "exit", "name": "a", "next": "end"}]}, "unknown key 'next'"),
    "an event of no catalogue": ({"steps": [{"do": "track", "name": "a", "event": "logn"}]}, "unknown event .* 'log"),
    "no traits": ({"steps": [{"do": "identify", "name": "a", "traits": {}}]}, "'traits' is "),
    "a start of nothing": (
        {"steps": [{"do": "start", "name": "a", "journey": "earn_upgrad"}]}, "unknown journey .* 'earn_upgrade'",
    ),
    "a journey that starts itself": (
        {"steps": [{"do": "start", "name": "a", "journey": "earn_upgrade"}]}, "journeys that start each other",
    ),
    "a segment of accounts": ({"segment": "big_accounts"}, "'big_accounts' is a segment of accounts"),
    "an audience of accounts": ({"audience": {"segment": "big_accounts"}}, "'big_accounts' is a segment of accounts"),
    "a number that is a text": (
        {"goal": {"features": {"logins_30d": "lots"}, "within": "1 day"}}, "'logins_30d' is a number, and cannot be",
    ),
    "yes or no compared as a number": (
        {"audience": {"features": {"is_on_basic_plan": {"at_least": 6}}}}, "'is_on_basic_plan' is a boolean",
    ),
    "a time that contains a text": (
        {"audience": {"features": {"any": [{"last_login_at": {"contains": "2026"}}]}}}, "'last_login_at' is a time",
    ),
    "a branch on another type": (
        {"steps": [branch("a", feature="is_on_basic_plan", at_least=5, then="end", otherwise="end")]},
        "'is_on_basic_plan' is a boolean, and cannot be compared by at_least: 5",
    ),
    "a date that is a number": (
        {"steps": [{"do": "delay", "name": "a", "until": {"feature": "logins_30d"}, "otherwise": "end"}]},
        "'logins_30d' is a number, and no date",
    ),
    "a slot on another surface": (
        {"steps": [{"do": "cta", "name": "a", "wait": "0 days", "surface": "in_app", "slot": "success_session",
                    "copy": "Hi", "url": "/x", "lasts": "1 day"}]}, "slot 'success_session' is on web, not on in_app",
    ),
    "two steps of one name, that another names": (
        {"steps": [{"do": "delay", "name": "a", "for": "1 day", "then": "b"}, {"do": "exit", "name": "c"},
                   {"do": "exit", "name": "c"}]}, "two steps are called 'c'",
    ),
    "an audience of nobody": ({"audience": {}}, "an audience names a segment, or conditions"),
    "an audience of an unknown segment": ({"audience": {"segment": "busy"}}, "unknown segment 'busy'"),
    "a goal of two kinds": (
        {"goal": {"any_of": ["login"], "segment": "busy_users", "within": "1 day"}}, "a goal is one of any_of, segment",
    ),
    "a goal of an unknown segment": ({"goal": {"segment": "busy", "within": "1 day"}}, "unknown segment 'busy'"),
    "an exit that asks for nothing": ({"exits": [{"reason": "x"}]}, "an exit names what ends the journey"),
    "an exit of an unknown event": ({"exits": [{"any_of": ["logn"]}]}, "unknown event .* 'login'"),
    "two kinds of hours": (
        {"steps": [email("a", at_any_hour=True, quiet_hours={"from": "20:00", "to": "08:00"})]}, "leave one out",
    ),
    "a step without an hour": (
        {"send_window": {"from": "08:00", "to": "09:00"},
         "steps": [email("a", quiet_hours={"from": "07:00", "to": "10:00"})]}, "they leave no time to send anything",
    ),
    "an unknown topic": ({"topic": "nws"}, "unknown topic 'nws'; did you mean 'news'"),
    "an unknown topic of a step": ({"steps": [email("a", topic="nws")]}, "unknown topic 'nws'"),
    "a topic of a transactional journey": (
        {"transactional": True, "holdout": 0, "topic": "news"}, "transactional messages go to all",
    ),
    "a topic of a transactional step": (
        {"topic": "news", "steps": [email("a", transactional=True, topic="news")]}, "transactional messages go to all",
    ),
    "a transactional holdout": ({"transactional": True}, "a holdout would keep transactional messages from users"),
    "an unknown key": ({"steps": [email("a", templat="x")]}, "unknown key 'templat'; did you mean 'template'"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_has_its_line_and_the_nearest(folder: Path, changes: dict[str, Any], message: str) -> None:
    path = folder / "earn_upgrade.yml"
    declared = {**yaml.safe_load(path.read_text()), **changes}
    if "event" in changes and "segment" in changes:
        declared["exit_on_leaving"] = False
    path.write_text(yaml.safe_dump({key: value for key, value in declared.items() if value is not None}))
    with pytest.raises(UpnextError, match=rf"earn_upgrade.yml:\d+: .*{message}"):
        load(folder)


def by_event(reentry: str, *steps: dict[str, Any]) -> dict[str, Any]:
    return {"segment": None, "existing_members": None, "exit_on_leaving": False, "exclusive_group": None,
            "takes_over": False, "event": {"any_of": ["login"]}, "reentry": reentry, "steps": list(steps)}  # fmt: skip


TELL = {"name": "tell", "do": "track", "event": "login"}


@pytest.mark.parametrize(("changes", "is_endless"), [
    (by_event("always", TELL), True),
    (by_event("never", TELL), False),
    (by_event("always", {"name": "rest", "do": "delay", "for": "1 day"}, TELL), False),
    ({**by_event("always", TELL), "event": {"any_of": ["login"], "where": {"step": 1}}}, False),
])  # fmt: skip
def test_a_journey_that_tells_of_its_own_entry(folder: Path, changes: dict[str, Any], is_endless: bool) -> None:
    path = folder / "earn_upgrade.yml"
    declared = {**yaml.safe_load(path.read_text()), **changes}
    path.write_text(yaml.safe_dump({key: value for key, value in declared.items() if value is not None}))
    if is_endless:
        with pytest.raises(UpnextError, match=r"earn_upgrade.yml:\d+: .*'earn_upgrade' leads back to 'earn_upgrade'"):
            load(folder)
    else:
        load(folder)


def test_waits_branches_and_circles_that_take_time_are_fine(folder: Path) -> None:
    path = folder / "earn_upgrade.yml"
    steps = [
        email("hello", variants={"x": {"weight": 30}, "y": {"weight": 70, "subject": "Hi"}}),
        wait("until_login", then="enough", otherwise="again"),
        branch("enough", then="end", otherwise="again"),
        email("again", wait="1 day", next="until_login"),
    ]
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "steps": steps}))
    journey = load(folder)["earn_upgrade"]
    assert [(row["step"], row["next"], row["otherwise"]) for row in plan(journey)] == [
        ("hello", "until_login", None), ("until_login", "enough", "again"), ("enough", None, "again"),
        ("again", "until_login", None),
    ]  # fmt: skip
    assert variant_ranges(journey.steps[0]) == [
        {"variant": "x", "low": 0, "high": 0.3}, {"variant": "y", "low": 0.3, "high": 1},
    ]  # fmt: skip
    assert longest(journey) == 3 * 1440


@pytest.mark.parametrize("name", ["entries", "messages"])
def test_a_journey_is_not_named_like_a_table(folder: Path, name: str) -> None:
    (folder / "earn_upgrade.yml").rename(folder / f"{name}.yml")
    with pytest.raises(UpnextError, match="choose another"):
        load(folder)


def test_the_same_content_is_the_same_version() -> None:
    journey = DECLARED.journeys["earn_upgrade"]
    copy = msgspec.convert(as_json(journey), type(journey))
    assert version(copy) == version(journey)
    assert version(msgspec.structs.replace(journey, holdout=0.2)) != version(journey)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("https://127.0.0.1/x", "own network"),
        ("https://[::ffff:10.0.0.1]/x", "own network"),
        ("https://169.254.169.254/latest", "own network"),
        ("https://2130706433/x", "own network"),
        ("https://0x7f.1/x", "own network"),
        ("https://localhost:8080/x", "own network"),
        ("http://hooks.example/x", "is not https"),
        ("ftp://hooks.example/x", "is not an address"),
        ("https://user:secret@hooks.example/x", "has a password"),
        ("https://hooks.example:x/", "is not an address"),
    ],
)
def test_an_endpoint_is_somewhere_else(tmp_path: Path, url: str, message: str) -> None:
    assert load_policy([], CAMPAIGNS / "policy.yml").endpoints == {}
    content = {"endpoints": {"crm": {"url": url, "secret": "UPNEXT_CRM_SECRET"}}}
    (tmp_path / "policy.yml").write_text(yaml.safe_dump(content))
    with pytest.raises(UpnextError, match=rf"policy.yml:4: the url of endpoint 'crm' .*{message}"):
        load_policy([], tmp_path / "policy.yml")


def test_a_marketing_mail_states_where_its_sender_is(folder: Path) -> None:
    policy = Policy(postal_address="Otto, 1 Long Lane, London")
    path = folder / "earn_upgrade.yml"
    declared = {**yaml.safe_load(path.read_text()), "steps": [email("a", template="plain")]}
    path.write_text(yaml.safe_dump(declared))
    with pytest.raises(UpnextError, match=r"plain.mjml does not print {{ postal_address }}"):
        load(folder, policy=policy)
    path.write_text(yaml.safe_dump({**declared, "transactional": True, "holdout": 0}))
    assert load(folder, policy=policy)


def test_a_translation_has_both_files(folder: Path) -> None:
    (folder.parent / "templates" / "catch_up.de.txt").write_text("Hallo")
    path = folder / "earn_upgrade.yml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "steps": [email("a")]}))
    with pytest.raises(UpnextError, match=r"catch_up.de.mjml: is missing; a template has a file of text and one of"):
        load(folder)


def test_parameters_of_links_name_what_there_is(tmp_path: Path) -> None:
    (tmp_path / "policy.yml").write_text("utm:\n  utm_source: upnext\n  utm_campaign: '{jorney}'\n")
    with pytest.raises(UpnextError, match=r"policy.yml:3: '{jorney}' is none of journey, step, variant; .* 'journey'"):
        load_policy([], tmp_path / "policy.yml")


def test_topics_stand_in_a_file_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "topics.yml").write_text("topics:\n  news: {description: What is new., default: opt_in}\n")
    assert load_policy([], tmp_path / "policy.yml").topics["news"].default == "opt_in"
    (tmp_path / "topics.yml").write_text("topics:\n  news: {description: What is new., default: optin}\n")
    with pytest.raises(UpnextError, match=r"topics.yml:2: 'default' is 'optin'; it must be one of opt_in, opt_out"):
        load_policy([], tmp_path / "policy.yml")
    (tmp_path / "topics.yml").unlink()
    (tmp_path / "policy.yml").write_text("topics: {}\n")
    with pytest.raises(UpnextError, match=r"policy.yml:1: unknown key 'topics'"):
        load_policy([], tmp_path / "policy.yml")


@pytest.mark.parametrize(("channel", "message"), [
    ("email: {warm_up: {per_day: [5]}}", "'starts_on' is missing; it is a date in quotes"),
    ("email: {warm_up: {starts_on: '2026-02-30', per_day: [5]}}", "'2026-02-30' is no day of the calendar"),
    ("email: {warm_up: {starts_on: '2026-02-03'}}", r"per_day is missing, such as per_day: \[50, 100, 500\]"),
    ("email: {warm_up: {starts_on: '2026-02-03', per_day: []}}", "'per_day' is .*a list, with one entry at least"),
    ("email: {warm_up: {starts_on: '2026-02-03', per_day: [0]}}", "0; it must be a whole number above 0"),
    ("email: {warm_up: {starts_on: '2026-02-03', domain: {}}}", "unknown key 'domain'; did you mean 'domains'"),
    ("email: {warm_up: {starts_on: '2026-02-03', domains: {Gmail: [1]}}}", "a domain in lower case such as gmail.com"),
    ("webhook: {warm_up: {starts_on: '2026-02-03', domains: {a.b: [1]}}}", "domains are those of email addresses"),
])  # fmt: skip
def test_a_mistake_in_a_warm_up_has_its_line(tmp_path: Path, channel: str, message: str) -> None:
    (tmp_path / "policy.yml").write_text(f"late_after: 6 hours\n{channel}\n")
    with pytest.raises(UpnextError, match=rf"policy.yml:2: .*{message}"):
        load_policy([], tmp_path / "policy.yml")


def test_a_time_zone_of_the_policy_is_one_that_there_is(tmp_path: Path) -> None:
    (tmp_path / "policy.yml").write_text("late_after: 6 hours\ntime_zone: Europe/Berln\n")
    with pytest.raises(UpnextError, match=r"no zone is called 'Europe/Berln'; did you mean 'Europe/Berlin'"):
        load_policy([], tmp_path / "policy.yml")
