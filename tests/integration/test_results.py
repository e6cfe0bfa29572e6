"""From exposures and outcomes to results, in the warehouse: what is counted, and what would be counted wrongly."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
import yaml

from tests.conftest import AS_OF, rows
from tests.journeys import HOUR, Journeys, journey, mail
from tests.outcomes import Event, experience, forget, store
from upnext.analytics.health import run_checks
from upnext.dbt import Dbt
from upnext.loop import analyse_results
from upnext.project import Project

DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)
BEGIN = AS_OF - 30 * DAY
GOAL = "subscribed to premium plan"
STUDIES = 20


def viewed(user: str, variant: str | None, at: datetime, name: str = "offer") -> Event:
    return (user, "experience viewed", at, {"experience": name, **({"variant": variant} if variant else {})})


def arms(project: Project, name: str = "offer") -> dict[str, list[str]]:
    """The users of each arm."""
    found: dict[str, list[str]] = {}
    for user, variant in rows(
        project, "select user_id, variant from experiences.assignments where experience = :name order by 1", name=name
    ):
        found.setdefault(variant, []).append(user)
    return found


def stored(project: Project, *events: Event, users: int = 60, **changes: Any) -> None:
    store(
        project, as_of=AS_OF, assigned_at=BEGIN, experiences={"offer": experience(**changes)},
        users={"offer": [f"u{number:02d}" for number in range(users)]}, events=events,
    )  # fmt: skip


def result(project: Project, metric: str = "goal") -> dict[str, Any]:
    analyse_results(project, AS_OF)
    with project.engine.connect() as connection:
        found = connection.execute(
            sa.text("select * from analytics.experiment_results where metric = :metric and as_of = :as_of"),
            {"metric": metric, "as_of": AS_OF},
        )
        return dict(found.mappings().one())


def test_what_counts_is_within_the_window_after_the_first_exposure(ticked: Project) -> None:
    stored(ticked)
    control, arm = (arms(ticked)[name] for name in ("control", "a"))
    at = AS_OF - 10 * DAY
    events: list[Event] = [viewed(user, None, at + nth * DAY) for user in [*control[:9], *arm[:8]] for nth in (0, 1)]
    for user, goal_at in (
        (control[0], at), (control[1], at + SECOND), (arm[0], at + 7 * DAY), (arm[1], at + 7 * DAY + SECOND),
    ):  # fmt: skip
        events.append((user, GOAL, goal_at, {}))
    for user, click_at in ((arm[2], at), (arm[3], at - SECOND), (arm[4], at + 8 * DAY), (arm[2], at + DAY)):
        events.append((user, "experience clicked", click_at, {"experience": "offer", "variant": "a"}))
    events.append((arm[5], "experience clicked", at + DAY, {"experience": "other", "variant": "a"}))
    for login_at, times in (
        (at - 7 * DAY, 3),
        (at - 7 * DAY + SECOND, 2),
        (at, 1),
        (at + SECOND, 4),
        (at + 8 * DAY, 9),
    ):
        events += [(arm[0], "login", login_at, {})] * times
    events += [(arm[0], "created object", at + DAY, {})] * 2
    # Not over yet, not assigned, of a variant that is not there, before the assignment.
    events += [viewed(control[9], None, AS_OF - 7 * DAY + SECOND), viewed("nobody", "a", at), viewed(arm[9], "b", at)]
    events.append(viewed(arm[10], "a", BEGIN - SECOND))
    stored(ticked, *events)

    goal = result(ticked)
    assert (goal["n_control"], goal["n_arm"], goal["n_open_control"], goal["n_open_arm"]) == (9, 8, 1, 0)
    assert (goal["mean_control"], goal["mean_arm"]) == (1 / 9, 1 / 8)
    assert result(ticked, "clicked")["mean_arm"] == 1 / 8
    assert rows(
        ticked,
        "select logins, logins__before, objects_created, objects_per_login, objects_per_login__per"
        " from analytics.experiment_users where user_id = :user",
        user=arm[0],
    ) == [(4, 3, 2, 2, 4)]
    assert rows(ticked, "select sum(logins), count(*) from analytics.experiment_users") == [(4, 18)]
    ratio = result(ticked, "objects_per_login")
    assert ratio["mean_arm"] == 0.5
    assert (ratio["mean_control"], ratio["reason"]) == (None, "the denominator of control is not positive")


def test_who_saw_both_arms_counts_where_first_seen(ticked: Project) -> None:
    stored(ticked)
    control, arm = (arms(ticked)[name] for name in ("control", "a"))
    at = AS_OF - 10 * DAY
    events = [viewed(user, None, at) for user in [*control[:5], *arm[:5]]]
    events += [
        viewed(control[0], "a", at + DAY),
        viewed(control[1], "a", at - DAY),
        viewed(arm[0], "control", at + DAY),
    ]
    stored(ticked, *events)
    goal = result(ticked)
    assert (goal["n_control"], goal["n_arm"]) == (4, 6)
    assert (goal["n_both_control"], goal["n_both_arm"]) == (1, 2)


def test_an_arm_that_nobody_saw_and_shares_that_were_changed(ticked: Project) -> None:
    stored(ticked, control=0.5)
    control = arms(ticked)["control"]
    stored(ticked, *(viewed(user, None, AS_OF - 10 * DAY) for user in control))
    goal = result(ticked)
    assert (goal["n_arm"], goal["diff"], goal["reason"]) == (0, None, "no users in the arm")
    assert goal["srm_p"] < 0.001
    assert goal["decision"] == "broken: sample ratio"

    with ticked.engine.begin() as connection:
        connection.execute(
            sa.text("insert into experiences.shares values ('offer', :since, '{\"control\": 1, \"a\": 0}')"),
            {"since": BEGIN},
        )
        forget(connection)
    assert result(ticked)["srm_p"] is None, "all were drawn by shares that gave the arm nobody"


def test_journeys_are_compared_by_intent_to_treat(ticked: Project) -> None:
    journey = ticked.journeys["earn_upgrade"]
    people = [f"p{number}" for number in range(40)]
    statuses = ["held_out"] * 10 + ["active", "completed", "converted", "left"] * 6 + ["excluded"] * 6
    store(
        ticked, as_of=AS_OF, assigned_at=BEGIN, experiences={}, users={}, journeys={"earn_upgrade": journey},
        entries=[("earn_upgrade", user, status) for user, status in zip(people, statuses, strict=True)],
        events=[(user, GOAL, BEGIN + DAY, {}) for user in (people[0], *people[12:20:4], people[-1])],
    )  # fmt: skip
    with ticked.engine.begin() as connection:
        connection.execute(
            sa.text("update journeys.entries set is_held_out_globally = true where user_id = :user"),
            {"user": people[9]},
        )
    goal = result(ticked)
    assert (goal["experiment"], goal["arm"], goal["segment"]) == (
        "earn_upgrade", "treated", "busy_users",
    )  # fmt: skip
    assert (goal["n_control"], goal["mean_control"]) == (9, 1 / 9)
    assert (goal["n_arm"], goal["mean_arm"]) == (24, 2 / 24)


def test_a_new_goal_is_a_new_experiment_for_the_p_of_all_looks(ticked: Project) -> None:
    users = 600
    stored(ticked, users=users)
    control, arm = (arms(ticked)[name] for name in ("control", "a"))
    at = AS_OF - 10 * DAY
    events = [viewed(user, None, at) for user in [*control, *arm]]
    events += [(user, GOAL, at + DAY, {}) for user in [*control[:30], *arm[:90]]]
    events += [(user, "book demo", at + DAY, {}) for user in [*control[:40], *arm[:40]]]
    stored(ticked, *events, users=users)
    with ticked.engine.begin() as connection:
        connection.execute(
            sa.text("insert into segments.ticks (as_of, published_at) values (:at, :at)"), {"at": AS_OF + DAY}
        )
    analyse_results(ticked, AS_OF)
    looks = "select p_always_valid, decision from analytics.experiment_results where metric = 'goal' order by as_of"
    (first,) = rows(ticked, looks)
    assert first[0] < 0.05
    assert first[1] == "ship"
    weaker = [event for event in events if event[1] != GOAL or event[0] not in arm[35:90]]
    stored(ticked, *weaker, users=users)
    analyse_results(ticked, AS_OF + DAY)
    assert rows(ticked, looks) == [first, first], "a look that once was sure stays so"
    stored(ticked, *weaker, users=users, goal={"any_of": ["book demo"], "within": "7 days"})
    analyse_results(ticked, AS_OF + 2 * DAY)
    assert rows(ticked, looks)[-1][0] > 0.5


def test_by_segment_those_count_who_were_in_it_when_exposed(ticked: Project) -> None:
    stored(ticked)
    at = AS_OF - 10 * DAY
    users = [user for names in arms(ticked).values() for user in names]
    stored(ticked, *(viewed(user, None, at) for user in users))
    with ticked.engine.begin() as connection:
        tick = connection.scalar(sa.text("select max(tick_id) from segments.ticks"))
        for user, change, changed_at in (
            (users[0], "entered", at), (users[1], "entered", at + SECOND), (users[2], "entered", at - DAY),
            (users[2], "exited", at), (users[3], "entered", at - DAY), (users[3], "exited", at + SECOND),
        ):  # fmt: skip
            connection.execute(
                sa.text(
                    "insert into segments.membership_changes (tick_id, segment, user_id, change, as_of)"
                    " values (:tick, 'lapsed_payers', :user, :change, :at)"
                ),
                {"tick": tick, "user": user, "change": change, "at": changed_at},
            )
    analyse_results(ticked, AS_OF)
    counted = rows(ticked, "select sum(users) from analytics.segment_counts where segment = 'lapsed_payers'")
    assert counted == [(2,)]


def test_what_would_make_results_wrong_is_noticed(ticked: Project) -> None:
    def troubles(events: list[Event], **changes: Any) -> dict[str, dict[str, float]]:
        stored(ticked, *events, users=400, **changes)
        analyse_results(ticked, AS_OF)
        return run_checks(ticked.engine, as_of=AS_OF, events={"login"})

    stored(ticked, users=400)
    control, arm = (arms(ticked)[name] for name in ("control", "a"))
    seen = [viewed(user, None, AS_OF - (1 + nth % 10) * DAY) for nth, user in enumerate([*control, *arm])]
    logins = [("u00", "login", AS_OF - day * DAY, {}) for day in range(10) for _ in range(12)]
    assert not any(troubles([*seen, *logins]).values())

    strangers = [viewed("stranger", "a", AS_OF - DAY), viewed(arm[0], "a", AS_OF - DAY, "ada@customer.example")]
    strangers.append(viewed(arm[1], "z", AS_OF - DAY))
    strangers.append(viewed(arm[2], "control", AS_OF - DAY))
    assert troubles([*seen, *strangers])["exposures_are_assigned"] == {"offer": 3, "no such experience": 1}
    silent = troubles([event for event in seen if event[0] in control])
    assert list(silent["no_arm_is_silent"]) == ["offer, a"]
    assert silent["sample_ratios_hold"]["offer"] < 0.001
    early = [(user, GOAL, AS_OF - 12 * DAY, {}) for user in control[:25]]
    # 240 were first exposed in the last week, 17 of them among these 25.
    assert troubles([*seen, *early])["goals_follow_exposures"] == {"offer": 17}
    assert troubles([*seen, *early[:15]])["goals_follow_exposures"] == {}
    flat = [event for event in logins if event[2] <= AS_OF - 3 * DAY]
    assert troubles([*seen, *flat])["metrics_move"] == {"login": 84}


def test_a_cap_keeps_one_whale_from_deciding_and_a_huge_number_stops_nobody(content: Path, ticked: Project) -> None:
    path = content / "models" / "analytics" / "_metrics.yml"
    declared = yaml.safe_load(path.read_text())
    (columns,) = [model["columns"] for model in declared["models"] if model["name"] == "experiment_users"]
    revenue = {"sum_of": "amount", "of": "book demo"}
    columns += [
        {"name": "revenue", "description": "x", "config": {"meta": revenue}},
        {"name": "capped_revenue", "description": "x", "config": {"meta": {**revenue, "cap": "99 %"}}},
        {"name": "demo_days", "description": "x", "config": {"meta": {"days_of": "book demo"}}},
    ]
    path.write_text(yaml.safe_dump(declared))
    ticked.dbt = Dbt(ticked.settings, ticked.engine.url)
    ticked.dbt.invoke(["run", "--select", "upnext.analytics"])
    stored(ticked, users=400)
    control, arm = (arms(ticked)[name] for name in ("control", "a"))
    at = AS_OF - 10 * DAY
    events = [viewed(user, None, at) for user in [*control, *arm]]
    for nth, user in enumerate([*control, *arm]):
        events.append((user, "book demo", at + DAY, {"amount": str(nth % 20), "currency": "EUR"}))
    whale: Event = (arm[0], "book demo", at + DAY, {"amount": "1e6", "currency": "EUR"})
    stored(ticked, *events, whale, users=400)
    assert result(ticked, "revenue")["mean_arm"] > 1000
    assert result(ticked, "demo_days")["mean_arm"] == 1, "the whale booked twice, on one day"
    capped = result(ticked, "capped_revenue")
    assert abs(capped["lift"]) < 0.1
    assert (capped["n_control"], capped["n_arm"], capped["type"]) == (len(control), len(arm), "mean")
    assert rows(ticked, "select count(*) from analytics.daily_moments where metric = 'capped_revenue'") == [(0,)]
    # What nobody could pay, and sums whose square no double holds, nor its reciprocal.
    for amount in ("1e300", "1e-400"):
        stored(ticked, *events, (arm[0], "book demo", at + DAY, {"amount": amount}), users=400)
        assert result(ticked, "revenue")["n_arm"] == len(arm)
        assert abs(result(ticked, "capped_revenue")["lift"]) < 0.1
    tiny = [(user, "book demo", at + DAY, {"amount": "1e-180"}) for user in (*control, *arm)]
    stored(ticked, *events[: len(control) + len(arm)], *tiny, users=400)
    assert result(ticked, "revenue")["n_arm"] == len(arm)


def test_sums_over_several_currencies_are_told(ticked: Project) -> None:
    def told(*currencies: str | None) -> dict[str, float]:
        properties = [{"amount": "1", **({"currency": one} if one else {})} for one in currencies]
        stored(ticked, *(("u01", "book demo", AS_OF - DAY, one) for one in properties))
        found = run_checks(ticked.engine, as_of=AS_OF, events=(), summed_events={"book demo"})
        return found["sums_are_of_one_currency"]

    assert told("EUR", "eur") == told(None, None) == {}
    assert told("EUR", "USD", None) == {"book demo: EUR, USD, no currency": 3}
    assert told("EUR", "ada@customer.example") == {"book demo: EUR, no code of a currency": 2}


# Mistakes that are easily made, each in the place of the view: the same proof has to notice.


def covered(project: Project, truth: float) -> int:
    """Return of how many studies the interval holds the truth."""
    analyse_results(project, AS_OF)
    found = rows(
        project,
        "select lift_low <= :truth and lift_high >= :truth from analytics.experiment_results"
        " where metric = 'goal' and as_of = :as_of",
        truth=truth,
        as_of=AS_OF,
    )
    assert len(found) == STUDIES
    return sum(bool(is_covered) for (is_covered,) in found)


def mutate(project: Project, view: str, old: str, new: str) -> None:
    with project.engine.begin() as connection:
        definition = connection.scalar(sa.text(f"select pg_get_viewdef('{view}'::regclass)"))
        assert old in definition
        connection.execute(sa.text(f"create or replace view {view} as {definition.replace(old, new)}"))
    with project.engine.begin() as connection:
        forget(connection)


def studies(project: Project, people: int) -> dict[str, dict[str, list[str]]]:
    names = [f"study_{number}" for number in range(STUDIES)]
    declared = {name: experience() for name in names}
    users = {name: [f"{name}-{number}" for number in range(people)] for name in names}
    store(project, as_of=AS_OF, assigned_at=BEGIN, experiences=declared, users=users, events=[])
    by_arm = {name: arms(project, name) for name in names}
    project.experiences = declared
    return by_arm


def keep(project: Project, by_arm: dict[str, dict[str, list[str]]], events: list[Event]) -> None:
    users = {name: [user for names in found.values() for user in names] for name, found in by_arm.items()}
    store(project, as_of=AS_OF, assigned_at=BEGIN, experiences=project.experiences, users=users, events=events)


def test_open_windows_would_take_sooner_for_more(ticked: Project) -> None:
    random = np.random.default_rng(1)
    by_arm = studies(ticked, 500)
    events: list[Event] = []
    for name, found in by_arm.items():
        for variant, people in found.items():
            for user in people:
                at = AS_OF - float(random.uniform(0, 14)) * DAY
                events.append(viewed(user, variant, at, name))
                if random.random() < 0.3:
                    # The same number, but sooner: the copy hurries those who would have come anyway.
                    events.append((user, GOAL, at + (1 if variant == "a" else 6.5) * DAY, {}))
    keep(ticked, by_arm, [event for event in events if event[2] <= AS_OF])
    assert covered(ticked, truth=0.0) >= 17
    mutate(ticked, "analytics.stale_exposures", "AS is_window_over", "IS NOT NULL AS is_window_over")
    assert covered(ticked, truth=0.0) <= 10


def test_dropping_who_saw_both_arms_would_turn_the_sign(ticked: Project) -> None:
    random = np.random.default_rng(2)
    by_arm = studies(ticked, 500)
    events: list[Event] = []
    at = AS_OF - 10 * DAY
    for name, found in by_arm.items():
        for variant, people in found.items():
            for user in people:
                events.append(viewed(user, variant, at, name))
                if random.random() < (0.3 if variant == "a" else 0.2):
                    events.append((user, GOAL, at + DAY, {}))
                    # Who has bought comes back from another device, and is seen there in the other arm.
                    if variant == "a" and random.random() < 0.6:
                        events.append(viewed(user, "control", at + 2 * DAY, name))
    keep(ticked, by_arm, events)
    assert covered(ticked, truth=0.5) >= 17
    lifts = "select avg(lift) from analytics.experiment_results where metric = 'goal' and as_of = :as_of"
    assert rows(ticked, lifts, as_of=AS_OF)[0][0] > 0
    mutate(
        ticked, "analytics.stale_moments", "AND experiment_users.is_window_over",
        "AND experiment_users.is_window_over AND NOT experiment_users.is_in_both_arms",
    )  # fmt: skip
    assert covered(ticked, truth=0.5) <= 10
    assert rows(ticked, lifts, as_of=AS_OF)[0][0] < 0


def test_the_variants_of_a_mail_are_compared_with_each_other(journeys: Journeys) -> None:
    users = [f"user{number:03}" for number in range(400)]
    journeys.person(*users)
    variants = {"long": {"weight": 50}, "short": {"weight": 50, "subject": "Hi"}}
    goal = {"any_of": ["subscribed to premium plan"], "within": "5 days"}
    steps = (mail("hello", variants=variants), mail("plain", after="1 day"))
    values = {"goal": goal, "holdout": 0.1, "existing_members": "enroll", "exit_on_leaving": False}
    journeys.declare(spring=journey(*steps, **values))
    journeys.tick(AS_OF + HOUR, "entered", *users)
    journeys.dispatch(AS_OF + HOUR)
    sent = rows(journeys.project, "select user_id, variant, message_id from journeys.messages where status = 'sent'")
    assert {variant for _, variant, _ in sent} == {"long", "short"}
    converted: dict[str, set[str]] = {"long": set(), "short": set()}
    clicked: dict[str, set[str]] = {"long": set(), "short": set()}
    for nth, (user, variant, message_id) in enumerate(sorted(sent)):
        if nth % 2 == 0 if variant == "short" else nth % 7 == 0:
            journeys.product.track(user, "subscribed to premium plan", AS_OF + 2 * DAY)
            converted[variant].add(user)
        if nth % 5 == 0:
            journeys.product.track("provider", "message clicked", AS_OF + DAY, properties={"message_id": message_id})
            clicked[variant].add(user)
    late, *_ = sorted({user for user, _, _ in sent} - converted["long"] - converted["short"])
    journeys.product.track(late, "subscribed to premium plan", AS_OF + 7 * DAY)
    journeys.tick(AS_OF + 9 * DAY, "entered")
    journeys.dispatch(AS_OF + 9 * DAY)
    analyse_results(journeys.project, AS_OF + 9 * DAY)
    ranked = rows(
        journeys.project,
        "select variant, exposed, clicked, converted, goal_rank, is_best_by_goals, is_best_by_clicks"
        " from analytics.copy_ranking where experiment = 'spring/hello' order by goal_rank",
    )
    count = {name: sum(variant == name for _, variant, _ in sent) for name in ("short", "long")}
    assert ranked == [
        (name, count[name], len(clicked[name]), len(converted[name]), rank, rank == 1, False)
        for rank, name in enumerate(("short", "long"), start=1)
    ]
    [(sent_, rate, low, high)] = rows(
        journeys.project,
        "select sent, goal_rate, goal_low, goal_high from analytics.journey_funnel where step = 'hello'",
    )
    assert sent_ == len(sent)
    assert low < rate < high


METRICS = """\
      - name: object_value
        description: The size of a created object.
        config: {meta: {sum_of: size, of: created object, per: created object}}
      - name: is_back
        description: Whether the user signed in from the second to the fourth day.
        config: {meta: {ever: login, begins: 1 day, ends: 4 days}}
      - name: has_gone_through
        description: Whether the user looked at the plans, and subscribed within a day.
        config: {meta: {sequence: [viewed upgrade plan, subscribed to premium plan], in: 1 day}}
