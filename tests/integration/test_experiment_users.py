"""That the table of users of experiments is at each step what it would be if everybody was looked up afresh."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, OperationalError

from tests.conftest import AS_OF, rows, wait_for
from tests.outcomes import experience, store
from upnext import dbt
from upnext.analytics.definition import COLUMNS
from upnext.analytics.results import compute_all_users
from upnext.analytics.sql import SQL
from upnext.experiences.definition import as_json
from upnext.loop import analyse_results, build, rebuild
from upnext.project import Project

HOUR = timedelta(hours=1)
USERS = "select * from analytics.experiment_users order by user_id, experiment"
DAYS = "select * from analytics.daily_moments order by experiment, exposed_on, split, arm, metric"
MOMENTS = """
    select experiment, split, arm, users, mean, variance, covariate_mean, covariate_variance, covariance
    from analytics.experiment_moments where metric = 'logins'
    order by experiment, split, arm
"""
# The same in Postgres' own words, from all rows at once.
IN_ONE_PASS = """
    select
        experiment, split, arm, count(*) as users, avg(logins) as mean, var_samp(logins) as variance,
        avg(logins__before) as covariate_mean, var_samp(logins__before) as covariate_variance,
        covar_samp(logins, logins__before) as covariance
    from analytics.experiment_users where is_window_over
    group by experiment, split, arm
    order by experiment, split, arm
