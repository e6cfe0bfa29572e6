"""Loading that is killed: received = stored + duplicate + rejected afterwards, and a rerun completes.

The judge is the generator's own ledger: which lines it wrote, and what must become of each.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url

from tests.conftest import UPNEXT, Cli, create_database, wait_for
from upnext.warehouse.embedded import EmbeddedServer

LINES, REPEATED, BROKEN = 65_000, 300, 200

# Loads a file in a process of its own, and kills that process at a named point.
LOAD_AND_DIE = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
import sqlalchemy as sa
from upnext.events.declared import load_sources
from upnext.events.files import find_files
from upnext.events.ingest import ingest
from upnext.settings import Settings

point, url, path = sys.argv[1:]
engine = sa.create_engine(url)
commit = engine.dialect.do_commit
batches = []

def die(*_):
    print("killed", point, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

def after_commit(connection):
    commit(connection)
    die()

def in_the_middle(_):
    batches.append(1)
    if len(batches) == 3:
        die()

if point == "before commit":
    sa.event.listen(engine, "commit", die)
if point == "after commit":
    engine.dialect.do_commit = after_commit
ingest(
    engine,
    find_files([Path(path)], source="segment"),
    sources=load_sources(Settings.from_environment({}).sources),
    loaded_at=datetime(2026, 4, 1, tzinfo=UTC),
    on_bytes=in_the_middle if point == "in the middle" else lambda _: None,
)
"""


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of `LINES` lines, of which some are repeated and some are broken."""
    path = tmp_path_factory.mktemp("events") / "events.jsonl"
    with path.open("w") as stream:
        for number in range(LINES):
            is_repeated = number < REPEATED
            event = {
                "type": "track",
                "event": "login",
                "userId": "u1" if is_repeated else f"u{number}",
                "messageId": f"m{1 if is_repeated else number}",
                "timestamp": "2026-03-01T00:00:00Z",
                "properties": {"note": "x" * 200},
            }
            stream.write(("{broken" if number >= LINES - BROKEN else json.dumps(event)) + "\n")
    return path


def check_balance(url: URL) -> None:
    """Compare the tables with what the generator wrote."""
    expected = (LINES, LINES - BROKEN - REPEATED + 1, REPEATED - 1, BROKEN)
    engine = engine_of(url)
    with engine.connect() as connection:
        ledger = "select sum(received), sum(stored), sum(duplicate), sum(rejected) from raw.loads"
        assert tuple(connection.execute(sa.text(ledger)).one()) == expected
        assert connection.scalar(sa.text("select count(*) from raw.events")) == expected[1]
        assert connection.scalar(sa.text("select count(*) from raw.rejected_events")) == BROKEN
    engine.dispose()


def counts(url: URL) -> tuple[int, int]:
    engine = engine_of(url)
    with engine.connect() as connection:
        found = connection.execute(
            sa.text("select (select count(*) from raw.events), (select count(*) from raw.loads)")
        ).one()
    engine.dispose()
    return found[0], found[1]


def engine_of(url: URL) -> sa.Engine:
    return sa.create_engine(url.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("point", "survives"), [("before commit", False), ("in the middle", False), ("after commit", True)]
)
def test_the_loader_is_killed(cli: Cli, events: Path, point: str, survives: bool) -> None:
    assert cli.run("status").returncode == 0
    url = make_url(cli.environment["UPNEXT_DATABASE_URL"])
    text = url.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
    killed = subprocess.run(
        [sys.executable, "-c", LOAD_AND_DIE, point, text, str(events)], capture_output=True, text=True, check=False
    )
    assert (killed.returncode, killed.stdout) == (-signal.SIGKILL, f"killed {point}\n"), killed.stderr
    rerun = json.loads(cli.run("ingest", events, "--json").stdout)
    assert rerun["files_already_loaded"] == int(survives)
    check_balance(url)


def test_two_processes_load_the_same_file(cli: Cli, events: Path) -> None:
    assert cli.run("status").returncode == 0
    url = make_url(cli.environment["UPNEXT_DATABASE_URL"])
    engine = engine_of(url)
    with engine.connect() as connection:
        # Both are held at the door until both are there.
        key = "hashtextextended('upnext:ingest', 0)"
        connection.execute(sa.text(f"select pg_advisory_lock({key})"))
        loaders = [
            subprocess.Popen(
                [UPNEXT, "ingest", str(events), "--json"], stdout=subprocess.PIPE, env=cli.environment, text=True
            )
            for _ in range(2)
        ]
        waiting = sa.text(
            "select count(*) = 2 from pg_locks where locktype = 'advisory' and not granted"
            " and database = (select oid from pg_database where datname = current_database())"
        )
        wait_for(lambda: bool(connection.scalar(waiting)), "two loaders at the door")
        connection.execute(sa.text(f"select pg_advisory_unlock({key})"))
        done = [json.loads(loader.communicate()[0]) for loader in loaders]
    engine.dispose()
    assert sorted(one["files_already_loaded"] for one in done) == [0, 1]
    check_balance(url)


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A server that the test may kill."""
    server = EmbeddedServer(tmp_path / "server")
    server.start()
    yield server
    server.stop()


def test_the_database_is_killed_under_load(own_server: EmbeddedServer, events: Path, tmp_path: Path) -> None:
    url = create_database(make_url(own_server.start()))
    cli = Cli(tmp_path / "home", url)
    assert cli.run("status").returncode == 0
    loader = subprocess.Popen(
        [UPNEXT, "ingest", str(events)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=cli.environment, text=True
    )
    engine = engine_of(url)
    with engine.connect() as connection:
        storing = sa.text(
            "select count(*) > 0 from pg_stat_activity where pid <> pg_backend_pid() and state = 'active'"
            " and query like 'copy raw.events%'"
        )
        wait_for(lambda: bool(connection.scalar(storing)), "the loader to store")
        backends = list(connection.scalars(sa.text("select pid from pg_stat_activity")))
    engine.dispose()
    postmaster = int((own_server.root / "data" / "postmaster.pid").read_text().split()[0])
    os.kill(postmaster, signal.SIGKILL)
    for backend in backends:
        with suppress(ProcessLookupError):
            os.kill(backend, signal.SIGKILL)
    wait_for(lambda: not any(map(is_running, (postmaster, *backends))), "the server to be gone")
    output = loader.communicate()
    assert loader.returncode == 1, output
    assert output[1].startswith("upnext: the database: ")
    assert output[1].count("\n") == 1
    own_server.start()
    assert counts(url) == (0, 0)
    assert cli.run("ingest", events).returncode == 0
    check_balance(url)


def test_the_disk_is_full(small_disk: Path, events: Path, tmp_path: Path) -> None:
    server = EmbeddedServer(small_disk / "server")
    url = create_database(make_url(server.start()))
    cli = Cli(tmp_path / "home", url)
    assert cli.run("status").returncode == 0
    filler = small_disk / "filler"
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    filler.write_bytes(b"x" * (free - 20_000_000))
    failed = cli.run("ingest", events)
    assert failed.returncode == 1
    assert failed.stderr.count("\n") == 1
    assert "No space left on device" in (server.root / "data" / "server.log").read_text()
    filler.unlink()
    server.start()
    assert counts(url) == (0, 0)
    assert cli.run("ingest", events).returncode == 0
    check_balance(url)
    server.stop()
