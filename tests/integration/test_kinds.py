"""Kinds of features on edge cases: traits of accounts, dates that come and pass, ratios, values that are nonsense."""

import json
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import AS_OF, Product, SmtpServer, rows
from tests.journeys import DAY, HOUR, Journeys, journey, mail
from upnext import dbt
from upnext.journeys.policy import Policy
from upnext.loop import build, ingest_landing, rebuild
from upnext.project import Project

pytestmark = pytest.mark.usefixtures("content")


def declare(content: Path, table: str, features: dict[str, Any]) -> None:
    path = content / "models" / "features" / "_features.yml"
    declared = yaml.safe_load(path.read_text())
    [model] = [model for model in declared["models"] if model["name"] == table]
    model["columns"] += [
        {"name": name, "description": name, "config": {"meta": meta}} for name, meta in features.items()
    ]
    path.write_text(yaml.safe_dump(declared))


def remove(content: Path, *names: str) -> None:
    path = content / "models" / "features" / "_features.yml"
    declared = yaml.safe_load(path.read_text())
    for model in declared["models"]:
        model["columns"] = [column for column in model["columns"] if column["name"] not in names]
    path.write_text(yaml.safe_dump(declared))


def build_at(project: Project, after: timedelta) -> None:
    project.dbt = dbt.Dbt(project.settings, project.engine.url)
    build(project, AS_OF + after, is_explicit=True)


def written_by_a_tick(project: Project, after: timedelta) -> set[str]:
    """Run a tick and return the users whose row of features it has written."""
    versions = "select user_id, cast(xmin as text) from features.user_features"
    before = dict(rows(project, versions))
    build_at(project, after)
    return {user for user, version in rows(project, versions) if before.get(user) != version}


def test_a_date_comes_nearer_and_only_the_users_whose_days_change_are_recomputed(
    content: Path, project: Project, product: Product
) -> None:
    declare(content, "user_features", {"days_left": {"time_until": "trial_ends_at"}})
    for user, ends_in in (("ann", 3 * DAY), ("bob", 10 * DAY), ("cid", -DAY / 2)):
        product.identify(user, AS_OF - DAY, trial_ends_at=(AS_OF + ends_in).isoformat())
    for user, date in (
        ("dan", "soon"),
        ("eve", "9999-12-31"),
        ("fay", "0001-01-01"),
        ("gus", None),
        ("hal", "2026-13-45"),
    ):
        product.identify(user, AS_OF - DAY, trial_ends_at=date)
    days = "select user_id, days_left from features.user_features where days_left is not null order by user_id"
    build_at(project, timedelta())
    assert rows(project, days)[:3] == [("ann", 3), ("bob", 10), ("cid", -1)]
    assert [user for user, _ in rows(project, days)] == ["ann", "bob", "cid", "eve", "fay"]

    assert written_by_a_tick(project, timedelta(microseconds=1)) == {"ann", "bob"}
    assert rows(project, days)[:3] == [("ann", 2), ("bob", 9), ("cid", -1)]
    assert written_by_a_tick(project, DAY / 4) == set()
    assert written_by_a_tick(project, DAY / 2 + timedelta(microseconds=1)) == {"cid", "eve", "fay"}
    assert rows(project, days)[:3] == [("ann", 2), ("bob", 9), ("cid", -2)]
    assert not any(rebuild(project).values())


def test_a_segment_follows_a_date_without_an_event(content: Path, project: Project, product: Product) -> None:
    declare(content, "user_features", {
        "days_left": {"time_until": "trial_ends_at"},
        "overdue": {"count_of": "created object", "where": {"due": {"before": "7 days ago"}}},
    })  # fmt: skip
    (content / "models" / "segments" / "trial_ends.sql").write_text(
        "select user_id from {{ ref('user_features') }} where days_left between 0 and 2"
    )
    (content / "models" / "segments" / "late.sql").write_text(
        "select user_id from {{ ref('user_features') }} where overdue > 0"
    )
    product.identify("ann", AS_OF - DAY, trial_ends_at=(AS_OF + 4 * DAY).isoformat())
    product.track("bob", "created object", AS_OF - DAY, properties={"due": (AS_OF - 5 * DAY).isoformat()})
    seen = []
    for day in range(6):
        build_at(project, day * DAY + timedelta(microseconds=1))
        seen.append([rows(project, f"select user_id from segments.{name}") for name in ("trial_ends", "late")])
    inside, late = [("ann",)], [("bob",)]
    assert seen == [[[], []], [inside, []], [inside, late], [inside, late], [[], late], [[], late]]


