"""Lists of ids that people keep as CSV files in `lists/`, for segments to read: their files, and their rows."""

import csv
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from sqlalchemy.engine import Connection, Engine

from upnext.declarations import check_name
from upnext.errors import UpnextError
from upnext.segments.sql import SQL

BORROWED = "pg_temp.lists"
UNITS = ("user_id", "account_id")
MAX_ID = 1000


def list_files(folder: Path) -> dict[str, Path]:
    """Return the files by the name of the list. Raises `UpnextError` for a name that a segment could not write."""
    files = sorted(folder.glob("*.csv"))
    for file in files:
        check_name(file)
    return {file.stem: file for file in files}


def read_list(file: Path) -> Iterator[str]:
    """Yield the ids of a list, repeated ones too. Raises `UpnextError` with the line for what is no id."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines, strict=True)
            columns = [name for name in reader.fieldnames or [] if name in UNITS]
            if len(columns) != 1:
                raise UpnextError(f"{file}:1: the first line must name one column user_id, or one column account_id")
            [column] = columns
            for row in reader:
                value = (row[column] or "").strip()
                if not value or len(value) > MAX_ID or "\0" in value:
                    raise UpnextError(f"{file}:{reader.line_num}: no {column} of 1 to {MAX_ID} characters")
                yield value
    except UnicodeDecodeError:
        raise UpnextError(f"{file}: not valid UTF-8") from None
    except csv.Error as error:
        raise UpnextError(f"{file}:{reader.line_num}: not valid CSV: {error}") from None


def read_lists(files: Mapping[str, Path]) -> dict[str, int]:
    """Return how many ids each list has. Raises `UpnextError` for the first line that is none."""
    return {name: len(set(read_list(file))) for name, file in files.items()}


def store_lists(engine: Engine, files: Mapping[str, Path]) -> list[str]:
    """Store the lists whose files have changed, drop those without a file, and return their names.

    Each list changes as a whole. Raises `UpnextError` for a file with a mistake; then no list has changed.
    """
    hashes = {}
    for name, file in files.items():
        with file.open("rb") as content:
            hashes[name] = hashlib.file_digest(content, "sha256").hexdigest()
    with engine.begin() as connection:
        known = {row.list: row.hash for row in connection.execute(SQL["known_lists"])}
        changed = sorted(name for name in {*known, *hashes} if known.get(name) != hashes.get(name))
        if changed:
            connection.execute(SQL["forget_lists"], {"lists": changed})
        for name in set(changed) & set(hashes):
            connection.execute(SQL["keep_list_file"], {"list": name, "hash": hashes[name]})
            _copy(connection, "segments.lists", name, files[name])
    return changed


def borrow_lists(connection: Connection, files: Mapping[str, Path]) -> None:
    """Give a session the lists as their files are, in a table of its own: no other session sees them."""
    connection.execute(SQL["forget_borrowed"])
    connection.execute(SQL["create_borrowed"])
    for name, file in files.items():
        _copy(connection, BORROWED, name, file)
    connection.commit()


def _copy(connection: Connection, table: str, name: str, file: Path) -> None:
    with connection.connection.cursor().copy(f"copy {table} (list, id) from stdin") as copy:
        for value in dict.fromkeys(read_list(file)):
            copy.write_row((name, value))
