"""Segments as their authors live with them: added, edited, removed, previewed, held, built on each other."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml

from tests.conftest import AS_OF, Product, rows
from upnext import dbt
from upnext.doctor import examine
from upnext.errors import UpnextError
from upnext.loop import build, build_arguments, open_tick, rebuild
from upnext.operations.controls import release_segment
from upnext.operations.previews import preview_segment, status
from upnext.project import Project
from upnext.segments.membership import beyond_limits, members_at, not_evaluated

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
pytestmark = pytest.mark.usefixtures("content")
ACTIVE = "select user_id from {{ ref('user_features') }} where logins_10d >= 2"


class Models:
    """A copy of the content, to edit; `reload` lets the project see what has been edited."""

    def __init__(self, folder: Path, project: Project) -> None:
        self.folder = folder
        self.project = project

    def segment(self, name: str, sql: str | None) -> None:
        path = self.folder / "models" / "segments" / f"{name}.sql"
        path.unlink() if sql is None else path.write_text(sql)
        self.reload()

    def edit(self, file: str, change: Callable[[Any], None]) -> None:
        path = (self.folder if file.startswith("models/") else dbt.PROJECT_DIR) / file
        declared = yaml.safe_load(path.read_text())
        change(declared)
        path.write_text(yaml.safe_dump(declared))
        self.reload()

    def reload(self) -> None:
        self.project.dbt = dbt.Dbt(self.project.settings, self.project.engine.url)
        for name in ("segments", "segment_files", "row_local_segments", "conditions"):
            vars(self.project).pop(name, None)


@pytest.fixture
def models(content: Path, project: Project) -> Models:
    return Models(content, project)


def log(project: Project, segment: str) -> list[tuple[str, str]]:
    return rows(
        project,
        "select user_id, change from segments.membership_changes where segment = :segment order by change_id",
        segment=segment,
    )


def looked_at(project: Project, segment: str) -> list[int]:
    found = rows(
        project,
        "select looked_at from segments.evaluations where segment = :segment order by tick_id",
        segment=segment,
    )
    return [count for (count,) in found]


def test_a_segment_is_added_edited_renamed_and_removed(project: Project, product: Product, models: Models) -> None:
    for user_id, times in (("ada", 2), ("bob", 3), ("cid", 1)):
        product.track(user_id, "login", AS_OF - DAY, times=times)
    build(project, AS_OF, is_explicit=True)
    models.segment("active", ACTIVE)
    build(project, AS_OF, is_explicit=True)
    assert log(project, "active") == [("ada", "entered"), ("bob", "entered")]

    models.segment("active", ACTIVE.replace("2", "3"))
    build(project, AS_OF, is_explicit=True)
    assert log(project, "active")[2:] == [("ada", "exited")]

    models.segment("active", None)
    models.segment("very_active", ACTIVE.replace("2", "3"))
    for _ in range(2):
        build(project, AS_OF, is_explicit=True)
        assert log(project, "active")[3:] == [("bob", "exited")], "they exit with it, once"
        assert log(project, "very_active") == [("bob", "entered")]
    assert members_at(project.engine, "active", AS_OF) == []
    assert rows(project, "select segment, entered, exited, members from segments.daily_changes order by 1") == [
        ("active", 2, 2, 0), ("very_active", 1, 0, 1),
    ]  # fmt: skip


def test_only_touched_users_are_looked_at_again(project: Project, product: Product, models: Models) -> None:
    models.segment("active", ACTIVE)
    models.segment("first_two", ACTIVE + " order by user_id limit 2")
    models.segment(
        "pairs",
        "select user_features.user_id from {{ ref('user_features') }},{{ ref('user_features') }} as others"
        " where user_features.logins_10d = 2 and others.logins_10d = 3",
    )
    models.segment("broken", "select user_id from {{ ref('user_features') }} where logins_10d >= 1 and 1 / 1 = 1")
    for number in range(10):
        product.track(f"u{number}", "login", AS_OF - DAY, times=2)
    build(project, AS_OF, is_explicit=True)
    product.track("u3", "login", AS_OF)
    product.track("new", "exported report", AS_OF)
    models.segment("broken", "select user_id from {{ ref('user_features') }} where logins_10d >= 1 and 1 / 0 = 1")
    for _ in range(2):
        with pytest.raises(UpnextError, match=r"broken.sql: .*division by zero"):
            build(project, AS_OF + DAY, is_explicit=True)
    models.segment("broken", "select user_id from {{ ref('user_features') }} where logins_10d >= 1 and 1 / 1 = 1")
    build(project, AS_OF + DAY, is_explicit=True)
    assert looked_at(project, "active") == [10, 2], "those whom the ticks that failed had touched are kept"
    assert looked_at(project, "first_two") == [10, 11], "who is among the first two depends on the others"
    assert looked_at(project, "pairs") == [10, 11]
    assert rows(project, "select count(*) from segments.pairs") == [(9,)]
    assert rows(project, "select count(*) from features.changed_keys") == [(0,)]
    build(project, AS_OF + 11 * DAY, is_explicit=True)
    assert looked_at(project, "active")[2:] == [10], "logins left their window"
    assert rows(project, "select count(*) from segments.active") == [(0,)]


def run_by_dbt(project: Project, as_of: datetime) -> set[str]:
    """Tick, and return which of the test's segments dbt ran by themselves."""
    with open_tick(project, as_of, is_explicit=True) as tick:
        ran = {result.node.name for result in project.dbt.invoke(build_arguments(project, tick)).results}
    return ran & {"active", "first_two"}


