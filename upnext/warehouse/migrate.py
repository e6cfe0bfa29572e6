"""The tables that dbt does not own: numbered migrations, each applied once."""

from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Engine

MIGRATIONS = Path(__file__).parent / "migrations"


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