"""


def test_order_values_retention_and_funnels(content: Path, ticked: Project) -> None:
    with (content / "models" / "analytics" / "_metrics.yml").open("a") as file:
        file.write(METRICS)
    ticked.dbt.invoke(["run", "--select", "analytics"])
    stored(ticked)
    control, arm = (arms(ticked)[name] for name in ("control", "a"))
    at = AS_OF - 10 * DAY
    events: list[Event] = [viewed(user, None, at) for user in [*control[:3], *arm[:3]]]
    for user, name, when, properties in (
        (arm[0], "created object", at + DAY, {"size": "3"}), (arm[0], "created object", at + DAY, {"size": "5"}),
        (arm[1], "created object", at + DAY, {"size": "x"}), (control[0], "created object", at + DAY, {"size": "1"}),
        (arm[0], "login", at + DAY, {}), (arm[1], "login", at + DAY + SECOND, {}), (arm[2], "login", at + 4 * DAY, {}),
        (control[0], "login", at + 4 * DAY + SECOND, {}),
        (arm[0], "viewed upgrade plan", at + DAY, {}), (arm[0], GOAL, at + 2 * DAY, {}),
        (arm[1], GOAL, at + DAY, {}), (arm[1], "viewed upgrade plan", at + 2 * DAY, {}),
        (control[1], "viewed upgrade plan", at - SECOND, {}), (control[1], GOAL, at + DAY / 2, {}),
    ):  # fmt: skip
        events.append((user, name, when, properties))
    stored(ticked, *events)
    values = result(ticked, "object_value")
    assert (values["type"], values["mean_control"]) == ("ratio", 1)
    assert values["mean_arm"] == 8 / 3
    back = result(ticked, "is_back")
    assert (back["type"], back["mean_control"], back["mean_arm"]) == ("proportion", 0, 2 / 3)
    through = result(ticked, "has_gone_through")
    assert (through["type"], through["mean_control"], through["mean_arm"]) == ("proportion", 0, 1 / 3)