def test_dbt_runs_a_segment_that_is_new_or_edited_or_has_lost_its_view(
    project: Project, product: Product, models: Models
) -> None:
    models.segment("active", ACTIVE)
    models.segment("first_two", ACTIVE + " order by user_id limit 2")
    product.track("ada", "login", AS_OF - DAY, times=2)
    assert run_by_dbt(project, AS_OF) == {"active", "first_two"}
    product.track("bob", "login", AS_OF, times=2)
    product.track("cid", "login", AS_OF)
    assert run_by_dbt(project, AS_OF) == {"first_two"}, "only here do the others decide"
    assert log(project, "active") == [("ada", "entered"), ("bob", "entered")]
    assert looked_at(project, "active") == [1, 2]

    models.segment("active", ACTIVE.replace(">= 2", ">= 1"))
    assert run_by_dbt(project, AS_OF) == {"active", "first_two"}
    assert log(project, "active")[2:] == [("cid", "entered")]
    assert run_by_dbt(project, AS_OF) == {"first_two"}
    with project.engine.begin() as connection:
        connection.execute(sa.text("drop view segments.active"))
    assert run_by_dbt(project, AS_OF) == {"active", "first_two"}
    assert rows(project, "select user_id from segments.active order by 1") == [("ada",), ("bob",), ("cid",)]
    product.track("dan", "login", AS_OF)
    assert run_by_dbt(project, AS_OF) == {"first_two"}
    assert log(project, "active")[3:] == [("dan", "entered")]

    with project.engine.begin() as connection:
        connection.execute(sa.text("update features.user_features set logins_10d = 0 where user_id = 'ada'"))
    assert rebuild(project)["user_features"] == 1
    assert run_by_dbt(project, AS_OF) == {"first_two"}
    assert looked_at(project, "active")[-1] == 4, "any row may have changed"
    assert run_by_dbt(project, AS_OF + 11 * DAY) == {"first_two"}
    assert {change for _, change in log(project, "active")[4:]} == {"exited"}
    assert rows(project, "select count(*) from segments.active") == [(0,)]


