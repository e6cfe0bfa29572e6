"""What a feature's description may say, and the mistakes that are told with their line."""

from pathlib import Path

import pytest

from upnext import conditions
from upnext.declarations import load
from upnext.errors import UpnextError
from upnext.features.declared import load_features
from upnext.features.definition import Feature, FeaturesFile
from upnext.project import Project
from upnext.settings import Settings

EVENTS = {"login", "bought", "viewed"}
MODELS = {"user_features", "account_features"}
TABLES = {"user_features": {"is_premium": Feature(ever="bought"), "logins": Feature(count_of="login")}}


def declared(tmp_path: Path, meta: str, *, model: str = "user_features") -> Path:
    path = tmp_path / "features" / "_features.yml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        f"models:\n  - name: {model}\n    columns:\n      - name: user_id\n      - name: it\n"
        f"        description: x\n        config: {{meta: {meta}}}\n"
    )
    return path


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ("{count_off: login}", "unknown key 'count_off'; did you mean 'count_of'?"),
        ("{}", "names no kind; it needs one of count_of, sum_of"),
        ("{count_of: login, ever: login}", "names two kinds, count_of and ever"),
        ("{count_of: login, within: -5 days}", "'within' is '-5 days'; it must be a length of time such as 30 days"),
        ("{count_of: login, within: 0 days}", "'within' is '0 days'; it must be a length of time"),
        ("{count_of: login, within: 5}", "'within' is 5; it must be a length of time"),
        ("{count_of: login, is: login}", "'is' does not go with count_of; known: context, type, where, within"),
        ("{sum_of: amount}", "sum_of needs 'of'"),
        ("{latest: plan}", "latest needs 'of', an event, or 'type'"),
        ("{count_of: login, where: {plan: {nt: basic}}}", "unknown key 'nt'; did you mean 'not'?"),
        ("{count_of: login, where: {any: {plan: basic}}}", "'any' takes a list of conditions, such as [{plan: basic}"),
        ("{count_of: login, where: {not: [basic]}}", "is a mapping of a path and its test, such as {plan: premium}"),
        (
            "{count_of: login, where: {all: [{plan: {nt: 1}}]}}",
            "unknown key 'nt'; did you mean 'not'?",
        ),
        ("{count_of: login, where: {plan..x: basic}}", "'plan..x' is no path such as plan or app.version"),
        ("{count_of: login, context: {}}", "context: holds no test"),
        ("{count_of: login, where: {seats: {at_least: 5, less_than: 2}}}", "no number is at least 5 and at most 2"),
        ("{count_of: login, where: {seats: {between: [5, 2]}}}", "no number is at least 5 and at most 2; turn them"),
        ("{count_of: login, where: {seats: {between: [5]}}}", "'between' is a list"),
        ("{count_of: login, where: {plan: {exists: false, equals: x}}}", "a value that is not there passes no other"),
        ("{count_of: login, where: {seats: {at_least: 5, ignore_case: true}}}", "ignore_case goes with a test of text"),
        ("{count_of: login, where: {at: {before: yesterday}}}", "'before' is 'yesterday'; it must be a date in quotes"),
        (
            "{count_of: login, where: {at: {before: 2026-02-30x}}}",
            "'before' is '2026-02-30x'; it must be a date in quo",
        ),
        ("{count_of: login, where: {at: {before: '2026-02-30'}}}", "'2026-02-30' is no date, such as 2026-03-01"),
        ("{count_of: login, where: {at: {before: '2026-03-01T12'}}}", "'before' is '2026-03-01T12'; it must be a date"),
        ("{count_of: login, where: {seats: {at_least: .inf}}}", "inf is no number to compare with"),
        ("{count_of: login, where: {seats: .nan}}", "'seats' is nan, which is no number to compare with"),
        ("{count_of: login, where: {seats: {one_of: [1, .inf]}}}", "inf is no number to compare with"),
        ("{count_of: login, where: {at: {before: 3 moons ago}}}", "'before' is '3 moons ago'; it must be a date"),
        ("{count_of: login, where: {url: {matches: '(a'}}}", "matches: '(a' is no regular expression: missing )"),
        ("{count_of: login, where: {url: {matches: '(a)\\1'}}}", "matches: '\\1' is not supported; use letters"),
        ("{count_of: login, where: {url: {matches: 'a(?=b)'}}}", "matches: '(?' is not supported"),
        ("{count_of: login, where: {url: {matches: 'a++b'}}}", "matches: '++' is not supported"),
        ("{count_of: login, where: {url: {matches: 'a{256}'}}}", "matches: 'a{256}' repeats 256 times in all"),
        ("{count_of: login, type: track}", "'type' names a kind of call and count_of an event; write count_of: any"),
        (
            "{count_of: login, where: {url: {matches: '((a{1,200}){1,200})'}}}",
            "matches: '((a{1,200}){1,200})' repeats 40000 times in all; at most 255 are allowed",
        ),
        ("{count_of: {any_of: []}}", "any_of names no event"),
        ("{count_of: {any_of: [login], starts_with: x}}", "several events are either any_of"),
        ("{count_of: {begins_with: x}}", "unknown key 'begins_with'; known: any_of, starts_with"),
        ("{count_of: login, where: {plan: {one_of: premium}}}", "'one_of' is 'premium'; it must be a list"),
        ("{count_of: login, where: {plan: {one_of: []}}}", "one_of names nothing"),
        ("{count_of: login, where: {plan: [basic]}}", "'plan' is a list; it must be text"),
        ("{count_of: login, where: {plan: {}}}", "a test that tests nothing; write one of"),
        ("{count_of: login, where: {}}", "where: holds no test"),
        ("{count_of: login, where: {at: {at_least: 2026-01-01}}}", "'at_least' is the date 2026-01-01"),
        (
            "{count_of: login, where: {at: 2026-01-01}}",
            "'at' is the date 2026-01-01, which counts as text only in quotes",
        ),
        ("{count_of: login, where: {plan: null}}", "'plan' is empty"),
        ("{count_of: login, where: {seats: {at_least: true}}}", "'at_least' is true; it must be a number"),
        ("{count_of: login, type: pge}", "'type' is 'pge'; it must be one of"),
        (
            "{latest_trait: age, as: nmber}",
            "'as' is 'nmber'; it must be one of boolean, number, text, time; did you mean 'num",
        ),
        ("{count_of: login, as: number}", "'as' does not go with count_of"),
        ("{sequence: [login], in: 1 hour}", "a sequence has 2 to 20 steps"),
        ("{sequence: [login, {evnt: bought}], in: 1 hour}", "unknown key 'evnt'"),
        ("{sequence: [login, {event: bought, where: {x: {}}}], in: 1 hour}", "a test that tests nothing; write one of"),
        (
            "{sequence: [login, {event: bought, where: {x: {before: 1 day ago}}}], in: 1 hour}",
            "'before: 1 day ago' compares with the time of the tick, which only a feature can; give a date",
        ),
        ("{sequence: [login, bought], in: 1 hour, order: any, without: x}", "'without' does not go with order: any"),
        (
            "{sequence: [login, bought], in: 1 hour, order: reverse}",
            "'order' is 'reverse'; it must be one of any",
        ),
        ("{sequence: [login, bought], in: 1 hour, keyed_by: ''}", "'keyed_by' is ''; it must be a path such as plan"),
        ("{unfinished: login, in: 1 hour}", "unfinished needs 'finished'"),
        (
            "{unfinished: login, finished: bought, in: session}",
            "in: session goes with sequence; write a leng",
        ),
        ("{stopped: login}", "stopped needs 'for'"),
        ("{resumed: login, after: soon}", "'after' is 'soon'; it must be a length of time"),
        ("{periods_of: login, of_last: 3 months}", "'of_last' is '3 months'; it must be a number of days or weeks"),
        ("{first: plan}", "first needs 'of', an event, or 'type'"),
        ("{latest: plan, of: login, type: page}", "'of' names an event and 'type' a kind of call; write one of them"),
        (
            "{time_until: ends_at, within: 3 days}",
            "'within' does not go with time_until; known: context, of, ty",
        ),
        ("{time_since: ends_at, unit: moons}", "'unit' is 'moons'; it must be one of days, hours, minutes, weeks"),
        ("{count_of: login, within: 2000 years}", "'2000 years' is more than 1000 years"),
        ("{count_of: login, where: {at: {before: 2000 years ago}}}", "'2000 years ago' is more than 1000 years"),
        ("{count_of: login, windows: [30 days], within: 2 days}", "'windows' does not go with within"),
        ("{time_until: ends_at, windows: [30 days]}", "'windows' does not go with time_until"),
        ("{count_of: login, windows: []}", "'windows' is an empty list"),
        ("{ratio_of: logins}", "ratio_of needs 'per'"),
        ("{ratio_of: logins, per: {any_of: [x]}}", "per names another feature"),
        ("{count_of: login, per: bought}", "'per' does not go with count_of"),
        ("{sequence: [login, bought], in: soon}", "'in' is 'soon'; it must be a length of time"),
        ("{latest_of: [login, bought], is: logn}", "is: 'logn' is none of latest_of; did you mean 'login'?"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, meta: str, message: str) -> None:
    path = declared(tmp_path, meta)
    with pytest.raises(UpnextError) as raised:
        load(path, FeaturesFile)
    assert str(raised.value).startswith(f"{path}:7: {message}")


