"""A person out of files: the lines of landed files, and the mails that the local catcher holds.

A plain file is overwritten in place, a line by blanks of the same length, because whoever writes it may have it open. A
compressed file or one of Parquet is written anew beside it, and takes its place when it is whole.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from email import message_from_bytes
from email.message import Message
from email.utils import getaddresses
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy.engine import Connection

from upnext.events import ledger
from upnext.events.files import BLOCK, COMPRESSIONS, Content, LandedFile, Measured, find_files
from upnext.events.ingest import reading
from upnext.events.records import START, Position
from upnext.events.source import Source, decoder
from upnext.people.known import Person
from upnext.people.lines import is_theirs
from upnext.people.sql import SQL
from upnext.whole_file import replacing

# A blank line of JSON is one of blanks; a blank row of CSV has none.
_BLANKS = {"csv": b"\n"}


@dataclass(frozen=True)
class _Cut:
    """A piece of a file's content, from the beginning of a line to its newline, which stays."""

    start: int
    stop: int


def rewrite(connection: Connection, file: LandedFile, source: Source, person: Person, *, now: datetime) -> int:
    """Take the lines of a person out of a landed file, note its new state in the ledger, and return how many.

    The caller holds the loading lock. Raises `Refused` for a file that cannot be read.
    """
    content = Content(file.path)
    if source.format != "parquet" and not _names_somewhere(content, person):
        return 0
    known = ledger.newest(connection, file)
    before = content.measure(mark=known.position.bytes if known else None)
    numbers = set(_lines_of(content, source, person, before, now))
    if not numbers:
        return 0
    if source.format == "parquet":
        end = _without_rows(file.path, numbers, known.position if known else START)
    else:
        cuts = list(_cuts(content, numbers))
        end = known.position if known else START
        if content.is_compressed:
            _without_lines(content, cuts)
            end = Position(end.bytes - sum(cut.stop - cut.start for cut in cuts if cut.start < end.bytes), end.lines)
        else:
            _blank(file.path, cuts, _BLANKS.get(source.format, b" "))
    if known is not None:
        _note(connection, file, before, end)
    return len(numbers)


def _note(connection: Connection, file: LandedFile, before: Measured, end: Position) -> None:
    """Let the ledger know the file as it is now, so that it is not taken for a file that was replaced."""
    [now] = find_files([file.path], source=file.source)
    measured = Content(file.path).measure(mark=end.bytes)
    whole = measured.size == end.bytes
    values = {
        "old_fingerprint": before.fingerprint, "fingerprint": measured.fingerprint,
        "prefix": measured.fingerprint if whole else measured.prefix or "",
        "read_to": end.bytes, "read_lines": end.lines, "size": now.size, "modified_at": now.modified_at,
        "inode": now.inode, "changed_at": now.changed_at, "source": file.source, "path": file.name,
    }  # fmt: skip
    connection.execute(SQL["rewritten"], values)


def remove_mails(maildir: Path, person: Person) -> int:
    """Remove the mails to a person that the local catcher holds, and return how many.

    Those in `tmp` are the beginnings that killed senders left.
    """
    found = [path for path, _ in mails(maildir, person, folders=("tmp", "new", "cur"))]
    for path in found:
        path.unlink(missing_ok=True)
    return len(found)


def mails(
    maildir: Path, person: Person, *, folders: tuple[str, ...] = ("new", "cur")
) -> Iterator[tuple[Path, Message]]:
    """Yield the mails to a person that the local catcher holds, with their files.

    A mail program moves a mail from `new` to `cur` when it has shown it.
    """
    for path in (path for folder in folders for path in sorted((maildir / folder).glob("*"))):
        try:
            message = message_from_bytes(path.read_bytes())
        except FileNotFoundError:
            continue
        fields = [str(value) for header in ("To", "Cc", "Bcc") for value in message.get_all(header, [])]
        if {address.lower() for _, address in getaddresses(fields)} & set(person.addresses):
            yield path, message


def _names_somewhere(content: Content, person: Person) -> bool:
    """Whether an id or an address stands anywhere: most files have none, and to decode lines takes much longer."""
    # An escape may stand for a part of an id, whatever it is.
    texts = [b"\\u", *{text.encode() for text in person.written}, *{one.encode().lower() for one in person.addresses}]
    longest, rest = max(map(len, texts)), b""
    with content.open() as stream:
        while block := stream.read(BLOCK):
            window = rest + block
            lowered = window.lower()
            if any(text in window or text in lowered for text in texts):
                return True
            rest = window[-longest:]
    return False


def _lines_of(content: Content, source: Source, person: Person, measured: Measured, now: datetime) -> Iterator[int]:
    """Yield the numbers of the lines of a person; of a row of CSV those of all its lines."""
    decode = decoder(source, loaded_at=now)
    after_theirs = None
    with reading(content, source, START, measured) as batches:
        for batch in batches:
            rows = [(number, is_theirs(person, decode, text, source)) for number, text in batch.records]
            rows += [(one.line, person.is_named_in(one.payload, source.id_fields)) for one in batch.rejected]
            for number, theirs in sorted(rows):
                if after_theirs is not None and source.format == "csv":
                    yield from range(after_theirs, number)
                after_theirs = None
                if theirs:
                    yield number
                    after_theirs = number + 1
    if after_theirs is not None and source.format == "csv":
        # Rows that somebody has added meanwhile are not theirs.
        with content.open(stop=measured.size) as stream:
            yield from range(after_theirs, sum(1 for _ in stream) + 1)


def _cuts(content: Content, numbers: set[int]) -> Iterator[_Cut]:
    start = 0
    with content.open() as stream:
        for number, line in enumerate(stream, start=1):
            if number in numbers:
                yield _Cut(start, start + len(line.rstrip(b"\r\n")))
            start += len(line)


def _blank(path: Path, cuts: list[_Cut], blank: bytes) -> None:
    with path.open("r+b", buffering=0) as file:
        for cut in cuts:
            os.pwrite(file.fileno(), blank * (cut.stop - cut.start), cut.start)
        os.fsync(file.fileno())


def _without_lines(content: Content, cuts: list[_Cut]) -> None:
    with content.path.open("rb") as plain:
        compression = COMPRESSIONS[plain.read(2)]
    at = 0
    with (
        content.open() as stream,
        _replacing(content.path) as beside,
        pa.CompressedOutputStream(str(beside), compression) as packed,
    ):
        for cut in cuts:
            packed.write(stream.read(cut.start - at))
            stream.read(cut.stop - cut.start)
            at = cut.stop
        while block := stream.read(BLOCK):
            packed.write(block)


def _without_rows(path: Path, numbers: set[int], read: Position) -> Position:
    """Write a file of Parquet without these rows; return how far it is read now."""
    kept = first = 0
    with (
        pq.ParquetFile(path) as file,
        _replacing(path) as beside,
        pq.ParquetWriter(beside, file.schema_arrow) as writer,
    ):
        for group in range(file.num_row_groups):
            table = file.read_row_group(group)
            mask = [first + row not in numbers for row in range(1, table.num_rows + 1)]
            writer.write_table(table.filter(pa.array(mask)))
            first += table.num_rows
            kept += sum(mask)
    return Position(path.stat().st_size, kept) if read != START else START


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Yield a file that takes the place of another, and its mode, when it is whole."""
    with replacing(path) as beside:
        yield beside
        beside.chmod(path.stat().st_mode & 0o7777)
