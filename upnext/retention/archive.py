"""Landed files that were loaded: packed into the archive, and deleted, after the times that the policy names."""

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
from sqlalchemy.engine import Engine

from upnext.durations import seconds
from upnext.events.files import Content, LandedFile, find_landed
from upnext.events.ledger import not_loaded
from upnext.events.source import Source
from upnext.journeys.policy import Landed


def archive(
    engine: Engine,
    landing: Path,
    into: Path,
    sources: Mapping[str, Source],
    landed: Landed,
    *,
    now: datetime,
    on_file: Callable[[str], None] = lambda _: None,
) -> dict[str, int]:
    """Archive and delete what is due at `now`; return how many files. Those that are not loaded stay.

    The archive has a folder for each source, as the landing folder has. A file is deleted when its copy is whole.
    """
    counts = {"archived": 0, "deleted": 0}
    files = [file for file in find_landed(landing, sources) if file.refusal is None]
    with engine.connect() as connection:
        waiting = {file.path for file in not_loaded(connection, files, now=now)}
    for file in files:
        if file.path in waiting:
            continue
        on_file(file.path.name)
        if _is_due(file, landed.delete_after, now):
            file.path.unlink()
            counts["deleted"] += 1
        elif _is_due(file, landed.archive_after, now):
            _pack(file, into / file.source / file.path.relative_to(_folder(landing, file)))
            counts["archived"] += 1
    for file in find_landed(into, sources):
        modified = datetime.fromtimestamp(file.path.stat().st_mtime, UTC)
        if landed.delete_after is not None and now - modified >= timedelta(seconds=seconds(landed.delete_after)):
            file.path.unlink()
            counts["deleted"] += 1
    return counts


def _folder(landing: Path, file: LandedFile) -> Path:
    return Path(os.path.realpath(landing / file.source))


def _is_due(file: LandedFile, after: str | None, now: datetime) -> bool:
    return after is not None and now - (file.changed_at or file.modified_at) >= timedelta(seconds=seconds(after))


def _pack(file: LandedFile, to: Path) -> None:
    """Move a file into the archive, compressed unless it is already; the time of its last change stays."""
    is_packed = Content(file.path).is_compressed or file.path.suffix == ".parquet"
    to = to if is_packed else to.with_name(f"{to.name}.zst")
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=to.parent, prefix=".", suffix=".part", delete=False) as beside:
        part = Path(beside.name)
    try:
        with file.path.open("rb") as content:
            if is_packed:
                with part.open("wb") as copy:
                    shutil.copyfileobj(content, copy)
            else:
                with pa.CompressedOutputStream(str(part), "zstd") as packed:
                    shutil.copyfileobj(content, packed)
        with part.open("rb+") as written:
            os.fsync(written.fileno())
        times = file.path.stat()
        os.utime(part, ns=(times.st_atime_ns, times.st_mtime_ns))
        part.replace(to)
    finally:
        part.unlink(missing_ok=True)
    file.path.unlink()
