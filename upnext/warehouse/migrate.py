"""The schema: a baseline per subject, numbered migrations after it, and functions and views that follow their files.

`schema/*.sql` is the baseline of 0.2.0, and `migrations/` has what has changed since. Functions and views are `create
or replace` in files of their own; a file whose hash changes is run again. dbt owns the tables of events, features and
segments that it builds.
"""

import hashlib
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from upnext.errors import UpnextError
from upnext.warehouse.locks import hold

HERE = Path(__file__).parent
BASELINE = ("upnext", "raw", "features", "segments", "journeys", "experiences", "analytics")
# In the order of their dependencies.
RECREATED = ("warehouse/functions.sql", *(f"{subject}/views.sql" for subject in (
    "events", "segments", "journeys", "experiences", "analytics",
)))  # fmt: skip
LAST_OF_0_1 = "0016_bad_values.sql"


def migrate(engine: Engine) -> list[str]:
    """Bring the schema to what this release has, all or nothing, and return the files that were run.

    Raises `UpnextError` for a warehouse of 0.1, which `upgrade` brings here.
    """
    with engine.begin() as connection:
        hold(connection, "migrate")
        if _has(connection, "upnext.migrations") and not _has(connection, "upnext.recreated"):
            raise UpnextError("this warehouse is of Upnext 0.1; back it up, then run `upnext upgrade` once")
        return _migrate(connection)


def upgrade(engine: Engine) -> bool:
    """Bring a warehouse of 0.1 to this release; False where it is there already.

    Raises `UpnextError` where it is of an earlier state than the last one of 0.1.
    """
    with engine.begin() as connection:
        hold(connection, "migrate")
        is_old = _has(connection, "upnext.migrations") and not _has(connection, "upnext.recreated")
        if is_old:
            newest = connection.scalar(sa.text("select max(name) from upnext.migrations"))
            if newest != LAST_OF_0_1:
                raise UpnextError(
                    f"this warehouse stands at {newest}, before the end of 0.1; load its events into a new home"
                )
            connection.exec_driver_sql((HERE / "upgrades" / "0.1.sql").read_text())
        _migrate(connection)
    return is_old


def _migrate(connection: Connection) -> list[str]:
    done = []
    is_new = not _has(connection, "upnext.migrations")
    if is_new:
        for subject in BASELINE:
            connection.exec_driver_sql((HERE / "schema" / f"{subject}.sql").read_text())
            done.append(f"schema/{subject}.sql")
    applied = set(connection.scalars(sa.text("select name from upnext.migrations")))
    for path in sorted((HERE / "migrations").glob("*.sql")):
        if path.name not in applied:
            connection.exec_driver_sql(path.read_text())
            connection.execute(sa.text("insert into upnext.migrations (name) values (:name)"), {"name": path.name})
            done.append(f"migrations/{path.name}")
    done += _recreate(connection)
    if is_new:
        connection.exec_driver_sql("select upnext.spread('raw.events', 'person_id')")
    return done


def _recreate(connection: Connection) -> list[str]:
    """Run the files of functions and views that have changed since their last run."""
    known = {row.file: row.hash for row in connection.execute(sa.text("select file, hash from upnext.recreated"))}
    texts = {file: (HERE.parent / file).read_text() for file in RECREATED}
    hashes = {file: hashlib.sha256(text.encode()).hexdigest() for file, text in texts.items()}
    changed = [file for file in RECREATED if known.get(file) != hashes[file]]
    # Functions read tables of dbt, which the first build makes.
    connection.exec_driver_sql("set local check_function_bodies = off")
    for file in changed:
        connection.exec_driver_sql(texts[file])
        connection.execute(
            sa.text(
                "insert into upnext.recreated (file, hash) values (:file, :hash)"
                " on conflict (file) do update set hash = excluded.hash"
            ),
            {"file": file, "hash": hashes[file]},
        )
    return changed


def _has(connection: Connection, table: str) -> bool:
    return connection.scalar(sa.text("select to_regclass(:table) is not null"), {"table": table}) is True
