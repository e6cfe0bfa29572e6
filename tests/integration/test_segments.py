"""Features and segments by real dbt builds: exact windows, one versioned log of membership."""

from datetime import datetime, timedelta

import pytest

from tests.conftest import AS_OF, Product, rows
from upnext import dbt
from upnext.dbt import build_arguments
from upnext.errors import UpnextError
from upnext.loop import build, open_tick
from upnext.project import Project
from upnext.ticks.lifecycle import last_published_as_of

DAY = timedelta(days=1)
MICROSECOND = timedelta(microseconds=1)
WINDOWS = {
    "logins_30d": ("login", 30),
    "logins_10d": ("login", 10),
    "ml_tasks_created_30d": ("created ml task", 30),
    "upgrade_plan_views_5d": ("viewed upgrade plan", 5),
    "objects_created_10d": ("created object", 10),
}


def changes(project: Project) -> list[tuple[str, str, str, datetime]]:
    return rows(project, "select segment, user_id, change, as_of from segments.membership_changes order by change_id")


@pytest.mark.other_servers
def test_windows_and_segments_are_exact_to_the_microsecond(project: Project, product: Product) -> None:
    expected = {}
    for feature, (event, days) in WINDOWS.items():
        for name, offset, count in (
            ("before", -MICROSECOND, 0),
            ("exactly", timedelta(0), 0),
            ("after", MICROSECOND, 1),
        ):
            user_id = f"{feature} {name}"
            product.track(user_id, event, AS_OF - days * DAY + offset)
            expected[user_id, feature] = count
    product.track("now", "login", AS_OF)
    expected["now", "logins_10d"] = 1
    product.track("future", "login", AS_OF + MICROSECOND)

    for user_id, offset in (("idle", timedelta(0)), ("not idle", MICROSECOND)):
        product.track(user_id, "subscribed to premium plan", AS_OF - 50 * DAY)
        product.track(user_id, "login", AS_OF - 10 * DAY + offset)
    product.track("never logged in", "subscribed to premium plan", AS_OF - 50 * DAY)
    for user_id, offset in (("curious", MICROSECOND), ("not curious", timedelta(0))):
        product.track(user_id, "subscribed newsletter", AS_OF - 50 * DAY)
        product.track(user_id, "viewed upgrade plan", AS_OF - 5 * DAY + offset)
    for user_id, logins in (("nine logins", 9), ("ten logins", 10)):
        product.track(user_id, "subscribed to basic plan", AS_OF - 50 * DAY)
        product.track(user_id, "product viewed", AS_OF - 50 * DAY)
        product.track(user_id, "created ml task", AS_OF - DAY, times=5)
        product.track(user_id, "login", AS_OF - 30 * DAY + MICROSECOND, times=logins)
        product.track(user_id, "login", AS_OF - 30 * DAY)

    build(project, AS_OF, is_explicit=True)

    columns = ", ".join(WINDOWS)
    found = {row[0]: dict(zip(WINDOWS, row[1:], strict=True)) for row in rows(
        project, f"select user_id, {columns} from features.user_features"
    )}  # fmt: skip
    assert {(user_id, feature): found[user_id][feature] for user_id, feature in expected} == expected
    assert "future" not in found
    assert {(segment, user_id) for segment, user_id, _, _ in changes(project)} == {
        ("lapsed_payers", "idle"),
        ("lapsed_payers", "never logged in"),
        ("upgrade_seekers", "curious"),
        ("busy_users", "ten logins"),
    }


def test_the_latest_subscription_counts_and_ties_have_an_order(project: Project, product: Product) -> None:
    basic, premium = "subscribed to basic plan", "subscribed to premium plan"
    for user_id, events in {
        "basic": [(basic, 1)],
        "moved on": [(basic, 1), (premium, 2)],
        "moved back": [(premium, 1), (basic, 2)],
        "tie, premium last": [(basic, 1), (premium, 1)],
        "tie, basic last": [(premium, 1), (basic, 1)],
    }.items():
        for event, day in events:
            product.track(user_id, event, AS_OF - 10 * DAY + day * DAY)
    product.identify("neither", AS_OF - DAY)
    build(project, AS_OF, is_explicit=True)
    assert dict(rows(project, "select user_id, is_on_basic_plan from features.user_features")) == {
        "basic": True, "moved on": False, "moved back": True,
        "tie, premium last": False, "tie, basic last": True, "neither": False,
    }  # fmt: skip
    assert rows(
        project,
        "select count(*) from features.user_features where logins_30d is null or has_subscribed_premium is null",
    ) == [(0,)]