@pytest.mark.parametrize(
    ("meta", "is_of_accounts", "message"),
    [
        (
            "{count_of: logn}",
            False,
            "is about 'logn', which models/events/_catalogue.yml does not list; did you mean 'login'?",
        ),
        (
            "{count_of: {any_of: [login, bougt]}}",
            False,
            "is about 'bougt', which models/events/_catalogue.yml does not",
        ),
        ("{sum_of: x, of: {starts_with: re}}", False, "is about events that begin with 're'; models/events/_catalogue"),
        ("{count_of: {starts_with: log}}", False, None),
        ("{sequence: [login, bought], in: session}", False, None),
        ("{sequence: [login, {event: bougt}], in: 1 hour}", False, "is about 'bougt'"),
        ("{sequence: [login, bought], in: 1 hour, without: viewd}", False, "is about 'viewd'"),
        ("{unfinished: login, finished: bougt, in: 1 hour}", False, "is about 'bougt'"),
        ("{sequence: [login, viewd], in: 1 hour}", False, "is about 'viewd'"),
        ("{distinct_users: true}", False, "cannot be made by distinct_users, which only accounts have"),
        ("{days_of: login}", True, "cannot be made by days_of, which cannot be added up"),
        (
            "{members_where: is_premum}",
            True,
            "counts members by 'is_premum', which is no feature of users; did you mean",
        ),
        ("{count_of: any, within: 2 weeks}", False, None),
        ("{members_where: any}", True, None),
        ("{ratio_of: logins, per: login}", False, "divides 'login', which is no number among the features of user_fea"),
        ("{ratio_of: is_premium, per: logins}", False, "divides 'is_premium', which is no number among the features"),
        ("{ratio_of: logins, per: logins}", False, None),
        ("{mean_of: amount, of: bought}", True, "cannot be made by mean_of, which cannot be added up"),
        ("{latest_trait: plan}", True, None),
    ],
)
def test_what_a_feature_names_must_be_there(
    tmp_path: Path, meta: str, is_of_accounts: bool, message: str | None
) -> None:
    model = "account_features" if is_of_accounts else "user_features"
    declared_file = load(declared(tmp_path, meta, model=model), FeaturesFile)
    found = [problem.text for problem in declared_file.find_mistakes(EVENTS, TABLES)]
    if message is None:
        assert found == []
    else:
        assert found[0].startswith(f"feature 'it' {message}")


