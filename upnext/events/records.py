"""Readers: a file's content as numbered JSON lines, in batches of bounded size. Pure but for the stream they read."""

import csv
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from upnext.errors import nearest
from upnext.events.event import MAX_BYTES, Reject
from upnext.events.files import GROWTH_COUNTS_FROM, MAX_GROWTH, Refused
from upnext.events.source import Source

BATCH_RECORDS = 25_000
BATCH_BYTES = 8 * 1024 * 1024
BLOCK_BYTES = 2 * 1024 * 1024
BLANKS = b" \t\r"
BOM = b"\xef\xbb\xbf"
MAX_LINE = 1024 * 1024
MAX_LINES_A_ROW = 1_000
PARQUET_ROWS = 1_000
PARQUET_BUFFER = 1024 * 1024
# A dictionary is in memory as a whole, and takes several times its size. Writers stop at 1 MB unless told otherwise.
MAX_DICTIONARY = 32 * 1024 * 1024

# Reasons of rows that are no records: no mapping can accept them.
UNREADABLE = ("ragged_row", "unclosed_quote", "invalid_csv")


class Position(NamedTuple):
    """A place in a file's content: how many bytes, and how many ended lines, lie before it."""

    bytes: int
    lines: int


START = Position(0, 0)


class Rejected(NamedTuple):
    """A line that was not stored: its number, its bytes, and why."""

    line: int
    payload: bytes
    reject: Reject


class Batch(NamedTuple):
    """Numbered JSON lines, what the reader itself rejected, and where the next batch begins.

    `is_unfinished`: it holds a single record, which the end of the file may have cut.
    """

    records: list[tuple[int, bytes]]
    rejected: list[Rejected]
    end: Position
    is_unfinished: bool = False


class _Line(NamedTuple):
    number: int
    text: bytes
    end: int


def read_lines(stream: BinaryIO, at: Position) -> Iterator[Batch]:
    """Read JSON lines; blank ones are left out. `stream` stands at `at`."""
    records: list[tuple[int, bytes]] = []
    end, size = at, 0
    for run in _runs(stream, is_start=at == START):
        if run.is_unfinished:
            yield Batch(records, [], end)
            yield _unfinished(run, end)
            return
        for first in range(0, len(run.lines), BATCH_RECORDS):
            lines = run.lines[first : first + BATCH_RECORDS]
            numbered = ((number, line.strip(BLANKS)) for number, line in enumerate(lines, start=end.lines + 1))
            records += [(number, text) for number, text in numbered if text]
            length = sum(map(len, lines)) + len(lines) + (run.dropped if first == 0 else 0)
            end, size = Position(end.bytes + length, end.lines + len(lines)), size + length
            if len(records) >= BATCH_RECORDS or size > BATCH_BYTES:
                yield Batch(records, [], end)
                records, size = [], 0
    yield Batch(records, [], end)


def read_csv(stream: BinaryIO, at: Position, *, header: list[str], delimiter: str) -> Iterator[Batch]:
    """Read CSV rows as JSON objects; an empty field is left out. `stream` stands at `at`, after the header.

    A row may span lines in quotes. One that cannot be read is rejected by its first line, and the next line is
    looked at by itself, so that a quote that is never closed takes no neighbours along.
    """
    records: list[tuple[int, bytes]] = []
    rejected: list[Rejected] = []
    end, size = at, 0
    for row in _rows(_lines(stream, at), delimiter, len(header)):
        number, text = row.lines[0].number, b"".join(line.text for line in row.lines)
        if row.is_unfinished:
            yield Batch(records, rejected, end)
            records, rejected, size = [], [], 0
        end = _end(row.lines)
        size += len(text)
        if row.reject is not None:
            rejected.append(Rejected(number, text.rstrip(b"\r\n"), row.reject))
        elif row.fields:
            records.append((number, _as_json(header, row.fields)))
        if row.is_unfinished or len(records) + len(rejected) >= BATCH_RECORDS or size > BATCH_BYTES:
            yield Batch(records, rejected, end, row.is_unfinished)
            records, rejected, size = [], [], 0
    yield Batch(records, rejected, end)


def read_header(stream: BinaryIO, source: Source) -> tuple[list[str], Position]:
    """Return the header of a CSV file and where its rows begin. Raises `Refused` where it has the wrong shape."""
    row = next(_rows(_lines(stream, START), source.delimiter), None)
    if row is None:
        return [], START
    if row.reject is not None:
        raise Refused("line 1 is no CSV header")
    twice = {name for name in row.fields if row.fields.count(name) > 1}
    if twice:
        raise Refused(f"the header names '{min(twice)}' twice")
    missing = [field for field in source.fields if field not in row.fields]
    if missing:
        raise Refused(
            f"the header lacks '{missing[0]}', which the source's mapping reads{_hint(missing[0], row.fields)}"
        )
    return row.fields, _end(row.lines)