def test_a_value_that_one_condition_cannot_read_holds_that_segment_out(
    project: Project, product: Product, models: Models
) -> None:
    models.segment("active", ACTIVE)
    models.segment("often", ACTIVE.replace("logins_10d >= 2", "100 / (logins_10d - 3) >= 2"))
    product.track("ada", "login", AS_OF - DAY, times=4)
    build(project, AS_OF, is_explicit=True)
    product.track("bob", "login", AS_OF, times=3)
    build(project, AS_OF, is_explicit=True)
    assert not_evaluated(project.engine) == {"often": "division by zero (SQLSTATE 22012)"}
    [state] = [one for one in examine(project.settings) if one.subject == "state"]
    assert "segment 'often' was not evaluated: division by zero (SQLSTATE 22012)" in state.found
    assert log(project, "active") == [("ada", "entered"), ("bob", "entered")]
    product.track("bob", "login", AS_OF)
    build(project, AS_OF, is_explicit=True)
    assert not_evaluated(project.engine) == {}
    assert log(project, "often") == [("ada", "entered"), ("bob", "entered")]
    assert looked_at(project, "active") == [1, 1, 1]


def test_what_is_left_out_is_tested_all_the_same(project: Project, product: Product, models: Models) -> None:
    models.segment("active", ACTIVE)
    described = models.folder / "models" / "segments" / "_more.yml"
    test = {"accepted_values": {"arguments": {"values": ["ada"]}}}
    described.write_text(
        yaml.safe_dump({"models": [{"name": "active", "columns": [{"name": "user_id", "data_tests": [test]}]}]})
    )
    models.reload()
    product.track("ada", "login", AS_OF, times=2)
    build(project, AS_OF, is_explicit=True)
    product.track("bob", "login", AS_OF, times=2)
    build(project, AS_OF, is_explicit=True)
    product.track("cid", "login", AS_OF, times=2)
    with pytest.raises(UpnextError, match=r"_more.yml: Got 1 result"):
        build(project, AS_OF, is_explicit=True)
    assert members_at(project.engine, "active", AS_OF) == ["ada", "bob"], "a test sees what is published"


def test_another_users_membership_is_followed_too(project: Project, product: Product, models: Models) -> None:
    describe(models, referrer={"latest_trait": "referrer", "as": "text"})
    models.segment("partners", ACTIVE)
    models.segment(
        "referred",
        "select user_id from {{ ref('user_features') }} where referrer in (select user_id from {{ ref('partners') }})",
    )
    product.identify("ada", AS_OF - DAY, referrer="bob")
    product.track("bob", "login", AS_OF - DAY)
    build(project, AS_OF, is_explicit=True)
    assert rows(project, "select user_id from segments.referred") == []
    product.track("bob", "login", AS_OF)
    build(project, AS_OF + DAY, is_explicit=True)
    assert rows(project, "select user_id from segments.partners") == [("bob",)]
    assert rows(project, "select user_id from segments.referred") == [("ada",)], "only bob's row has changed"


def test_segments_on_segments_and_of_accounts(project: Project, product: Product, models: Models) -> None:
    models.segment("active", ACTIVE)
    models.segment(
        "idle_payers",
        "select user_id from {{ ref('user_features') }} where has_subscribed_premium"
        " and not user_id in (select user_id from {{ ref('active') }})",
    )
    models.segment("team", "select account_id from {{ ref('account_features') }} where members >= 2")
    product.track("ada", "subscribed to premium plan", AS_OF - 20 * DAY)
    product.track("ada", "login", AS_OF - 9 * DAY, times=2)
    product.store("group", AS_OF - DAY, user_id="ada", account_id="acme")
    build(project, AS_OF, is_explicit=True)
    assert (log(project, "active"), log(project, "idle_payers")) == ([("ada", "entered")], [])
    assert rows(project, "select account_id from segments.team") == []

    product.store("group", AS_OF, user_id="bob", account_id="acme")
    build(project, AS_OF + 2 * DAY, is_explicit=True)
    assert log(project, "active") == [("ada", "entered"), ("ada", "exited")]
    assert log(project, "idle_payers") == [("ada", "entered")], "in the same tick"
    entered = [("team", "acme", "entered", AS_OF + 2 * DAY)]
    assert (
        rows(project, "select segment, account_id, change, as_of from segments.account_membership_changes") == entered
    )
    assert rows(project, "select account_id from segments.team") == [("acme",)]
    assert members_at(project.engine, "team", AS_OF + 2 * DAY) == ["acme"]
    assert members_at(project.engine, "active", AS_OF) == ["ada"]
    assert (
        members_at(project.engine, "active", AS_OF - DAY) == members_at(project.engine, "active", AS_OF + 2 * DAY) == []
    )


