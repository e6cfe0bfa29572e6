"""What features and segments are, said a second time: slowly, event by event, in Python that knows no model.

It follows the words of the guide and the product's definitions, so that an engine that is fast can be checked by it.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
BASIC, PREMIUM = "subscribed to basic plan", "subscribed to premium plan"


@dataclass(frozen=True)
class Occurrence:
    """An event as it is loaded; `order` is its id, and breaks ties."""

    order: str
    type: str
    at: datetime
    event: str | None = None
    user_id: str | None = None
    anonymous_id: str | None = None
    previous_id: str | None = None
    account_id: str | None = None
    properties: dict[str, Any] = field(default_factory=dict)


def whose(events: Iterable[Occurrence]) -> Callable[[Occurrence], str | None]:
    """Return a function that says whose an event is, by what identify and alias said in these events."""
    claims = []
    for event in events:
        if event.type not in ("identify", "alias") or event.user_id is None or event.previous_id == event.user_id:
            continue
        said = [("visitor", event.anonymous_id)]
        if event.type == "alias":
            said += [("visitor", event.previous_id), ("user", event.previous_id)]
        claims += [
            (event.at, event.order, kind, event.user_id, claimed) for kind, claimed in said if claimed is not None
        ]
    visitors: dict[str, str] = {}
    users: dict[str, str | None] = {}
    for _, _, kind, linked_to, claimed in sorted(claims):
        if kind == "visitor":
            visitors.setdefault(claimed, linked_to)
        elif claimed not in users:
            reached: str | None = linked_to
            while reached is not None and reached != claimed:
                reached = users.get(reached)
            users[claimed] = None if reached == claimed else linked_to

    def survivor(user_id: str) -> str:
        while (linked := users.get(user_id)) is not None:
            user_id = linked
        return user_id

    def owner(event: Occurrence) -> str | None:
        if event.user_id is not None:
            return survivor(event.user_id)
        known = visitors.get(event.anonymous_id) if event.anonymous_id else None
        return survivor(known) if known else None

    return owner


class History:
    """Events of users and accounts by an instant."""

    def __init__(self, events: Iterable[Occurrence], as_of: datetime) -> None:
        self.as_of = as_of
        past = sorted((event for event in events if event.at <= as_of), key=lambda event: (event.at, event.order))
        owner = whose(past)
        self.by_user: dict[str, list[Occurrence]] = defaultdict(list)
        for event in past:
            if (user_id := owner(event)) is not None:
                self.by_user[user_id].append(replace(event, user_id=user_id))

    def within(self, events: Sequence[Occurrence], length: timedelta | None) -> list[Occurrence]:
        return [event for event in events if length is None or event.at > self.as_of - length]

    def user_features(self) -> dict[str, dict[str, Any]]:
        """The features that the product ships, by user."""
        return {user_id: self._shipped(events) for user_id, events in self.by_user.items()}

    def _shipped(self, events: list[Occurrence]) -> dict[str, Any]:
        def count(name: str, length: timedelta | None = None) -> int:
            return sum(event.event == name for event in self.within(events, length))

        def last(name: str) -> datetime | None:
            return max((event.at for event in events if event.event == name), default=None)

        plans = [event.event for event in events if event.event in (BASIC, PREMIUM)]
        return {
            "logins_30d": count("login", 30 * DAY),
            "ml_tasks_created_30d": count("created ml task", 30 * DAY),
            "upgrade_plan_views_5d": count("viewed upgrade plan", 5 * DAY),
            "products_viewed": count("product viewed"),
            "is_on_basic_plan": plans[-1:] == [BASIC],
            "is_on_premium_plan": plans[-1:] == [PREMIUM],
            "has_subscribed_premium": count(PREMIUM) > 0,
            "has_subscribed_newsletter": count("subscribed newsletter") > 0,
            "logins_10d": count("login", 10 * DAY),
            "objects_created_10d": count("created object", 10 * DAY),
            "last_login_at": last("login"),
            "last_object_created_at": last("created object"),
        }

    def all_kinds(self) -> dict[str, dict[str, Any]]:
        """A feature of each kind, by user (tests/models/features/_all_kinds.yml)."""
        return {user_id: self._kinds(events) for user_id, events in self.by_user.items()}

    def _kinds(self, events: list[Occurrence]) -> dict[str, Any]:
        def named(*names: str, length: timedelta | None = None) -> list[Occurrence]:
            return [event for event in self.within(events, length) if event.event in names]

        def total(bought: list[Occurrence]) -> Decimal:
            return sum((Decimal(str(event.properties["amount"])) for event in bought), Decimal())

        def days(found: list[Occurrence]) -> int:
            return len({event.at.astimezone(UTC).date() for event in found})

        def latest(found: list[Occurrence], name: str) -> Any:
            return next((event.properties[name] for event in reversed(found) if event.properties.get(name)), None)

        def times(found: list[Occurrence]) -> list[datetime | None]:
            return [event.at for event in found] or [None]

        def bought_last(found: list[Occurrence]) -> bool:
            return [event.event for event in found[-1:]] == ["bought"]

        def amounts(found: list[Occurrence]) -> list[Decimal]:
            return [Decimal(str(event.properties["amount"])) for event in found]

        def due(event: Occurrence) -> datetime | None:
            return _date(event.properties.get("due"))

        def overdue(event: Occurrence) -> bool:
            date = due(event)
            return date is not None and date < self.as_of - DAY

        def due_soon(event: Occurrence) -> bool:
            date = due(event)
            return date is not None and self.as_of - 2 * HOUR < date < self.as_of + 2 * DAY

        def floored(length: timedelta | None, unit: timedelta) -> int | None:
            return None if length is None else length // unit

        def runs(found: list[Occurrence], name: str) -> list[datetime]:
            having = [event for event in found if event.properties.get(name)]
            return [
                event.at
                for before, event in zip([None, *having], having, strict=False)
                if before is None or before.properties[name] != event.properties[name]
            ]

        def is_much(event: Occurrence) -> bool:
            return event.event == "imported" and event.properties.get("rows", 0) >= 1000

        derived = [replace(event, event="imported much") if is_much(event) else event for event in events]
        two, five, week = 2 * DAY, 5 * HOUR, 7 * DAY
        bought, imported = named("bought"), named("imported")
        identified = [event for event in events if event.type == "identify"]
        due_at = _date(latest(imported, "due"))
        ends_at = _date(latest(identified, "ends_at"))
        plans, traits = runs(named("login"), "plan"), runs(identified, "plan")
        look = ("login", "viewed", "bought")
        return {
            "logins": len(named("login")),
            "logins_5h": len(named("login", length=five)),
            "premium_logins_2d": sum(e.properties.get("plan") == "premium" for e in named("login", length=two)),
            "anything_2d": len(self.within(events, two)),
            "imports": sum(map(is_much, events)),
            "spent": total(named("bought")),
            "spent_1w": total(named("bought", length=week)),
            "login_days": days(named("login")),
            "login_days_2d": days(named("login", length=two)),
            "has_bought": bool(named("bought")),
            "has_bought_5h": bool(named("bought", length=five)),
            "has_bought_much": any(event.properties["amount"] >= 2 for event in named("bought")),
            "first_login_at": times(named("login"))[0],
            "first_login_2d_at": times(named("login", length=two))[0],
            "last_login_at": times(named("login"))[-1],
            "last_login_2d_at": times(named("login", length=two))[-1],
            "last_was_bought": bought_last(named("login", "bought")),
            "last_was_bought_2d": bought_last(named("login", "bought", length=two)),
            "login_plan": latest(named("login"), "plan"),
            "login_plan_5h": latest(named("login", length=five), "plan"),
            "trait_plan": latest([event for event in events if event.type == "identify"], "plan"),
            "looked_then_bought": _in_order(named(*look), look, 3 * HOUR),
            "looked_then_bought_2d": _in_order(named(*look, length=two), look, 3 * HOUR),
            "views_in_session": _most_in_session(events, "viewed"),
            "views_in_session_2d": _most_in_session(self.within(events, two), "viewed"),
            "imports_in_session": _most_in_session(derived, "imported much"),
            "import_in_session": any(
                _in_order(session, ("login", "imported much"), timedelta.max) for session in _sessions(derived)
            ),
            "last_import_was_much": bool(imported) and is_much(imported[-1]),
            "looks_2d": len(named("viewed", "bought", length=two)),
            "created": sum((event.event or "").startswith("created ") for event in events),
            "created_days_2d": days([e for e in self.within(events, two) if (e.event or "").startswith("created ")]),
            "logins_not_basic": sum(event.properties.get("plan") != "basic" for event in named("login")),
            "small_or_premium_2d": sum(
                event.properties.get("plan") == "premium" or 0 <= event.properties.get("amount", -1) <= 1
                for event in self.within(events, two)
            ),
            "overdue": sum(map(overdue, imported)),
            "due_soon_1w": sum(map(due_soon, named("imported", length=week))),
            "has_overdue": any(map(overdue, imported)),
            "not_overdue": sum(not overdue(event) for event in imported),
            "first_plan": latest(named("login")[::-1], "plan"),
            "login_plan_or_null": next((event.properties.get("plan") for event in reversed(named("login"))), None),
            "least_spent": min(amounts(bought), default=None),
            "most_spent_2d": max(amounts(named("bought", length=two)), default=None),
            "most_spent_1mo": max(amounts(named("bought", length=30 * DAY)), default=None),
            "most_spent_ever": max(amounts(bought), default=None),
            "mean_spent": _near(total(bought) / len(bought)) if bought else None,
            "amounts": len(set(amounts(bought))),
            "plan_held_since": plans[-1] if plans else None,
            "trait_held_since": traits[-1] if traits else None,
            "has_changed_plan": len(plans) > 1,
            "has_changed_trait_2d": len(traits) > 1 and traits[-1] > self.as_of - two,
            "hours_since_due": floored(due_at and self.as_of - due_at, HOUR),
            "days_until_due": floored(due_at and due_at - self.as_of, DAY),
            "days_until_end": floored(ends_at and ends_at - self.as_of, DAY),
            "in_any_order": _in_any_order(events, ("viewed", "login", "viewed"), 3 * HOUR),
            "strictly": any(
                [before.event, event.event] == ["login", "viewed"] and event.at - before.at <= 3 * HOUR
                for before, event in pairwise(events)
            ),
            "in_a_session": any(
                _in_order(session, ("login", "viewed"), timedelta.max) for session in _sessions(events)
            ),
            "without_login": any(
                event.event == "viewed"
                and later.event == "bought"
                and later.at - event.at <= two
                and not any(between.event == "login" for between in events[nth + 1 : end])
                for nth, event in enumerate(events)
                for end, later in enumerate(events[nth + 1 :], start=nth + 1)
            ),
            "paid_more": any(
                event.properties["amount"] < 1
                and later.properties["amount"] >= 0.2
                and later.at - event.at <= two
                and event.properties.get("order_id", "") == later.properties.get("order_id")
                for nth, event in enumerate(bought)
                for later in bought[nth + 1 :]
            ),
            "abandoned": sum(
                event.event == "viewed"
                and event.at + HOUR <= self.as_of
                and not any(
                    later.event == "bought" and later.properties["amount"] > 0 and later.at <= event.at + HOUR
                    for later in events[nth + 1 :]
                )
                for nth, event in enumerate(events)
            ),
            "abandoned_orders_2d": sum(
                event.event == "imported"
                and self.as_of - two < event.at <= self.as_of - five
                and "order_id" in event.properties
                and not any(
                    later.event == "bought"
                    and later.properties.get("order_id") == event.properties["order_id"]
                    and later.at <= event.at + five
                    for later in events[nth + 1 :]
                )
                for nth, event in enumerate(events)
            ),
            "login_days_of_3": len(
                {
                    date
                    for event in named("login")
                    if (date := event.at.astimezone(UTC).date()) > self.as_of.date() - timedelta(days=3)
                }
            ),
            "login_weeks_of_2": len(
                {
                    monday
                    for event in named("login")
                    if (monday := _monday(event.at)) > _monday(self.as_of) - timedelta(days=14)
                }
            ),
            "stopped_login": bool(named("login")) and named("login")[-1].at <= self.as_of - two,
            "resumed_login": any(event.at - before.at >= DAY for before, event in pairwise(named("login"))),
            "resumed_login_2d": any(
                event.at - before.at >= five and event.at > self.as_of - two
                for before, event in pairwise(named("login"))
            ),
            "spent_per_login": _near(total(bought) / len(named("login"))) if named("login") else None,
        }

    def account_features(self) -> dict[str, dict[str, Any]]:
        """The features of accounts that the product ships, by account."""
        current, members = {}, set()
        for user_id, events in self.by_user.items():
            for event in events:
                if event.type == "group" and event.account_id:
                    current[user_id] = event.account_id
                    members.add((event.account_id, user_id))
        by_account: dict[str, list[Occurrence]] = defaultdict(list)
        for user_id, events in self.by_user.items():
            for event in events:
                account = event.account_id or current.get(user_id)
                if account:
                    by_account[account].append(event)
        users = self.user_features()
        return {
            account: {
                "active_users_30d": len({event.user_id for event in self.within(events, 30 * DAY)}),
                "events_30d": len(self.within(events, 30 * DAY)),
                "invites_30d": sum(event.event == "invited team member" for event in self.within(events, 30 * DAY)),
                "members": sum(owner == account for owner, _ in members),
                "members_on_premium": sum(
                    owner == account and users[user_id]["is_on_premium_plan"] for owner, user_id in members
                ),
            }
            for account, events in by_account.items()
        }

    def segments(self) -> dict[str, set[str]]:
        """Members of the product's segments, and of those of the tests."""
        users = self.user_features()
        active = {user_id for user_id, of in users.items() if of["logins_10d"] >= 2}
        by_logins = sorted(users, key=lambda user_id: (-users[user_id]["logins_10d"], user_id))
        chosen: dict[str, Callable[[str, dict[str, Any]], bool]] = {
            "basic_plan_power_users": lambda _, of: of["is_on_basic_plan"] and of["products_viewed"] >= 1
            and of["logins_30d"] >= 10 and of["ml_tasks_created_30d"] >= 5,
            "upgrade_curious": lambda _, of: of["upgrade_plan_views_5d"] >= 1 and of["has_subscribed_newsletter"]
            and not of["has_subscribed_premium"],
            "low_usage_paid_users": lambda _, of: of["has_subscribed_premium"] and of["logins_10d"] == 0
            and of["objects_created_10d"] == 0,
            "active": lambda user_id, _: user_id in active,
            "active_and_curious_or_idle": lambda user_id, of: (
                user_id in active and (of["upgrade_plan_views_5d"] >= 1 or of["products_viewed"] >= 1)
            ) or not (of["logins_30d"] >= 1 or user_id in active),
            "most_active": lambda user_id, _: user_id in by_logins[:2],
        }  # fmt: skip
        found = {
            segment: {user_id for user_id, of in users.items() if is_member(user_id, of)}
            for segment, is_member in chosen.items()
        }
        found["busy_accounts"] = {
            account
            for account, of in self.account_features().items()
            if of["active_users_30d"] >= 2 or of["members_on_premium"] >= 1
        }
        return found