def test_a_segment_follows_a_ratio_that_is_declared_otherwise(
    content: Path, project: Project, product: Product
) -> None:
    declare(content, "user_features", {
        "logins": {"count_of": "login"}, "views": {"count_of": "product viewed"},
        "tasks": {"count_of": "created ml task"}, "share": {"ratio_of": "logins", "per": "views"},
    })  # fmt: skip
    segment = content / "models" / "segments" / "frequent.sql"
    segment.write_text("select user_id from {{ ref('user_features') }} where share >= 2")
    for event, times in (("login", 4), ("product viewed", 4), ("created ml task", 1)):
        product.track("ann", event, AS_OF - DAY, times=times)
    build_at(project, timedelta())
    seen = []
    for hour, share in enumerate(({"ratio_of": "logins", "per": "tasks"}, {"ratio_of": "views", "per": "logins"},
                                  {"count_of": {"any_of": ["login", "product viewed"]}}), start=1):  # fmt: skip
        remove(content, "share")
        declare(content, "user_features", {"share": share})
        build_at(project, hour * HOUR)
        seen.append(rows(project, "select user_id from segments.frequent"))
    assert seen == [[("ann",)], [], [("ann",)]]


def test_a_tick_keeps_what_is_counted_of_derived_events(content: Path, project: Project, product: Product) -> None:
    path = content / "models" / "events" / "_catalogue.yml"
    declared = yaml.safe_load(path.read_text())
    dear = {"description": "x", "owner": "x", "event": "product viewed", "where": {"price": {"at_least": 100}}}
    declared["models"][0]["config"]["meta"]["derived"] = {"viewed dear": dear}
    path.write_text(yaml.safe_dump(declared))
    declare(content, "user_features", {
        "dear_at_once": {"most_in_session": "viewed dear"},
        "came_for_it": {"sequence": ["login", "viewed dear"], "in": "session"},
        "last_was_dear": {"latest_of": ["product viewed", "viewed dear"], "is": "viewed dear"},
    })  # fmt: skip
    product.track("ann", "login", AS_OF - DAY)
    product.track("ann", "product viewed", AS_OF - DAY, times=4, properties={"price": 200})
    seen = []
    for hour in range(2):
        build_at(project, hour * HOUR)
        seen += rows(project, "select dear_at_once, came_for_it, last_was_dear from features.user_features")
        product.track("ann", "login", AS_OF + HOUR)
    assert seen == [(4, True, True)] * 2, "another event changes none of it"
    assert not any(rebuild(project).values())


def test_traits_of_accounts_and_ratios(content: Path, project: Project, product: Product) -> None:
    declare(content, "account_features", {
        "plan": {"latest_trait": "plan"}, "seats": {"latest_trait": "seats", "as": "number"},
        "invites": {"count_of": "invited team member"}, "most": {"max_of": "seats", "of": "invited team member"},
        "invites_per_member": {"ratio_of": "invites", "per": "members"},
    })  # fmt: skip
    declare(content, "user_features", {
        "logins": {"count_of": "login", "windows": ["1 day", "30 minutes"]},
        "part": {"ratio_of": "logins_1d", "per": "logins_30min"},
    })  # fmt: skip
    product.store("group", AS_OF - 2 * DAY, user_id="ann", account_id="acme", properties={"plan": "basic", "seats": 5})
    product.store("group", AS_OF - DAY, user_id="bob", account_id="acme", properties={"plan": "premium"})
    product.track("ann", "invited team member", AS_OF - DAY, times=3, properties={"seats": 2}, account_id="acme")
    product.track("ann", "login", AS_OF - DAY / 2, times=3)
    product.track("bob", "login", AS_OF, times=2)
    build_at(project, timedelta())
    account = "select plan, seats, invites, most, round(invites_per_member, 2) from features.account_features"
    assert [(plan, *map(float, rest)) for plan, *rest in rows(project, account)] == [("premium", 5, 3, 2, 1.5)]
    users = "select user_id, logins_1d, logins_30min, round(part, 2) from features.user_features order by user_id"
    assert rows(project, users) == [("ann", 3, 0, None), ("bob", 2, 2, 1)]

    product.store("group", AS_OF, user_id="ann", account_id="acme", properties={"plan": "free"})
    product.track("bob", "login", AS_OF + DAY / 2)
    build_at(project, DAY / 2)
    assert rows(project, "select plan from features.account_features") == [("free",)]
    assert rows(project, users) == [("ann", 0, 0, None), ("bob", 3, 1, 3)]
    assert not any(rebuild(project).values())


