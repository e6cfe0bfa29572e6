"""Loading files into `raw.events`: one transaction per file writes events, rejects and the ledger row."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from assets.events.event import MAX_BYTES, Event, Reject
from assets.events.source import Decode, Source, decoder
from orchestration.declarations import load_folder
from orchestration.errors import UpnextError, nearest

SOURCES = Path(__file__).parent / "sources"
CHUNK_LINES = 20_000
UNFINISHED = (".tmp", ".part", ".crdownload")

_COPY_EVENTS = f"copy staged_events ({', '.join(('source', 'load_id', *Event._fields))}) from stdin"
_COPY_REJECTS = "copy raw.rejected_events (source, load_id, line, reason, detail, payload) from stdin"


@dataclass(frozen=True)
class Ingested:
    """Counts of lines and files. `received = stored + duplicate + rejected`."""

    received: int = 0
    stored: int = 0
    duplicate: int = 0
    rejected: int = 0
    files: int = 0
    files_already_loaded: int = 0

    def __add__(self, other: "Ingested") -> "Ingested":
        return Ingested(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))


@dataclass(frozen=True)
class LandedFile:
    """A file to load, as it was when it was seen."""

    source: str
    path: Path
    size: int
    modified_at: datetime


def sources() -> dict[str, Source]:
    """Return the declared sources by name."""
    return load_folder(SOURCES, Source)


def check_source(name: str) -> None:
    """Raise `UpnextError` where no file of `sources/` has this name."""
    declared = sources()
    if name not in declared:
        raise UpnextError(f"unknown source '{name}'{nearest(name, declared)}")


def find_files(paths: Iterable[Path], *, source: str) -> list[LandedFile]:
    """List the files at or below `paths`, in the order of their names; hidden and unfinished ones are left out."""
    found: list[LandedFile] = []
    for path in paths:
        if not path.exists():
            raise UpnextError(f"no such file or folder: {path}")
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        found += [_seen(file, source) for file in files if not _is_unfinished(file, path)]
    return found


def find_landed(landing: Path) -> list[LandedFile]:
    """List the files of the landing folder; its first level names the source."""
    if not landing.is_dir():
        return []
    folders = sorted(folder for folder in landing.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    return [file for folder in folders for file in find_files([folder], source=folder.name)]


def not_loaded(connection: Connection, files: list[LandedFile]) -> list[LandedFile]:
    """Return the files that the ledger does not know by path, size and time of change."""
    known = {
        tuple(row)
        for row in connection.execute(
            sa.text("select source, path, size, modified_at from raw.loads where path = any(:paths)"),
            {"paths": [str(file.path) for file in files]},
        )
    }
    return [file for file in files if (file.source, str(file.path), file.size, file.modified_at) not in known]


def refuse_other_formats(files: Iterable[LandedFile]) -> None:
    """Raise `UpnextError` for a file in which nothing looks like JSON, before anything is loaded."""
    for file in files:
        with file.path.open("rb") as stream:
            lines = [line.lstrip(b"\xef\xbb\xbf \t\r\n") for line in islice(stream, 1_000)]
        begun = [line for line in lines if line]
        if begun and not any(line[:1] in b'{["' or line[:1].isdigit() for line in begun):
            raise UpnextError(f"{file.path}:1: not JSON lines; expected one JSON object a line")


def ingest(
    engine: Engine,
    files: list[LandedFile],
    *,
    loaded_at: datetime,
    on_bytes: Callable[[int], None] = lambda _: None,
) -> Ingested:
    """Load each file once and return what happened to its lines. Raises `UpnextError` for an unknown source.

    `on_bytes` hears of each run of bytes read, for a progress bar.
    """
    declared = sources()
    for file in files:
        check_source(file.source)
    total = Ingested()
    for file in files:
        decode = decoder(declared[file.source], loaded_at=loaded_at)
        with engine.begin() as connection:
            total += _load(connection, file, decode, loaded_at, on_bytes)
    return total


def _load(
    connection: Connection,
    file: LandedFile,
    decode: Decode,
    loaded_at: datetime,
    on_bytes: Callable[[int], None],
) -> Ingested:
    content = {
        "source": file.source,
        "path": str(file.path),
        "fingerprint": _fingerprint(file),
        "size": file.size,
        "modified_at": file.modified_at,
    }
    known = connection.execute(
        sa.text("select from raw.loads where source = :source and fingerprint = :fingerprint limit 1"),
        content,
    ).first()
    load_id = connection.scalar(
        sa.text(
            "insert into raw.loads (source, path, fingerprint, size, modified_at, received, stored, duplicate,"
            " rejected, loaded_at) values (:source, :path, :fingerprint, :size, :modified_at, 0, 0, 0, 0, :loaded_at)"
            " on conflict (source, path, fingerprint) do update set modified_at = excluded.modified_at"
            " where raw.loads.modified_at <> excluded.modified_at returning load_id"
        ),
        {**content, "loaded_at": loaded_at},
    )
    if known is not None or load_id is None:
        return Ingested(files=1, files_already_loaded=1)
    driver: Any = connection.connection.driver_connection
    cursor = driver.cursor()
    cursor.execute("create temporary table staged_events (like raw.events including defaults) on commit drop")
    received = rejected = 0
    for chunk in _chunks(file):
        events: list[tuple[Any, ...]] = []
        rejects: list[tuple[Any, ...]] = []
        for number, line in chunk:
            try:
                events.append((file.source, load_id, *decode(line)))
            except Reject as reject:
                payload = line.decode(errors="backslashreplace").replace("\x00", "\\x00")
                rejects.append((file.source, load_id, number, reject.reason, _shown(reject.detail), payload))
        _copy(cursor, _COPY_EVENTS, events)
        _copy(cursor, _COPY_REJECTS, rejects)
        received += len(events) + len(rejects)
        rejected += len(rejects)
        on_bytes(sum(len(line) + 1 for _, line in chunk))
    cursor.execute("insert into raw.events select * from staged_events on conflict (source, message_id) do nothing")
    stored = cursor.rowcount
    counts = {"received": received, "stored": stored, "rejected": rejected}
    counts["duplicate"] = received - rejected - stored
    connection.execute(
        sa.text(
            "update raw.loads set received = :received, stored = :stored, duplicate = :duplicate,"
            " rejected = :rejected where load_id = :load_id"
        ),
        {**counts, "load_id": load_id},
    )
    return Ingested(**counts, files=1)


def _chunks(file: LandedFile) -> Iterator[list[tuple[int, bytes]]]:
    """Yield runs of (line number, line), blank lines and a byte order mark left out."""
    with file.path.open("rb") as stream:
        lines = (
            (number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
            for number, line in enumerate(_lines(stream), start=1)
        )
        numbered = ((number, line.strip(b" \t\r\n")) for number, line in lines)
        filled = ((number, line) for number, line in numbered if line)
        while chunk := list(islice(filled, CHUNK_LINES)):
            yield chunk


def _lines(stream: Any) -> Iterator[bytes]:
    """Yield lines, each read no further than a little over the largest event, so memory stays bounded."""
    while line := stream.readline(4 * MAX_BYTES):
        if not line.endswith(b"\n") and len(line) == 4 * MAX_BYTES:
            while (rest := stream.readline(4 * MAX_BYTES)) and not rest.endswith(b"\n"):
                pass
        yield line


def _copy(cursor: Any, statement: str, rows: list[tuple[Any, ...]]) -> None:
    if rows:
        with cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(row)


def _shown(text: str) -> str:
    return text.encode(errors="backslashreplace").decode().replace("\x00", "\\x00")


def _seen(path: Path, source: str) -> LandedFile:
    status = path.stat()
    return LandedFile(source, path.resolve(), status.st_size, datetime.fromtimestamp(int(status.st_mtime), UTC))


def _is_unfinished(file: Path, root: Path) -> bool:
    below = file.relative_to(root).parts if file != root else (file.name,)
    return file.suffix in UNFINISHED or any(part.startswith(".") for part in below)


def _fingerprint(file: LandedFile) -> str:
    with file.path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
