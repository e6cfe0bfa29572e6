"""On a Citus cluster, `raw.events` is spread over its nodes, and everything that follows is as on one server."""

from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import URL

from tests.conftest import AS_OF, Product, create_database, rows, settings_for, start
from upnext.loop import rebuild, tick
from upnext.project import Project

pytestmark = pytest.mark.on_cluster
DAY = timedelta(days=1)
KEPT = {
    "events.identity_links": "kind, id, linked_to, user_id, refused_because",
    "raw.events": "source, message_id, user_id, anonymous_id, person_id, event, occurred_at, load_id",
    "events.user_events": "user_id, event, occurred_at, source, message_id, is_derived",
    "features.user_features": "*",
    "features.account_features": "*",
    "segments.members": "segment, user_id, entered_at",
    "segments.membership_changes": "tick_id, segment, user_id, change, as_of",
    "journeys.entries": "journey, user_id, entered_at, status, reason, step, arm, goal_reached_at, ended_at",
    "journeys.messages": "message_id, journey, step, user_id, status, reason, due_at, sent_at",
    "experiences.assignments": "experience, user_id, variant, assigned_at",
    "analytics.experiment_users": "*",
    "analytics.experiment_results": "as_of, experiment, metric, arm, n_control, n_arm",
}


def live_for_a_week(project: Project) -> None:
    """Let people come, buy, merge and leave, and tick after each day."""
    product = Product(project)
    people = [f"u{nth}" for nth in range(24)]
    for nth, user in enumerate(people):
        product.power_user(user, AS_OF - nth * timedelta(hours=3))
        product.store("group", AS_OF - 9 * DAY, user_id=user, account_id=f"a{nth % 5}", properties={})
    for day in range(7):
        at = AS_OF + day * DAY
        for nth, user in enumerate(people):
            visitor = f"v{nth}"
            if nth % 4 == day % 4:
                product.track(None, "product viewed", at - timedelta(hours=2), anonymous_id=visitor)
                product.track(user, "login", at - timedelta(hours=1), times=1 + nth % 3)
            if nth % 2:
                product.track(user, "login", at, times=3)
                product.track(user, "created ml task", at, times=2)
            if nth % 6 == day:
                product.store("identify", at, user_id=user, anonymous_id=visitor, properties={"plan": "basic"})
            if nth == day:
                product.store("alias", at, user_id=user, previous_id=people[nth + 8])
            if nth % 7 == day and nth < 12:
                product.track(user, "subscribed to premium plan", at - timedelta(minutes=1))
        for user in {row[0] for row in rows(project, "select user_id from experiences.assignments order by 1 limit 9")}:
            product.track(user, "experience viewed", at, properties={"experience": "upgrade_offer"})
        tick(project, at)


@pytest.fixture
def beside(embedded_url: URL, tmp_path: Path, project: Project) -> Project:
    """A warehouse on one server, with the content of the one on the cluster."""
    url = create_database(embedded_url, "upnext_beside")
    other = Project(settings_for(tmp_path / "beside", url, project.settings.smtp_url))
    start(other)
    return other


def contents(project: Project, table: str, columns: str) -> list[str]:
    return [
        row
        for (row,) in rows(
            project, f"select cast(found as text) from (select {columns} from {table}) as found order by 1"
        )
    ]


def test_every_row_is_that_of_one_server(project: Project, beside: Project) -> None:
    for one in (project, beside):
        live_for_a_week(one)
    for table, columns in KEPT.items():
        here, there = contents(project, table, columns), contents(beside, table, columns)
        assert here == there, table
        assert here, f"{table} has rows"
    moved = "select count(*) from raw.events where person_id <> upnext.said_by(user_id, anonymous_id)"
    assert rows(project, moved)[0][0] > 20
    assert set(rebuild(project).values()) == {0}


def test_raw_events_alone_are_spread(project: Project) -> None:
    spread = "select cast(logicalrelid as text), column_to_column_name(logicalrelid, partkey) from pg_dist_partition"
    assert rows(project, spread) == [("raw.events", "person_id")]
    nodes = "select count(distinct nodename || nodeport) from citus_shards where table_name = 'raw.events'::regclass"
    workers = "select count(*) from pg_dist_node where shouldhaveshards"
    assert rows(project, nodes) == rows(project, workers)
    with project.engine.begin() as connection:
        connection.execute(sa.text("select upnext.spread('raw.events', 'person_id')"))
    assert rows(project, spread) == [("raw.events", "person_id")]


@pytest.mark.parametrize("key", ["source, message_id", "source, message_id, person_id"])
def test_a_warehouse_of_one_server_and_a_restored_one_are_spread_by_hand(project: Project, key: str) -> None:
    live_for_a_week(project)
    kept = contents(project, "events.user_events", "*")
    with project.engine.begin() as connection:
        connection.exec_driver_sql("select undistribute_table('raw.events')")
        connection.exec_driver_sql(f"alter table raw.events drop constraint events_pkey, add primary key ({key})")
    with project.engine.begin() as connection:
        connection.exec_driver_sql("select upnext.spread('raw.events', 'person_id')")
    assert rows(project, "select cast(logicalrelid as text) from pg_dist_partition") == [("raw.events",)]
    assert contents(project, "events.user_events", "*") == kept
    assert rows(project, "select pg_relation_size('raw.events')") == [(0,)], "no copy stays on the coordinator"
    assert set(rebuild(project).values()) == {0}


def test_a_tick_pulls_no_events_to_the_coordinator(ticked: Project, product: Product) -> None:
    users = [f"u{nth}" for nth in range(20_000)]
    product.track_all(users, "login", AS_OF - 2 * DAY, {"pad": "x" * 100})
    tick(ticked, AS_OF)
    with ticked.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        name = connection.scalar(sa.text("select current_database()"))
        connection.exec_driver_sql(f"alter database {name} set citus.max_intermediate_result_size = '256kB'")
    ticked.engine.dispose()
    pulling = "select count(*) from (select * from raw.events offset 0) as events"
    with pytest.raises(sa.exc.DBAPIError, match="intermediate result size exceeds"):
        rows(ticked, pulling)
    product.track("u7", "login", AS_OF + timedelta(minutes=5))
    product.store("identify", AS_OF + timedelta(minutes=6), user_id="u8", anonymous_id="v8", properties={})
    done = tick(Project(ticked.settings), AS_OF + timedelta(hours=1))
    assert done.analytics["results"] >= 0
    assert rows(ticked, "select logins_30d from features.user_features where user_id = 'u7'") == [(2,)]
