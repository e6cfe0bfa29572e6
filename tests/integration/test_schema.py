"""The schema: a baseline, functions and views that follow their files, and a warehouse of 0.1 that is brought here."""

import os
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import URL, Engine

from tests.conftest import create_database, engine_of, rows
from upnext.errors import UpnextError
from upnext.project import Project
from upnext.warehouse import migrate as schema
from upnext.warehouse.columns import columns
from upnext.warehouse.migrate import migrate, upgrade

SIGNATURES = Path(__file__).parents[1] / "fixtures" / "signatures.txt"
OURS = ("upnext", "raw", "features", "segments", "journeys", "experiences", "analytics")


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


def test_functions_and_views_that_cannot_be_replaced_are_dropped_on_purpose(project: Project) -> None:
    """Postgres replaces no function with other names of parameters, and no view without one of its columns.

    A migration has to drop such a one first; after that, UPNEXT_WRITE_SNAPSHOTS=1 writes the signatures anew.
    """
    functions = (
        "select pronamespace::regnamespace || '.' || proname || '(' || pg_get_function_identity_arguments(oid) || ') '"
        " || pg_get_function_result(oid) from pg_proc where pronamespace::regnamespace::text = any(:ours)"
    )
    views = (
        "select relnamespace::regnamespace || '.' || relname || ': ' || string_agg(attname, ', ' order by attnum)"
        " from pg_attribute"
        " inner join pg_class on pg_class.oid = attrelid"
        " where relkind = 'v' and relnamespace::regnamespace::text = any(:ours) and attnum > 0 group by pg_class.oid"
    )
    signatures = sorted(text for query in (functions, views) for (text,) in rows(project, query, ours=list(OURS)))
    if os.environ.get("UPNEXT_WRITE_SNAPSHOTS"):
        SIGNATURES.write_text("\n".join(signatures) + "\n")
    assert signatures == SIGNATURES.read_text().splitlines()


def test_an_older_function_with_other_parameters_is_replaced(project: Project) -> None:
    with project.engine.begin() as connection:
        connection.exec_driver_sql("delete from upnext.migrations where name = '0025_tries.sql'")
        connection.exec_driver_sql("delete from upnext.recreated where file = 'journeys/views.sql'")
        connection.exec_driver_sql("alter table journeys.messages drop column tried_at")
        connection.exec_driver_sql("alter table journeys.disabled_endpoints drop column url")
        definition = connection.scalar(sa.text("select pg_get_functiondef('journeys.stop_reason'::regproc)"))
        connection.exec_driver_sql("drop function journeys.stop_reason")
        connection.exec_driver_sql(str(definition).replace("opt_out_topics", "opt_in_topics").replace("%", "%%"))
    assert migrate(project.engine) == ["migrations/0025_tries.sql", "journeys/views.sql"]


def test_a_warehouse_of_0_1_becomes_what_a_new_one_is(warehouse_of_0_1: URL, embedded_url: URL, tmp_path: Path) -> None:
    upgraded, new = engine_of(warehouse_of_0_1), engine_of(create_database(embedded_url, "upnext_new"))
    with pytest.raises(UpnextError, match="run `upnext upgrade` once"):
        migrate(upgraded)
    assert upgrade(upgraded) is True
    migrate(new)
    ours = tables_of(new)
    assert described(upgraded, ours) == described(new, ours)
    for engine in (upgraded, new):
        engine.dispose()


def test_an_earlier_state_of_0_1_is_told(warehouse_of_0_1: URL) -> None:
    engine = engine_of(warehouse_of_0_1)
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


def test_the_columns_that_people_are_shown_are_those_of_the_warehouse(project: Project) -> None:
    found = rows(
        project,
        "select columns.table_schema || '.' || columns.table_name,"
        ' array_agg(cast(column_name as text) order by cast(column_name as text) collate "C")'
        " from information_schema.columns inner join information_schema.tables using (table_schema, table_name)"
        " where table_type = 'BASE TABLE' group by 1",
    )
    real = dict(found)  # type: ignore[arg-type]
    assert {name: sorted(known) for name, known in columns().items()} == {name: real[name] for name in columns()}