def test_a_segment_of_users_that_becomes_one_of_accounts_loses_its_users(
    project: Project, product: Product, models: Models
) -> None:
    models.segment("active", ACTIVE)
    product.track("ada", "login", AS_OF - DAY, times=2)
    product.store("group", AS_OF - DAY, user_id="ada", account_id="acme")
    build(project, AS_OF, is_explicit=True)
    assert members_at(project.engine, "active", AS_OF) == ["ada"]
    models.segment("active", "select account_id from {{ ref('account_features') }} where members >= 1")
    build(project, AS_OF + DAY, is_explicit=True)
    assert members_at(project.engine, "active", AS_OF + DAY) == ["acme"]
    models.segment("active", ACTIVE)
    build(project, AS_OF + 2 * DAY, is_explicit=True)
    assert members_at(project.engine, "active", AS_OF + 2 * DAY) == ["ada"]
    assert log(project, "active") == [("ada", "entered"), ("ada", "exited"), ("ada", "entered")]


def test_a_change_of_the_unit_is_held_fails_or_is_taken_back_as_a_whole(
    project: Project, product: Product, models: Models
) -> None:
    models.segment("active", ACTIVE)
    users = [f"u{number}" for number in range(4)]
    for user in users:
        product.track(user, "login", AS_OF - DAY, times=2)
        product.store("group", AS_OF - DAY, user_id=user, account_id="acme")
    build(project, AS_OF, is_explicit=True)
    of_accounts = "select account_id from {{ ref('account_features') }} where"
    limit = "{{ config(meta={'limit': {'change': '10%', 'at_least': 1, 'hold': true}}) }}"

    models.segment("active", f"{limit}{of_accounts} members >= 1")
    build(project, AS_OF + HOUR, is_explicit=True)
    [held] = beyond_limits(project.engine)
    assert (held.members, held.entered, held.exited, held.is_held) == (4, 1, 4, True)
    assert members_at(project.engine, "active", AS_OF + HOUR) == users

    models.segment("active", f"{of_accounts} account_id::integer > 0")
    build(project, AS_OF + 2 * HOUR, is_explicit=True)
    assert not_evaluated(project.engine)["active"].startswith("a value is not of the type")
    assert members_at(project.engine, "active", AS_OF + 2 * HOUR) == users

    models.segment("active", ACTIVE)
    build(project, AS_OF + 3 * HOUR, is_explicit=True)
    models.segment("active", f"{of_accounts} members >= 1")
    models.segment("zz_broken", "select user_id from {{ ref('user_features') }} where no_function(user_id)")
    with pytest.raises(UpnextError, match="zz_broken"):
        build(project, AS_OF + 4 * HOUR, is_explicit=True)
    models.segment("zz_broken", None)
    models.segment("active", ACTIVE)
    build(project, AS_OF + 5 * HOUR, is_explicit=True)
    assert rows(project, "select user_id from segments.active order by 1") == [(user,) for user in users]


def test_a_subquery_of_several_rows_holds_out_its_segment_alone(
    project: Project, product: Product, models: Models
) -> None:
    models.segment("active", ACTIVE)
    features = "from {{ ref('user_features') }}"
    models.segment("odd", f"select user_id {features} where logins_10d = (select logins_10d {features})")
    product.track("ada", "login", AS_OF - DAY, times=2)
    product.track("bob", "login", AS_OF - DAY, times=3)
    build(project, AS_OF, is_explicit=True)
    assert not_evaluated(project.engine) == {
        "odd": "a subquery that stands for one value has several rows (SQLSTATE 21000)"
    }
    assert members_at(project.engine, "active", AS_OF) == ["ada", "bob"]


