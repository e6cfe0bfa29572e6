"""Assignments, what a site shows, and the results of it all."""

import random
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from tests.conftest import AS_OF, Product, rows, start, wait_for
from tests.journeys import HOUR, Journeys
from tests.outcomes import experience
from upnext.experiences.assign import Shown
from upnext.experiences.definition import arm_of, arm_ranges, as_json, bucket
from upnext.loop import analyse_results, assign_experiences, build, show_ctas, tick
from upnext.project import Project

NAMES = ("offer", "strong", "weak", "also_strong", "apart", "one", "two", "three")
DAY = timedelta(days=1)
ODD = " é'\\"


def members(project: Project, *user_ids: str, as_of: datetime = AS_OF) -> None:
    """Publish a tick after which these are upgrade curious."""
    publish(project, as_of)
    with project.engine.begin() as connection:
        connection.execute(
            sa.text("""
                with changed as (
                    insert into segments.membership_changes (tick_id, segment, user_id, change, as_of)
                    select
                        (select max(tick_id) from segments.ticks), 'upgrade_seekers', coalesce(wanted, user_id),
                        case when wanted is null then 'exited' else 'entered' end, :at
                    from segments.members
                    full join unnest(cast(:users as text[])) as wanted on wanted = user_id
                    where (wanted is null) <> (user_id is null)
                    returning user_id, change
                ),

                exited as (
                    delete from segments.members where user_id in (select user_id from changed where change = 'exited')
                )

                insert into segments.members
                select 'upgrade_seekers', user_id, :at from changed where change = 'entered'
            """),
            {"users": list(user_ids), "at": as_of},
        )


def publish(project: Project, as_of: datetime = AS_OF) -> None:
    with project.engine.begin() as connection:
        connection.execute(
            sa.text("insert into segments.ticks (as_of, published_at) values (:as_of, :as_of)"), {"as_of": as_of}
        )


def seen(project: Project, columns: str = "source") -> list[Any]:
    """Bring what is shown up to date, by what has changed, and compare it with everything computed afresh."""
    show_ctas(project)
    shown, chosen = "select * from experiences.live_ctas", "select * from experiences.chosen_ctas"
    assert rows(project, f"({shown} except {chosen}) union all ({chosen} except {shown})") == []
    return rows(project, f"select {columns} from experiences.live_ctas order by user_id, surface, slot")


def test_sql_and_python_draw_a_million_alike(project: Project) -> None:
    thirds = experience(
        control=0.1, variants={name: {"copy": name, "url": "/", "weight": weight} for name, weight in
                               (("a", 33), ("b", 33), ("c", 34))}
    )  # fmt: skip
    with project.engine.begin() as connection:
        connection.execute(
            sa.text("insert into experiences.definitions values ('thirds', cast(:definition as jsonb))"),
            {"definition": msgspec.json.encode(as_json(thirds)).decode()},
        )
        drawn = connection.execute(
            sa.text("""
                select bucket, variant
                from generate_series(1, 1000000) as number
                cross join lateral upnext.bucket('experience:thirds', 'user ' || number || :odd) as bucket
                inner join experiences.definitions on true
                inner join lateral jsonb_to_recordset(definition -> 'ranges')
                    as arms (variant text, low double precision, high double precision)
                    on bucket >= arms.low and bucket < arms.high
                order by number
            """),
            {"odd": ODD},
        ).all()
    ranges = [(arm["low"], arm["high"], arm["variant"]) for arm in arm_ranges(thirds)]
    expected = []
    for number in range(1, 1_000_001):
        at = bucket("experience:thirds", f"user {number}{ODD}")
        expected.append((at, next(variant for low, high, variant in ranges if low <= at < high)))
    assert [tuple(row) for row in drawn] == expected