def test_the_log_grows_only_by_changes(project: Project, product: Product) -> None:
    product.power_user("ada", AS_OF)
    product.power_user("bob", AS_OF)
    build(project, AS_OF, is_explicit=True)
    build(project, AS_OF, is_explicit=True)
    entered = [("busy_users", user, "entered", AS_OF) for user in ("ada", "bob")]
    assert changes(project) == entered

    product.track("bob", "subscribed to premium plan", AS_OF + DAY)
    build(project, AS_OF + DAY, is_explicit=True)
    assert changes(project) == [*entered, ("busy_users", "bob", "exited", AS_OF + DAY)]
    assert rows(project, "select user_id, entered_at from segments.busy_users") == [("ada", AS_OF)]
    assert rows(project, "select count(*) from segments.published_ticks") == [(3,)]


def test_a_build_by_hand_takes_nothing_in_and_leaves_the_log_alone(project: Project, product: Product) -> None:
    product.track("bob", "login", AS_OF)
    build(project, AS_OF, is_explicit=True)
    product.power_user("ada", AS_OF)
    for more in ([], ["--full-refresh"]):
        project.dbt.invoke([*build_arguments(as_of=None, tick_id=None), *more])
        assert rows(project, "select user_id, logins_30d from features.user_features") == [("bob", 1)]
        assert changes(project) == []
    build(project, AS_OF, is_explicit=True)
    assert dict(rows(project, "select user_id, logins_30d from features.user_features")) == {"ada": 10, "bob": 1}
    assert changes(project) == [("busy_users", "ada", "entered", AS_OF)]


def test_empty_builds_are_refused(project: Project) -> None:
    project.dbt.invoke(build_arguments(as_of=None, tick_id=None))
    ((before,),) = rows(project, "select obj_description('events.user_events'::regclass)")
    with pytest.raises(UpnextError, match="--empty would make every member exit"):
        project.dbt.invoke([*build_arguments(as_of=None, tick_id=None), "--empty", "--select", "resource_type:model"])
    seen = "select obj_description('events.user_events'::regclass) = :before"
    assert rows(project, seen, before=before) == [(True,)], "views are left as they were"


def test_half_a_tick_is_seen_by_nobody_and_the_next_one_heals(project: Project, product: Product) -> None:
    product.power_user("ada", AS_OF)
    with pytest.raises(RuntimeError), open_tick(project, AS_OF, is_explicit=True) as tick:
        project.dbt.invoke(dbt.build_arguments(as_of=tick.as_of, tick_id=tick.tick_id))
        raise RuntimeError
    assert len(changes(project)) == 1
    assert rows(project, "select * from segments.busy_users") == []
    assert last_published_as_of(project.engine) is None

    build(project, AS_OF + DAY, is_explicit=True)
    assert changes(project) == [("busy_users", "ada", "entered", AS_OF + DAY)]
    assert rows(project, "select user_id from segments.busy_users") == [("ada",)]


def test_as_of_never_goes_back(project: Project) -> None:
    build(project, AS_OF, is_explicit=True)
    with pytest.raises(UpnextError, match="earlier than the last tick"):
        build(project, AS_OF - MICROSECOND, is_explicit=True)
    assert build(project, AS_OF - DAY, is_explicit=False).as_of == AS_OF


@pytest.mark.other_servers
def test_dates_are_read_in_a_parallel_query_too(project: Project, product: Product) -> None:
    product.track("ada", "login", AS_OF, properties={"due": AS_OF.isoformat()})
    asked = """
        select count(*) from raw.events
        where upnext.holds(properties, '{"due": {"after": "2026-01-01"}}') and upnext.is_time_zone('Europe/Berlin')
    """
    with project.engine.connect() as connection:
        version = int(connection.exec_driver_sql("show server_version_num").scalar_one())
        # It lets a worker do all that a worker may.
        setting = "debug_parallel_query" if version >= 160000 else "force_parallel_mode"
        connection.exec_driver_sql(f"set {setting} = on")
        assert connection.exec_driver_sql(asked).scalar_one() == 1


def test_the_units_of_dbt(project: Project) -> None:
    build(project, AS_OF, is_explicit=True)
    done = project.dbt.invoke(["test", "--select", "test_type:unit"])
    assert {result.status for result in done.results} == {"pass"}
    assert len(done.results) == 3