@pytest.mark.parametrize("pattern", ["[*+]x", "[}+]", "a+", r"\++", "[]+]+"])
def test_a_plus_in_a_class_is_a_character(pattern: str) -> None:
    assert conditions.Test(matches=pattern).matches == pattern


def test_an_unknown_event_names_the_file_and_the_line(tmp_path: Path) -> None:
    path = declared(tmp_path, "{count_of: logn}")
    with pytest.raises(UpnextError, match=r"_features.yml:7: feature 'it' is about 'logn'.*did you mean 'login'"):
        load_features([tmp_path], {"login"}, MODELS)
    assert path.exists()


def test_a_column_that_says_not_what_it_is_made_of_is_told(tmp_path: Path) -> None:
    path = declared(tmp_path, "{count_of: login}")
    path.write_text(path.read_text() + "      - {name: reports, description: Reports seen.}\n")
    with pytest.raises(UpnextError, match=r"_features.yml:8: feature 'reports' has no config.meta"):
        load_features([tmp_path], {"login"}, MODELS)


def test_a_table_is_a_model_and_stands_in_one_file(tmp_path: Path) -> None:
    path = declared(tmp_path, "{count_of: login}")
    path.with_name("more.yml").write_text(path.read_text())
    with pytest.raises(UpnextError, match=r"more.yml:\d: 'user_features' is described in .*_features.yml too"):
        load_features([tmp_path], {"login"}, MODELS)
    path.with_name("more.yml").rename(path.with_name("more.yaml"))
    with pytest.raises(UpnextError, match=r"more.yaml: files that declare something end in .yml; rename it"):
        load_features([tmp_path], {"login"}, MODELS)
    path.with_name("more.yaml").unlink()
    path.write_text(path.read_text().replace("name: user_features", "name: user_feature"))
    with pytest.raises(UpnextError, match=r"_features.yml:\d: unknown table of features 'user_feature'; did you mean"):
        load_features([tmp_path], {"login"}, MODELS)


def test_the_features_that_ship_are_right() -> None:
    tables = Project(Settings.from_environment({})).features
    assert {"logins_30d", "is_on_basic_plan"} <= tables["user_features"].keys()


def test_a_feature_that_stands_twice_is_told(tmp_path: Path) -> None:
    path = declared(tmp_path, "{count_of: login, windows: [7 days, 30 days]}")
    path.write_text(path.read_text() + "      - {name: it_7d, config: {meta: {count_of: login}}}\n")
    with pytest.raises(UpnextError, match=r"_features.yml:8: feature 'it_7d' stands in user_features twice"):
        load_features([tmp_path], {"login"}, MODELS)