def test_members_are_assigned_once_and_for_good(ticked: Project) -> None:
    users = [f"u{number}" for number in range(40)]
    members(ticked, *users)
    start(ticked, *NAMES)
    ticked.experiences = {"offer": experience()}
    assert assign_experiences(ticked, AS_OF) == 40
    assert assign_experiences(ticked, AS_OF) == 0
    drawn = dict(rows(ticked, "select user_id, variant from experiences.assignments"))
    assert drawn == {user: arm_of("offer", experience(), user) for user in users}

    changed = experience(control=0.05)
    start(ticked, *NAMES)
    ticked.experiences = {"offer": changed}
    members(ticked, *users, *(f"new{number}" for number in range(40)))
    assert assign_experiences(ticked, AS_OF + DAY) == 40
    after = dict(rows(ticked, "select user_id, variant from experiences.assignments"))
    assert {user: after[user] for user in users} == drawn, "who was drawn stays, whatever the shares are"
    assert {after[user] for user in after if user not in drawn} == {"control", "a"}
    assert all(after[user] == arm_of("offer", changed, user) for user in after if user not in drawn)
    shares = "select weights ->> 'control', since = :as_of from experiences.shares order by since"
    assert rows(ticked, shares, as_of=AS_OF + DAY) == [("0.5", False), ("0.05", True)]


def test_control_holds_its_slot_and_who_left_sees_nothing(ticked: Project) -> None:
    users = [f"u{number}" for number in range(20)]
    members(ticked, *users)
    start(ticked, *NAMES)
    ticked.experiences = {"offer": experience()}
    assign_experiences(ticked, AS_OF)
    assert set(seen(ticked, "variant, copy, url, trigger ->> 'when'")) == {
        ("control", None, None, "page_view"), ("a", "A", "/a", "page_view"),
    }  # fmt: skip
    members(ticked, *users[1:])
    assert users[0] not in [row[0] for row in seen(ticked, "user_id")]
    assert rows(ticked, "select count(*) from experiences.assignments") == [(20,)]
    members(ticked, *users)
    assert assign_experiences(ticked, AS_OF + DAY) == 0, "who comes back has the variant of before"
    assert show_ctas(ticked).live == 20
    start(ticked, *NAMES)
    ticked.experiences = {"offer": experience(variants={"other": {"copy": "B", "url": "/b"}})}
    assign_experiences(ticked, AS_OF + DAY)
    assert {row[0] for row in seen(ticked, "variant")} == {"control"}, "a variant that is gone is not shown"


def test_one_wins_each_slot_and_each_group_before_its_variant_is_drawn(ticked: Project) -> None:
    users = [f"u{number}" for number in range(30)]
    members(ticked, *users)
    strong = experience(priority=9)
    for others, expected in (
        ({"weak": experience()}, {"strong"}),
        ({"weak": experience(slot="nav_bar_button")}, {"strong", "weak"}),
        ({"also_strong": experience(priority=9)}, {"also_strong"}),
    ):
        start(ticked, *NAMES)
        ticked.experiences = {"strong": strong, **others}
        assign_experiences(ticked, AS_OF)
        found = seen(ticked, "user_id, source, variant")
        assert {source for _, source, _ in found} == expected
        assert len(found) == 30 * len(expected), "control does not give way to whom it beat"
        assert "control" in {variant for _, _, variant in found}
    in_group = {
        "strong": experience(priority=9, exclusive_group="upgrade"),
        "weak": experience(exclusive_group="upgrade", slot="nav_bar_button"),
        "apart": experience(slot="product_tour"),
    }
    start(ticked, *NAMES)
    ticked.experiences = in_group
    assign_experiences(ticked, AS_OF)
    assert {row[0] for row in seen(ticked)} == {"strong", "apart"}


def test_an_experience_is_shown_from_its_start_to_its_end(ticked: Project) -> None:
    members(ticked, "ada", as_of=AS_OF - 2 * DAY)
    start(ticked, *NAMES)
    ticked.experiences = {"offer": experience(starts_at=AS_OF.isoformat(), ends_at=(AS_OF + DAY).isoformat())}
    counts = []
    for as_of in (AS_OF - DAY, AS_OF, AS_OF + DAY - timedelta(microseconds=1), AS_OF + DAY):
        publish(ticked, as_of)
        counts.append((assign_experiences(ticked, as_of), len(seen(ticked))))
    assert counts == [(0, 0), (1, 1), (0, 1), (0, 0)]


