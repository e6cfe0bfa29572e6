"""The warehouse's URL, and one engine on it."""

from collections.abc import Callable
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError, OperationalError

from upnext.errors import UpnextError
from upnext.settings import Settings
from upnext.warehouse import migrate
from upnext.warehouse.embedded import EmbeddedServer

T = TypeVar("T")

SESSION = (
    r"-c timezone=UTC -c datestyle=ISO -c intervalstyle=postgres -c bytea_output=hex -c extra_float_digits=1"
    r" -c default_transaction_isolation=read\ committed"
    r" -c idle_session_timeout=0 -c idle_in_transaction_session_timeout=0"
    r" -c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3"
)
"""What our sessions rely on, whatever the server, the database or the role has as default. Locks belong to sessions,
and those of a machine that is gone end within a minute."""


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
    return _with_engine(settings, migrate.migrate)[0]


def upgrade(settings: Settings) -> bool:
    """Bring the warehouse of an earlier release to this one; False where it is there already."""
    return _with_engine(settings, migrate.upgrade)[1]


def _with_engine(settings: Settings, first: Callable[[Engine], T]) -> tuple[Engine, T]:
    """Return an engine, and the result of the first operation on it."""
    url = database_url(settings)
    engine = sa.create_engine(
        url.set(drivername="postgresql+psycopg"),
        connect_args={"options": SESSION, "connect_timeout": 10},
        pool_pre_ping=True,
        # Each sender of a channel has a connection; how many there are is for the policy to say.
        max_overflow=-1,
    )
    try:
        done = first(engine)
    except OperationalError as error:
        reason = str(error.orig).strip().splitlines()[0]
        place = f"{url.host or 'local socket'}:{url.port or 5432}/{url.database}"
        raise UpnextError(f"cannot reach the database at {place}: {reason}") from None
    return engine, done