def test_one_segment_of_an_exclusive_group_is_primary(project: Project, product: Product) -> None:
    product.power_user("ada", AS_OF)
    for user_id in ("ada", "bob"):
        product.track(user_id, "subscribed newsletter", AS_OF - DAY)
        product.track(user_id, "viewed upgrade plan", AS_OF - DAY)
    build(project, AS_OF, is_explicit=True)
    primary = "select user_id, exclusive_group, segment from segments.primary_segment order by 1"
    assert rows(project, "select count(*) from segments.current_members") == [(3,)]
    assert rows(project, primary) == [
        ("ada", "upgrade", "busy_users"), ("bob", "upgrade", "upgrade_seekers"),
    ]  # fmt: skip


def test_a_change_beyond_the_limit_is_held_until_it_is_released(
    project: Project, product: Product, models: Models
) -> None:
    limited = "{{ config(meta={'limit': {'change': '50%', 'at_least': 3, 'hold': true}}) }}" + ACTIVE
    models.segment("active", limited)
    for number in range(4):
        product.track(f"u{number}", "login", AS_OF - DAY, times=2)
    build(project, AS_OF, is_explicit=True)
    assert len(log(project, "active")) == 4, "the first members are no change"
    for number in range(10, 12):
        product.track(f"u{number}", "login", AS_OF, times=2)
    build(project, AS_OF, is_explicit=True)
    assert len(log(project, "active")) == 6, "few changes are never too many"
    with pytest.raises(UpnextError, match="segment 'active' is not held"):
        release_segment(project, "active")

    for number in range(20, 24):
        product.track(f"u{number}", "login", AS_OF, times=2)
    for hour in range(2):
        build(project, AS_OF + hour * timedelta(hours=1), is_explicit=True)
        assert len(log(project, "active")) == 6
        [held] = beyond_limits(project.engine)
        assert (held.segment, held.members, held.entered, held.exited, held.is_held) == ("active", 6, 4, 0, True)
    with pytest.raises(UpnextError, match="unknown segment 'activ'; did you mean 'active'"):
        release_segment(project, "activ")
    assert status(project)["held"] == {"active": 4}
    assert release_segment(project, "active") == 4
    assert status(project)["held"] == {}
    build(project, AS_OF + DAY, is_explicit=True)
    assert len(log(project, "active")) == 10
    models.segment("active", limited.replace("50%", "half"))
    with pytest.raises(UpnextError, match=r"active.sql:1: segment 'active' .* 'change' is 'half'; it must be a share"):
        project.check_segments(project.segment_files)
    models.segment("active", limited.replace("limit", "limits"))
    with pytest.raises(UpnextError, match=r"active.sql:1: segment 'active' .* unknown key 'limits'; did you"):
        project.check_segments(project.segment_files)


