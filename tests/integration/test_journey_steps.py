"""The steps of journeys beside messages: delays, waits, branches, splits, exits, events, starts of other journeys."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.conftest import AS_OF, SmtpServer, rows
from tests.journeys import DAY, HOUR, Journeys, journey, mail
from upnext.events.ledger import has_lines_waiting
from upnext.events.source import OWN
from upnext.experiences.definition import bucket
from upnext.journeys.definition import Journey
from upnext.loop import analyse_results, build, ingest_landing
from upnext.operations.previews import explain_journey

OF_EVENT: dict[str, Any] = {
    "segment": None, "existing_members": None, "exit_on_leaving": False, "reentry": "always", "event":
    {"any_of": ["book demo"]},
}  # fmt: skip


def by_event(*steps: dict[str, Any], **values: Any) -> Journey:
    """Return a journey that `book demo` lets people into."""
    return journey(*steps, **{**OF_EVENT, **values})


def book(journeys: Journeys, *users: str, at: datetime = AS_OF + HOUR, **properties: Any) -> None:
    for user in users:
        journeys.product.track(user, "book demo", at, properties=properties)


def steps_of(journeys: Journeys) -> list[Any]:
    return journeys.entries("user_id, step, next_due_at")


def leave(name: str = "out", **values: Any) -> dict[str, Any]:
    return {"do": "exit", "name": name, **values}


def test_a_delay_lasts_a_time(journeys: Journeys) -> None:
    journeys.person("ada")
    journeys.declare(demo=by_event({"do": "delay", "name": "rest", "for": "3 days"}, mail("hello", wait="0 days")))
    journeys.dispatch()
    book(journeys, "ada")
    for at, sent in ((AS_OF + 2 * HOUR, []), (AS_OF + 3 * DAY, []), (AS_OF + 3 * DAY + HOUR, ["ada"])):
        journeys.dispatch(at)
        assert journeys.sent("hello") == sent


def test_a_delay_until_a_weekday_goes_by_the_clock_of_the_user_and_not_twice_on_one_day(journeys: Journeys) -> None:
    journeys.person("ada", timezone="America/New_York")
    journeys.person("bob")
    weekly = {"do": "delay", "name": "monday", "until": {"days": ["mon"], "at": "09:00"}}
    journeys.declare(demo=by_event(weekly, mail("digest", wait="0 days", next="monday")))
    journeys.dispatch()
    friday = datetime(2026, 4, 3, 15, tzinfo=UTC)
    book(journeys, "ada", "bob", at=friday)
    journeys.dispatch(friday)
    monday = datetime(2026, 4, 6, 9, tzinfo=UTC)
    assert steps_of(journeys) == [("ada", "monday", monday + 4 * HOUR), ("bob", "monday", monday)]
    journeys.dispatch(monday + 5 * HOUR)
    week = timedelta(weeks=1)
    assert steps_of(journeys) == [("ada", "monday", monday + 4 * HOUR + week), ("bob", "monday", monday + week)]
    assert (journeys.sent("digest"), len(journeys.messages())) == (["ada", "bob"], 2)


DATE = {"do": "delay", "name": "until", "otherwise": "late"}


@pytest.mark.parametrize(
    ("starts_at", "reached"),
    [
        ("2026-04-10T12:00:00Z", None),
        ("2026-04-10", None),
        ("2026-04-01T11:00:00Z", "late"),
        ("tomorrow", "late"),
        ("2026-13-45", "late"),
        ({"day": 5}, "late"),
        (None, "late"),
    ],
)
def test_a_delay_until_a_date_of_the_event(journeys: Journeys, starts_at: Any, reached: str | None) -> None:
    journeys.person("ada")
    until = {**DATE, "until": {"event": "starts_at", "before": "1 day"}}
    journeys.declare(demo=by_event(until, mail("reminder", wait="0 days", next="end"), mail("late", wait="0 days")))
    journeys.dispatch()
    book(journeys, "ada", starts_at=starts_at)
    journeys.dispatch(AS_OF + 2 * HOUR)
    sent = {"reminder": journeys.sent("reminder"), "late": journeys.sent("late")}
    assert sent == {"reminder": [], "late": ["ada"] if reached else []}
    if reached is None:
        [(_, _, due)] = steps_of(journeys)
        assert due == datetime.fromisoformat(str(starts_at).replace("Z", "+00:00")).replace(tzinfo=UTC) - DAY
        journeys.dispatch(due)
        assert journeys.sent("reminder") == ["ada"]


def test_a_date_that_moves_moves_the_delay(journeys: Journeys) -> None:
    journeys.person("ada", trial={"ends_at": "2026-04-10T00:00:00Z"})
    until = {**DATE, "until": {"user": "trial.ends_at", "before": "3 days"}}
    journeys.declare(demo=by_event(until, mail("reminder", wait="0 days", next="end"), leave("late")))
    journeys.dispatch()
    book(journeys, "ada")
    journeys.dispatch(AS_OF + 2 * HOUR)
    [(_, _, due)] = steps_of(journeys)
    assert due == datetime(2026, 4, 7, tzinfo=UTC)
    journeys.product.identify("ada", AS_OF + DAY, trial={"ends_at": "2026-04-20T00:00:00Z"})
    journeys.dispatch(due)
    assert (journeys.sent("reminder"), steps_of(journeys)[0][2]) == ([], due + 10 * DAY)
    journeys.dispatch(due + 10 * DAY)
    assert journeys.sent("reminder") == ["ada"]


def test_a_wait_for_a_segment_ends_when_the_user_enters_it_and_at_once_for_a_member(journeys: Journeys) -> None:
    journeys.person("ada", "bob", "cid")
    journeys.tick(AS_OF + timedelta(minutes=1), "entered", "bob", segment="busy_users")
    wait = {"do": "wait", "name": "w", "segment": "busy_users", "within": "2 days", "otherwise": "late"}
    journeys.declare(demo=by_event(wait, mail("busy", wait="1 hour", next="end"), mail("late", wait="0 days")))
    journeys.dispatch(AS_OF + timedelta(minutes=2))
    book(journeys, "ada", "bob", "cid")
    journeys.dispatch(AS_OF + 2 * HOUR)
    assert [row for row in steps_of(journeys) if row[0] == "bob"] == [("bob", None, None)], "a member goes on at once"
    journeys.tick(AS_OF + 10 * HOUR, "entered", "ada", segment="busy_users")
    journeys.tick(AS_OF + 11 * HOUR, "exited", "ada", segment="busy_users")
    journeys.dispatch(AS_OF + 12 * HOUR)
    journeys.dispatch(AS_OF + 3 * DAY)
    assert (journeys.sent("busy"), journeys.sent("late")) == (["ada", "bob"], ["cid"])
    due = rows(journeys.project, "select user_id, due_at from journeys.messages where step = 'busy' order by 1")
    assert due == [("ada", AS_OF + 11 * HOUR), ("bob", AS_OF + 2 * HOUR)], "counted from when they entered"


def test_a_wait_for_a_feature_and_one_for_a_trait(journeys: Journeys) -> None:
    journeys.person("ada", "bob")
    features = {"do": "wait", "name": "f", "features": {"logins_30d": {"at_least": 3}}, "within": "2 days",
                "otherwise": "end"}  # fmt: skip
    trait = {"do": "wait", "name": "t", "user": {"plan": "premium"}, "within": "9 days", "otherwise": "end"}
    journeys.declare(demo=by_event(features, mail("active", wait="0 days"), trait, mail("paid", wait="0 days")))
    journeys.dispatch()
    book(journeys, "ada", "bob")
    build(journeys.project, AS_OF + 2 * HOUR, is_explicit=True)
    journeys.dispatch(AS_OF + 2 * HOUR)
    assert journeys.sent("active") == []
    journeys.product.track("ada", "login", AS_OF + 3 * HOUR, times=3)
    build(journeys.project, AS_OF + 4 * HOUR, is_explicit=True)
    journeys.dispatch(AS_OF + 4 * HOUR)
    assert (journeys.sent("active"), journeys.sent("paid")) == (["ada"], [])
    journeys.product.identify("ada", AS_OF + 5 * HOUR, plan="premium")
    build(journeys.project, AS_OF + 6 * HOUR, is_explicit=True)
    journeys.dispatch(AS_OF + 6 * HOUR)
    assert journeys.sent("paid") == ["ada"]
    journeys.dispatch(AS_OF + 3 * DAY)
    assert journeys.entries("user_id, status") == [("ada", "completed"), ("bob", "completed")]


def test_a_branch_takes_the_first_arm_that_is_so(journeys: Journeys) -> None:
    users = ("ada", "bob", "cid", "dan", "eve", "flo")
    journeys.person(*users)
    journeys.person("bob", plan="Premium")
    for user in ("ada", "flo"):
        journeys.product.track(user, "login", AS_OF - DAY, times=5)
    build(journeys.project, AS_OF + timedelta(minutes=1), is_explicit=True)
    journeys.tick(AS_OF + timedelta(minutes=2), "entered", "cid", segment="busy_users")
    arms = [
        {"features": {"logins_30d": {"at_least": 5}}, "event": {"seats": {"at_least": 10}}, "then": "large"},
        {"features": {"any": [{"logins_30d": {"at_least": 5}}, {"upgrade_plan_views_5d": 9}]}, "then": "active"},
        {"user": {"plan": {"equals": "premium", "ignore_case": True}}, "then": "paying"},
        {"segment": "busy_users", "then": "busy"},
        {"any_of": ["login"], "where": {"from": "app"}, "then": "app"},
    ]
    names = ("large", "active", "paying", "busy", "app", "none")
    journeys.declare(
        demo=by_event(
            {"do": "delay", "name": "rest", "for": "1 hour"},
            {"do": "branch", "name": "which", "arms": arms, "otherwise": "none"},
            *(mail(name, wait="0 days", next="end") for name in names),
        )
    )
    journeys.dispatch(AS_OF + timedelta(minutes=3))
    book(journeys, *users, seats=3)
    book(journeys, "flo", seats=10, at=AS_OF + timedelta(minutes=50))
    journeys.product.track("dan", "login", AS_OF + HOUR + timedelta(minutes=5), properties={"from": "app"})
    journeys.product.track("eve", "login", AS_OF + HOUR + timedelta(minutes=5), properties={"from": "web"})
    journeys.dispatch(AS_OF + 3 * HOUR)
    assert {name: journeys.sent(name) for name in names} == {
        "large": ["flo"], "active": ["ada"], "paying": ["bob"], "busy": ["cid"], "app": ["dan"], "none": ["eve"],
    }  # fmt: skip


def test_a_split_sends_each_user_one_way(journeys: Journeys) -> None:
    users = [f"user{number:03}" for number in range(60)]
    journeys.person(*users)
    split = {
        "do": "split",
        "name": "half",
        "arms": {"a": {"weight": 30, "then": "one"}, "b": {"weight": 70, "then": "end"}},
    }
    journeys.declare(demo=by_event(split, leave("one", reason="one of three")))
    journeys.dispatch()
    for at in (AS_OF + HOUR, AS_OF + 3 * HOUR):
        book(journeys, *users, at=at)
        journeys.dispatch(at + HOUR)
    drawn = {user for user in users if bucket("split:demo/half", user) < 0.3}
    assert 5 < len(drawn) < 35
    found = journeys.entries("user_id, reason")
    assert sorted(found) == sorted(2 * [(user, "one of three" if user in drawn else None) for user in users])


def test_an_exit_waits_for_the_messages_before_it(journeys: Journeys) -> None:
    journeys.person("ada")
    journeys.declare(demo=by_event(mail("hello", next="out"), leave(reason="had enough")))
    journeys.dispatch()
    book(journeys, "ada")
    journeys.dispatch(AS_OF + 2 * HOUR)
    assert journeys.sent("hello") == ["ada"]
    assert journeys.entries("status, reason") == [("completed", "had enough")]


def test_events_and_traits_that_a_journey_sets_come_with_the_next_tick(journeys: Journeys) -> None:
    journeys.person("ada", "bob", name="Ada")
    steps = (
        {"do": "identify", "name": "set", "traits": {"stage": "trial", "seats": "{{ event.seats }}",
                                                     "about": {"by": ["{{ user.name }}", 1]}}},
        {"do": "track", "name": "tell", "event": "subscribed newsletter",
         "properties": {"seats": "{{ event.seats + 1 }}", "why": "asked for {{ event.seats }}"}},
    )  # fmt: skip
    journeys.declare(demo=by_event(*steps, holdout=0.5))
    journeys.dispatch()
    users = [f"user{number}" for number in range(8)]
    journeys.person(*users, name="Bo")
    book(journeys, *users, seats=5)
    journeys.dispatch(AS_OF + 2 * HOUR)
    treated = [user for user, arm in journeys.entries("user_id, arm") if arm == "treated"]
    assert 0 < len(treated) < len(users), "the held out get none"
    assert set(journeys.messages("step, channel, status")) == {
        ("set", "event", "sent"), ("tell", "event", "sent"),
    }  # fmt: skip
    with journeys.project.engine.connect() as connection:
        assert has_lines_waiting(connection, [OWN])
        assert not has_lines_waiting(connection, ["segment"])
    done = ingest_landing(journeys.project)
    assert (done.received, done.stored, done.rejected) == (2 * len(treated), 2 * len(treated), 0)
    stored = rows(
        journeys.project,
        "select user_id, type, event, properties, message_id, context from raw.events where source = 'upnext'"
        " order by 1, 2",
    )
    assert [row[:4] for row in stored[:2]] == [
        (treated[0], "identify", None, {"stage": "trial", "seats": 5, "about": {"by": ["Bo", 1]}}),
        (treated[0], "track", "subscribed newsletter", {"seats": 6, "why": "asked for 5"}),
    ]
    assert stored[1][5] == {"journey": "demo", "step": "tell"}
    assert {row[4] for row in stored} == {one for (one,) in journeys.messages("message_id")}
    assert ingest_landing(journeys.project).received == 0


def test_an_event_that_was_written_twice_counts_once(journeys: Journeys) -> None:
    journeys.person("ada")
    journeys.declare(demo=by_event({"do": "track", "name": "tell", "event": "subscribed newsletter"}))
    journeys.dispatch()
    book(journeys, "ada")
    journeys.dispatch(AS_OF + 2 * HOUR)
    journeys.write("insert into edge.inbox (source, line) select source, line from edge.inbox")
    journeys.write("insert into edge.inbox (source, line) values ('upnext', 'no json'), ('elsewhere', 'x')")
    done = ingest_landing(journeys.project)
    assert (done.received, done.stored, done.duplicate, done.rejected) == (3, 1, 1, 1)
    assert rows(journeys.project, "select source from edge.inbox") == [("elsewhere",)], "nobody can read it yet"
    assert rows(journeys.project, "select source, reason, payload from raw.rejected_events") == [
        ("upnext", "invalid_json", "no json")
    ]


def test_a_step_starts_another_journey_by_the_rules_of_that_one(journeys: Journeys, smtp: SmtpServer) -> None:
    users = [f"user{number}" for number in range(6)]
    journeys.person(*users)
    journeys.declare(
        demo=by_event({"do": "start", "name": "on", "journey": "review"}, reentry="always"),
        review=journey(mail("how", subject="{{ event.seats }} seats?"), segment=None, existing_members=None,
                       exit_on_leaving=False, holdout=0.4, reentry="never"),
    )  # fmt: skip
    journeys.dispatch()
    book(journeys, *users, seats=5)
    journeys.dispatch(AS_OF + 2 * HOUR)
    journeys.dispatch(AS_OF + 2 * HOUR)
    entered = rows(journeys.project, "select user_id, arm, entered_at from journeys.entries where journey = 'review'")
    assert {user for user, _, _ in entered} == set(users)
    assert {at for _, _, at in entered} == {AS_OF + HOUR}
    treated = sorted(user for user, arm, _ in entered if arm == "treated")
    assert 0 < len(treated) < len(users)
    assert journeys.sent("how") == treated
    assert {message["Subject"] for message in smtp.accepted} == {"5 seats?"}, "the event comes along"
    book(journeys, *users, at=AS_OF + 3 * HOUR, seats=6)
    journeys.dispatch(AS_OF + 4 * HOUR)
    assert len(rows(journeys.project, "select from journeys.entries where journey = 'review'")) == len(users)
    again = rows(journeys.project, "select status, reason from journeys.messages where step = 'on' and due_at > :at",
                 at=AS_OF + 2 * HOUR)  # fmt: skip
    assert set(again) == {("skipped", "may not enter the journey, or not again")}
    assert set(journeys.entries("journey, status")) >= {("demo", "completed")}


def test_a_journey_that_a_step_starts_runs_once_for_each_key(journeys: Journeys) -> None:
    journeys.person("ada", "bob")
    wait = {"do": "wait", "name": "until_ordered", "any_of": ["subscribed to premium plan"], "within": "2 days",
            "then": "thanks", "otherwise": "nudge"}  # fmt: skip
    journeys.declare(
        demo=by_event({"do": "start", "name": "on", "journey": "review"}),
        review=journey(wait, mail("thanks", wait="0 days", next="end"), mail("nudge", wait="0 days"), segment=None,
                       existing_members=None, exit_on_leaving=False, reentry="never", keyed_by="cart.id"),
    )  # fmt: skip
    journeys.dispatch()
    for minutes, cart in enumerate(("c-1", "c-2", "c-1")):
        book(journeys, "ada", at=AS_OF + HOUR + timedelta(minutes=minutes), cart={"id": cart})
        journeys.dispatch(AS_OF + HOUR + timedelta(minutes=minutes))
    book(journeys, "bob")
    journeys.dispatch(AS_OF + 5 * DAY)
    runs = rows(journeys.project, "select user_id, key from journeys.entries where journey = 'review' order by key")
    assert runs == [("ada", "c-1"), ("ada", "c-2")]
    refused = rows(journeys.project, "select user_id, reason from journeys.messages where step = 'on' and"
                                     " status = 'skipped' order by 1")  # fmt: skip
    assert refused == [
        ("ada", "may not enter the journey, or not again"),
        ("bob", "the event that began demo has no cart.id"),
    ]
    ordered = {"cart": {"id": "c-2"}}
    journeys.product.track("ada", "subscribed to premium plan", AS_OF + 2 * HOUR, properties=ordered)
    journeys.dispatch(AS_OF + 6 * DAY)
    assert (journeys.sent("thanks"), journeys.sent("nudge")) == ([], ["ada", "ada"])


def test_a_journey_that_is_not_started_lets_nobody_in(journeys: Journeys) -> None:
    journeys.person("ada")
    parent = by_event({"do": "start", "name": "on", "journey": "review"})
    child = journey(segment=None, existing_members=None, exit_on_leaving=False)
    journeys.declare(demo=parent)
    journeys.project.journeys = {"demo": parent, "review": child}
    journeys.dispatch()
    book(journeys, "ada")
    journeys.dispatch(AS_OF + 2 * HOUR)
    assert journeys.messages() == [("on", "skipped", "the journey is not started")]
    assert journeys.entries("journey, status") == [("demo", "completed")]


def test_an_audience_keeps_others_out(journeys: Journeys) -> None:
    journeys.person("ada", plan="basic")
    journeys.person("bob", plan="premium")
    journeys.person("cid", plan="basic")
    journeys.tick(AS_OF + timedelta(minutes=1), "entered", "ada", "bob", segment="busy_users")
    audience = {"segment": "busy_users", "user": {"plan": {"not": "premium"}}}
    journeys.declare(
        demo=by_event(mail("hello"), audience=audience),
        of_segment=journey(mail("hi"), audience={"user": {"plan": "premium"}}, existing_members="enroll"),
    )
    journeys.dispatch(AS_OF + timedelta(minutes=2))
    book(journeys, "ada", "bob", "cid")
    journeys.tick(AS_OF + 2 * HOUR, "entered", "ada", "bob", "cid")
    journeys.dispatch(AS_OF + 2 * HOUR)
    assert (journeys.sent("hello"), journeys.sent("hi")) == (["ada"], ["bob"])


def test_rules_end_a_journey_beside_its_goal(journeys: Journeys) -> None:
    users = ("ada", "bob", "cid", "dan")
    journeys.person(*users)
    exits = [
        {"any_of": ["subscribed newsletter"], "where": {"reason": {"contains": "cancel"}}, "reason": "canceled"},
        {"segment": "busy_users"},
        {"user": {"plan": "none"}, "reason": "has left us"},
    ]
    journeys.declare(demo=by_event(mail("hello"), mail("again", after="2 days"), exits=exits))
    journeys.dispatch()
    book(journeys, *users)
    journeys.dispatch(AS_OF + 2 * HOUR)
    for user, reason in (("ada", "canceled by mail"), ("dan", "asked")):
        journeys.product.track(user, "subscribed newsletter", AS_OF + 3 * HOUR, properties={"reason": reason})
    journeys.product.identify("cid", AS_OF + 3 * HOUR, plan="none")
    journeys.tick(AS_OF + 4 * HOUR, "entered", "bob", segment="busy_users")
    journeys.dispatch(AS_OF + 5 * HOUR)
    assert {user: (status, reason) for user, status, reason in journeys.entries()} == {
        "ada": ("left", "canceled"), "bob": ("left", "exit"), "cid": ("left", "has left us"), "dan": ("active", None),
    }  # fmt: skip
    journeys.dispatch(AS_OF + 3 * DAY)
    assert journeys.sent("again") == ["dan"]


def test_a_rule_stops_a_message_in_its_claim(journeys: Journeys) -> None:
    journeys.person("ada")
    journeys.declare(demo=by_event(mail("hello"), exits=[{"any_of": ["subscribed newsletter"]}]))
    journeys.dispatch()
    book(journeys, "ada")
    journeys.product.track("ada", "subscribed newsletter", AS_OF + HOUR + timedelta(seconds=1))
    journeys.dispatch(AS_OF + HOUR)
    assert journeys.sent("hello") == ["ada"], "the future is none of its business"
    book(journeys, "ada", at=AS_OF + HOUR + timedelta(minutes=1))
    journeys.product.track("ada", "subscribed newsletter", AS_OF + HOUR + timedelta(minutes=2))
    journeys.dispatch(AS_OF + 2 * HOUR)
    assert journeys.entries("status, reason")[1] == ("left", "exit: subscribed newsletter")
    assert journeys.messages()[1:] == []


def test_a_goal_can_be_a_segment_a_feature_or_an_event_under_conditions(journeys: Journeys) -> None:
    journeys.person("ada", "bob", "cid")
    within = {"within": "3 days"}
    journeys.declare(
        joined=by_event(mail("a", after="9 days"), goal={"segment": "busy_users", **within}),
        used=by_event(mail("b", after="9 days"), goal={"features": {"logins_30d": {"at_least": 2}}, **within}),
        large=by_event(
            mail("c", after="9 days"), goal={"any_of": ["login"], "where": {"seats": {"at_least": 5}}, **within}
        ),
    )
    journeys.dispatch()
    book(journeys, "ada", "bob", "cid")
    journeys.dispatch(AS_OF + 2 * HOUR)
    for user, seats in (("ada", 5), ("bob", 4)):
        journeys.product.track(user, "login", AS_OF + 3 * HOUR, times=2, properties={"seats": seats})
    build(journeys.project, AS_OF + 4 * HOUR, is_explicit=True)
    journeys.tick(AS_OF + 5 * HOUR, "entered", "cid", segment="busy_users")
    journeys.dispatch(AS_OF + 6 * HOUR)
    reached = rows(
        journeys.project,
        "select journey, user_id, reason, goal_reached_at from journeys.entries where status = 'converted'"
        " order by 1, 2",
    )
    assert [tuple(row) for row in reached] == [
        ("joined", "cid", "entered busy_users", AS_OF + 5 * HOUR),
        ("large", "ada", "login", AS_OF + 3 * HOUR),
        ("used", "ada", "features", AS_OF + 4 * HOUR),
        ("used", "bob", "features", AS_OF + 4 * HOUR),
    ]


@pytest.mark.parametrize("goal", [{"segment": "busy_users"}, {"any_of": ["login"]}], ids=["segment", "event"])
def test_a_goal_counts_for_those_who_have_left_too_as_for_those_held_out(
    journeys: Journeys, smtp: SmtpServer, goal: dict[str, Any]
) -> None:
    users = [f"user{number:02}" for number in range(40)]
    journeys.person(*users)
    journeys.declare(idle=journey(mail("a"), mail("b", after="3 days"), holdout=0.5, goal={**goal, "within": "5 days"}))
    journeys.dispatch()
    journeys.tick(AS_OF, "entered", *users)
    journeys.dispatch()
    journeys.tick(AS_OF + DAY, "exited", *users)
    journeys.dispatch(AS_OF + DAY)
    ended = {user: (status, reason) for user, status, reason in journeys.entries()}
    assert {status for status, _ in ended.values()} == {"left", "held_out"}
    journeys.product.track_all(users[::2], "login", AS_OF + 2 * DAY, {})
    journeys.tick(AS_OF + 2 * DAY, "entered", *users[::2], segment="busy_users")
    journeys.dispatch(AS_OF + 2 * DAY)
    journeys.product.track_all(users, "login", AS_OF + 6 * DAY, {})
    journeys.tick(AS_OF + 6 * DAY, "entered", *users[1::2], segment="busy_users")
    journeys.dispatch(AS_OF + 6 * DAY)
    reached = "select user_id from journeys.entries where goal_reached_at is not null order by 1"
    assert [user for (user,) in rows(journeys.project, reached)] == users[::2], "within its time, in both arms"
    assert {user: (status, reason) for user, status, reason in journeys.entries()} == ended
    analyse_results(journeys.project, AS_OF + 6 * DAY)
    won = set(users[::2])
    arms = {arm: [user for user, status in ended.items() if (status[0] == "held_out") == (arm == "control")]
            for arm in ("control", "arm")}  # fmt: skip
    means = "select mean_control, mean_arm from analytics.experiment_results where metric = 'goal'"
    assert rows(journeys.project, means) == [tuple(len(won & set(arm)) / len(arm) for arm in arms.values())]
    mailed = "select sent, converted from analytics.journey_funnel where step = 'a'"
    assert rows(journeys.project, mailed) == [(len(arms["arm"]), len(won & set(arms["arm"])))]


def test_a_goal_of_features_is_reached_after_the_last_step_too_in_both_arms(journeys: Journeys) -> None:
    users = [f"user{number}" for number in range(8)]
    journeys.person(*users)
    goal = {"features": {"logins_30d": {"at_least": 1}}, "within": "3 days"}
    journeys.declare(used=by_event(mail("b"), goal=goal, holdout=0.5))
    journeys.dispatch()
    book(journeys, *users)
    journeys.dispatch(AS_OF + 2 * HOUR)
    assert {status for _, status, _ in journeys.entries()} == {"completed", "held_out"}
    journeys.product.track_all(users[:7], "login", AS_OF + 3 * HOUR, {})
    build(journeys.project, AS_OF + DAY, is_explicit=True)
    journeys.dispatch(AS_OF + DAY)
    journeys.product.track(users[7], "login", AS_OF + 4 * DAY)
    build(journeys.project, AS_OF + 5 * DAY, is_explicit=True)
    journeys.dispatch(AS_OF + 5 * DAY)
    reached = rows(
        journeys.project, "select user_id from journeys.entries where goal_reached_at is not null order by 1"
    )
    assert [user for (user,) in reached] == users[:7]


def test_a_step_has_hours_of_its_own_and_may_skip_what_is_out_of_them(journeys: Journeys) -> None:
    journeys.person("ada")
    journeys.declare(
        demo=by_event(
            mail("skipped", out_of_hours="skip"),
            mail("at_once", at_any_hour=True),
            mail("evening", send_window={"from": "18:00", "to": "20:00"}),
            mail("by_day"),
            send_window={"from": "08:00", "to": "10:00"},
        )
    )
    journeys.dispatch()
    book(journeys, "ada", at=AS_OF + HOUR)
    at_six, morning = AS_OF.replace(hour=18), AS_OF.replace(hour=8) + DAY
    for at in (AS_OF + 2 * HOUR, at_six, morning):
        journeys.dispatch(at)
    assert rows(journeys.project, "select step, status, reason, sent_at from journeys.messages order by position") == [
        ("skipped", "skipped", "out of hours", None),
        ("at_once", "sent", None, AS_OF + 2 * HOUR),
        ("evening", "sent", None, at_six),
        ("by_day", "sent", None, morning),
    ]


def test_a_message_that_comes_late_into_the_night_is_skipped(journeys: Journeys) -> None:
    journeys.person("ada")
    night = {"from": "20:00", "to": "08:00"}
    journeys.declare(demo=by_event(mail("hello", out_of_hours="skip"), quiet_hours=night))
    journeys.dispatch()
    book(journeys, "ada", at=AS_OF + HOUR)
    journeys.dispatch(AS_OF.replace(hour=21))
    assert journeys.messages() == [("hello", "skipped", "out of hours")]


def test_explain_tells_what_a_wait_waits_for(journeys: Journeys) -> None:
    journeys.person("ada")
    hold = {"do": "wait", "name": "hold_on", "any_of": ["login"], "within": "2 days"}
    journeys.declare(demo=by_event(hold, mail("hello")))
    journeys.dispatch()
    book(journeys, "ada")
    journeys.dispatch(AS_OF + 2 * HOUR)
    told = [line.text for line in explain_journey(journeys.project, "demo", "ada")]
    assert told[-1] == "waits at hold_on for what it asks, since 2026-03-31 13:00, until 2026-04-02 13:00 at the latest"


def test_explain_tells_the_way_through_the_steps(journeys: Journeys) -> None:
    journeys.person("ada")
    journeys.declare(demo=by_event({"do": "delay", "name": "rest", "for": "1 day"}, leave(reason="had enough")))
    journeys.dispatch()
    book(journeys, "ada")
    journeys.dispatch(AS_OF + 2 * HOUR)
    told = [line.text for line in explain_journey(journeys.project, "demo", "ada")]
    assert told[-1] == "waits at rest since 2026-03-31 13:00, until 2026-04-01 13:00"
    journeys.dispatch(AS_OF + 3 * DAY)
    assert [line.text for line in explain_journey(journeys.project, "demo", "ada")][-1] == "had enough"