def test_what_changes_is_shown_as_if_all_was_computed_afresh(ticked: Project) -> None:
    draw = random.Random(7)  # noqa: S311 - drawn alike each time
    slots = ["homepage_banner", "nav_bar_button"]
    users = [f"u{number}" for number in range(40)]
    now = AS_OF
    start(ticked, *NAMES)
    ticked.experiences = {}
    with ticked.engine.begin() as connection:
        connection.execute(
            sa.text("""
                insert into journeys.definitions
                values ('nudge', '1', '{"segment": "upgrade_seekers", "exit_on_leaving": true}', :at)
            """),
            {"at": AS_OF},
        )
        connection.execute(
            sa.text("""
                insert into journeys.steps (journey, version, step, position, kind, definition)
                select 'nudge', '1', slot, 1, 'cta', jsonb_build_object('surface', 'web', 'slot', slot, 'copy', slot)
                from unnest(cast(:slots as text[])) as slot
            """),
            {"slots": slots},
        )

    def change_members() -> None:
        members(ticked, *draw.sample(users, draw.randint(0, 15)), as_of=now)

    def redeclare() -> None:
        start(ticked, *NAMES)
        ticked.experiences = {
            name: experience(
                priority=draw.randint(1, 3),
                slot=draw.choice(slots),
                exclusive_group=draw.choice([None, "upgrade"]),
                starts_at=(now + timedelta(hours=draw.randint(-2, 2))).isoformat(),
                ends_at=(now + timedelta(hours=draw.randint(4, 20))).isoformat(),
            )
            for name in draw.sample(["one", "two", "three"], draw.randint(0, 3))
        }

    def assign() -> None:
        assign_experiences(ticked, now)
        running = {name for name, one in ticked.experiences.items() if one.starts_at <= now < one.ends_at}
        drawn = rows(ticked, "select experience, user_id from experiences.assignments where experience = any(:names)",
                     names=list(running))  # fmt: skip
        current = [user for (user,) in rows(ticked, "select user_id from segments.members")]
        assert {(name, user) for name in running for user in current} <= {tuple(row) for row in drawn}

    def offer() -> None:
        with ticked.engine.begin() as connection:
            connection.execute(
                sa.text("""
                    with entered as (
                        insert into journeys.entries
                            (journey, version, user_id, entered_at, reached_at, status, cause, seed)
                        values ('nudge', '1', :user, :at, :at, 'active', :nth, :nth)
                        returning entry_id
                    )

                    insert into journeys.messages
                        (message_id, entry_id, journey, step, channel, user_id, due_at, status, sent_at, ends_at)
                    select
                        :nth, entry_id, 'nudge', :slot, 'cta', :user, :at, 'sent', :at,
                        cast(:at as timestamptz) + interval '5 hours'
                    from entered
                """),
                {"user": draw.choice(users), "slot": draw.choice(slots), "nth": str(nth), "at": now},
            )

    def convert() -> None:
        with ticked.engine.begin() as connection:
            connection.execute(
                sa.text("update journeys.entries set status = 'converted' where user_id = any(:users)"),
                {"users": draw.sample(users, 10)},
            )

    shown = set()
    for nth in range(160):  # noqa: B007 - names an offer
        now += timedelta(minutes=20)
        draw.choice([change_members, redeclare, assign, assign, offer, convert])()
        shown |= {(source, variant) for source, variant in seen(ticked, "source, variant")}
    assert {source for source, _ in shown} == {"one", "two", "three", "nudge"}
    assert {variant for _, variant in shown} == {"control", "a", *slots}


