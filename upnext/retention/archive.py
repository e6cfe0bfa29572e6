"""Landed files that were loaded: packed into the archive, and deleted, after the times that the policy names."""

import os
import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
from sqlalchemy.engine import Engine

from upnext.durations import seconds
from upnext.events.files import Content, LandedFile, find_files, find_landed
from upnext.events.ledger import is_loaded
from upnext.events.source import Source
from upnext.journeys.policy import Landed
from upnext.warehouse.locks import transaction
from upnext.whole_file import replacing


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

    The archive has a folder for each source, as the landing folder has. A file is deleted when its copy is whole. While
    one is moved, nobody loads, and nobody is erased.
    """
    counts = {"archived": 0, "deleted": 0}
    for part in into.rglob(".*.part"):
        # What a run that was killed has left.
        part.unlink()
    for file in find_landed(landing, sources):
        is_old, is_due = _is_due(file, landed.delete_after, now), _is_due(file, landed.archive_after, now)
        if file.refusal is not None or not (is_old or is_due):
            continue
        with transaction(engine, "ingest") as connection:
            [as_it_is] = find_files([file.path], source=file.source)
            if not is_loaded(connection, as_it_is, now=now):
                continue
            on_file(file.path.name)
            if is_old:
                file.path.unlink()
            else:
                _pack(file, into / file.source / file.path.relative_to(_folder(landing, file)))
        counts["deleted" if is_old else "archived"] += 1
    # Of sources that nobody declares any more, too.
    for path in sorted(path for path in into.rglob("*") if path.is_file()):
        modified = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        if landed.delete_after is not None and now - modified >= timedelta(seconds=seconds(landed.delete_after)):
            path.unlink()
            counts["deleted"] += 1
    return counts


def _folder(landing: Path, file: LandedFile) -> Path:
    return Path(os.path.realpath(landing / file.source))


def _is_due(file: LandedFile, after: str | None, now: datetime) -> bool:
    return after is not None and now - (file.changed_at or file.modified_at) >= timedelta(seconds=seconds(after))


def _pack(file: LandedFile, to: Path) -> None:
    """Move a file into the archive, compressed unless it is already; the time of its last change stays.

    A file of the same name that is there already keeps its place.
    """
    is_packed = Content(file.path).is_compressed or file.path.suffix == ".parquet"
    changed = file.changed_at or file.modified_at
    to = to if is_packed else to.with_name(f"{to.name}.zst")
    if to.exists():
        to = to.with_name(f"{changed:%Y%m%dT%H%M%S.%f}-{to.name}")
    to.parent.mkdir(parents=True, exist_ok=True)
    with replacing(to) as part:
        with file.path.open("rb") as content:
            if is_packed:
                with part.open("wb") as copy:
                    shutil.copyfileobj(content, copy)
            else:
                with pa.CompressedOutputStream(str(part), "zstd") as packed:
                    shutil.copyfileobj(content, packed)
        os.utime(part, (changed.timestamp(), changed.timestamp()))
    file.path.unlink()