"""


def found(connection: Connection, statement: str) -> list[Mapping[str, Any]]:
    return [dict(row) for row in connection.execute(sa.text(statement)).mappings()]


def numbers(row: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in row.items() if isinstance(value, int | float)}


def words(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in numbers(row)}


def kept(project: Project) -> int:
    """Bring the table up to date, and return how many rows are not what they were."""
    before = users_by_key(project)
    with project.engine.begin() as connection:
        connection.execute(SQL["refresh_users"])
        connection.execute(SQL["refresh_moments"])
    after = users_by_key(project)
    return sum(before.get(key) != after.get(key) for key in {*before, *after})


def users_by_key(project: Project) -> dict[tuple[str, str], Mapping[str, Any]]:
    with project.engine.connect() as connection:
        if connection.scalar(sa.text("select to_regclass('analytics.experiment_users') is null")):
            return {}
        return {(row["user_id"], row["experiment"]): row for row in found(connection, USERS)}


def load(project: Project, message_id: str, event: str, user: str, at: datetime, **properties: str) -> None:
    """Load an event by itself; a tick takes it in later."""
    with project.engine.begin() as connection:
        connection.execute(
            sa.text("""
                with load as (
                    insert into raw.loads
                        (source, path, fingerprint, size, modified_at, received, stored, duplicate, rejected, loaded_at)
                    values ('drawn', 'drawn', :message_id, 1, :at, 1, 1, 0, 0, :at)
                    returning load_id
                )

                insert into raw.events
                    (source, message_id, type, event, user_id, person_id, occurred_at, load_id, properties)
                select
                    'drawn', :message_id, 'track', :event, :user, :user, :at, load_id, cast(:properties as jsonb)
                from load
            """),
            {
                "message_id": message_id, "event": event, "user": user, "at": at,
                "properties": msgspec.json.encode(properties).decode(),
            },
        )  # fmt: skip


def publish(project: Project, as_of: datetime) -> None:
    """Publish a tick that has taken in what was loaded."""
    with project.engine.begin() as connection:
        for statement in (
            "insert into segments.ticks (as_of, published_at) values (:as_of, :as_of)",
            "update raw.loads set tick_id = (select max(tick_id) from segments.ticks) where tick_id is null",
        ):
            connection.execute(sa.text(statement), {"as_of": as_of})


class World:
    """What happens around the table, drawn alike each time."""

    users = tuple(f"u{number:02d}" for number in range(14))

    def __init__(self, project: Project) -> None:
        self.draw = random.Random(11)  # noqa: S311 - drawn alike each time
        self.project = project
        self.now = AS_OF
        self.nth = 0
        self.merged: dict[str, str] = {}
        journey = project.journeys["earn_upgrade"]
        goal = msgspec.structs.replace(journey.goal, within="24 hours")
        store(
            project, as_of=AS_OF, assigned_at=AS_OF - 60 * HOUR, experiences={}, users={}, events=[],
            journeys={"journey": msgspec.structs.replace(journey, goal=goal)},
        )  # fmt: skip
        self.declare("one")
        self.declare("two")

    def say(self, statement: str, **values: Any) -> None:
        with self.project.engine.begin() as connection:
            connection.execute(sa.text(statement), values)

    @property
    def user(self) -> str:
        return self.draw.choice(self.users)

    def at(self, since: int = -72) -> datetime:
        """On the hour, so that times fall together with ticks and with the ends of windows."""
        return self.now + self.draw.randint(since, 0) * HOUR

    def event(self, name: str, user: str, at: datetime, **properties: str) -> None:
        self.nth += 1
        load(self.project, str(self.nth), name, user, at, **properties)

    def view(self) -> None:
        variant = self.draw.choice([{}, {"variant": "a"}, {"variant": "control"}, {"variant": "gone"}])
        for _ in range(self.draw.randint(1, 3)):
            at = self.at(self.draw.choice([0, -2, -72])) + self.draw.choice([0, 0, 3]) * HOUR
            self.event("experience viewed", self.user, at, experience=self.draw.choice(["one", "two"]), **variant)

    def act(self) -> None:
        for _ in range(self.draw.randint(1, 5)):
            name = self.draw.choice(
                ["login", "login", "created object", "subscribed to premium plan", "book demo", "experience clicked"]
            )
            at = self.at(self.draw.choice([0, -72]))
            self.event(name, self.user, at, experience=self.draw.choice(["one", "two"]))

    def assign(self) -> None:
        self.say(
            "insert into experiences.assignments values (:experience, :user, :variant, :at) on conflict do nothing",
            experience=self.draw.choice(["one", "two"]), user=self.user,
            variant=self.draw.choice(["control", "a"]), at=self.at(self.draw.choice([0, -48])),
        )  # fmt: skip

    def assign_otherwise(self) -> None:
        self.say(
            "update experiences.assignments set variant = :variant, assigned_at = :at where user_id = :user",
            user=self.user, variant=self.draw.choice(["control", "a"]), at=self.at(-48),
        )  # fmt: skip

    def enter(self) -> None:
        self.say(
            """
            insert into journeys.entries
                (journey, version, user_id, entered_at, reached_at, status, cause, seed, arm, is_held_out_globally)
            select journey, version, :user, :at, :at, 'active', :nth, journey || :nth, :arm, :is_held_out_globally
            from journeys.definitions
            """,
            user=self.user, at=self.at(self.draw.choice([0, -72])), nth=str(self.nth),
            arm=self.draw.choice(["treated", "held_out", "held_out", None]),
            is_held_out_globally=self.draw.choice([False, False, True]),
        )  # fmt: skip
        self.nth += 1

    def change_entry(self) -> None:
        entries = rows(self.project, "select entry_id from journeys.entries where status <> 'excluded' order by 1")
        change = self.draw.choice(
            ["is_in_both_arms = true", "status = 'excluded'", "arm = null", "is_held_out_globally = true"]
        )
        self.say(
            f"update journeys.entries set {change} where entry_id = :entry_id",
            entry_id=self.draw.choice([0, *(entry_id for (entry_id,) in entries)]),
        )

    def delete(self) -> None:
        table = self.draw.choice(["journeys.entries", "experiences.assignments"])
        self.say(f"delete from {table} where user_id = :user", user=self.user)

    def declare(self, name: str | None = None) -> None:
        name = name or self.draw.choice(["one", "two"])
        goal = {
            "any_of": [self.draw.choice(["subscribed to premium plan", "book demo"])],
            "within": self.draw.choice(["12 hours", "24 hours", "36 hours"]),
        }
        self.say(
            "insert into experiences.definitions values (:name, cast(:definition as jsonb))"
            " on conflict (experience) do update set definition = excluded.definition",
            name=name, definition=msgspec.json.encode(as_json(experience(goal=goal))).decode(),
        )  # fmt: skip
        self.say(
            "insert into experiences.shares values (:name, '-infinity', '{\"control\": 0.5, \"a\": 0.5}')"
            " on conflict do nothing",
            name=name,
        )

    def declare_journey(self) -> None:
        self.say(
            "update journeys.definitions set definition = jsonb_set(definition, '{goal,within}', :within)",
            within=self.draw.choice(['"12 hours"', '"24 hours"']),
        )

    def withdraw(self) -> None:
        self.say("delete from experiences.definitions where experience = :name", name=self.draw.choice(["one", "two"]))

    def merge(self) -> None:
        """Two turn out to be one; what dispatch and assignment make of it follows at once, later, or never."""
        absorbed, survivor = self.draw.sample(self.users, 2)
        if absorbed in self.merged or absorbed in self.merged.values() or survivor in self.merged:
            return
        self.merged[absorbed] = survivor
        self.say(
            "insert into events.identity_links (kind, id, linked_to, user_id, linked_at, source, message_id)"
            " values ('user', :absorbed, :survivor, :survivor, :at, 'drawn', :absorbed)",
            absorbed=absorbed, survivor=survivor, at=self.now,
        )  # fmt: skip
        self.publish()
        for user in (absorbed, survivor):
            self.say("insert into segments.merged_users select max(tick_id), :user from segments.ticks", user=user)

    def follow_merges(self) -> None:
        for absorbed, survivor in self.merged.items():
            self.say(
                "update journeys.entries set user_id = :survivor where user_id = :absorbed",
                absorbed=absorbed, survivor=survivor,
            )  # fmt: skip

    def publish(self) -> None:
        self.now += self.draw.choice([0, 1, 1, 3, 12]) * HOUR
        publish(self.project, self.now)

    def go_on(self) -> None:
        steps: list[Callable[[], None]] = [
            *[self.view, self.act, self.publish] * 4, *[self.enter, self.change_entry] * 3,
            *[self.assign, self.assign_otherwise] * 2, self.delete, self.declare, self.declare,
            self.declare_journey, self.withdraw, self.merge, self.follow_merges,
        ]  # fmt: skip
        self.draw.choice(steps)()


def test_what_changes_is_kept_up_as_if_everybody_was_looked_up_afresh(ticked: Project) -> None:
    world = World(ticked)
    for _ in range(3 * len(world.users)):
        world.assign()
    seen = set()
    touched = []
    for step in range(150):
        world.go_on()
        kept(ticked)
        with ticked.engine.connect() as connection:
            users, days = found(connection, USERS), found(connection, DAYS)
            moments, in_one_pass = found(connection, MOMENTS), found(connection, IN_ONE_PASS)
            touched.append(connection.scalar(sa.text("select count(*) from analytics.stale_users")))
        ticked.dbt.invoke(["run", "--full-refresh", "--select", "experiment_users", "daily_moments"])
        with ticked.engine.connect() as connection:
            assert found(connection, USERS) == users
            afresh = found(connection, DAYS)
        for one, other in ((moments, in_one_pass), (days, afresh)):
            assert [words(row) for row in one] == [words(row) for row in other]
            assert [numbers(row) for row in one] == [pytest.approx(numbers(row)) for row in other]
        if step % 15 == 0:
            forget_users(ticked)
            assert compute_all_users(ticked.engine, few_users=0) == len(users)
            with ticked.engine.connect() as connection:
                assert found(connection, USERS) == users
        seen |= {(row["experiment"], row["arm"], row["is_window_over"], row["is_in_both_arms"]) for row in users}
    assert len(seen) >= 16, "there is hardly anything to compare"
    assert sum(touched) < 0.5 * len(touched) * len(world.users), "nearly everybody is looked up each time"


def exposed(project: Project, *users: str, within: str = "7 days") -> None:
    """Users who saw `offer` ten days before AS_OF, and logged in twice a day later."""
    at = AS_OF - 240 * HOUR
    offer = experience(goal={"any_of": ["subscribed to premium plan"], "within": within})
    store(
        project, as_of=AS_OF, assigned_at=at - HOUR, experiences={"offer": offer}, users={"offer": users},
        events=[
            event
            for user in users
            for event in (
                (user, "experience viewed", at, {"experience": "offer"}),
                *[(user, "login", at + 24 * HOUR, {})] * 2,
            )
        ],
    )  # fmt: skip


def test_who_is_assigned_at_the_instant_of_a_view_is_found(ticked: Project) -> None:
    store(
        ticked, as_of=AS_OF, assigned_at=AS_OF, experiences={"offer": experience()}, users={"offer": []},
        events=[("ada", "experience viewed", AS_OF, {"experience": "offer"})],
    )  # fmt: skip
    assert kept(ticked) == 0
    with ticked.engine.begin() as connection:
        connection.execute(
            sa.text("insert into experiences.assignments values ('offer', 'ada', 'a', :at)"), {"at": AS_OF}
        )
    publish(ticked, AS_OF + HOUR)
    assert kept(ticked) == 1
    assert rows(ticked, "select user_id, is_window_over, logins from analytics.experiment_users") == [
        ("ada", False, None)
    ]


def test_assignments_that_are_written_behind_the_newest_tick_are_found(ticked: Project) -> None:
    at = AS_OF - 240 * HOUR
    store(
        ticked, as_of=AS_OF, assigned_at=at, experiences={"offer": experience()}, users={"offer": []},
        events=[("ada", "experience viewed", at, {"experience": "offer"})],
    )  # fmt: skip
    assert kept(ticked) == 0
    found_arms = []
    for statement in (
        "insert into experiences.assignments values ('offer', 'ada', 'a', :at)",
        "update experiences.assignments set variant = 'control'",
        "update experiences.assignments set assigned_at = assigned_at + interval '1 microsecond'",
    ):
        with ticked.engine.begin() as connection:
            connection.execute(sa.text(statement), {"at": at} if ":at" in statement else {})
        assert kept(ticked) == 1
        found_arms.append(rows(ticked, "select arm from analytics.experiment_users"))
    assert found_arms == [[("a",)], [("control",)], []]


def test_who_sees_the_other_arm_later_is_noticed(ticked: Project) -> None:
    exposed(ticked, "ada", "bob")
    kept(ticked)
    ((arm,),) = rows(ticked, "select arm from analytics.experiment_users where user_id = 'ada'")
    other = {"a": "control", "control": "a"}[arm]
    for hour, (variant, both) in enumerate(((arm, False), (other, True), (arm, True)), start=1):
        at = AS_OF + hour * HOUR
        load(ticked, str(hour), "experience viewed", "ada", at, experience="offer", variant=variant)
        publish(ticked, at)
        kept(ticked)
        found_both = rows(ticked, "select arm, is_in_both_arms from analytics.experiment_users where user_id = 'ada'")
        assert found_both == [(arm, both)]


def test_an_event_that_comes_late_for_the_very_end_of_a_window_counts(ticked: Project) -> None:
    exposed(ticked, "ada", within="10 days")
    kept(ticked)
    logins = "select is_window_over, logins from analytics.experiment_users"
    assert rows(ticked, logins) == [(True, 2)]
    load(ticked, "late", "login", "ada", AS_OF)
    assert kept(ticked) == 1
    assert rows(ticked, logins) == [(True, 3)]


def test_another_metric_is_looked_up_for_everybody(content: Path, ticked: Project) -> None:
    exposed(ticked, "ada", "bob")
    analyse_results(ticked, AS_OF)
    publish(ticked, AS_OF + HOUR)
    assert kept(ticked) == 0
    path = content / "models" / "analytics" / "_metrics.yml"
    text = path.read_text()
    named = "      - name: logins\n        description: Logins.\n        config: {meta: {count_of: login}}\n"
    assert named in text
    path.write_text(text.replace(named, named.replace("name: logins", "name: visits")))
    ticked.dbt = dbt.Dbt(ticked.settings, ticked.engine.url)
    build(ticked, AS_OF + 2 * HOUR, is_explicit=True)
    assert kept(ticked) == 2
    assert rows(ticked, "select sum(visits), sum(visits__before) from analytics.experiment_users") == [(4, 0)]
    assert rows(ticked, "select distinct metric from analytics.experiment_moments where type = 'mean' order by 1") == [
        ("objects_created",), ("visits",),
    ]  # fmt: skip
    build(ticked, AS_OF + 3 * HOUR, is_explicit=True)
    assert kept(ticked) == 0, "the same tables go on"


def test_what_is_wrong_is_repaired_and_counted(ticked: Project) -> None:
    exposed(ticked, "ada", "bob", "cid")
    assert "experiment_users" not in rebuild(ticked), "nobody was looked up yet, so there is nothing to compare"
    kept(ticked)
    right = rows(ticked, USERS)
    with ticked.engine.begin() as connection:
        connection.execute(sa.text("update analytics.experiment_users set logins = 7 where user_id = 'ada'"))
        connection.execute(sa.text("delete from analytics.experiment_users where user_id = 'bob'"))
        connection.execute(sa.text("update analytics.daily_moments set users = 99"))
    assert rebuild(ticked)["experiment_users"] == 2
    assert rows(ticked, USERS) == right
    assert rows(ticked, "select sum(users) from analytics.daily_moments where metric = 'goal'") == [(3,)]
    assert rebuild(ticked)["experiment_users"] == 0


def test_moments_of_days_keep_their_digits(ticked: Project) -> None:
    with ticked.engine.begin() as connection:
        connection.execute(
            sa.text("""
                insert into analytics.daily_moments
                select
                    'offer', date '2026-03-01' + nth % 7, 's', 'a', count(*), names.metric, 'mean', null,
                    regr_avgy(y, x), regr_syy(y, x), regr_avgx(y, x), regr_sxx(y, x), regr_sxy(y, x)
                from generate_series(1, 5000) as nth
                cross join lateral (
                    values
                    ('large', cast(1e9 + nth % 10 as double precision), cast(1e9 + nth % 3 as double precision)),
                    ('same for all', 9.99, nth)
                ) as names (metric, y, x)
                group by names.metric, nth % 7
            """)
        )
        large = connection.execute(
            sa.text("""
                select var_samp(nth % 10), var_samp(nth % 3), covar_samp(nth % 10, nth % 3)
                from generate_series(1, 5000) as nth
            """)
        ).one()
    moments = "select variance, covariate_variance, covariance from analytics.experiment_moments where metric = :metric"
    assert rows(ticked, moments, metric="large") == [pytest.approx(tuple(map(float, large)), rel=1e-6)]
    ((variance, covariate_variance, covariance),) = rows(ticked, moments, metric="same for all")
    assert (variance, covariance) == (0, 0)
    assert covariate_variance > 0


ANALYSE = """
import sys
from datetime import datetime
from upnext.settings import Settings
from upnext.loop import analyse_results
from upnext.project import Project

