"""Readers: lines and rows with their numbers, and where the next read begins."""

import io
import json

import pytest

from upnext.events import records
from upnext.events.files import Refused
from upnext.events.records import START, Batch, Position, read_csv, read_header, read_lines
from upnext.events.source import EventName, EventTime, Source

SOURCE = Source(
    description="x",
    format="csv",
    user_id="user",
    occurred_at=EventTime(field="at", unit="rfc3339"),
    event=EventName(field="event"),
)
HEADER = ["user", "at", "event"]


def lines(content: bytes, at: Position = START) -> list[Batch]:
    return [batch for batch in read_lines(io.BytesIO(content[at.bytes :]), at) if batch.records]


def rows(content: bytes) -> tuple[list[tuple[int, dict[str, str]]], list[tuple[int, str, bytes]]]:
    batches = list(read_csv(io.BytesIO(content), START, header=HEADER, delimiter=","))
    return (
        [(line, json.loads(text)) for batch in batches for line, text in batch.records],
        [(line, reject.reason, payload) for batch in batches for line, payload, reject in batch.rejected],
    )


def test_blank_lines_count_as_lines_only() -> None:
    (batch,) = lines(b'\xef\xbb\xbf{"a":1}\r\n\n  \n{"b":2}\n')
    assert batch.records == [(1, b'{"a":1}'), (4, b'{"b":2}')]
    assert batch.end == Position(24, 4)


def test_a_line_without_end_is_a_batch_of_its_own() -> None:
    whole, last = lines(b'{"a":1}\n{"b":')
    assert (whole.end, whole.is_unfinished) == (Position(8, 1), False)
    assert (last.records, last.end, last.is_unfinished) == ([(2, b'{"b":')], Position(13, 1), True)


def test_reading_goes_on_from_a_position() -> None:
    (batch,) = lines(b'{"a":1}\n{"b":2}\n', Position(8, 1))
    assert (batch.records, batch.end) == ([(2, b'{"b":2}')], Position(16, 2))


def test_batches_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "BATCH_RECORDS", 2)
    batches = lines(b"1\n2\n3\n4\n5\n")
    assert [(len(batch.records), batch.end) for batch in batches] == [
        (2, Position(4, 2)), (2, Position(8, 4)), (1, Position(10, 5)),
    ]  # fmt: skip
    monkeypatch.setattr(records, "BATCH_RECORDS", 100)
    monkeypatch.setattr(records, "BLOCK_BYTES", 5)
    assert [text for batch in lines(b"1234\n5678\n9") for _, text in batch.records] == [b"1234", b"5678", b"9"]


def test_an_endless_line_is_cut_and_its_neighbours_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MAX_LINE", 8)
    monkeypatch.setattr(records, "BLOCK_BYTES", 4)
    batches = lines(b"1\n" + b"x" * 50 + b"\n3\n" + b"y" * 20)
    read = [(line, text) for batch in batches for line, text in batch.records]
    assert [line for line, _ in read] == [1, 2, 3, 4]
    assert (read[1][1][:8], len(read[1][1]) < 16) == (b"x" * 8, True)
    assert (batches[-2].end, batches[-1].end, batches[-1].is_unfinished) == (Position(55, 3), Position(75, 3), True)


def test_rows_become_objects_without_empty_fields() -> None:
    good, bad = rows(b'u1,t1,login\r\n\r\nu2,,"a ""b"", c"\n')
    assert good == [(1, {"user": "u1", "at": "t1", "event": "login"}), (3, {"user": "u2", "event": 'a "b", c'})]
    assert bad == []


def test_a_quoted_newline_belongs_to_its_row() -> None:
    good, bad = rows(b'u1,t1,"two\nlines\n"\nu2,t2,login\n')
    assert good == [
        (1, {"user": "u1", "at": "t1", "event": "two\nlines\n"}),
        (4, {"user": "u2", "at": "t2", "event": "login"}),
    ]
    assert bad == []


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"u1,t1", "ragged_row"),
        (b"u1,t1,login,more", "ragged_row"),
        (b'u1,t1,"open', "unclosed_quote"),
        (b'u1,t1,"closed" too soon', "invalid_csv"),
        (b"u1,t1,\xff", "invalid_utf8"),
        (b"u1,t1,a\rb", "invalid_csv"),
    ],
)
def test_a_bad_row_takes_no_neighbours_along(row: bytes, reason: str) -> None:
    neighbours = b"".join(b"u%d,t,login\n" % number for number in range(3))
    good, bad = rows(neighbours + row + b"\n" + neighbours)
    assert [line for line, _ in good] == [1, 2, 3, 5, 6, 7]
    assert bad == [(4, reason, row)]


def test_a_quote_that_meets_another_takes_no_neighbours_along() -> None:
    good, bad = rows(b'u1,t1,"open\nu2,t2,"fine"\nu3,t3,login\n')
    assert [line for line, _ in good] == [2, 3]
    assert [(line, reason) for line, reason, _ in bad] == [(1, "invalid_csv")]


def test_a_last_row_without_newline_is_a_batch_of_its_own() -> None:
    *_, last, _ = read_csv(io.BytesIO(b"u1,t1,a\nu2,t2,b"), START, header=HEADER, delimiter=",")
    assert (last.is_unfinished, [line for line, _ in last.records]) == (True, [2])
    *_, last, _ = read_csv(io.BytesIO(b"u1,t1,a\nu2,t2"), START, header=HEADER, delimiter=",")
    assert (last.is_unfinished, [line.reject.reason for line in last.rejected]) == (True, ["ragged_row"])


def test_a_quote_that_is_open_at_the_end_is_a_batch_of_its_own_and_lines_after_it_are_others() -> None:
    text = b'u1,t1,a\nu2,t2,"b\nu3,t3,c\n'
    _, last, *rest = read_csv(io.BytesIO(text), START, header=HEADER, delimiter=",")
    assert (last.is_unfinished, last.end) == (True, Position(len(text) - 8, 2))
    assert [line.reject.reason for line in last.rejected] == ["unclosed_quote"]
    assert [line for batch in rest for line, _ in batch.records] == [3]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"user,at\n", "lacks 'event'"),
        (b"user,at,event,at\n", "names 'at' twice"),
        (b'user,at,"event\n', "no CSV header"),
        (b"\xff\n", "no CSV header"),
    ],
)
def test_a_header_of_the_wrong_shape(header: bytes, message: str) -> None:
    with pytest.raises(Refused, match=message):
        read_header(io.BytesIO(header), SOURCE)


def test_the_header_tells_where_rows_begin() -> None:
    assert read_header(io.BytesIO(b"\xef\xbb\xbfuser,at,event\nu1"), SOURCE) == (HEADER, Position(17, 1))
    assert read_header(io.BytesIO(b""), SOURCE) == ([], START)
