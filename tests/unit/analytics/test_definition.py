"""Which mistakes a metric's description can hold."""

from pathlib import Path

import pytest

from tests.conftest import DECLARED
from upnext.analytics.declared import check_times, load_metrics
from upnext.errors import UpnextError

FILE = """models:
  - name: experiment_users
    columns:
      - name: logins
        config: {meta: {count_of: login}}
"""


def test_the_metrics_of_the_product() -> None:
    assert list(DECLARED.metrics) == ["logins", "objects_created", "objects_per_login"]


def test_a_metric_begins_within_the_time_of_a_goal(tmp_path: Path) -> None:
    path = tmp_path / "analytics" / "_metrics.yml"
    path.parent.mkdir()
    path.write_text(FILE.replace("count_of: login", "count_of: login, begins: 14 days"))
    check_times(tmp_path, [])
    check_times(tmp_path, ["2 weeks", "15 days"])
    with pytest.raises(
        UpnextError, match=r"_metrics.yml:5: metric 'logins' begins 14 days .* longer than 2 weeks; begin"
    ):
        check_times(tmp_path, ["7 days", "2 weeks"])


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "count_of: login",
            "count_of: log in",
            "5: metric 'logins' is about 'log in', which models/events/_catalogue.yml does not list; did",
        ),
        (
            "count_of: login",
            "count_of: login, per: logins",
            "5: metric 'logins' is about 'logins', which models/events/_catalogue.yml does not list; did",
        ),
        (
            "count_of: login",
            "count_of: login, ever: login",
            "5: names two kinds, count_of and ever; it",
        ),
        ("count_of: login", "sum_of: total", "5: sum_of needs 'of'"),
        ("count_of: login", "ever: login, per: login", "5: per goes with count_of and with sum_of"),
        (
            "count_of: login",
            "ever: login, begins: 7 days, ends: 7 days",
            "5: begins 7 days after the exposure, and ends",
        ),
        ("count_of: login", "sequence: [login, login], in: session", "5: a metric reads the events of its steps alone"),
        ("count_of: login", "count_off: login", "5: unknown key 'count_off'; did you mean 'count_of'?"),
        (
            "count_of: login",
            "last_at: login",
            "5: a metric cannot be made by last_at; it needs one of",
        ),
        ("count_of: login", "count_of: login, within: 5 days", "5: 'within' does not go with a metric"),
        ("count_of: login", "ever: login, cap: 99 %", "5: cap goes with count_of without per"),
        ("name: logins", "name: goal", "4: 'goal' is taken"),
        ("count_of: login", "count_of: login, cap: 0 %", "5: 'cap' is '0 %'; it must be a share such as 99.9 %"),
        ("name: logins", "name: arm", "4: 'arm' has a name that Upnext uses itself"),
        ("name: logins", "name: users", "4: 'users' has a name that Upnext uses itself"),
        ("name: logins", "name: logins__before", "4: 'logins__before' is taken"),
        ("name: logins", "name: Log ins", "4: 'Log ins' is no name of a metric"),
    ],
)
def test_mistakes_are_found_by_line(tmp_path: Path, old: str, new: str, expected: str) -> None:
    path = tmp_path / "analytics" / "_metrics.yml"
    path.parent.mkdir()
    path.write_text(FILE.replace(old, new))
    with pytest.raises(UpnextError) as raised:
        load_metrics(tmp_path, DECLARED.events)
    assert str(raised.value).startswith(f"{path}:{expected}")