def _hint(missing: str, header: list[str]) -> str:
    """Return what a header may have meant that lacks a field."""
    if len(header) == 1:
        for delimiter in ";\t|,":
            if delimiter in header[0]:
                shown = "a tab" if delimiter == "\t" else f"'{delimiter}'"
                return f"; its fields look separated by {shown}: set `delimiter` in the source's file"
    return nearest(missing, header)


def read_parquet(path: Path, source: Source) -> Iterator[Batch]:
    """Read Parquet rows as JSON objects, numbered from 1. Raises `Refused` where columns or types are wrong.

    A file whose rows take more than `MAX_GROWTH` times its size is refused, as a compressed one is, and so is one
    with a dictionary of more than `MAX_DICTIONARY` bytes.
    """
    size = path.stat().st_size
    most, unpacked, number = max(MAX_GROWTH * size, GROWTH_COUNTS_FROM), 0, 0
    try:
        _check_columns(pq.read_schema(path), source)
        rows_at_once = _rows_at_once(path, source.fields)
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=PARQUET_BUFFER) as file:
            for rows in file.iter_batches(rows_at_once, columns=source.fields):
                plain = [_plain(column) for column in rows.columns]
                unpacked += sum(column.nbytes for column in plain)
                if unpacked > most:
                    raise Refused(f"unpacks to more than {MAX_GROWTH} times its size")
                records = [
                    (number + row, msgspec.json.encode(record))
                    for row, record in enumerate(_as_dicts(rows.schema.names, plain), start=1)
                ]
                number += rows.num_rows
                yield Batch(records, [], Position(size, number))
    except (pa.ArrowException, OSError) as error:
        raise Refused(f"cannot be read as Parquet: {str(error).splitlines()[0]}") from None
    except (ValueError, OverflowError, KeyError, TypeError) as error:
        # A text that is no UTF-8, a time beyond the year 9999, a column that stands twice: it may quote the data.
        raise Refused(f"holds a value that cannot be read ({type(error).__name__})") from None


class _Run(NamedTuple):
    """Lines without their newlines, and how many bytes are left out before the end of the first."""

    lines: list[bytes]
    dropped: int
    is_unfinished: bool = False


class _Row(NamedTuple):
    """A CSV row. `is_unfinished`: the file ends within it, before the end of its line or of its quotes."""

    lines: list[_Line]
    fields: list[str]
    is_unfinished: bool
    reject: Reject | None = None


def _lines(stream: BinaryIO, at: Position) -> Iterator[_Line]:
    end, number = at
    for run in _runs(stream, is_start=at == START):
        end += run.dropped
        for text in run.lines:
            number += 1
            end += len(text) + (not run.is_unfinished)
            yield _Line(number, text if run.is_unfinished else text + b"\n", end)


def _runs(stream: BinaryIO, *, is_start: bool) -> Iterator[_Run]:
    """Yield the lines of a block at a time. A line without end is cut at `MAX_LINE`, so that memory stays bounded."""
    rest, dropped = b"", 0
    if is_start and (begin := stream.read(len(BOM))) != BOM:
        rest = begin
    elif is_start:
        dropped = len(BOM)
    while block := stream.read(BLOCK_BYTES):
        *lines, rest = (rest + block).split(b"\n")
        if lines:
            yield _Run(lines, dropped)
            dropped = 0
        dropped += max(0, len(rest) - MAX_LINE)
        rest = rest[:MAX_LINE]
    *lines, rest = rest.split(b"\n")
    if lines:
        yield _Run(lines, dropped)
        dropped = 0
    if rest:
        yield _Run([rest], dropped, is_unfinished=True)


def _unfinished(run: _Run, end: Position) -> Batch:
    [line] = run.lines
    text = line.strip(BLANKS)
    records = [(end.lines + 1, text)] if text else []
    return Batch(records, [], Position(end.bytes + run.dropped + len(line), end.lines), is_unfinished=True)


def _rows(lines: Iterator[_Line], delimiter: str, width: int | None = None) -> Iterator[_Row]:
    """Yield rows of `width` fields; of one that cannot be read only the first line, as a reject."""
    waiting: deque[_Line] = deque()
    while (first := _next(waiting, lines)) is not None:
        row, size = [first], len(first.text)
        while True:
            is_cut = not row[-1].text.endswith(b"\n")
            try:
                fields = _parse(row, delimiter, width)
                yield _Row(row, fields, is_cut and bool(fields))
                break
            except Reject as reject:
                may_go_on = reject.reason == "unclosed_quote" and size <= MAX_BYTES and len(row) < MAX_LINES_A_ROW
                more = _next(waiting, lines) if may_go_on else None
                if more is not None:
                    row.append(more)
                    size += len(more.text)
                    continue
                waiting.extendleft(reversed(row[1:]))
                yield _Row(row[:1], [], is_cut or may_go_on, reject)
                break


