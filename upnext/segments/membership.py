"""Who was in a segment at an instant, by its log; and who would be, by a SELECT. Reads alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine


class Log(NamedTuple):
    """Where the changes and the members of a kind of segment are: those of users, or of accounts."""

    unit: str
    changes: str
    members: str


LOGS = {
    "user_id": Log("user_id", "segments.membership_changes", "segments.members"),
    "account_id": Log("account_id", "segments.account_membership_changes", "segments.account_members"),
}

_MEMBERS_AT = """
    select {unit}
    from (
        select distinct on ({unit}) {unit}, change
        from {changes}
        where
            segment = :segment
            and as_of <= :at
            and tick_id in (select tick_id from segments.published_ticks)
        order by {unit}, change_id desc
    ) as latest
    where change = 'entered'
    order by {unit} collate "C"
"""
_PREVIEW = """
    with selected as materialized (
        select distinct selected.{unit} as id from (
            {sql}
        ) as selected
        where selected.{unit} is not null
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
    """What a segment would be now; ids only where they were asked for."""

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
    statement = sa.text(
        "select segment, members_before as members, entered, exited, is_held from segments.evaluations"
        " where is_beyond_limit and tick_id = (select max(tick_id) from segments.ticks) order by segment"
    )
    with engine.connect() as connection:
        return [BeyondLimit(**row._mapping) for row in connection.execute(statement)]


def held_out(engine: Engine) -> dict[str, str]:
    """Return the segments that the newest tick could not look at, and why."""
    statement = sa.text(
        "select segment, error from segments.evaluations"
        " where error is not null and tick_id = (select max(tick_id) from segments.ticks) order by segment"
    )
    with engine.connect() as connection:
        return {row.segment: row.error for row in connection.execute(statement)}


def known_segments(engine: Engine) -> set[str]:
    """Return every segment that the logs have ever had."""
    with engine.connect() as connection:
        return {
            name
            for log in LOGS.values()
            for name in connection.scalars(sa.text(f"select distinct segment from {log.changes}"))  # noqa: S608
        }


def members_at(engine: Engine, segment: str, at: datetime) -> list[str]:
    """Return the ids of whoever was in a segment at an instant, by the published log."""
    with engine.connect() as connection:
        return [
            member
            for log in LOGS.values()
            for member in connection.scalars(
                sa.text(_MEMBERS_AT.format(unit=log.unit, changes=log.changes)), {"segment": segment, "at": at}
            )
        ]


def preview(connection: Connection, segment: str, sql: str, *, with_ids: bool) -> Preview:
    """Run a compiled SELECT and compare it with the members of `segment`; the transaction must be read-only."""
    # A percent sign would be taken for a parameter.
    sql = sql.replace("%", "%%")
    columns = list(connection.exec_driver_sql(f"select * from ({sql}) as selected limit 0", {}).keys())  # noqa: S608 - the analyst's own
    unit = columns[0] if len(columns) == 1 else ""
    if unit not in LOGS:
        raise ValueError(f"selects {', '.join(columns)}; it must select user_id alone, or account_id alone")
    statement = _PREVIEW.format(unit=unit, members=LOGS[unit].members, sql=sql)
    row = connection.exec_driver_sql(statement, {"segment": segment, "with_ids": with_ids}).one()
    return Preview(segment=segment, unit=unit, **row._mapping)