def test_who_shows_waits_for_who_shows_already(ticked: Project) -> None:
    members(ticked, "ada")
    start(ticked, *NAMES)
    ticked.experiences = {"offer": experience()}
    assign_experiences(ticked, AS_OF)
    lock = sa.text("select pg_advisory_xact_lock(hashtextextended('upnext:live_ctas', 0))")
    waiting = sa.text(
        "select count(*) from pg_locks where locktype = 'advisory' and not granted"
        " and database = (select oid from pg_database where datname = current_database())"
    )
    with ThreadPoolExecutor() as pool, ticked.engine.connect() as first:
        first.execute(lock)
        second = pool.submit(show_ctas, ticked)
        wait_for(lambda: second.done() or bool(first.scalar(waiting)), "the second at the door")
        assert not second.done()
        first.rollback()
        assert second.result() == Shown(live=1, changed=1)


def test_a_page_load_is_one_look_up_by_the_key(ticked: Project) -> None:
    members(ticked, *(f"u{number}" for number in range(5000)))
    start(ticked, *NAMES)
    ticked.experiences = {"offer": experience()}
    assign_experiences(ticked, AS_OF)
    assert show_ctas(ticked) == Shown(live=5000, changed=5000)
    assert show_ctas(ticked) == Shown(live=5000, changed=0), "what is the same is not written again"
    with ticked.engine.begin() as connection:
        connection.execute(sa.text("analyze experiences.live_ctas"))
    plan = rows(ticked, "explain (costs off) select * from experiences.live_ctas where user_id = 'u7'")
    assert plan == [("Index Scan using live_ctas_pkey on live_ctas",), ("  Index Cond: (user_id = 'u7'::text)",)]


@pytest.mark.other_servers
def test_results_count_exposed_users_whose_window_is_over(project: Project, product: Product) -> None:
    for number in range(40):
        product.power_user(f"u{number:03d}", AS_OF)
    build(project, AS_OF, is_explicit=True)
    assign_experiences(project, AS_OF)
    drawn = rows(
        project,
        "select user_id, variant from experiences.assignments where experience = 'upsell_banner' order by user_id",
    )
    expected = {"control": [0, 0], "unlock": [0, 0]}
    for position, (user_id, variant) in enumerate(drawn):
        seen = {"experience": "upsell_banner", "variant": variant}
        late = position % 10 == 0
        exposed_at = AS_OF + DAY + (5 * DAY if late else timedelta(0))
        product.track(user_id, "experience viewed", exposed_at, times=2, properties=seen)
        converts = position % (2 if variant == "unlock" else 5) == 1
        if converts:
            product.track(user_id, "subscribed to premium plan", exposed_at + 7 * DAY)
        elif position % 7 == 3:
            product.track(user_id, "subscribed to premium plan", exposed_at + 7 * DAY + timedelta(microseconds=1))
        elif position % 7 == 4:
            product.track(user_id, "subscribed to premium plan", exposed_at)
        if not late:
            expected[variant][0] += 1
            expected[variant][1] += converts
    tick(project, AS_OF + 8 * DAY + timedelta(minutes=1))
    found = rows(
        project,
        "select n_control, mean_control, n_arm, mean_arm, p_value, srm_p from analytics.experiment_results"
        " where experiment = 'upsell_banner' and metric = 'goal'",
    )
    (n_control, mean_control, n_arm, mean_arm, p_value, srm_p), = found  # fmt: skip
    assert (n_control, round(mean_control * n_control)) == tuple(expected["control"])
    assert (n_arm, round(mean_arm * n_arm)) == tuple(expected["unlock"])
    assert p_value is not None
    assert srm_p > 0.001


def test_an_analysis_can_be_run_again(project: Project) -> None:
    tick(project, AS_OF)
    first = rows(project, "select * from analytics.journey_funnel order by journey, step")
    analyse_results(project, AS_OF)
    assert rows(project, "select * from analytics.journey_funnel order by journey, step") == first
    assert len(first) == 6