def _next(waiting: deque[_Line], lines: Iterator[_Line]) -> _Line | None:
    return waiting.popleft() if waiting else next(lines, None)


def _parse(lines: list[_Line], delimiter: str, width: int | None) -> list[str]:
    """Return the fields of a row that spans these lines; none for a blank one. Raises `Reject`."""
    try:
        texts = [line.text.decode() for line in lines]
        fields = next(csv.reader(texts, delimiter=delimiter, strict=True), [])
    except UnicodeDecodeError as error:
        raise Reject("invalid_utf8", f"byte {error.start} is not UTF-8") from None
    except csv.Error as error:
        is_open = "unexpected end of data" in str(error)
        raise Reject("unclosed_quote" if is_open else "invalid_csv", str(error)) from None
    if fields and width is not None and len(fields) != width:
        raise Reject("ragged_row", f"{len(fields)} fields; the header has {width}")
    return fields


def _as_json(header: list[str], fields: list[str]) -> bytes:
    return msgspec.json.encode({name: field for name, field in zip(header, fields, strict=True) if field})


def _end(lines: list[_Line]) -> Position:
    return Position(lines[-1].end, lines[-1].number if lines[-1].text.endswith(b"\n") else lines[-1].number - 1)


def _check_columns(schema: pa.Schema, source: Source) -> None:
    if source.occurred_at is None or source.event is None:
        raise TypeError("a mapped source has an event and a time")
    missing = [field for field in source.fields if field not in schema.names]
    if missing:
        raise Refused(f"no column '{missing[0]}', which the source's mapping reads{nearest(missing[0], schema.names)}")
    time, is_epoch = source.occurred_at.field, source.occurred_at.is_number
    for field in source.fields:
        kind = schema.field(field).type
        is_text = _is_text(kind)
        is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
        if field == time:
            is_right = is_number or is_text if is_epoch else is_text or pa.types.is_timestamp(kind)
        elif field in source.properties:
            is_right = is_text or not (pa.types.is_nested(kind) or pa.types.is_binary(kind))
        else:
            is_right = is_text or is_number
        if not is_right:
            raise Refused(f"column '{field}' is {kind}, which the source's mapping cannot read")


def _is_text(kind: pa.DataType) -> bool:
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(plain) or pa.types.is_large_string(plain))


def _rows_at_once(path: Path, columns: list[str]) -> int:
    """Return how many rows to read at once, so that they take some `BATCH_BYTES`.

    A text that a dictionary holds once can be in every row: the longest one of each dictionary counts.
    """
    schema = pq.read_schema(path)
    texts = [name for name in columns if _is_text(schema.field(name).type)]
    most = PARQUET_ROWS
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=PARQUET_BUFFER, read_dictionary=texts) as file:
        for group in range(file.metadata.num_row_groups):
            shape = file.metadata.row_group(group)
            if not shape.num_rows:
                continue
            _check_dictionaries(shape, columns)
            mean = shape.total_byte_size // max(shape.num_rows, 1)
            longest = sum(map(_longest, next(file.iter_batches(1, row_groups=[group], columns=texts)))) if texts else 0
            most = min(most, BATCH_BYTES // max(mean, longest, 1))
    return max(most, 1)


def _check_dictionaries(row_group: Any, columns: list[str]) -> None:
    for column in map(row_group.column, range(row_group.num_columns)):
        if column.path_in_schema in columns and column.has_dictionary_page:
            share = (column.data_page_offset - column.dictionary_page_offset) / column.total_compressed_size
            size = int(share * column.total_uncompressed_size)
            if size > MAX_DICTIONARY:
                name, megabytes = column.path_in_schema, size // 1024**2
                raise Refused(f"column '{name}' has a dictionary of {megabytes} MB; write smaller row groups")


def _longest(texts: Any) -> int:
    """Return the bytes of the longest text in a column's dictionary."""
    lengths = pc.call_function("binary_length", [texts.dictionary])
    return pc.call_function("max", [lengths]).as_py() or 0


def _plain(column: Any) -> Any:
    """Return a column without a dictionary, and with times to the microsecond."""
    if pa.types.is_dictionary(column.type):
        return column.dictionary_decode()
    if pa.types.is_timestamp(column.type):
        return column.cast(pa.timestamp("us", column.type.tz), safe=False)
    return column


def _as_dicts(names: list[str], columns: list[Any]) -> list[dict[str, Any]]:
    values = [[_in_utc(value) for value in column.to_pylist()] for column in columns]
    return [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]


def _in_utc(value: Any) -> Any:
    return value.astimezone(UTC) if isinstance(value, datetime) and value.tzinfo else value
