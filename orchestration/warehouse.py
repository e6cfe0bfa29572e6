"""The warehouse: one engine, the migrations of the tables that dbt does not own, and named locks."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError

from orchestration.embedded import EmbeddedServer
from orchestration.errors import UpnextError
from orchestration.settings import Settings

MIGRATIONS = Path(__file__).parent / "migrations"


def embedded_server(settings: Settings) -> EmbeddedServer:
    """Return the server that lives in Upnext's home."""
    return EmbeddedServer(settings.home / "postgres")


def database_url(settings: Settings) -> URL:
    """Return the warehouse's URL, starting the embedded server where none is configured."""
    if settings.database_url is None:
        return make_url(embedded_server(settings).start())
    try:
        url = make_url(settings.database_url)
    except (ArgumentError, ValueError):
        raise UpnextError(
            "UPNEXT_DATABASE_URL is not a URL; expected postgresql://user:password@host:port/db"
        ) from None
    if url.get_backend_name() not in ("postgresql", "postgres"):
        raise UpnextError(f"UPNEXT_DATABASE_URL names {url.get_backend_name()}; Upnext needs postgresql://")
    return url.set(drivername="postgresql")


def connect(settings: Settings) -> Engine:
    """Return an engine on a migrated warehouse. Raises `UpnextError` where it cannot be reached."""
    url = database_url(settings)
    engine = sa.create_engine(
        url.set(drivername="postgresql+psycopg"),
        connect_args={"options": "-c timezone=UTC", "connect_timeout": 10},
        pool_pre_ping=True,
        # Each sender of a channel has a connection; how many there are is for the policy to say.
        max_overflow=-1,
    )
    try:
        migrate(engine)
    except OperationalError as error:
        reason = str(error.orig).strip().splitlines()[0]
        place = f"{url.host or 'local socket'}:{url.port or 5432}/{url.database}"
        raise UpnextError(f"cannot reach the database at {place}: {reason}") from None
    return engine


def migrate(engine: Engine) -> list[str]:
    """Apply the migrations that are missing, all or none, and return their names."""
    with engine.begin() as connection:
        connection.execute(sa.text("select pg_advisory_xact_lock(hashtextextended('upnext:migrate', 0))"))
        connection.execute(sa.text("create schema if not exists upnext"))
        connection.execute(
            sa.text(
                "create table if not exists upnext.migrations"
                " (name text primary key, applied_at timestamptz not null default now())"
            )
        )
        applied = set(connection.scalars(sa.text("select name from upnext.migrations")))
        missing = [path for path in sorted(MIGRATIONS.glob("*.sql")) if path.name not in applied]
        for path in missing:
            connection.exec_driver_sql(path.read_text())
            connection.execute(sa.text("insert into upnext.migrations (name) values (:name)"), {"name": path.name})
    return [path.name for path in missing]


@contextmanager
def transaction(engine: Engine, lock: str) -> Iterator[Connection]:
    """Yield a transaction that holds the warehouse-wide lock `lock` to its end, waiting for whoever has it.

    Lock and writes share a session, so whoever has lost the lock cannot write any more.
    """
    with engine.begin() as connection:
        connection.execute(
            sa.text("select pg_advisory_xact_lock(hashtextextended(:key, 0))"), {"key": f"upnext:{lock}"}
        )
        yield connection


@contextmanager
def exclusive(engine: Engine, name: str) -> Iterator[Connection]:
    """Hold the warehouse-wide lock `name` (`tick`, `dispatch`), waiting for whoever has it.

    The lock belongs to the yielded connection's session, so it goes with a killed process, and with a session that is
    lost: transactions that write under it have to be safe without it.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        key = {"key": f"upnext:{name}"}
        connection.execute(sa.text("select pg_advisory_lock(hashtextextended(:key, 0))"), key)
        try:
            yield connection
        finally:
            # With a session that is lost the lock is gone already.
            with suppress(DBAPIError):
                connection.execute(sa.text("select pg_advisory_unlock(hashtextextended(:key, 0))"), key)