def test_another_split_of_the_same_instant_holds_for_those_drawn_by_it(ticked: Project) -> None:
    users = [f"user{number:03}" for number in range(400)]
    ticked.experiences = {"offer": experience(control=0.5)}
    start(ticked, "offer")
    members(ticked, *users[:200])
    assign_experiences(ticked, AS_OF)
    ticked.experiences = {"offer": experience(control=0.1)}
    for _ in range(2):
        assign_experiences(ticked, AS_OF)
    members(ticked, *users)
    assert assign_experiences(ticked, AS_OF) == 200
    drawn = """
        select shares.weights ->> 'control', count(*), count(*) filter (where variant = 'control')
        from experiences.assignments
        cross join lateral (
            select weights from experiences.shares
            where shares.experience = assignments.experience and shares.since <= assignments.assigned_at
            order by since desc limit 1
        ) as shares
        group by 1 order by 1
    """
    held = [len([user for user in part if bucket("experience:offer", user) < share])
            for part, share in ((users[200:], 0.1), (users[:200], 0.5))]  # fmt: skip
    assert rows(ticked, drawn) == [("0.1", 200, held[0]), ("0.5", 200, held[1])]


def test_a_merge_keeps_how_the_variant_was_chosen_and_what_was_seen_then(journeys: Journeys) -> None:
    project = journeys.project
    journeys.write(
        "insert into experiences.assignments (experience, user_id, variant, assigned_at, mode, rules)"
        " values ('offer', 'ada-phone', 'unlock', :first, 'rules', 'v1'),"
        " ('offer', 'ada', 'try_free', :at, 'chance', 'v2'), ('offer', 'bob-phone', 'unlock', :at, 'single', 'v1')",
        first=AS_OF - DAY, at=AS_OF,
    )  # fmt: skip
    journeys.write(
        "insert into experiences.seen_features values ('offer', 'ada-phone', '{\"n\": 1}'),"
        " ('offer', 'ada', '{\"n\": 2}'), ('offer', 'bob-phone', '{\"n\": 3}')"
    )
    journeys.merge(AS_OF + HOUR, **{"ada-phone": "ada", "bob-phone": "bob"})
    assign_experiences(project, AS_OF + HOUR)
    columns = "user_id, variant, assigned_at, mode, rules, is_in_both_arms"
    assert rows(
        project, f"select {columns} from experiences.assignments where user_id in ('ada', 'bob') order by 1"
    ) == [
        ("ada", "unlock", AS_OF - DAY, "rules", "v1", True), ("bob", "unlock", AS_OF, "single", "v1", False),
    ]  # fmt: skip
    seen_features = "select user_id, features from experiences.seen_features where user_id in ('ada', 'bob') order by 1"
    assert rows(project, seen_features) == [("ada", {"n": 1}), ("bob", {"n": 3})]


def test_by_a_merge_the_earliest_assignment_stands(project: Project, product: Product) -> None:
    for user_id in ("old", "new"):
        product.power_user(user_id, AS_OF)
    build(project, AS_OF, is_explicit=True)
    assign_experiences(project, AS_OF)
    with project.engine.begin() as connection:
        for user_id, variant, at in (("new", "unlock", AS_OF), ("old", "control", AS_OF - DAY)):
            connection.execute(
                sa.text(
                    "update experiences.assignments set variant = :variant, assigned_at = :at"
                    " where experience = 'upsell_banner' and user_id = :user_id"
                ),
                {"user_id": user_id, "variant": variant, "at": at},
            )
    banners = "source = 'upsell_banner', user_id, variant"
    assert {row[1:] for row in seen(project, banners) if row[0]} == {("new", "unlock"), ("old", "control")}
    product.store("alias", AS_OF, user_id="new", previous_id="old")
    build(project, AS_OF, is_explicit=True)
    for _ in range(2):
        assert assign_experiences(project, AS_OF) == 0
        assert rows(
            project,
            "select variant, assigned_at, is_in_both_arms from experiences.assignments"
            " where experience = 'upsell_banner' and user_id = 'new'",
        ) == [("control", AS_OF - DAY, True)]
        assert [row[1:] for row in seen(project, banners) if row[0]] == [("new", "control")]
