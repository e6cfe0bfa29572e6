"""The members of a segment at an instant, by its log, and the members that a SELECT would give. Read-only."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.engine import Connection, Engine

from upnext.errors import UpnextError
from upnext.segments.sql import SQL

_MEMBERS = {"user_id": "segments.members", "account_id": "segments.account_members"}
# Around the analyst's own SELECT, so it is no statement of a file.
_PREVIEW = """
    with selected as materialized (
        select distinct selected.{unit} as id from (
            {sql}
        ) as selected
        where selected.{unit} is not null and {people}
    ),

    members as materialized (
        select {unit} as id from {members} where segment = %(segment)s
    ),

    changed as materialized (
        select
            coalesce(selected.id, members.id) as id,
            case when members.id is null then 'would enter' else 'would leave' end as change
        from selected
        full join members on selected.id = members.id
        where selected.id is null or members.id is null
    ),

    shared as (
        select others.segment, count(*) as users
        from {members} as others
        inner join selected on others.{unit} = selected.id
        where others.segment <> %(segment)s
        group by others.segment
    )

    select
        (select count(*) from selected) as size,
        (select count(*) from members) as members,
        (select count(*) from changed where change = 'would enter') as entering,
        (select count(*) from changed where change = 'would leave') as leaving,
        (select coalesce(jsonb_object_agg(segment, users order by segment), '{{}}') from shared) as overlap,
        case when %(with_ids)s then (select array_agg(id order by id) from changed where change = 'would enter') end
            as entering_ids,
        case when %(with_ids)s then (select array_agg(id order by id) from changed where change = 'would leave') end
            as leaving_ids
"""


@dataclass(frozen=True)
class Preview:
    """The members that a segment would have now; ids only on request."""

    segment: str
    unit: str
    size: int
    members: int
    entering: int
    leaving: int
    overlap: Mapping[str, int]
    entering_ids: list[str] | None
    leaving_ids: list[str] | None


@dataclass(frozen=True)
class BeyondLimit:
    """A change of a segment in one tick that is larger than its owner expects."""

    segment: str
    members: int
    entered: int
    exited: int
    is_held: bool

    def __str__(self) -> str:
        held = f"; held back, `upnext release {self.segment}` lets it through" if self.is_held else ""
        return (
            f"segment '{self.segment}' had {self.members:,} members, {self.entered:,} entered and"
            f" {self.exited:,} exited at once{held}"
        )


def beyond_limits(engine: Engine) -> list[BeyondLimit]:
    """Return the changes of the newest tick that are larger than the segments' owners expect."""
    with engine.connect() as connection:
        return [BeyondLimit(**row._mapping) for row in connection.execute(SQL["beyond_limits"])]


def not_evaluated(engine: Engine) -> dict[str, str]:
    """Return the segments that the newest tick could not evaluate, and why."""
    with engine.connect() as connection:
        return {row.segment: row.error for row in connection.execute(SQL["not_evaluated"])}


def known_segments(engine: Engine) -> set[str]:
    """Return every segment that the logs have ever had."""
    with engine.connect() as connection:
        return set(connection.scalars(SQL["known_segments"]))


def check_content(engine: Engine, declared: Collection[str]) -> None:
    """Raise `UpnextError` if a warehouse is of other content: a tick would make all of its members exit."""
    with engine.connect() as connection:
        others = connection.scalar(SQL["members_of_other_content"], {"declared": list(declared)}) or []
    if len(others) > 1:
        raise UpnextError(
            f"this home has members of {', '.join(others)}, and the content declares none of its segments: set"
            " UPNEXT_HOME to a home of its own, or UPNEXT_CONTENT back. To replace all segments, keep one for one more"
            " tick"
        )


def members_at(engine: Engine, segment: str, at: datetime) -> list[str]:
    """Return the ids of the users or accounts in a segment at an instant, by the published log."""
    values = {"segment": segment, "at": at}
    with engine.connect() as connection:
        return [*connection.scalars(SQL["users_at"], values), *connection.scalars(SQL["accounts_at"], values)]


def release(engine: Engine, segment: str) -> int | None:
    """Let the next tick apply a held change, and return how many rows it has; None where nothing is held."""
    with engine.begin() as connection:
        changes: int | None = connection.scalar(SQL["release"], {"segment": segment})
    return changes


def sizes_at(engine: Engine, tick_id: int, segments: Collection[str]) -> dict[str, int]:
    """Return the members of each of these segments that a tick has evaluated, once it is published."""
    with engine.connect() as connection:
        rows = connection.execute(SQL["sizes_at"], {"tick_id": tick_id, "segments": sorted(segments)})
        return {row.segment: int(row.members) for row in rows}


def preview(
    connection: Connection, segment: str, sql: str, *, with_ids: bool, includes_anonymous: bool = False
) -> Preview:
    """Run a compiled SELECT and compare it with the members of `segment`; the transaction must be read-only."""
    # A percent sign would be taken for a parameter.
    sql = sql.replace("%", "%%")
    columns = list(connection.exec_driver_sql(f"select * from ({sql}\n) as selected limit 0", {}).keys())  # noqa: S608 - the analyst's own
    unit = columns[0] if len(columns) == 1 else ""
    if unit not in _MEMBERS:
        raise ValueError(f"selects {', '.join(columns)}; it must select user_id alone, or account_id alone")
    people = "true" if includes_anonymous or unit == "account_id" else "not upnext.is_visitor(selected.user_id)"
    statement = _PREVIEW.format(unit=unit, members=_MEMBERS[unit], sql=sql, people=people)
    row = connection.exec_driver_sql(statement, {"segment": segment, "with_ids": with_ids}).one()
    return Preview(segment=segment, unit=unit, **row._mapping)
