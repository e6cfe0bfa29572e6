"""Real parts for the tests: an embedded Postgres, an SMTP server, and a Postgres 15 and Citus where there is one."""

import asyncio
import atexit
import functools
import gzip
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from aiosmtpd.controller import Controller
from sqlalchemy.engine import URL, make_url

from upnext import dbt
from upnext.dbt import Dbt
from upnext.erased import Keys
from upnext.garbage import collect_seldom
from upnext.loop import build
from upnext.people.erase import Place
from upnext.project import Project
from upnext.settings import PROJECT, Settings
from upnext.switches import switch
from upnext.warehouse.embedded import EmbeddedServer
from upnext.warehouse.engine import connect

collect_seldom()

# The programs that the tests start, some thousand, find their modules compiled, as those of a user do.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Who is started in the background ignores Ctrl-C, and so would the programs that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Each test has a database of its own, some 1,500 files: in memory they cost a sixth of what they cost on a disk.
_MEMORY = Path("/dev/shm")  # noqa: S108 - a place to keep files, each under a name of its own
if "TMPDIR" not in os.environ and _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > 8 << 30:
    os.environ["TMPDIR"] = tempfile.tempdir = str(_MEMORY)

UPNEXT = str(Path(sys.executable).parent / "upnext")
AS_OF = datetime(2026, 3, 31, 12, tzinfo=UTC)


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def embedded_url() -> Iterator[URL]:
    """The embedded server, in a home of its own."""
    root = Path(tempfile.mkdtemp(prefix="upnext-test-"))
    server = EmbeddedServer(root)
    url = make_url(server.start())
    engine = sa.create_engine(url.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        # Tests kill processes, and no machine: what they write need not be on the disk.
        for setting in ("fsync = off", "full_page_writes = off", "max_wal_size = '256MB'"):
            connection.exec_driver_sql(f"alter system set {setting}")
        connection.exec_driver_sql("select pg_reload_conf()")
    engine.dispose()
    yield url
    server.stop()
    shutil.rmtree(root)


def _postgres15() -> Path | None:
    candidates = [
        Path("/usr/lib/postgresql/15/bin"),
        Path("/usr/pgsql-15/bin"),
        Path("/opt/homebrew/opt/postgresql@15/bin"),
    ]
    return next((folder for folder in candidates if (folder / "initdb").exists()), None)


@pytest.fixture(scope="session")
def postgres15_url() -> Iterator[URL]:
    """A PostgreSQL 15 from the machine's packages: the oldest server that Upnext runs on."""
    binaries = _postgres15()
    if binaries is None:
        pytest.skip("no PostgreSQL 15 server binaries on this machine")
    root = Path(tempfile.mkdtemp(prefix="upnext-pg15-"))
    account = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
    if account:
        os.chown(root, account.pw_uid, account.pw_gid)
    password_file = root / "password"
    password_file.write_text(secrets.token_hex(12))
    password_file.chmod(0o644)
    port = free_port()

    def run(program: str, *arguments: str) -> None:
        subprocess.run(
            [str(binaries / program), *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=root,
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
        )

    data = str(root / "data")
    run("initdb", "-D", data, "-U", "tester", "--auth=scram-sha-256", f"--pwfile={password_file}", "-E", "UTF8")
    run("pg_ctl", "start", "-w", "-D", data, "-l", str(root / "log"), "-o", f"-F -p {port} -h 127.0.0.1 -k ''")
    yield make_url(f"postgresql://tester:{password_file.read_text()}@127.0.0.1:{port}/postgres")
    run("pg_ctl", "stop", "-m", "immediate", "-D", data)
    shutil.rmtree(root)


CITUS = os.environ.get("UPNEXT_TEST_CITUS_URL")


@pytest.fixture
def citus_url() -> URL:
    """The coordinator of a Citus cluster, which the environment names."""
    if not CITUS:
        pytest.skip("UPNEXT_TEST_CITUS_URL is not set")
    return make_url(CITUS)


LONGEST = (
    "test_kills.py",
    "test_docs.py",
    "test_daemon.py",
    "test_soak.py",
    "test_demo.py",
    "test_dagster.py",
    "test_live.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let each worker begin with some of the tests that take longest, so that none is left with them at the end.

    xdist gives the workers equal parts of the list, one after the other, and later moves tests from the ends of parts.
    """
    longest = sorted(
        (item for item in items if item.path.name in LONGEST), key=lambda item: LONGEST.index(item.path.name)
    )
    others = [item for item in items if item.path.name not in LONGEST]
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    parts: list[pytest.Item] = []
    for worker in range(workers):
        size = (len(items) - len(parts)) // (workers - worker)
        first = longest[worker::workers]
        rest = max(0, size - len(first))
        parts += [*first, *others[:rest]]
        del others[:rest]
    items[:] = parts


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that is marked `other_servers` on PostgreSQL 15 too, and on Citus each test, where there is one."""
    if "server_url" in metafunc.fixturenames:
        if metafunc.definition.get_closest_marker("on_cluster"):
            servers = ["citus"]
        elif metafunc.definition.get_closest_marker("not_on_cluster"):
            servers = ["embedded"]
        elif metafunc.definition.get_closest_marker("other_servers"):
            servers = ["embedded", "postgres15", "citus"]
        else:
            servers = ["embedded", *(["citus"] if CITUS else [])]
        metafunc.parametrize("server_url", servers, indirect=True)


@pytest.fixture
def server_url(request: pytest.FixtureRequest) -> URL:
    """The server that a test runs on."""
    url: URL = request.getfixturevalue(f"{request.param}_url")
    return url


def create_database(server: URL, name: str = "upnext_test", template: str = "template1") -> URL:
    """Create a database on the server, empty or a copy of another, in place of one of that name."""
    if CITUS and server == make_url(CITUS):
        # All workers of the tests share the cluster.
        name = f"{name}_{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}"
    engine = sa.create_engine(server.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"drop database if exists {name} with (force)"))
        connection.execute(sa.text(f"create database {name} template {template} strategy file_copy"))
    engine.dispose()
    url = server.set(database=name)
    if CITUS and server == make_url(CITUS):
        _join_cluster(server, url)
    return url


def _does(engine: sa.Engine, statement: str) -> bool:
    try:
        with engine.begin() as connection:
            connection.execute(sa.text(statement))
    except sa.exc.InternalError:
        return False
    return True


def _join_cluster(server: URL, url: URL) -> None:
    """Let the workers of the cluster serve a database of its coordinator."""
    engine = engine_of(server)
    with engine.connect() as connection:
        workers = connection.execute(
            sa.text("select nodename, nodeport from pg_dist_node where groupid > 0 order by nodeid")
        ).all()
    engine.dispose()
    for host, port in workers:
        engine = sa.create_engine(
            server.set(drivername="postgresql+psycopg", host=host, port=port), isolation_level="AUTOCOMMIT"
        )
        with engine.connect() as connection:
            connection.execute(sa.text(f"drop database if exists {url.database} with (force)"))
            connection.execute(sa.text(f"create database {url.database}"))
        engine.dispose()
        engine = engine_of(url.set(host=host, port=port))
        with engine.begin() as connection:
            connection.execute(sa.text("create extension citus"))
        engine.dispose()
    engine = engine_of(url)
    with engine.begin() as connection:
        connection.execute(sa.text("create extension citus"))
        connection.execute(
            sa.text("select citus_set_coordinator_host(:host, :port)"), {"host": url.host, "port": url.port}
        )
    engine.dispose()
    for host, port in workers:
        add = f"select citus_add_node('{host}', {port})"
        wait_for(lambda add=add: _does(engine, add), "the worker to join")


def engine_of(url: URL) -> sa.Engine:
    """Return an engine on a database as it is: nothing is migrated."""
    return sa.create_engine(url.set(drivername="postgresql+psycopg"))


@pytest.fixture
def warehouse_of_0_1(embedded_url: URL) -> URL:
    """The last state of 0.1: three ticks, journeys with entries and messages, an experience and its results."""
    url = create_database(embedded_url)
    engine = engine_of(url)
    dump = gzip.decompress((Path(__file__).parent / "fixtures" / "warehouse_0.1.sql.gz").read_bytes()).decode()
    with engine.begin() as connection:
        connection.exec_driver_sql(dump.replace("%", "%%"))
    engine.dispose()
    return url


CONTENT = Path(__file__).parent / "fixtures" / "content"
"""The content of the tests, so that nobody breaks a test of the product by an edit of what ships."""
DECLARED = Project(Settings.from_environment({"UPNEXT_CONTENT": str(CONTENT)}))


def start(project: Project, *names: str) -> None:
    """Start journeys and experiences: those named, or all that the content has."""
    with project.engine.begin() as connection:
        for name in names or _startable(project.settings):
            switch(connection, name, is_started=True, at=AS_OF, by="the test")


def _startable(settings: Settings) -> list[str]:
    return [path.stem for kind in ("journeys", "experiences") for path in (settings.campaigns / kind).glob("*.yml")]


_parsed: dict[Path, Any] = {}
"""dbt's manifest of each folder of models."""


def settings_for(home: Path, database: URL, smtp_url: str | None = None) -> Settings:
    """Return settings of a home that has dbt's cache of the parsed project, and of a database.

    The content is the one that the environment names.
    """
    settings = _settings(home, database, smtp_url)
    if not settings.dbt_target.exists():
        models = dbt.environment(settings, database)["UPNEXT_DBT_MODELS"]
        shutil.copytree(_dbt_cache(models, database), settings.dbt_target)
    return settings


def _settings(home: Path, database: URL, smtp_url: str | None) -> Settings:
    return Settings(
        home=home,
        database_url=database.render_as_string(hide_password=False),
        smtp_url=smtp_url,
        mail_from="Otto <hello@otto.example>",
        content=Settings.from_environment().content,
    )


@functools.cache
def _dbt_cache(models: str, database: URL) -> Path:
    """Parse the project, once a session for each database: dbt itself finds out what has changed since.

    It parses all again where the connection is another one.
    """
    home = Path(tempfile.mkdtemp(prefix="upnext-parsed-"))
    atexit.register(shutil.rmtree, home)
    settings = _settings(home, database, None)
    Dbt(settings, database).invoke(["parse"])
    cache = home / "cache"
    cache.mkdir()
    (settings.dbt_target / "partial_parse.msgpack").rename(cache / "partial_parse.msgpack")
    return cache


@pytest.fixture
def project(request: pytest.FixtureRequest, server_url: URL, tmp_path: Path, smtp: "SmtpServer") -> Iterator[Project]:
    """A warehouse of the test's own, on each server, with a real SMTP server behind it: empty, or `ticked`."""
    template = "template1"
    if server_url == request.getfixturevalue("embedded_url"):
        template = request.getfixturevalue("first_tick" if "ticked" in request.fixturenames else "migrated")
    settings = settings_for(tmp_path, create_database(server_url, template=template), smtp.url)
    if template == "template1" and "ticked" in request.fixturenames:
        _tick_first(Project(settings))
    project = Project(settings)
    # dbt's manifest names the database, which has the same name in each test: one parse serves them all.
    shared, models = project.dbt, dbt.own_models(project.settings)
    shared.manifest = _parsed.get(models)
    start(project)
    yield project
    _parsed[models] = shared.manifest
    project.engine.dispose()


@pytest.fixture
def content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the content and of the dbt project, to edit; a test names it before the fixtures that read it.

    The copies lie to each other as the originals do, so dbt's cache of the parsed project still holds.
    """
    copied = content_copy(tmp_path / CONTENT.relative_to(PROJECT))
    dbt_project = tmp_path / dbt.PROJECT_DIR.name
    shutil.copytree(dbt.PROJECT_DIR, dbt_project, ignore=shutil.ignore_patterns("target", "logs"))
    monkeypatch.setattr(dbt, "PROJECT_DIR", dbt_project)
    monkeypatch.setenv("UPNEXT_CONTENT", str(copied))
    return copied


def content_copy(folder: Path) -> Path:
    """Copy the content that the environment names, or that ships, into a folder as UPNEXT_CONTENT names one."""
    settings = Settings.from_environment()
    shutil.copytree(settings.campaigns, folder / "campaigns")
    shutil.copytree(settings.sources, folder / "sources")
    shutil.copytree(dbt.own_models(settings), folder / "models")
    return folder


@dataclass
class Hold:
    """A point at which the other side waits: `reached` says that somebody is there, `go` lets it go on."""

    reached: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)

    async def wait(self) -> None:
        self.reached.set()
        await asyncio.get_running_loop().run_in_executor(None, self.go.wait, 60)


@dataclass
class SmtpServer:
    """A real SMTP server on loopback and its own log: what it accepted.

    `answers` are given to DATA before `250`, `unclear` ones after a mail was taken; `refused` are the answers to
    recipients, `holds` are points (`MAIL`, `DATA`) at which it waits.
    """

    port: int
    accepted: list[Message] = field(default_factory=list)
    recipients: list[list[str]] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    unclear: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    holds: dict[str, Hold] = field(default_factory=dict)
    is_dropping: bool = False
    arrived: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    @property
    def ids(self) -> list[str]:
        """The Message-IDs accepted, without brackets and domain."""
        return [message["Message-ID"].strip("<>").partition("@")[0] for message in self.accepted]

    async def handle_MAIL(self, server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:  # noqa: N802
        if "MAIL" in self.holds:
            await self.holds["MAIL"].wait()
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:  # noqa: N802
        if address in self.refused:
            return self.refused[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        if self.answers:
            return self.answers.pop(0)
        self.accepted.append(message_from_bytes(envelope.content))
        self.recipients.append(list(envelope.rcpt_tos))
        self.arrived.set()
        if "DATA" in self.holds:
            await self.holds["DATA"].wait()
        if self.is_dropping:
            server.transport.abort()
        return self.unclear.pop(0) if self.unclear else "250 OK"


@pytest.fixture
def smtp() -> Iterator[SmtpServer]:
    """A real SMTP server that keeps what it accepts."""
    server = SmtpServer(free_port())
    controller = Controller(server, hostname="127.0.0.1", port=server.port)
    controller.start()
    yield server
    controller.stop()


@pytest.fixture(scope="session")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with clients for Node and browsers that nobody wrote for Upnext."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm on this machine")
    folder = tmp_path_factory.mktemp("clients")
    for path in (Path(__file__).parent / "clients").iterdir():
        if path.is_file():
            shutil.copy(path, folder)
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    if subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode:
        pytest.skip("npm reaches no packages")
    return folder


class Product:
    """Writes events straight into `raw.events`, for tests of what follows from them."""

    def __init__(self, project: Project, *, stored_already: int = 0) -> None:
        self._project = project
        self._count = stored_already

    def track(
        self,
        user_id: str | None,
        event: str,
        at: datetime,
        *,
        times: int = 1,
        properties: dict[str, Any] | None = None,
        **ids: str | None,
    ) -> None:
        """Store `times` equal track events; `ids` are anonymous_id and account_id."""
        for _ in range(times):
            self.store("track", at, user_id=user_id, event=event, properties=properties, **ids)

    def track_all(self, users: Sequence[str], event: str, at: datetime, properties: dict[str, Any]) -> None:
        """Store a track event of each of many users, in one load."""
        first = self._count
        self._count += len(users) + 1
        self.store("track", at, user_id="a load of many", event=event)
        statement = (
            "insert into raw.events"
            " (source, message_id, type, user_id, person_id, event, occurred_at, properties, load_id)"
            " select 'test', 'many ' || (:first + nth), 'track', user_id, user_id, :event, :at,"
            " cast(:properties as jsonb), (select max(load_id) from raw.loads)"
            " from unnest(cast(:users as text[])) with ordinality as t (user_id, nth)"
        )
        values = {"first": first, "event": event, "at": at, "users": list(users), "properties": json.dumps(properties)}
        with self._project.engine.begin() as connection:
            connection.execute(sa.text(statement), values)

    def identify(self, user_id: str, at: datetime, **traits: Any) -> None:
        """Store an identify with traits."""
        self.store("identify", at, user_id=user_id, properties=traits)

    def store(self, kind: str, at: datetime, *, properties: dict[str, Any] | None = None, **values: str | None) -> None:
        """Store one event; `values` are ids and the event's name."""
        self._count += 1
        row = {
            "source": "test", "message_id": f"{self._count:06d}", "type": kind, "occurred_at": at,
            "properties": properties or {}, **values,
            "person_id": values.get("user_id") or f"visitor:{values.get('anonymous_id')}",
        }  # fmt: skip
        load = (
            "insert into raw.loads"
            " (source, path, fingerprint, size, modified_at, received, stored, duplicate, rejected, loaded_at)"
            " values ('test', :message_id, '', 0, :occurred_at, 1, 1, 0, 0, :occurred_at) returning load_id"
        )
        statement = (
            f"with load as ({load}) insert into raw.events ({', '.join(row)}, load_id)"
            f" select {', '.join(f':{name}' for name in row)}, load_id from load"
        )
        with self._project.engine.begin() as connection:
            connection.execute(sa.text(statement).bindparams(sa.bindparam("properties", type_=sa.JSON)), row)

    def power_user(self, user_id: str, at: datetime) -> None:
        """Let somebody meet every condition of busy_users, with an address."""
        self.identify(user_id, at - timedelta(days=20), email=f"{user_id}@customer.example", name="Ada")
        self.track(user_id, "subscribed to basic plan", at - timedelta(days=20))
        self.track(user_id, "product viewed", at - timedelta(days=5))
        self.track(user_id, "login", at - timedelta(days=3), times=10)
        self.track(user_id, "created ml task", at - timedelta(days=3), times=5)


@pytest.fixture(scope="session")
def migrated(embedded_url: URL, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database with the schema and nothing in it, to be copied."""
    database = create_database(embedded_url, "upnext_migrated")
    connect(_settings(tmp_path_factory.mktemp("migrated"), database, None)).dispose()
    return "upnext_migrated"


@pytest.fixture(scope="session")
def first_tick(embedded_url: URL, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database in which one tick was published, to be copied; under the name that the copies will have."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UPNEXT_CONTENT", str(CONTENT))
        project = Project(settings_for(tmp_path_factory.mktemp("first"), create_database(embedded_url)))
        _tick_first(project)
    project.engine.dispose()
    create_database(embedded_url, "upnext_first_tick", template="upnext_test")
    return "upnext_first_tick"


def _tick_first(project: Project) -> None:
    start(project)
    Product(project).identify("somebody", AS_OF - timedelta(days=30))
    build(project, AS_OF - timedelta(days=1), is_explicit=True)


@pytest.fixture
def ticked(project: Project) -> Project:
    """A warehouse with one tick, a day before AS_OF."""
    return project


@pytest.fixture
def product(project: Project) -> Product:
    """Events of the test's own making."""
    return Product(project)


def place_of(project: Project) -> Place:
    """Return where people are known."""
    settings = project.settings
    folders = (settings.landing, settings.archive)
    return Place(project.engine, folders, settings.maildir, project.sources, Keys.of(settings))


def warnings(project: Project) -> set[str]:
    """Return the dbt tests that warn."""
    done = project.dbt.invoke(["test", "--select", "config.severity:warn"])
    return {result.node.name for result in done.results if result.status == "warn"}


def wait_for(is_true: Callable[[], bool], what: str) -> None:
    """Look again and again, for a minute at most."""
    deadline = time.monotonic() + 60
    while not is_true():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.005)


def rows(project: Project, statement: str, **values: Any) -> list[Any]:
    """Return the rows of a query as tuples."""
    with project.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.text(statement), values)]


class Cli:
    """Runs `upnext` in a home of its own."""

    def __init__(self, home: Path, database: URL) -> None:
        self.home = settings_for(home, database).home
        self.environment = {
            **os.environ,
            "UPNEXT_HOME": str(home),
            "UPNEXT_DATABASE_URL": database.render_as_string(hide_password=False),
        }

    def run(self, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [UPNEXT, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            env={**self.environment, **environment},
        )

    def fails(self, *arguments: str | Path, **environment: str) -> str:
        """Run, expect status 2 and one line on standard error, and return it."""
        done = self.run(*arguments, **environment)
        assert (done.returncode, done.stdout) == (2, ""), done
        assert done.stderr.startswith("upnext: ")
        assert done.stderr.count("\n") == 1
        return done.stderr


@pytest.fixture
def cli(tmp_path: Path, embedded_url: URL, migrated: str) -> Cli:
    return Cli(tmp_path / "home", create_database(embedded_url, template=migrated))