def test_a_preview_touches_nothing(project: Project, product: Product, models: Models, tmp_path: Path) -> None:
    models.segment("active", ACTIVE)
    for user_id, times in (("ada", 2), ("bob", 1)):
        product.track(user_id, "login", AS_OF - DAY, times=times)
        product.track(user_id, "subscribed newsletter", AS_OF - DAY)
        product.track(user_id, "viewed upgrade plan", AS_OF - DAY)
    build(project, AS_OF, is_explicit=True)
    before = rows(project, "select xmin::text, * from segments.evaluations order by 2, 3")
    models.segment("active", ACTIVE.replace("logins_10d >= 2", "logins_10d < 2 and 'a:b%' <> ''"))
    found = preview_segment(project, "active", with_ids=False)
    assert (found.size, found.members, found.entering, found.leaving) == (1, 1, 1, 1)
    assert (found.overlap, found.entering_ids) == ({"upgrade_seekers": 1}, None)
    (tmp_path / "compose.yml").write_text("services: {}\n")
    draft = tmp_path / "draft.sql"
    draft.write_text("select user_id from {{ ref('active') }} where user_id <> 'bob' -- nor anybody else")
    found = preview_segment(project, str(draft), with_ids=True)
    assert (found.segment, found.size, found.entering_ids, found.leaving_ids) == ("draft", 1, ["ada"], None)
    assert rows(project, "select xmin::text, * from segments.evaluations order by 2, 3") == before

    for sql, message in (
        (
            ACTIVE.replace("logins_10d", "logins_1d"),
            r"draft.sql:\d: .* reads 'logins_1d', which user_features does not have; did you mean 'logins_10d'",
        ),
        (ACTIVE.replace("user_features", "user_feature"), r"draft.sql:1: .*did you mean 'user_features'"),
        (
            ACTIVE.replace("select user_id", "select user_id, logins_10d"),
            r"draft.sql:1: segment .draft. selects user_id, logins_10d; it must",
        ),
        (ACTIVE.replace("logins_10d >= 2", "logins_10d >= 0"), "is always true"),
        (f"{ACTIVE}\nand and user_id = ''", r"draft.sql:2: syntax error at or near \"and\""),
        (f"{ACTIVE}\nand logins_10d = 'many'", r"draft.sql:2: invalid input syntax for type bigint"),
    ):
        draft.write_text(sql)
        with pytest.raises(UpnextError, match=message):
            preview_segment(project, str(draft), with_ids=False)
    with pytest.raises(UpnextError, match=r"no segment and no .sql file is called 'activ'; did you mean 'active'"):
        preview_segment(project, "activ", with_ids=False)


def test_a_column_that_is_not_there_is_told_with_the_nearest(
    project: Project, product: Product, models: Models
) -> None:
    models.segment("active", ACTIVE.replace("logins_10d", "logins_1d"))
    with pytest.raises(UpnextError, match=r"active.sql: column 'logins_1d' does not exist; did you mean 'logins_10d'"):
        build(project, AS_OF, is_explicit=True)


def test_an_edited_feature_is_computed_anew(project: Project, product: Product, models: Models) -> None:
    product.track("ada", "login", AS_OF - DAY)
    product.track("ada", "exported report", AS_OF - DAY, times=3)
    build(project, AS_OF, is_explicit=True)
    with project.engine.begin() as connection:
        connection.exec_driver_sql("create role reader; grant select on features.user_features to reader")

    def add(declared: Any) -> None:
        meta = {"count_of": "exported report", "within": "30 days"}
        declared["models"][0]["columns"] += [{"name": "reports_30d", "config": {"meta": meta}}]

    def edit(declared: Any) -> None:
        declared["models"][0]["columns"][-1]["config"]["meta"] = {"ever": "exported report"}

    def remove(declared: Any) -> None:
        declared["models"][0]["columns"].pop()

    for change, expected in ((add, 3), (edit, True)):
        models.edit("models/features/_features.yml", change)
        build(project, AS_OF, is_explicit=True)
        assert rows(project, "select logins_30d, reports_30d from features.user_features") == [(1, expected)]

    def promise(declared: Any) -> None:
        declared["models"][0]["columns"][-1]["data_type"] = "bigint"

    models.edit("models/features/_features.yml", promise)
    with pytest.raises(UpnextError, match="column 'reports_30d' is boolean, but its data_type says bigint"):
        project.dbt.invoke(["run", "--full-refresh", "--select", "user_features"])
    models.edit("models/features/_features.yml", remove)
    build(project, AS_OF, is_explicit=True)
    assert rows(project, "select to_jsonb(user_features) ? 'reports_30d' from features.user_features") == [(False,)]
    assert rows(project, "select has_table_privilege('reader', 'features.user_features', 'select')") == [(True,)]
    models.edit("engine/membership/_membership.yml", promise)
    with pytest.raises(UpnextError, match="This model has an enforced contract that failed"):
        project.dbt.invoke(["run", "--select", "primary_segment"])
    with project.engine.begin() as connection:
        connection.exec_driver_sql("drop owned by reader; drop role reader")


