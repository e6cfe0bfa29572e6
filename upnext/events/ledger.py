"""The ledger of files: those loaded, how far each was read, and those refused."""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from upnext.events.files import LandedFile, Measured
from upnext.events.records import START, Position
from upnext.events.sql import SQL


@dataclass(frozen=True)
class ReadSoFar:
    """How far a file's content was read, and the fingerprint of that part."""

    position: Position
    prefix: str


def not_loaded(connection: Connection, files: list[LandedFile], *, now: datetime) -> list[LandedFile]:
    """Return the files that the ledger does not know by path, size, times and inode, or whose last row has settled."""
    rows = connection.execute(SQL["waiting"], {"paths": [file.name for file in files], "now": now})
    known = {(row.path, row.source, row.size, row.modified_at, row.inode, row.changed_at) for row in rows}
    return [
        file
        for file in files
        if (file.name, file.source, file.size, file.modified_at, file.inode, file.changed_at) not in known
    ]


def is_loaded(connection: Connection, file: LandedFile, *, now: datetime) -> bool:
    """Return whether a file, as it is, has been loaded to its end, and was not refused."""
    is_refused = connection.scalar(SQL["is_refused"], {"path": file.name})
    return not is_refused and not not_loaded(connection, [file], now=now)


def has_lines_waiting(connection: Connection, sources: Collection[str]) -> bool:
    """Return whether lines of these sources wait in the inbox."""
    return bool(connection.scalar(SQL["has_lines_waiting"], {"sources": list(sources)}))


def newest(connection: Connection, file: LandedFile) -> ReadSoFar | None:
    """Return how far the file of this path was read when it was last loaded; None where it never was."""
    return _read_so_far(connection, SQL["newest"], _values(file))


def same_content(connection: Connection, file: LandedFile, fingerprint: str) -> ReadSoFar | None:
    """Return how far a file of the same content was read, under whatever path; None where there is none."""
    return _read_so_far(connection, SQL["same_content"], {"source": file.source, "fingerprint": fingerprint})


def where_to_begin(before: ReadSoFar | None, now: Measured) -> tuple[Position, str | None]:
    """Return where to start reading a changed file, and how it changed: `grew`, `cut` or `replaced`."""
    if before is None:
        return START, None
    if now.prefix == before.prefix:
        return before.position, "grew"
    return START, "cut" if now.size < before.position.bytes else "replaced"


def open_load(
    connection: Connection,
    file: LandedFile,
    *,
    fingerprint: str,
    read: ReadSoFar,
    loaded_at: datetime,
    change: str | None = None,
) -> int:
    """Write the ledger's row of a file, its counts 0, and return its id; one that is known is noted as seen again."""
    values = {
        **_values(file),
        "fingerprint": fingerprint,
        "loaded_at": loaded_at,
        "read_to": read.position.bytes,
        "read_lines": read.position.lines,
        "prefix": read.prefix,
        "change": change,
    }
    load_id = connection.scalar(SQL["open"], values)
    connection.execute(SQL["accept"], {"paths": [file.name]})
    return int(load_id)


def close_load(
    connection: Connection,
    load_id: int,
    counts: Mapping[str, int],
    read: ReadSoFar,
    *,
    fingerprint: str,
    look_again_at: datetime | None,
) -> None:
    """Write the outcome of a load: its counts of lines, and how far it has read.

    `fingerprint` is that of the content, or a value that no content has if the file is to be read again.
    """
    values = {"read_to": read.position.bytes, "read_lines": read.position.lines, "prefix": read.prefix}
    known = {"fingerprint": fingerprint, "look_again_at": look_again_at}
    connection.execute(SQL["close"], {"load_id": load_id, **counts, **values, **known})


def look_again(
    connection: Connection, load_id: int, file: LandedFile, read: ReadSoFar, *, look_again_at: datetime
) -> None:
    """Delete a load that has read nothing beyond `read`, and record the file's state on the load before it."""
    values = {"load_id": load_id, "prefix": read.prefix, "look_again_at": look_again_at}
    connection.execute(SQL["look_again"], {**_values(file), **values})


def refuse(connection: Connection, file: LandedFile, *, reason: str, refused_at: datetime) -> None:
    """Note that a file was refused as a whole; it is tried again when it has changed."""
    connection.execute(SQL["refuse"], {**_values(file), "reason": reason, "refused_at": refused_at})


def refused_files(engine: Engine, *, source: str | None) -> list[dict[str, Any]]:
    """Return the files that were refused as a whole, of a source or of all, in the shape of rejected lines."""
    with engine.connect() as connection:
        found = connection.execute(SQL["refused_files"], {"source": source})
        return [
            {"source": row.source, "reason": "refused_file", "lines": 0, "place": row.path, "detail": row.reason,
             "payload": ""}
            for row in found
        ]  # fmt: skip


def forget_refused_files_that_are_gone(connection: Connection) -> None:
    """Delete the notes on refused files that no longer exist."""
    paths = connection.scalars(SQL["refused_paths"])
    gone = [path for path in paths if not os.path.lexists(path)]
    connection.execute(SQL["accept"], {"paths": gone})


def _values(file: LandedFile) -> dict[str, Any]:
    return {
        "source": file.source,
        "path": file.name,
        "size": file.size,
        "modified_at": file.modified_at,
        "inode": file.inode,
        "changed_at": file.changed_at,
    }


def _read_so_far(connection: Connection, statement: sa.TextClause, values: dict[str, Any]) -> ReadSoFar | None:
    row = connection.execute(statement, values).first()
    return None if row is None else ReadSoFar(Position(row.read_to, row.read_lines), row.prefix)