def test_numbers_out_of_every_range_stop_nobody(content: Path, project: Project, product: Product) -> None:
    declare(content, "user_features", {
        "mean": {"mean_of": "amount", "of": "created object"}, "most": {"max_of": "amount", "of": "created object"},
        "total": {"sum_of": "amount", "of": "created object"}, "share": {"ratio_of": "total", "per": "most"},
        "found": {"count_of": "created object", "where": {"amount": {"matches": "(a*)*b"}}},
    })  # fmt: skip
    for amount in ("1e999", "-1e999", "1e-999", "many", None, True, "a" * 100_000, {"x": 1}):
        product.track("ann", "created object", AS_OF, properties={"amount": amount})
    build_at(project, timedelta())
    numbers = "select total > 0, most > total, share >= 0, mean > 0, found from features.user_features"
    assert rows(project, numbers) == [(True, True, True, True, 0)]


def test_only_columns_that_are_new_or_have_changed_are_computed(
    content: Path, project: Project, product: Product
) -> None:
    declare(content, "user_features", {
        "kept": {"count_of": "login"}, "edited": {"count_of": "login", "within": "30 days"},
        "gone": {"ever": "login"}, "days_left": {"time_until": "ends_at"},
        "share": {"ratio_of": "edited", "per": "kept"},
    })  # fmt: skip
    declare(content, "account_features", {"logins": {"count_of": "login"}})
    product.identify("ann", AS_OF - DAY, ends_at=(AS_OF + 5 * DAY).isoformat())
    product.store("group", AS_OF - DAY, user_id="ann", account_id="acme")
    product.track("ann", "login", AS_OF - 2 * DAY, times=2)
    product.track(None, "login", AS_OF - DAY, anonymous_id="visitor")
    build_at(project, timedelta())
    with project.engine.begin() as connection:
        connection.exec_driver_sql("update features.user_features set kept = 100, logins_30d = 100")
        connection.exec_driver_sql("update features.account_users set logins = 100")

    remove(content, "edited", "gone")
    declare(content, "user_features", {
        "edited": {"count_of": "login", "within": "36 hours"}, "added": {"last_at": "login"},
    })  # fmt: skip
    declare(content, "account_features", {"invites": {"count_of": "invited team member"}})
    product.track("ann", "login", AS_OF + DAY)
    product.track("ben", "login", AS_OF + DAY)
    build_at(project, DAY)
    features = "select user_id, kept, edited, added, days_left, round(share, 2) from features.user_features order by 1"
    later = AS_OF + DAY
    assert rows(project, features) == [
        ("ann", 101, 1, later, 4, round(Decimal(1) / 101, 2)),
        ("ben", 1, 1, later, None, 1),
    ]
    assert rows(project, "select logins, invites from features.account_features") == [(101, 0)]
    names = "select attname from pg_attribute where attrelid = 'features.user_features'::regclass and attnum > 0"
    assert "gone" not in {name for (name,) in rows(project, names)}
    wrong = rebuild(project)
    assert (wrong["user_features"], wrong["account_users"]) == (1, 1), "ann's, which the test has planted"

    # A visitor tells who it is while a feature is added: the user's features are recomputed, and the new one is right.
    declare(content, "user_features", {"viewed": {"count_of": "product viewed"}, "all_logins": {"count_of": "login"}})
    product.store("identify", AS_OF + DAY, user_id="ben", anonymous_id="visitor")
    product.track("ben", "product viewed", AS_OF + DAY)
    build_at(project, 2 * DAY)
    assert rows(project, "select user_id, kept, all_logins, viewed from features.user_features order by 1") == [
        ("ann", 3, 3, 0), ("ben", 2, 2, 1),
    ]  # fmt: skip
    assert not any(rebuild(project).values())


