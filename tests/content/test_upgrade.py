"""A warehouse of 0.1, which ran the content that ships, goes on with it after `upnext upgrade`."""

from datetime import timedelta
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import URL

from tests.conftest import AS_OF, Cli, Product, engine_of, rows, settings_for
from upnext.loop import rebuild, tick
from upnext.project import Project


def test_a_warehouse_of_0_1_goes_on_where_it_was(warehouse_of_0_1: URL, tmp_path: Path) -> None:
    cli = Cli(tmp_path / "home", warehouse_of_0_1)
    assert "back it up, then run `upnext upgrade` once" in cli.fails("status")
    tables = ("journeys.entries", "journeys.messages", "segments.membership_changes", "upnext.switches",
              "experiences.assignments", "analytics.experiment_results")  # fmt: skip
    engine = engine_of(warehouse_of_0_1)
    with engine.connect() as connection:
        kept = {table: list(connection.execute(sa.text(f"select * from {table} limit 0")).keys()) for table in tables}
        before = {table: sa.text(f"select {', '.join(columns)} from {table}") for table, columns in kept.items()}
        held = {table: sorted(map(str, connection.execute(query))) for table, query in before.items()}
    assert all(held.values())
    assert "upgraded" in cli.run("upgrade").stdout
    assert "up to date" in cli.run("upgrade").stdout
    with engine.connect() as connection:
        assert {table: sorted(map(str, connection.execute(query))) for table, query in before.items()} == held
    engine.dispose()
    project = Project(settings_for(tmp_path, warehouse_of_0_1))
    product = Product(project, stored_already=500)
    product.power_user("dan", AS_OF)
    done = tick(project, AS_OF + timedelta(days=2))
    assert done.segments == {"basic_plan_power_users entered": 1}
    assert rows(project, "select count(*) from journeys.entries where user_id = 'dan'") == [(1,)]
    assert not any(rebuild(project).values())
    project.engine.dispose()
