"""`upnext roles`: roles of Postgres with no more rights than each process and each reader needs.

A role has no login: people grant it to users of their own. The owner of the warehouse ticks, migrates, erases and
prunes, because dbt replaces what it owns.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from psycopg.errors import InsufficientPrivilege
from sqlalchemy.engine import Engine
from sqlalchemy.exc import ProgrammingError

from upnext.errors import UpnextError

_PREFIX = re.compile(r"[a-z_][a-z0-9_]{0,40}")
_ALL = ("raw", "events", "features", "segments", "journeys", "experiences", "analytics")
_CHANGE = "select, insert, update, delete"
# Every process looks whether the warehouse is of its release.
_RELEASE = {"upnext.migrations": "select", "upnext.recreated": "select"}


@dataclass(frozen=True)
class Role:
    """What a role is for, the schemas of which it reads all tables, and its rights on others; `of` are roles it has.

    Previews need temporary tables, which some databases do not grant to everybody.
    """

    purpose: str
    reads: tuple[str, ...] = ()
    rights: dict[str, str] = field(default_factory=dict)
    of: tuple[str, ...] = ()
    previews: bool = False

    @property
    def schemas(self) -> list[str]:
        """The schemas that it uses."""
        return sorted({*self.reads, *(table.partition(".")[0] for table in self.rights)})


_SENDS = {
    **{f"journeys.{table}": _CHANGE for table in (
        "definitions", "steps", "entries", "messages", "suppressions", "consents", "unread_loads", "pauses", "links",
        "limits", "warm_up", "disabled_endpoints",
    )},
    "segments.consumer_offsets": _CHANGE,
    "segments.seen_definitions": _CHANGE,
    "experiences.live_ctas": _CHANGE,
    "analytics.invalidated_users": "select, insert",
    **{f"analytics.{table}": _CHANGE for table in ("programme", "programme_shares")},
    "edge.inbox": "insert",
    "upnext.switches": "select, insert",
    "upnext.started": "select",
    "upnext.erased": "select",
    "upnext.origin": "select, insert",
}  # fmt: skip

ROLES = {
    "collector": Role(
        "puts events into the inbox, and reads nothing of anybody",
        rights={"edge.inbox": "insert", "edge.keys": "select", "edge.refusals": "select, insert, update"},
    ),
    "edge": Role(
        "an edge with all it serves: calls to action, links of mails, preferences, the report",
        reads=("events", "experiences"),
        rights={
            **{f"journeys.{table}": "select" for table in ("definitions", "steps", "entries", "messages", "links")},
            "journeys.suppressions": _CHANGE,
            "journeys.consents": _CHANGE,
            "features.user_features": "select",
            "raw.events": "select",
            "analytics.report": "select",
            "edge.inbox": "select (inbox_id)",
        },
        of=("collector",),
    ),
    "sender": Role("moves people along journeys and sends", reads=_ALL, rights=_SENDS),
    "operator": Role(
        "starts, stops and pauses; releases segments, makes keys, loads files",
        reads=(*_ALL, "upnext"),
        rights={
            **{f"raw.{table}": _CHANGE for table in ("loads", "events", "rejected_events", "refused_files")},
            **{f"experiences.{table}": _CHANGE for table in (
                "definitions", "shares", "assignments", "held_out", "seen_features"
            )},
            "segments.evaluations": "select, update",
            "edge.keys": "select, insert, update",
            "edge.inbox": _CHANGE,
        },
        of=("sender",),
        previews=True,
    ),
    "analyst": Role(
        "reads everything but keys and the inbox, and previews segments",
        reads=_ALL,
        rights={"upnext.switches": "select", "upnext.started": "select"},
        previews=True,
    ),
    "reader": Role(
        "reads results, which name nobody",
        rights={
            **{f"analytics.{table}": "select" for table in (
                "experiment_results", "segment_results", "journey_funnel", "copy_ranking", "report",
            )},
            "segments.daily_changes": "select",
        },
    ),
}  # fmt: skip


def statements(prefix: str, *, owner: str, database: str, tables: set[str]) -> Iterator[str]:
    """Yield the SQL that makes the roles, or brings them to these rights.

    `owner` is the quoted name of who owns the warehouse, and makes tables later, `database` its own; `tables` are those
    there are.

    Raises `UpnextError` for a prefix that is no name.
    """
    if not _PREFIX.fullmatch(prefix):
        raise UpnextError(f"--prefix: '{prefix}' is no beginning of a name; use a-z, 0-9 and _")
    for name, role in ROLES.items():
        yield from _statements_of(prefix, f"{prefix}{name}", role, owner, tables)
        if role.previews:
            yield f"grant temporary on database {database} to {prefix}{name}"


def _statements_of(prefix: str, name: str, role: Role, owner: str, tables: set[str]) -> Iterator[str]:
    yield (
        f"do $$ begin if not exists (select from pg_roles where rolname = '{name}')"
        f" then create role {name} nologin; end if; end $$"
    )
    yield f"comment on role {name} is 'Upnext: {role.purpose}'"
    for schema in (*_ALL, "edge", "upnext"):
        yield f"revoke all on all tables in schema {schema} from {name}"
        yield f"alter default privileges for role {owner} in schema {schema} revoke all on tables from {name}"
        yield f"revoke all on schema {schema} from {name}"
    for schema in (*role.schemas, "upnext"):
        yield f"grant usage on schema {schema} to {name}"
    for schema in role.reads:
        yield f"grant select on all tables in schema {schema} to {name}"
        # What dbt makes later.
        yield f"alter default privileges for role {owner} in schema {schema} grant select on tables to {name}"
    for table, rights in {**_RELEASE, **role.rights}.items():
        if table in tables:
            yield f"grant {rights} on {table} to {name}"
    for other in role.of:
        yield f"grant {prefix}{other} to {name}"


def make(engine: Engine, prefix: str) -> list[str]:
    """Make the roles, or bring them to their rights, all or nothing; return their names.

    Raises `UpnextError` where the user of the warehouse may not make roles.
    """
    try:
        with engine.begin() as connection:
            for statement in statements(prefix, **known(engine)):
                connection.exec_driver_sql(statement)
    except ProgrammingError as error:
        if not isinstance(error.orig, InsufficientPrivilege):
            raise
        raise UpnextError(
            f"this user may not make roles ({str(error.orig).splitlines()[0]}): let one who may run what"
            " `upnext roles --sql` prints"
        ) from None
    return [f"{prefix}{name}" for name in ROLES]


def known(engine: Engine) -> dict[str, Any]:
    """Return the owner of the warehouse, the database, and the tables and views that there are."""
    with engine.connect() as connection:
        owner = connection.scalar(sa.text("select quote_ident(current_user)"))
        database = connection.scalar(sa.text("select quote_ident(current_database())"))
        tables = connection.scalars(
            sa.text(
                "select schemaname || '.' || tablename from pg_tables"
                " union select schemaname || '.' || viewname from pg_views"
            )
        )
        return {"owner": owner, "database": database, "tables": set(tables)}
