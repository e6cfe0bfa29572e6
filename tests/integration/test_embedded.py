"""The embedded server: started by whoever comes first, found by the others, and nothing half made."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.conftest import create_database
from upnext.project import Project
from upnext.warehouse.embedded import EmbeddedServer
from upnext.warehouse.migrate import MIGRATIONS, migrate


@pytest.fixture
def deep_home(tmp_path: Path) -> Path:
    """A path that is too long for a Unix socket, below a folder that others may not list."""
    home = tmp_path / ("deep-" * 20) / ("er-" * 20)
    home.mkdir(parents=True, mode=0o700)
    return home


# What a warehouse of before migration 0014 held: three loads, of which the third had not been read for consent.
OLD_ROWS = """
    insert into segments.ticks (as_of, published_at) values ('2026-01-01', now()), ('2026-01-02', now());
    insert into raw.loads
        (source, path, fingerprint, size, modified_at, received, stored, duplicate, rejected, loaded_at, tick_id)
    select 'otto', load, '', 0, now(), 0, 0, 0, 0, now(), tick
    from (values ('a', 1), ('b', 1), ('c', 2)) as old (load, tick);
    insert into segments.consumers (consumer, tick_id)
    values ('consent', 1), ('journey:welcome', 2), ('experiences', 2);
    insert into journeys.definitions (journey, version, definition, first_dispatched_at) values
        ('welcome', 'v1', '{"holdout": 0.0}', '2026-01-02Z'), ('welcome', 'v2', '{"holdout": 0.0}', '2026-01-05Z');
    insert into journeys.entries
        (journey, version, user_id, cause, seed, entered_at, reached_at, status, reason, ended_at)
    select 'welcome', 'v1', user_id, user_id, user_id, '2026-01-03', '2026-01-03', status, reason, '2026-01-04'
    from (values
        ('held out', 'held_out', 'holdout of the journey'), ('everywhere', 'held_out', 'global holdout'),
        ('left', 'left', null), ('taken', 'excluded', 'taken over by rescue'),
        ('merged', 'excluded', 'merged'), ('occupied', 'excluded', 'is in rescue')
    ) as old (user_id, status, reason);
    insert into analytics.experiment_results
        (as_of, experiment, segment, metric, arm, n_control, n_arm, p_always_valid)
    values ('2026-01-05', 'welcome', 'all', 'goal', 'treated', 10, 10, 0.001);
"""


def test_the_server_outlives_its_starter_and_stops_when_told(deep_home: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from upnext.warehouse.embedded import EmbeddedServer;"
        " print(EmbeddedServer(Path(sys.argv[1])).start())"
    )
    urls = [
        subprocess.run(
            [sys.executable, "-c", script, str(deep_home)], check=True, capture_output=True, text=True
        ).stdout.strip()
        for _ in range(2)
    ]
    server = EmbeddedServer(deep_home)
    assert urls == [server.start()] * 2
    engine = sa.create_engine(urls[0].replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(sa.text("create table kept (x int)"))
        assert connection.scalar(sa.text("show listen_addresses")) == "127.0.0.1"
    engine.dispose()
    with socket.create_connection(("127.0.0.1", sa.make_url(urls[0]).port or 0)) as visitor:
        assert server.stop()
        visitor.recv(1024)  # the server hung up first, so its port lingers in TIME_WAIT
    assert not server.stop()
    assert server.start() == urls[0]
    with engine.connect() as connection:
        assert connection.scalar(sa.text("select count(*) from kept")) == 0
    engine.dispose()
    server.stop()


def test_a_server_that_was_killed_is_started_again_at_once(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path)
    url = server.start()
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    for _ in range(3):
        os.kill(int((tmp_path / "data" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
        assert server.start() == url
        with engine.connect() as connection:
            assert connection.scalar(sa.text("select 1")) == 1
        engine.dispose()
    server.stop()


def test_a_cluster_that_was_half_made_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "data.new").mkdir()
    (tmp_path / "data.new" / "PG_VERSION").write_text("18")
    server = EmbeddedServer(tmp_path)
    url = server.start()
    with sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:")).connect() as connection:
        assert connection.scalar(sa.text("select 1")) == 1
    server.stop()


def test_no_password_no_entry(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path)
    url = sa.make_url(server.start()).set(drivername="postgresql+psycopg", password="wrong")
    with pytest.raises(sa.exc.OperationalError, match="password authentication failed"):
        sa.create_engine(url).connect()
    assert (tmp_path / "password").stat().st_mode & 0o077 == 0
    server.stop()


def test_an_old_warehouse_is_migrated_with_what_it_holds(embedded_url: sa.engine.URL) -> None:
    url = create_database(embedded_url).set(drivername="postgresql+psycopg")
    engine = sa.create_engine(url)
    old = [path for path in sorted(MIGRATIONS.glob("*.sql")) if path.name < "0014"]
    with engine.begin() as connection:
        connection.exec_driver_sql("create schema upnext; create table upnext.migrations (name text primary key)")
        for path in old:
            connection.exec_driver_sql(path.read_text())
            connection.execute(sa.text("insert into upnext.migrations values (:name)"), {"name": path.name})
        connection.exec_driver_sql(OLD_ROWS)
    assert [name[:4] for name in migrate(engine)] == ["0014", "0015", "0016"]
    with engine.connect() as connection:

        def found(query: str) -> list[tuple[Any, ...]]:
            return [tuple(row) for row in connection.exec_driver_sql(query)]

        assert found("select p_always_valid from analytics.experiment_results") == [(None,)]
        arms = "select user_id, arm, is_held_out_globally from journeys.entries order by entry_id"
        assert found(arms) == [
            ("held out", "held_out", False), ("everywhere", "held_out", True), ("left", "treated", False),
            ("taken", "treated", False), ("merged", "treated", False), ("occupied", None, False),
        ]  # fmt: skip
        assert found("select name from upnext.started") == [("welcome",)]
        begun = "select consumer, begun_at::text from segments.consumers order by 1"
        assert found(begun) == [("experiences", None), ("journey:welcome", "2026-01-02 00:00:00+00")]
        assert found("select load_id from journeys.consent_read") == [(2,)], "of the third load nothing was read"
    engine.dispose()


def test_migrations_can_be_run_again(project: Project) -> None:
    assert migrate(project.engine) == []
