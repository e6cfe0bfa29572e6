"""The schema: a baseline, functions and views that follow their files, and a warehouse of 0.1 that is brought here."""

import gzip
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import URL, Engine

from tests.conftest import AS_OF, Cli, Product, create_database, rows, settings_for
from upnext.errors import UpnextError
from upnext.loop import rebuild, tick
from upnext.project import Project
from upnext.warehouse import migrate as schema
from upnext.warehouse.migrate import migrate, upgrade

# Dumped from the last state of 0.1: three ticks, journeys with entries and messages, an experience and its results.
DUMP = Path(__file__).parents[1] / "fixtures" / "warehouse_0.1.sql.gz"
OURS = ("upnext", "raw", "features", "segments", "journeys", "experiences", "analytics")


def engine_of(url: URL) -> Engine:
    return sa.create_engine(url.set(drivername="postgresql+psycopg"))


def described(engine: Engine, tables: set[str]) -> dict[str, set[Any]]:
    """Return the columns, constraints, indexes, triggers, functions and views of a warehouse, dbt's left out."""
    queries = {
        "columns": "select table_schema || '.' || table_name, column_name, data_type, is_nullable, column_default"
        " from information_schema.columns where table_schema = any(:ours)",
        "constraints": "select cast(conrelid as regclass)::text, conname, pg_get_constraintdef(oid) from pg_constraint"
        " where connamespace::regnamespace::text = any(:ours) and contype <> 'n'",
        "indexes": "select schemaname || '.' || tablename, indexname, indexdef from pg_indexes"
        " where schemaname = any(:ours)",
        "triggers": "select cast(tgrelid as regclass)::text, pg_get_triggerdef(oid) from pg_trigger"
        " where not tgisinternal",
        "views": "select schemaname || '.' || viewname, definition from pg_views where schemaname = any(:ours)",
        "functions": "select '', pg_get_functiondef(oid) from pg_proc"
        " where pronamespace::regnamespace::text = any(:ours)",
    }
    with engine.connect() as connection:
        found = {
            name: {tuple(row) for row in connection.execute(sa.text(query), {"ours": list(OURS)})}
            for name, query in queries.items()
        }
    return {name: {row for row in those if row[0] in tables | {""}} for name, those in found.items()}


def tables_of(engine: Engine) -> set[str]:
    with engine.connect() as connection:
        names = connection.scalars(
            sa.text("select schemaname || '.' || relname from pg_stat_user_tables where schemaname = any(:ours)"
                    " union all select schemaname || '.' || viewname from pg_views where schemaname = any(:ours)"),
            {"ours": list(OURS)},
        )  # fmt: skip
        return set(names)


@pytest.fixture
def old(embedded_url: URL) -> URL:
    """A warehouse of 0.1."""
    url = create_database(embedded_url)
    engine = engine_of(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(gzip.decompress(DUMP.read_bytes()).decode().replace("%", "%%"))
    engine.dispose()
    return url


def test_a_second_look_changes_nothing(project: Project) -> None:
    assert migrate(project.engine) == []
    assert upgrade(project.engine) is False


def test_functions_and_views_follow_their_files(project: Project) -> None:
    with project.engine.begin() as connection:
        connection.exec_driver_sql("update upnext.recreated set hash = 'old' where file = 'segments/views.sql'")
        connection.exec_driver_sql(
            "create or replace view segments.current_members as"
            " select segment, user_id, entered_at from segments.members where false"
        )
    assert migrate(project.engine) == ["segments/views.sql"]
    view = "select pg_get_viewdef('segments.current_members'::regclass)"
    assert "false" not in rows(project, view)[0][0]


def test_a_warehouse_of_0_1_becomes_what_a_new_one_is(old: URL, embedded_url: URL, tmp_path: Path) -> None:
    upgraded, new = engine_of(old), engine_of(create_database(embedded_url, "upnext_new"))
    with pytest.raises(UpnextError, match="run `upnext upgrade` once"):
        migrate(upgraded)
    assert upgrade(upgraded) is True
    migrate(new)
    ours = tables_of(new)
    assert described(upgraded, ours) == described(new, ours)
    for engine in (upgraded, new):
        engine.dispose()


def test_a_warehouse_of_0_1_goes_on_where_it_was(old: URL, tmp_path: Path) -> None:
    cli = Cli(tmp_path / "home", old)
    assert "back it up, then run `upnext upgrade` once" in cli.fails("status")
    before = {
        table: sa.text(f"select * from {table}")
        for table in ("journeys.entries", "journeys.messages", "segments.membership_changes", "upnext.switches",
                      "experiences.assignments", "analytics.experiment_results")
    }  # fmt: skip
    engine = engine_of(old)
    with engine.connect() as connection:
        held = {table: sorted(map(str, connection.execute(query))) for table, query in before.items()}
    assert all(held.values())
    assert "upgraded" in cli.run("upgrade").stdout
    assert "up to date" in cli.run("upgrade").stdout
    with engine.connect() as connection:
        assert {table: sorted(map(str, connection.execute(query))) for table, query in before.items()} == held
    engine.dispose()
    project = Project(settings_for(tmp_path, old))
    product = Product(project, stored_already=500)
    product.power_user("dan", AS_OF)
    done = tick(project, AS_OF + timedelta(days=2))
    assert done.segments == {"basic_plan_power_users entered": 1}
    assert rows(project, "select count(*) from journeys.entries where user_id = 'dan'") == [(1,)]
    assert not any(rebuild(project).values())
    project.engine.dispose()


def test_an_earlier_state_of_0_1_is_told(old: URL) -> None:
    engine = engine_of(old)
    with engine.begin() as connection:
        connection.exec_driver_sql("delete from upnext.migrations where name like '0016%%'")
    with pytest.raises(UpnextError, match=r"stands at 0015_started_by_a_word\.sql, before the end of 0\.1"):
        upgrade(engine)
    with engine.connect() as connection:
        assert connection.scalar(sa.text("select to_regclass('features.touched') is not null")), "nothing was done"
    engine.dispose()


def test_every_file_of_the_schema_is_run() -> None:
    assert {path.stem for path in (schema.HERE / "schema").glob("*.sql")} == set(schema.BASELINE)
    views = {f"{path.parent.name}/views.sql" for path in schema.HERE.parent.glob("*/views.sql")}
    assert {*views, "warehouse/functions.sql"} == set(schema.RECREATED)
