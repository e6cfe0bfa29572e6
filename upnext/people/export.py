"""`upnext export`: all that is known of a person, as JSON lines, at one instant."""

import json
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from upnext.people.erase import Place
from upnext.people.files import mails
from upnext.people.known import Person, find_person, tables_of
from upnext.people.lines import rejected, waiting
from upnext.whole_file import replacing

Line = dict[str, Any]


def export(
    place: Place, asked: str, out: Path, *, now: datetime, on_table: Callable[[str], None] = lambda _: None
) -> dict[str, int]:
    """Write what is known of a person into a file that only its owner reads; return the lines by table.

    The file is there when all of it is written. Raises `UpnextError` where nothing is known.
    """
    counts: dict[str, int] = {}
    with (
        place.engine.connect().execution_options(isolation_level="REPEATABLE READ", stream_results=True) as connection,
        replacing(out) as beside,
        beside.open("w", encoding="utf-8") as file,
    ):
        person = find_person(connection, asked)
        for line in _lines(connection, place, person, now, on_table):
            counts[line["table"]] = counts.get(line["table"], 0) + 1
            file.write(json.dumps(line, default=_as_json, ensure_ascii=False) + "\n")
    return counts


def _lines(
    connection: Connection, place: Place, person: Person, now: datetime, on_table: Callable[[str], None]
) -> Iterator[Line]:
    one_by_one = {
        "raw.rejected_events": rejected(connection, person, place.sources),
        "edge.inbox": waiting(connection, person, place.sources, now=now),
    }
    for table, condition in tables_of(connection).items():
        on_table(table)
        if table in one_by_one:
            yield from ({"table": table, "row": dict(row)} for row in one_by_one[table])
            continue
        # Names of our own, and of dbt's models beside them.
        statement = sa.text(f"select * from {table} where {condition}")  # noqa: S608
        for row in connection.execute(statement, person.values).mappings():
            yield {"table": table, "row": dict(row)}
    on_table("mail")
    for path, message in mails(place.maildir, person):
        yield {"table": "mail", "row": {"file": path.name, "content": message.as_string()}}


def _as_json(value: Any) -> Any:
    match value:
        case datetime() | date():
            return value.isoformat()
        case timedelta() | Decimal():
            return str(value)
        case bytes() | memoryview():
            return bytes(value).decode(errors="replace")
        case _:
            return str(value)