analyse_results(Project(Settings.from_environment()), datetime.fromisoformat(sys.argv[1]))
"""
WAITING = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like :query"


@pytest.mark.parametrize("table", ["experiment_users", "daily_moments"])
def test_an_analysis_that_is_killed_leaves_nothing_half_done_and_the_next_one_is_right(
    ticked: Project, table: str
) -> None:
    exposed(ticked, "ada", "bob", within="241 hours")
    at = AS_OF + HOUR
    analyse_results(ticked, AS_OF)
    written = f"select * from analytics.{table} order by 1, 2, 3, 4, 5"
    before = rows(ticked, written), rows(ticked, "select * from analytics.experiment_results order by 1, 2, 3, 4, 5")
    publish(ticked, at)
    with ticked.engine.connect() as held:
        held.execute(sa.text(f"lock table analytics.{table} in share mode"))
        environment = {**os.environ, "UPNEXT_DATABASE_URL": ticked.settings.database_url or ""}
        process = subprocess.Popen([sys.executable, "-c", ANALYSE, at.isoformat()], env=environment)
        wait_for(
            lambda: rows(ticked, WAITING, query=f"%analytics.refresh_{table}%") == [(1,)],
            f"the analysis to come to {table}",
        )
        process.kill()
        assert process.wait() == -signal.SIGKILL
        held.rollback()
    results = rows(ticked, "select * from analytics.experiment_results order by 1, 2, 3, 4, 5")
    assert (rows(ticked, written), results) == before
    analyse_results(ticked, at)
    assert rows(ticked, "select is_window_over, logins from analytics.experiment_users") == [(True, 2)] * 2
    assert rows(ticked, "select sum(users) from analytics.daily_moments where metric = 'goal'") == [(2,)]
    assert rows(ticked, "select count(*) from analytics.stale_days") == [(0,)]


def forget_users(project: Project) -> None:
    """Leave the tables as a changed definition does."""
    with project.engine.begin() as connection:
        connection.execute(sa.text("truncate analytics.experiment_users, analytics.daily_moments"))
        connection.execute(
            sa.text("update features.states set tick_id = 0 where model in ('experiment_users', 'daily_moments')")
        )


def test_several_sessions_compute_many_users_and_the_analysis_goes_on_from_there(ticked: Project) -> None:
    exposed(ticked, *(f"u{number}" for number in range(40)), within="9 days")
    assert compute_all_users(ticked.engine, few_users=40) == 0, "so few are left to the analysis"
    assert compute_all_users(ticked.engine, few_users=39) == 40
    # A row has the number of the transaction that wrote it.
    ((sessions,),) = rows(ticked, "select count(distinct cast(xmin as text)) from analytics.experiment_users")
    assert sessions == 2
    assert compute_all_users(ticked.engine, few_users=39) == 0, "they are computed"
    assert kept(ticked) == 0
    assert rows(ticked, "select count(*) from analytics.stale_users") == [(0,)]
    assert rows(ticked, "select sum(users) from analytics.daily_moments where metric = 'goal'") == [(40,)]
    assert rebuild(ticked)["experiment_users"] == 0
    load(ticked, "late", "login", "u7", AS_OF - 220 * HOUR)
    publish(ticked, AS_OF + HOUR)
    assert kept(ticked) == 1


def test_several_sessions_see_the_warehouse_at_one_instant(ticked: Project) -> None:
    exposed(ticked, *(f"u{number}" for number in range(40)), within="9 days")
    assert kept(ticked) == 40
    with ticked.engine.begin() as connection:
        connection.execute(sa.text("truncate analytics.experiment_users"))
        connection.execute(sa.text("update features.states set tick_id = 0 where model = 'experiment_users'"))
    began = []

    def withdraw(connection: object, cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("set transaction snapshot"):
            began.append(statement)
            with ticked.engine.begin() as other:
                other.execute(sa.text("delete from experiences.assignments where user_id = any(array['u1', 'u2'])"))

    sa.event.listen(ticked.engine, "before_cursor_execute", withdraw)
    assert compute_all_users(ticked.engine, few_users=0) == 40
    sa.event.remove(ticked.engine, "before_cursor_execute", withdraw)
    assert len(began) == 2
    assert rows(ticked, "select tick_id from features.states where model = 'daily_moments'") == [(0,)], "all days"
    assert kept(ticked) == 2
    assert rows(ticked, "select sum(users) from analytics.daily_moments where metric = 'goal'") == [(38,)]


def half_computed(project: Project) -> list[Any]:
    """Fail when the second of two sessions commits, and return the users of the first with their exposures."""
    exposed(project, *(f"u{number}" for number in range(40)))
    with project.engine.begin() as connection:
        connection.execute(
            sa.text("""
                create function analytics.refuse() returns trigger language plpgsql as $$
                begin raise exception 'refused'; end $$;
                create constraint trigger refused after insert on analytics.experiment_users
                deferrable initially deferred
                for each row when (mod(hashtextextended(new.user_id, 0), 2) = 0) execute function analytics.refuse()
            """)
        )
    with pytest.raises(DBAPIError, match="refused"):
        compute_all_users(project.engine, few_users=0)
    assert rows(project, "select tick_id from features.states where model = 'experiment_users'") == [(0,)]
    with project.engine.begin() as connection:
        connection.execute(sa.text("drop trigger refused on analytics.experiment_users"))
    written = rows(project, WRITTEN)
    assert 0 < len(written) < 40
    return written


WRITTEN = "select user_id, exposed_at from analytics.experiment_users order by user_id"


def test_if_one_of_several_sessions_fails_the_next_analysis_computes_all_again(ticked: Project) -> None:
    (withdrawn, _), (late, _), *_ = half_computed(ticked)
    with ticked.engine.begin() as connection:
        connection.execute(sa.text("delete from experiences.assignments where user_id = :user"), {"user": withdrawn})
    load(ticked, "late", "login", late, AS_OF - 220 * HOUR)
    assert compute_all_users(ticked.engine, few_users=0) == 39
    assert rows(ticked, "select sum(logins), max(logins) from analytics.experiment_users") == [(39 * 2 + 1, 3)]
    assert rebuild(ticked)["experiment_users"] == 0


def test_what_one_of_several_sessions_has_computed_stays_where_its_events_are_gone(ticked: Project) -> None:
    written = half_computed(ticked)
    (sees_it_again, _), *_ = written
    with ticked.engine.begin() as connection:
        connection.execute(sa.text("delete from raw.events where user_id = :user"), {"user": sees_it_again})
        connection.execute(sa.text("update raw.kept set since = :since"), {"since": AS_OF - 200 * HOUR})
    load(ticked, "again", "experience viewed", sees_it_again, AS_OF - 100 * HOUR, experience="offer")
    assert compute_all_users(ticked.engine, few_users=0) == 0
    assert rows(ticked, WRITTEN) == written


COMPUTE = """
from upnext.analytics.definition import COLUMNS
from upnext.analytics.results import compute_all_users
from upnext.settings import Settings
from upnext.warehouse.engine import connect

