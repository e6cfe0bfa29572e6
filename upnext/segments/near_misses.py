"""Who is one condition short of a segment: whom a step would bring in, and which condition keeps most people out.

Segments that depend on one row of the features alone have such conditions: the parts of their WHERE that AND joins.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlglot
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError
from sqlglot import exp
from sqlglot.errors import SqlglotError

from upnext.segments.definition import UNITS, Condition
from upnext.segments.sql import SQL

MOST_ROWS = 1_000_000
"""Rows of features that are read; of a larger table a sample is."""
MOST_PARTS = 40
"""Conditions of a segment that are counted; each is counted beside all others of its segment."""
AT_ONCE = 400
"""Counts in one statement; Postgres takes 1,664 columns."""


@dataclass(frozen=True)
class NearMiss:
    """How many `users` (or accounts) meet all conditions of a segment but this one; an estimate from a sample."""

    segment: str
    condition: str
    users: int
    is_estimate: bool


def near_misses(connection: Connection, conditions: Mapping[str, Condition]) -> list[NearMiss]:
    """Return each condition of each segment that has at least two, most users first.

    A segment whose conditions cannot be counted, since a value does not fit, has none.
    """
    found: list[NearMiss] = []
    for table in sorted({condition.features for condition in conditions.values()}):
        rows = int(connection.scalar(SQL["count_rows"], {"table": f"features.{table}"}) or 0)
        one_in = max(1, rows // MOST_ROWS)
        wanted = [
            (segment, *parts)
            for segment, condition in sorted(conditions.items())
            if condition.features == table
            for parts in _lacking_one(condition.sql)
        ]
        for first in range(0, len(wanted), AT_ONCE):
            found += _counted(connection, table, wanted[first : first + AT_ONCE], one_in)
    return sorted(found, key=lambda one: (-one.users, one.segment, one.condition))


def conjuncts(sql: str) -> list[str]:
    """Return the parts of a condition that AND joins.

    >>> conjuncts("logins >= 5 and (not paid and plan in ('a', 'b'))")
    ['logins >= 5', 'NOT paid', "plan IN ('a', 'b')"]
    """
    try:
        tree = sqlglot.parse_one(sql, read="postgres")
    except (SqlglotError, RecursionError):
        return []
    return [part.sql(dialect="postgres", comments=False) for part in _parts(tree)]


def _parts(tree: exp.Expr) -> Iterator[exp.Expr]:
    waiting = [tree]
    while waiting:
        match waiting.pop():
            case exp.And() as both:
                waiting += [both.right, both.left]
            case exp.Paren() as inner:
                waiting.append(inner.this)
            case part:
                yield part


def _lacking_one(sql: str) -> Iterator[tuple[str, str]]:
    """Yield each condition that somebody can meet, and the SQL that is true of who meets all others."""
    parts = conjuncts(sql)
    own = [part for part in parts if "is_visitor(" not in part.lower()]
    if not 2 <= len(own) <= MOST_PARTS:
        return
    for part in own:
        others = " and ".join(f"coalesce(({other}), false)" for other in parts if other is not part)
        yield part, f"{others} and not coalesce(({part}), false)"


def _counted(
    connection: Connection, table: str, wanted: Sequence[tuple[str, str, str]], one_in: int
) -> Iterator[NearMiss]:
    counts = ", ".join(f"count(*) filter (where {sql}) as n{place}" for place, (_, _, sql) in enumerate(wanted))
    key = UNITS[table]
    sample = f" where mod(hashtext({key}) & 2147483647, {one_in}) = 0" if one_in > 1 else ""
    statement = f"select {counts} from features.{table}{sample}"  # noqa: S608 - conditions of the checked segments
    try:
        with connection.begin_nested():
            row: Any = connection.exec_driver_sql(statement.replace("%", "%%")).one()
    except DBAPIError:
        # One bad value spoils the statement; each segment by itself spoils its own alone.
        segments = {segment for segment, _, _ in wanted}
        if len(segments) > 1:
            for segment in sorted(segments):
                yield from _counted(connection, table, [one for one in wanted if one[0] == segment], one_in)
        return
    for (segment, condition, _), count in zip(wanted, row, strict=True):
        yield NearMiss(segment, condition, int(count) * one_in, one_in > 1)
