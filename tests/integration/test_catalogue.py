"""The catalogue of events: what is declared, what is new, and events that are derived from others."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import AS_OF, Product, rows, warnings
from upnext import dbt
from upnext.errors import UpnextError
from upnext.events.declared import load_catalogue
from upnext.loop import build
from upnext.project import Project

DAY = timedelta(days=1)


def declare(content: Path, **derived: Any) -> None:
    path = content / "models" / "events" / "_catalogue.yml"
    declared = yaml.safe_load(path.read_text())
    named = {
        name.replace("_", " "): {"description": "x", "owner": "growth", **event} for name, event in derived.items()
    }
    declared["models"][0]["config"]["meta"]["derived"] = named
    path.write_text(yaml.safe_dump(declared))


def add_features(content: Path, **features: Any) -> None:
    path = content / "models" / "features" / "_features.yml"
    declared = yaml.safe_load(path.read_text())
    declared["models"][0]["columns"] += [
        {"name": name, "description": "x", "config": {"meta": meta}} for name, meta in features.items()
    ]
    path.write_text(yaml.safe_dump(declared))


def test_derived_events_are_like_any_other(content: Path, project: Project, product: Product) -> None:
    large = {"event": "exported report", "where": {"rows": {"at_least": 100}}}
    declare(
        content,
        exported_large_report=large,
        looked_at_pricing={"type": "page", "where": {"path": {"contains": "/pricing"}}, "context": {"app.name": "web"}},
        exact={"event": "login", "where": {"plan": "it's", "seats": 5, "is_new": True}},
        either={"event": "login", "where": {"plan": {"one_of": ["basic", "premium"]}, "coupon": {"exists": False}}},
    )
    add_features(
        content,
        large_reports_5d={"count_of": "exported large report", "within": "5 days"},
        events={"count_of": "any"},
        pricing={"ever": "looked at pricing"},
        exact={"count_of": "exact"},
        either={"last_at": "either"},
    )
    project.dbt = dbt.Dbt(project.settings, project.engine.url)
    at = AS_OF - DAY
    for count in (99, 100, "100", "1e3", "many", None, True, [100]):
        product.track("u1", "exported report", at, properties={"rows": count})
    product.track("u1", "exported report", AS_OF - 6 * DAY, properties={"rows": 500})
    for path, context in (("/pricing/eu", "web"), ("/pricing", "app"), ("/", "web")):
        product.store("page", at, user_id=f"u-{path}-{context}", properties={"path": path})
        with project.engine.begin() as connection:
            connection.exec_driver_sql(
                "update raw.events set context = jsonb_build_object('app', jsonb_build_object('name', %s::text))"
                " where user_id = %s",
                (context, f"u-{path}-{context}"),
            )
    for properties in (
        {"plan": "it's", "seats": 5, "is_new": True}, {"plan": "it's", "seats": "5.0", "is_new": "true"},
        {"plan": "it's", "seats": 6, "is_new": True}, {"plan": "its", "seats": 5, "is_new": True},
    ):  # fmt: skip
        product.track("u2", "login", at, properties=properties)
    product.track("u3", "login", at, properties={"plan": "basic", "coupon": None})
    product.track("u3", "login", AS_OF, properties={"plan": "basic", "coupon": "x"})

    build(project, AS_OF, is_explicit=True)
    ((u1),) = rows(project, "select large_reports_5d, events from features.user_features where user_id = 'u1'")
    assert u1 == (3, 9)
    assert rows(project, "select user_id from features.user_features where pricing") == [("u-/pricing/eu-web",)]
    assert rows(project, "select exact, either from features.user_features where user_id = 'u2'") == [(2, None)]
    assert rows(project, "select either from features.user_features where user_id = 'u3'") == [(at,)]


def test_an_event_that_nobody_declared_is_new(project: Project, product: Product) -> None:
    product.track("u1", "login", AS_OF - 2 * DAY)
    product.track("u1", "login", AS_OF - DAY)
    build(project, AS_OF - timedelta(minutes=1), is_explicit=True)
    assert warnings(project) == set()
    product.track("u1", "danced", AS_OF)
    build(project, AS_OF, is_explicit=True)
    assert warnings(project) == {"events_are_catalogued"}
    assert rows(project, "select event, first_at, last_at from events.catalogue where kind = 'new'") == [
        ("danced", AS_OF, AS_OF)
    ]
    assert rows(project, "select kind, owner, first_at, last_at from events.catalogue where event = 'login'") == [
        ("declared", "identity", AS_OF - 2 * DAY, AS_OF - DAY)
    ]


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"event": "exportd report"}, "the catalogue does not list; did you mean 'exported report'?"),
        ({"event": "a derived one"}, "which is derived itself"),
        ({}, "made of one `event` or one `type`"),
        ({"event": "login", "type": "page"}, "made of one `event` or one `type`"),
        ({"event": "login", "wher": {}}, "unknown key 'wher'; did you mean 'where'?"),
        ({"event": "login", "where": {"rows": {"at_leest": 5}}}, "unknown key 'at_leest'; did you mean 'at_least'?"),
        ({"event": "login", "where": {"rows": [5]}}, "'rows' is a list; it must be text or a whole number or"),
        ({"event": "login", "where": {"rows": {}}}, "a test that tests nothing; write one of equals, not, one_of"),
        ({"event": "login", "where": {}}, "where: holds no test; leave it out"),
        ({"event": "login", "where": {"plan": None}}, "'plan' is empty; it must be text"),
    ],
)
def test_mistakes_name_file_and_line(content: Path, event: dict[str, Any], message: str) -> None:
    declare(content, a_derived_one={"event": "login"}, another=event)
    with pytest.raises(UpnextError) as raised:
        load_catalogue(content / "models")
    assert message in str(raised.value)
    path, line, _ = str(raised.value).split(":", 2)
    text = Path(path).read_text().splitlines()
    assert int(line) >= next(number for number, one in enumerate(text, 1) if "derived:" in one)


def test_a_derived_event_needs_a_name_of_its_own(content: Path) -> None:
    declare(content, login={"event": "exported report"})
    with pytest.raises(UpnextError, match="derived event 'login' is an event of the product already"):
        load_catalogue(content / "models")
