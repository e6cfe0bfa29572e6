"""Which features stop the deletion of old events."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from upnext.events.catalogue import Derived
from upnext.features.definition import Feature
from upnext.retention.needs import Need, kept_since, needs

KNOWN = {"login", "order", "order paid", "big order"}
DERIVED = {
    "big order": Derived(description="x", owner="o", event="order"),
    "landing": Derived(description="x", owner="o", type="page"),
    "joined": Derived(description="x", owner="o", type="group"),
}


def found(keep: tuple[str, ...] = (), **feature: Any) -> list[frozenset[str]]:
    features = {"user_features": {"one": msgspec.convert(feature, Feature)}}
    return [
        need.events for need in needs(features, DERIVED, {*KNOWN, *DERIVED}, retention="13 months", keep=keep)
        if need[:2] == Need("user_features", "one", frozenset())[:2]
    ]  # fmt: skip


@pytest.mark.parametrize(
    "feature",
    [
        {"count_of": "login", "within": "30 days"},
        {"count_of": "login", "within": "13 months"},
        {"sequence": ["login", "order"], "in": "1 month", "within": "12 months"},
        {"periods_of": "login", "of_last": "50 weeks"},
        {"latest_trait": "plan"},
        {"members_where": "any"},
        {"ever": "joined"},
    ],
)
def test_what_is_kept_is_enough(feature: dict[str, Any]) -> None:
    assert found(**feature) == []


@pytest.mark.parametrize(
    ("feature", "events"),
    [
        ({"count_of": "login"}, {"login"}),
        ({"count_of": "login", "within": "14 months"}, {"login"}),
        ({"count_of": "any"}, set()),
        ({"resumed": "login", "after": "30 days", "within": "30 days"}, {"login"}),
        ({"changed": "plan", "of": "login", "within": "30 days"}, {"login"}),
        ({"last_at": {"starts_with": "order"}}, {"order", "order paid"}),
        ({"latest_of": ["login", "order"], "is": "login"}, {"login", "order"}),
        ({"ever": "big order"}, {"order"}),
        ({"ever": "landing"}, set()),
        ({"sum_of": "amount", "of": "order"}, {"order"}),
        ({"sequence": ["login", "order"], "in": "2 months", "within": "12 months"}, {"login", "order"}),
        ({"stopped": "login", "for": "30 days"}, {"login"}),
        ({"periods_of": "login", "of_last": "60 weeks"}, {"login"}),
        ({"latest": "plan", "type": "page"}, set()),
    ],
)
def test_what_reads_further_back_is_named(feature: dict[str, Any], events: set[str]) -> None:
    assert found(**feature) == [frozenset(events)]


def test_events_that_are_kept_are_no_matter() -> None:
    assert found(keep=("login",), count_of="login") == []
    assert found(keep=("order",), ever="big order") == []
    assert found(keep=("login",), latest_of=["login", "order"], **{"is": "login"}) == [frozenset({"order"})]


@pytest.mark.parametrize(
    ("as_of", "retention", "since"),
    [
        ("2026-03-31T12:00:00+00:00", "3 months", "2025-12-01"),
        ("2026-03-01T00:00:00+00:00", "90 days", "2025-12-01"),
        ("2026-03-01T00:30:00+02:00", "1 month", "2026-01-01"),
    ],
)
def test_whole_months_are_deleted(as_of: str, retention: str, since: str) -> None:
    asked = datetime.fromisoformat(as_of)
    assert kept_since(asked, retention) == datetime.fromisoformat(since).replace(tzinfo=UTC)
