"""What a feature's description may say, and the mistakes that are told with their line."""

from pathlib import Path

import pytest

from upnext.declarations import load
from upnext.errors import UpnextError
from upnext.features.declared import load_features
from upnext.features.definition import FeaturesFile
from upnext.project import Project
from upnext.settings import Settings

EVENTS = {"login", "bought", "viewed"}


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
        ("{count_of: login, is: login}", "'is' does not go with count_of; known: type, where, within"),
        ("{sum_of: amount}", "sum_of needs 'of'"),
        ("{latest: plan}", "latest needs 'of', an event, or 'type'"),
        ("{count_of: login, where: {plan: {not: basic}}}", "unknown key 'not'; known: at_least, at_most, contains"),
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
    ],
)
def test_what_a_feature_names_must_be_there(
    tmp_path: Path, meta: str, is_of_accounts: bool, message: str | None
) -> None:
    model = "account_features" if is_of_accounts else "user_features"
    declared_file = load(declared(tmp_path, meta, model=model), FeaturesFile)
    found = [problem.text for problem in declared_file.find_mistakes(EVENTS, {"is_premium", "logins"})]
    if message is None:
        assert found == []
    else:
        assert found[0].startswith(f"feature 'it' {message}")


def test_an_unknown_event_names_the_file_and_the_line(tmp_path: Path) -> None:
    path = declared(tmp_path, "{count_of: logn}")
    with pytest.raises(UpnextError, match=r"_features.yml:7: feature 'it' is about 'logn'.*did you mean 'login'"):
        load_features([tmp_path], {"login"})
    assert path.exists()


def test_a_column_that_says_not_what_it_is_made_of_is_told(tmp_path: Path) -> None:
    path = declared(tmp_path, "{count_of: login}")
    path.write_text(path.read_text() + "      - {name: reports, description: Reports seen.}\n")
    with pytest.raises(UpnextError, match=r"_features.yml:8: feature 'reports' has no config.meta"):
        load_features([tmp_path], {"login"})


def test_the_features_that_ship_are_right() -> None:
    tables = Project(Settings.from_environment({})).features
    assert {"logins_30d", "is_on_basic_plan"} <= tables["user_features"].keys()