class _Near(Decimal):
    """A quotient, equal to another up to rounding."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Decimal) and abs(self - other) < Decimal("1e-9")

    __hash__ = Decimal.__hash__


def _near(quotient: Decimal) -> Decimal:
    return _Near(quotient)


def _date(value: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(value) if value else None
    except ValueError:
        return None


def _in_order(events: list[Occurrence], names: Sequence[str], length: timedelta) -> bool:
    def ends(first: int, rest: Sequence[str]) -> Iterator[datetime]:
        for nth in range(first, len(events)):
            if events[nth].event == rest[0]:
                if len(rest) == 1:
                    yield events[nth].at
                else:
                    yield from ends(nth + 1, rest[1:])

    return any(
        end - event.at <= length
        for nth, event in enumerate(events)
        if event.event == names[0]
        for end in ends(nth + 1, names[1:])
    )


def _in_any_order(events: list[Occurrence], names: Sequence[str], length: timedelta) -> bool:
    def are_found(first: Occurrence) -> bool:
        found = [event.event for event in events if first.at <= event.at <= first.at + length]
        return all(found.count(name) >= names.count(name) for name in names)

    return any(are_found(event) for event in events)


def _monday(instant: datetime) -> date:
    day = instant.astimezone(UTC).date()
    return day - timedelta(days=day.weekday())


def _sessions(events: list[Occurrence]) -> list[list[Occurrence]]:
    sessions: list[list[Occurrence]] = [[]]
    for event in events:
        if sessions[-1] and event.at - sessions[-1][-1].at >= timedelta(minutes=30):
            sessions.append([])
        sessions[-1].append(event)
    return sessions


def _most_in_session(events: list[Occurrence], name: str) -> int:
    return max(sum(event.event == name for event in session) for session in _sessions(events))