def test_drift_is_found_mended_and_told(project: Project, product: Product) -> None:
    product.power_user("ada", AS_OF)
    product.track("bob", "login", AS_OF)
    build(project, AS_OF, is_explicit=True)
    assert set(rebuild(project).values()) == {0}
    with project.engine.begin() as connection:
        connection.execute(sa.text("update features.user_features set logins_30d = 0 where user_id = 'ada'"))
        connection.execute(sa.text("delete from features.user_features where user_id = 'bob'"))
    assert rebuild(project)["user_features"] == 2
    assert dict(rows(project, "select user_id, logins_30d from features.user_features")) == {"ada": 10, "bob": 1}
    build(project, AS_OF, is_explicit=True)
    assert log(project, "busy_users") == [("ada", "entered")]


def describe(models: Models, **features: dict[str, Any]) -> None:
    """Declare features of users."""

    def change(declared: Any) -> None:
        declared["models"][0]["columns"] += [
            {"name": name, "description": "x", "config": {"meta": meta}} for name, meta in features.items()
        ]

    models.edit("models/features/_features.yml", change)
    vars(models.project).pop("features", None)


def test_a_value_that_cannot_be_read_is_null_and_stops_nobody(
    project: Project, product: Product, models: Models
) -> None:
    values = {"ada": 34, "bob": "n/a", "cid": "21", "dan": None, "eve": True, "fay": "2026-03-01T10:00:00+02"}
    for user, value in values.items():
        product.identify(user, AS_OF - 3 * DAY, value="first")
        product.identify(user, AS_OF - 2 * DAY, value=value)
    describe(
        models,
        as_number={"latest_trait": "value", "as": "number"}, as_boolean={"latest_trait": "value", "as": "boolean"},
        as_time={"latest_trait": "value", "as": "time", "within": "30 days"}, as_text={"latest_trait": "value"},
    )  # fmt: skip
    models.segment("of_age", "select user_id from {{ ref('user_features') }} where as_number > 20")
    build(project, AS_OF, is_explicit=True)
    found = rows(
        project, "select user_id, as_number, as_boolean, as_time, as_text from features.user_features order by 1"
    )
    assert [(user, number, is_true, at is not None, text) for user, number, is_true, at, text in found] == [
        ("ada", 34, None, False, "34"), ("bob", None, None, False, "n/a"), ("cid", 21, None, False, "21"),
        ("dan", None, None, False, "first"), ("eve", None, True, False, "true"),
        ("fay", None, None, True, "2026-03-01T10:00:00+02"),
    ]  # fmt: skip
    assert rows(project, "select user_id from segments.of_age order by 1") == [("ada",), ("cid",)]
    product.identify("ada", AS_OF, value="n/a")
    product.identify("dan", AS_OF, value=50)
    build(project, AS_OF + DAY, is_explicit=True)
    assert rows(project, "select user_id from segments.of_age order by 1") == [("cid",), ("dan",)]


def test_a_segment_that_fails_is_held_out_and_the_rest_is_published(
    project: Project, product: Product, models: Models
) -> None:
    describe(models, age={"latest_trait": "age"})
    models.segment("of_age", "select user_id from {{ ref('user_features') }} where age::numeric > 20")
    models.segment("active", ACTIVE)
    product.identify("ada", AS_OF - 2 * DAY, age="34")
    product.track("ada", "login", AS_OF - 2 * DAY, times=2)
    build(project, AS_OF - DAY, is_explicit=True)
    assert rows(project, "select segment, user_id from segments.members order by 1") == [
        ("active", "ada"), ("of_age", "ada"),
    ]  # fmt: skip
    product.identify("bob", AS_OF - DAY, age="n/a")
    product.identify("ada", AS_OF - DAY, age="12")
    product.track("bob", "login", AS_OF - DAY, times=2)
    for day in (0, 1):
        build(project, AS_OF + day * DAY, is_explicit=True)
        assert rows(project, "select segment, user_id from segments.members order by 1, 2") == [
            ("active", "ada"), ("active", "bob"), ("of_age", "ada"),
        ], "its members stay, the others are published"  # fmt: skip
        assert not_evaluated(project.engine) == {
            "of_age": "a value is not of the type that it is read as (SQLSTATE 22P02)"
        }, "and no value is told"
    product.identify("bob", AS_OF + DAY, age="40")
    build(project, AS_OF + 2 * DAY, is_explicit=True)
    assert not_evaluated(project.engine) == {}
    assert rows(project, "select user_id from segments.of_age") == [("bob",)], "everybody is looked at again"