compute_all_users(connect(Settings.from_environment()), few_users=0)
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_if_several_sessions_are_killed_the_next_analysis_computes_all_again(ticked: Project, end: int) -> None:
    exposed(ticked, *(f"u{number}" for number in range(40)))
    with ticked.engine.connect() as held:
        held.execute(sa.text("lock table analytics.experiment_users in share mode"))
        environment = {**os.environ, "UPNEXT_DATABASE_URL": ticked.settings.database_url or ""}
        process = subprocess.Popen([sys.executable, "-c", COMPUTE], env=environment)
        wait_for(
            lambda: rows(ticked, WAITING, query="%compute_part_of_experiment_users%") == [(2,)],
            "both sessions to come to the table",
        )
        process.send_signal(end)
        assert process.wait(timeout=60) == -end
        if end == signal.SIGINT:
            assert rows(ticked, WAITING, query="%compute_part_of_experiment_users%") == [(0,)], "they go at once"
        held.rollback()
    assert analyse_results(ticked, AS_OF).users == 40
    assert rows(ticked, "select sum(users) from analytics.daily_moments where metric = 'goal'") == [(40,)]
    assert rebuild(ticked)["experiment_users"] == 0


@pytest.mark.parametrize("nth", [0, 1])
def test_if_one_of_several_sessions_is_lost_the_others_end_too(ticked: Project, nth: int) -> None:
    exposed(ticked, *(f"u{number}" for number in range(40)))
    waiting = WAITING.replace("count(*)", "pid")
    with ThreadPoolExecutor() as pool, ticked.engine.connect() as held:
        held.execute(sa.text("lock table analytics.experiment_users in share mode"))
        computing = pool.submit(compute_all_users, ticked.engine, few_users=0)
        query = "%compute_part_of_experiment_users%"
        wait_for(lambda: len(rows(ticked, waiting, query=query)) == 2, "both sessions to come to the table")
        ((lost,),) = rows(ticked, f"{waiting} order by pid limit 1 offset {nth}", query=query)
        rows(ticked, "select pg_terminate_backend(cast(:lost as integer))", lost=lost)
        with pytest.raises(OperationalError, match="terminating connection"):
            computing.result(timeout=60)
        held.rollback()
    assert compute_all_users(ticked.engine, few_users=0) == 40


def test_two_analyses_at_once_wait_for_each_other(ticked: Project) -> None:
    exposed(ticked, "ada", "bob")
    with ThreadPoolExecutor() as pool, ticked.engine.connect() as held:
        held.execute(sa.text("lock table analytics.stale_days in exclusive mode"))
        waiting = pool.submit(analyse_results, ticked, AS_OF)
        wait_for(
            lambda: waiting.done() or rows(ticked, WAITING, query="%lock table analytics.stale_days%") == [(1,)],
            "the second at the door",
        )
        assert not waiting.done()
        held.rollback()
    assert waiting.result().users == 2


def test_no_metric_can_have_the_name_of_another_column(ticked: Project) -> None:
    statement = (
        "select column_name from information_schema.columns"
        " where table_schema = 'analytics' and table_name = 'experiment_users'"
    )
    metrics = {name + end for name in ticked.metrics for end in ("", "__before", "__per")}
    assert {name for (name,) in rows(ticked, statement)} - metrics == COLUMNS - {"users"}