def test_a_view_over_a_ratio_stays_while_other_features_change(
    content: Path, project: Project, product: Product
) -> None:
    declare(content, "user_features", {
        "visits": {"count_of": "login"}, "views": {"count_of": "product viewed"},
        "share": {"ratio_of": "views", "per": "visits"}, "half": {"ratio_of": "visits", "per": "views"},
    })  # fmt: skip
    product.track("ann", "login", AS_OF, times=2)
    product.track("ann", "product viewed", AS_OF)
    build_at(project, timedelta())
    with project.engine.begin() as connection:
        connection.exec_driver_sql("create view features.mine as select user_id, share from features.user_features")
    remove(content, "half")
    declare(content, "user_features", {"added": {"ever": "login"}, "half": {"ratio_of": "views", "per": "visits"}})
    build_at(project, DAY)
    assert rows(project, "select share, half, added from features.mine inner join features.user_features"
                         " using (user_id, share)") == [(Decimal("0.5"), Decimal("0.5"), True)]  # fmt: skip
    # The part of a ratio gets another type.
    remove(content, "visits", "share", "half")
    with project.engine.begin() as connection:
        connection.exec_driver_sql("drop view features.mine")
    declare(content, "user_features", {
        "visits": {"sum_of": "n", "of": "login"}, "half": {"ratio_of": "visits", "per": "views"},
    })  # fmt: skip
    build_at(project, 2 * DAY)
    assert rows(project, "select visits, half from features.user_features") == [(0, 0)]
    assert not any(rebuild(project).values())


def test_a_segment_follows_a_feature_whose_definition_has_changed(
    content: Path, project: Project, product: Product
) -> None:
    declare(content, "user_features", {"visits": {"count_of": "login", "within": "1 day"}})
    (content / "models" / "segments" / "visitors.sql").write_text(
        "select user_id from {{ ref('user_features') }} where visits >= 1"
    )
    product.track("ann", "login", AS_OF - 2 * DAY)
    build_at(project, timedelta())
    assert rows(project, "select user_id from segments.visitors") == []
    remove(content, "visits")
    declare(content, "user_features", {"visits": {"count_of": "login", "within": "5 days"}})
    build_at(project, timedelta(hours=1))
    assert rows(project, "select user_id from segments.visitors") == [("ann",)]


def test_who_was_sent_and_who_clicked_a_mail_are_features(
    content: Path, project: Project, product: Product, smtp: SmtpServer
) -> None:
    catalogue = content / "models" / "events" / "_catalogue.yml"
    declared = yaml.safe_load(catalogue.read_text())
    events = declared["models"][0]["config"]["meta"]["events"]
    events["message sent"] = {"description": "A mail was sent.", "owner": "growth"}
    catalogue.write_text(yaml.safe_dump(declared))
    hello = {"journey": "spring", "step": "hello"}
    declare(content, "user_features", {
        "hellos_sent_7d": {"count_of": "message sent", "within": "7 days", "where": hello},
        "has_clicked_hello": {"ever": "message clicked", "where": hello},
        "has_clicked_bye": {"ever": "message clicked", "where": {**hello, "step": "bye"}},
    })  # fmt: skip
    journeys = Journeys(project, product)
    project.policy = Policy()
    journeys.person("ann", "bob")
    build_at(project, timedelta())
    steps = [mail("hello", variants={"a": {"weight": 100, "subject": "A"}}), mail("bye", wait="1 day")]
    journeys.declare(spring=journey(*steps, existing_members="enroll"))
    journeys.tick(AS_OF + HOUR, "entered", "ann", "bob")
    journeys.dispatch(AS_OF + HOUR)
    [clicked] = [str(one["Message-ID"])[1:].split("@")[0] for one in smtp.accepted if "ann" in str(one["To"])]
    line = {
        "type": "track", "event": "message clicked", "messageId": "1", "userId": "ann",
        "timestamp": (AS_OF + 2 * HOUR).isoformat(), "properties": {"message_id": clicked},
    }  # fmt: skip
    (project.settings.landing / "segment").mkdir(parents=True)
    (project.settings.landing / "segment" / "clicks.jsonl").write_text(json.dumps(line) + "\n")
    ingest_landing(project)
    build_at(project, 3 * HOUR)
    told = "select event, user_id, properties - 'message_id' from raw.events where event like 'message %' order by 1, 2"
    of_step = {**hello, "variant": "a"}
    assert rows(project, told) == [
        ("message clicked", "ann", of_step),
        ("message sent", "ann", {**of_step, "channel": "email"}),
        ("message sent", "bob", {**of_step, "channel": "email"}),
    ]
    columns = "user_id, hellos_sent_7d, has_clicked_hello, has_clicked_bye"
    assert rows(project, f"select {columns} from features.user_features order by 1") == [
        ("ann", 1, True, False), ("bob", 1, False, False),
    ]  # fmt: skip
    build_at(project, 8 * DAY)
    assert rows(project, f"select {columns} from features.user_features order by 1")[1] == ("bob", 0, False, False)
    assert not any(rebuild(project).values())