def test_what_somebody_calls_himself_is_run_nowhere_and_told_nowhere(
    project: Project, product: Product, models: Models
) -> None:
    describe(models, zone={"latest_trait": "timezone"})
    models.segment(
        "late_risers",
        "select user_id from {{ ref('user_features') }} where now() at time zone zone > '2026-01-01'",
    )
    product.identify("eve", AS_OF - DAY, timezone="x$error$; drop table segments.ticks; select 1 --")
    product.identify("jane", AS_OF - DAY, timezone="jane.doe@example.com")
    build(project, AS_OF, is_explicit=True)
    told = "a function does not take a value that it was given (SQLSTATE 22023)"
    assert not_evaluated(project.engine) == {"late_risers": told}


def test_a_segment_reads_a_model_and_a_seed_of_ones_own(project: Project, product: Product, models: Models) -> None:
    (dbt.PROJECT_DIR / "seeds").mkdir()
    (dbt.PROJECT_DIR / "seeds" / "partners.csv").write_text("user_id\nada\nbob\n")
    own = models.folder / "models" / "segments" / "of_partners.sql"
    own.write_text(
        "select user_id from {{ ref('user_features') }} where user_id in (select user_id from {{ ref('partners') }})"
        " and user_id in (select user_id from {{ ref('regulars') }})"
    )
    (models.folder / "models" / "events" / "regulars.sql").write_text(
        "select user_id from {{ ref('user_events') }} where event = 'login' group by user_id"
    )
    models.segment("on_both", "select user_id from {{ ref('of_partners') }} where true and user_id <> 'x'")
    for user in ("ada", "cid"):
        product.track(user, "login", AS_OF - DAY)
    product.track("bob", "created object", AS_OF - DAY)
    project.check()
    build(project, AS_OF, is_explicit=True)
    assert rows(project, "select segment, user_id from segments.members order by 1") == [
        ("of_partners", "ada"), ("on_both", "ada"),
    ]  # fmt: skip
    product.track("bob", "login", AS_OF)
    build(project, AS_OF + DAY, is_explicit=True)
    assert [user for _, user in rows(project, "select segment, user_id from segments.members order by 1, 2")] == [
        "ada", "bob", "ada", "bob",
    ]  # fmt: skip


def test_a_feature_that_comes_with_the_next_tick(project: Project, product: Product, models: Models) -> None:
    product.track("ada", "login", AS_OF - DAY)
    build(project, AS_OF, is_explicit=True)
    describe(models, reports={"count_of": "exported report"})
    models.segment("reporters", "select user_id from {{ ref('user_features') }} where reports > 3")
    with pytest.raises(UpnextError, match="the feature 'reports' is new: it comes with the next tick"):
        preview_segment(project, "reporters", with_ids=False)


@pytest.mark.parametrize(
    ("name", "sql", "message"),
    [
        ("user", ACTIVE, "is a word of SQL"),
        ("active", f"{ACTIVE};\n", "active.sql:1: segment 'active' holds a ';'"),
    ],
)
def test_names_and_ends_that_sql_does_not_take(
    project: Project, models: Models, name: str, sql: str, message: str
) -> None:
    models.segment(name, sql)
    with pytest.raises(UpnextError, match=message):
        project.check()
