"""Files into `raw.events`, on real servers: received = stored + duplicate + rejected."""

import gzip
import json
import os
import secrets
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import rows
from upnext.errors import UpnextError
from upnext.events import records
from upnext.events import rejects as events_rejects
from upnext.events.files import find_files, find_landed
from upnext.events.ingest import Ingested, ingest
from upnext.events.ledger import not_loaded
from upnext.events.source import Source
from upnext.project import Project

LOADED_AT = datetime(2026, 4, 1, tzinfo=UTC)


def line(number: int, **fields: Any) -> bytes:
    event = {"type": "track", "event": "login", "userId": f"u{number}", "messageId": f"m{number}", **fields}
    return json.dumps(event).encode()


def load(project: Project, path: Path, source: str = "segment", *, at: datetime = LOADED_AT) -> Ingested:
    return ingest(project.engine, find_files([path], source=source), sources=project.sources, loaded_at=at)


def age_of(path: Path, **age: float) -> datetime:
    """Return the instant at which a file has not changed for so long."""
    return datetime.fromtimestamp(path.stat().st_ctime, UTC) + timedelta(**age)


def use_source(project: Project, **declared: Any) -> None:
    """Declare the source `shop`, and no other."""
    mapping = {
        "description": "A shop.", "format": "json", "message_id": ["id"], "user_id": "user", "properties": ["amount"],
        "occurred_at": {"field": "at", "unit": "rfc3339"}, "event": {"field": "what"},
    }  # fmt: skip
    project.sources = {"shop": msgspec.convert({**mapping, **declared}, Source)}


def balance(project: Project) -> tuple[int, int, int, int]:
    """Return received, stored, duplicate and rejected by the ledger, which the tables must bear out."""
    ((received, stored, duplicate, rejected),) = rows(
        project, "select sum(received), sum(stored), sum(duplicate), sum(rejected) from raw.loads"
    )
    assert received == stored + duplicate + rejected
    assert rows(project, "select count(*) from raw.events") == [(stored,)]
    assert rows(project, "select count(*) from raw.rejected_events") == [(rejected,)]
    return int(received), int(stored), int(duplicate), int(rejected)


def rejects(project: Project) -> list[Any]:
    return rows(project, "select line, reason from raw.rejected_events order by load_id, line")


def write(path: Path, *lines: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\n".join(lines))
    return path


@pytest.mark.other_servers
def test_every_line_is_accounted_for(project: Project, tmp_path: Path) -> None:
    path = write(
        tmp_path / "events.jsonl",
        b"\xef\xbb\xbf" + line(1), b"", line(2), line(2), b"{broken", b"\xff\xfe{", line(3, type="odd"),
        line(4, properties={"big": 10**30, "name": "Robert'); drop table raw.events;--"}), b"   ",
        line(5, event="x\ty\\n\\."),
    )  # fmt: skip
    assert load(project, path) == Ingested(received=8, stored=4, duplicate=1, rejected=3, files=1)
    assert rows(project, "select message_id from raw.events order by 1") == [("m1",), ("m2",), ("m4",), ("m5",)]
    assert rows(project, "select line, reason, payload from raw.rejected_events order by line") == [
        (5, "invalid_json", "{broken"),
        (6, "invalid_utf8", "\\xff\\xfe{"),
        (7, "unknown_type", line(3, type="odd").decode()),
    ]
    assert rows(project, "select (properties ->> 'big') from raw.events where message_id = 'm4'") == [(str(10**30),)]
    assert rows(project, "select event from raw.events where message_id = 'm5'") == [("x\ty\\n\\.",)]
    assert rows(project, "select received, stored, duplicate, rejected from raw.loads") == [(8, 4, 1, 3)]


def test_a_file_is_loaded_once_whatever_its_name(project: Project, tmp_path: Path) -> None:
    first = write(tmp_path / "a" / "events.jsonl", line(1), line(2))
    assert load(project, first).stored == 2
    assert load(project, first) == Ingested(files=1, files_already_loaded=1)
    copy = write(tmp_path / "a" / "copy.jsonl", line(1), line(2))
    assert load(project, copy) == Ingested(files=1, files_already_loaded=1)
    assert rows(project, "select count(*) from raw.events") == [(2,)]


def test_the_same_id_from_two_sources_is_two_events(project: Project, tmp_path: Path) -> None:
    song = {"userId": "1", "sessionId": 1, "itemInSession": 1, "ts": 1541106106796, "page": "Home"}
    load(project, write(tmp_path / "s.json", json.dumps(song).encode()), source="playlist")
    load(project, write(tmp_path / "t.json", line(1, messageId="1/1/1/1541106106796")))
    assert rows(project, "select source from raw.events order by 1") == [("playlist",), ("segment",)]


def test_the_ledger_tells_what_waits(project: Project, tmp_path: Path) -> None:
    write(tmp_path / "landing" / "segment" / "one.jsonl", line(1))
    write(tmp_path / "landing" / "segment" / "two.jsonl.part", line(2))
    write(tmp_path / "landing" / "segment" / ".hidden", line(3))
    landed = find_landed(tmp_path / "landing", {"segment"})
    assert [file.path.name for file in landed] == ["one.jsonl"]
    for named in ("two.jsonl.part", ".hidden"):
        with pytest.raises(UpnextError, match="is hidden, or named as what is not whole yet"):
            find_files([tmp_path / "landing" / "segment" / named], source="segment")
    with project.engine.connect() as connection:
        assert not_loaded(connection, landed, now=LOADED_AT) == landed
    ingest(project.engine, landed, sources=project.sources, loaded_at=LOADED_AT)
    with project.engine.connect() as connection:
        assert not_loaded(connection, landed, now=LOADED_AT) == []


def test_a_file_of_many_chunks(project: Project, tmp_path: Path) -> None:
    count = 45_000
    path = write(tmp_path / "large.jsonl", *(line(number) for number in range(count)), b"x", b"")
    assert load(project, path) == Ingested(received=count + 1, stored=count, rejected=1, files=1)
    assert rows(project, "select line from raw.rejected_events") == [(count + 1,)]


def test_an_empty_file_is_loaded(project: Project, tmp_path: Path) -> None:
    assert load(project, write(tmp_path / "empty.jsonl")) == Ingested(files=1)


def test_a_line_without_end_is_one_reject(project: Project, tmp_path: Path) -> None:
    path = write(tmp_path / "long.jsonl", b'{"x":"' + b"y" * 1_000_000, line(2))
    assert load(project, path) == Ingested(received=2, stored=1, rejected=1, files=1)
    assert rows(project, "select reason from raw.rejected_events") == [("too_large",)]


def test_unknown_sources_and_paths(project: Project, tmp_path: Path) -> None:
    path = write(tmp_path / "events.jsonl", line(1))
    with pytest.raises(UpnextError, match="unknown source 'playlst'; did you mean 'playlist'"):
        load(project, path, source="playlst")
    with pytest.raises(UpnextError, match="no such file"):
        find_files([tmp_path / "nowhere"], source="segment")
    assert rows(project, "select count(*) from raw.loads") == [(0,)]


def test_bytes_that_are_no_text_are_kept_as_they_are(project: Project, tmp_path: Path) -> None:
    payloads = [b'{"a":"\xff"}', b'{"a":"\x00"}', b'{"a":"\\xff"', b'{"a":"\\ud800","type":"track"}']
    load(project, write(tmp_path / "events.jsonl", *payloads, b""))
    shown = rows(project, "select payload, payload_bytes from raw.rejected_events order by line")
    assert [row[0] for row in shown] == [
        '{"a":"\\xff"}',
        '{"a":"\\x00"}',
        '{"a":"\\xff"',
        '{"a":"\\ud800","type":"track"}',
    ]
    assert [row[1] for row in shown] == [payloads[0], payloads[1], None, None]


@pytest.mark.other_servers
def test_the_same_id_with_other_contents_is_a_conflict(project: Project, tmp_path: Path) -> None:
    times = {"originalTimestamp": "2026-03-01T00:00:00Z", "timestamp": "2026-03-01T00:00:00Z"}
    sent = {**times, "sentAt": "2026-03-01T00:00:01Z", "receivedAt": "2026-03-01T00:00:02Z"}
    again = {**sent, "sentAt": "2026-03-01T00:05:00Z", "receivedAt": "2026-03-01T00:05:02Z"}
    path = write(
        tmp_path / "events.jsonl",
        line(1, **sent, properties={"a": 1, "b": 2}),
        line(1, **{**again, "timestamp": "2026-03-01T00:00:01Z"}, properties={"b": 2, "a": 1.0}, context={"ip": "x"}),
        line(1, **sent, properties={"a": 2, "b": 2}),
        line(1, **sent, event="logout", properties={"a": 1, "b": 2}),
        line(1, **sent, userId="other", properties={"a": 1, "b": 2}),
        line(1, **{**sent, "originalTimestamp": "2026-03-01T00:00:00.5Z"}, properties={"a": 1, "b": 2}),
        line(1, **times, properties={"a": 1, "b": 2}),
        line(1, **{**times, "timestamp": "2026-03-01T00:00:07Z"}, properties={"a": 1, "b": 2}),
    )  # fmt: skip
    assert load(project, path).counts == {
        "received": 8, "stored": 1, "duplicate": 2, "rejected": 5, "files": 1, "files_already_loaded": 0,
    }  # fmt: skip
    assert rejects(project) == [(number, "conflict") for number in (3, 4, 5, 6, 8)]
    assert rows(project, "select user_id, event, properties ->> 'a' from raw.events") == [("u1", "login", "1")]
    assert balance(project) == (8, 1, 2, 5)
    again_later = load(project, write(tmp_path / "later.jsonl", line(1, **sent, event="logout")))
    assert (again_later.stored, again_later.rejected) == (0, 1)


@pytest.mark.other_servers
def test_what_only_postgres_cannot_hold_takes_no_neighbours_along(project: Project, tmp_path: Path) -> None:
    def number(count: int, text: bytes) -> bytes:
        return line(count, properties={"x": 0}).replace(b'"x": 0', b'"x": ' + text)

    bad = {30: b"0." + b"1" * 20_000, 77: b"1e-300" + b"0" * 20}
    numbers = [number(count, bad.get(count, b"1e300")) for count in range(1, 101)]
    assert load(project, write(tmp_path / "events.jsonl", *numbers, b"")) == Ingested(100, 98, 0, 2, files=1)
    assert rejects(project) == [(count, "number_out_of_range") for count in bad]
    assert rows(project, "select payload from raw.rejected_events where line = 30") == [(numbers[29].decode(),)]
    assert balance(project) == (100, 98, 0, 2)


def test_an_id_that_returns_after_batches_of_new_ones(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "BATCH_RECORDS", 10)
    numbers = [*range(35), 3, *range(36, 60), 40, 41, *range(62, 90)]
    path = write(tmp_path / "events.jsonl", *(line(number) for number in numbers), line(7, event="logout"), b"")
    assert load(project, path) == Ingested(received=91, stored=87, duplicate=3, rejected=1, files=1)
    assert rejects(project) == [(91, "conflict")]
    assert balance(project) == (91, 87, 3, 1)


def test_a_file_that_grows_is_read_on(project: Project, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(line(1) + b"\n{broken\n" + line(2)[:-9])
    waits = (f"{path}: its end may be incomplete, and waits",)
    assert load(project, path) == Ingested(received=2, stored=1, rejected=1, files=1, waiting=waits)
    path.write_bytes(line(1) + b"\n{broken\n" + line(2) + b"\n" + line(3))
    assert load(project, path) == Ingested(received=2, stored=2, files=1)
    with path.open("ab") as stream:
        stream.write(b"\n\n{broken\n" + line(4))
    assert load(project, path) == Ingested(received=2, stored=1, rejected=1, files=1)
    assert load(project, path) == Ingested(files=1, files_already_loaded=1)
    assert rejects(project) == [(2, "invalid_json"), (6, "invalid_json")]
    assert rows(project, "select change from raw.loads order by load_id") == [(None,), ("grew",), ("grew",)]
    assert balance(project) == (6, 4, 0, 2)


def test_a_file_that_is_replaced_or_cut_is_flagged(project: Project, tmp_path: Path) -> None:
    path = write(tmp_path / "events.jsonl", line(1), line(2), b"")
    load(project, path)
    write(path, line(3), line(2), b"")
    replaced = load(project, path)
    assert (replaced.stored, replaced.duplicate) == (1, 1)
    assert "events.jsonl: was replaced since it was loaded" in replaced.changed[0]
    write(path, line(3), b"")
    cut = load(project, path)
    assert (cut.stored, cut.duplicate) == (0, 1)
    assert "was cut since it was loaded" in cut.changed[0]
    assert rows(project, "select change from raw.loads order by load_id") == [(None,), ("replaced",), ("cut",)]


def test_a_line_that_goes_on_differently_is_a_replaced_file(project: Project, tmp_path: Path) -> None:
    path = write(tmp_path / "events.jsonl", line(1))
    load(project, path)
    path.write_bytes(line(1) + b"x\n" + line(2) + b"\n")
    assert (load(project, path).stored, rejects(project)) == (1, [(1, "invalid_json")])
    assert rows(project, "select change from raw.loads order by load_id") == [(None,), ("replaced",)]


@pytest.mark.parametrize(
    ("name", "pack"),
    [("gz", gzip.compress), ("zst", lambda content: pa.Codec("zstd").compress(content, asbytes=True))],
)
def test_packed_files(project: Project, tmp_path: Path, name: str, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / f"events.jsonl.{name}"
    path.write_bytes(pack(line(1) + b"\n{broken\n"))
    assert load(project, path) == Ingested(received=2, stored=1, rejected=1, files=1)
    plain = write(tmp_path / "plain.jsonl", line(1), b"{broken", b"")
    assert load(project, plain) == Ingested(files=1, files_already_loaded=1)
    with path.open("ab") as stream:
        stream.write(pack(line(2) + b"\n"))
    assert load(project, path) == Ingested(received=1, stored=1, files=1)
    path.write_bytes(pack(b"".join(line(number) for number in range(100)))[:-20])
    assert "cannot be unpacked" in load(project, path).refused[0]
    assert balance(project) == (3, 2, 0, 1)


def test_a_bomb_is_refused(project: Project, tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.jsonl.gz"
    with gzip.open(bomb, "wb") as stream:
        for _ in range(64):
            stream.write(b" " * 1024 * 1024)
    good = write(tmp_path / "good.jsonl", line(1))
    done = ingest(
        project.engine, find_files([bomb, good], source="segment"), sources=project.sources, loaded_at=LOADED_AT
    )
    assert (done.stored, len(done.refused)) == (1, 1)
    assert "bomb.jsonl.gz: unpacks to more than 200 times its size" in done.refused[0]
    assert rows(project, "select path, reason from raw.refused_files") == [
        (str(bomb), "unpacks to more than 200 times its size")
    ]
    bomb.write_bytes(gzip.compress(line(2)))
    assert load(project, bomb).stored == 1
    assert rows(project, "select count(*) from raw.refused_files") == [(0,)]


def test_csv(project: Project, tmp_path: Path) -> None:
    use_source(project, format="csv", delimiter=";")
    path = tmp_path / "shop.csv"
    header, day = b"id;user;at;what;amount;more\n", b"2026-03-01T00:00:00Z"
    path.write_bytes(
        header
        + b'1;u1;%s;"bought;\nmuch";12.5;x\n2;u2;%s;bought;7\n3;u3;yesterday;bought;7;x\n4;;%s;b;7;x\n5;u5;%s;b;;x'
        % (day, day, day, day)
    )
    settled = age_of(path, minutes=2)
    assert load(project, path, "shop", at=settled) == Ingested(received=5, stored=2, rejected=3, files=1)
    assert rows(project, "select message_id, event, properties from raw.events order by 1") == [
        ("1", "bought;\nmuch", {"amount": "12.5"}), ("5", "b", {}),
    ]  # fmt: skip
    assert rejects(project) == [(4, "ragged_row"), (5, "invalid_timestamp"), (6, "no_user")]
    with path.open("ab") as stream:
        stream.write(b"\n6;u6;%s;b;;x\n" % day)
    assert load(project, path, "shop") == Ingested(received=1, stored=1, files=1)
    other = tmp_path / "other.csv"
    other.write_bytes(b"id;user;at\n1;2;3\n")
    assert "lacks 'what'" in load(project, other, "shop").refused[0]
    assert balance(project) == (6, 3, 0, 3)


def test_the_last_row_of_a_csv_waits_until_its_file_has_settled(project: Project, tmp_path: Path) -> None:
    use_source(project, format="csv", settles_after="2 minutes")
    path = tmp_path / "landing" / "shop" / "orders.csv"
    day = b"2026-03-01T00:00:00Z"
    write(path, b"id,at,what,amount,user", b"1,%s,bought,7,u1" % day, b"2,%s,bought,7,12" % day)

    def waiting(at: datetime) -> list[str]:
        with project.engine.connect() as connection:
            landed = find_landed(tmp_path / "landing", {"shop"})
            return [file.path.name for file in not_loaded(connection, landed, now=at)]

    def users() -> list[Any]:
        return rows(project, "select message_id, user_id from raw.events order by 1")

    young, settled = age_of(path, minutes=1), age_of(path, minutes=3)
    waits = Ingested(received=1, stored=1, files=1, waiting=(f"{path}: its end may be incomplete, and waits",))
    assert load(project, path, "shop", at=young) == waits
    assert users() == [("1", "u1")]
    assert (waiting(young), waiting(settled)) == ([], [path.name])
    with path.open("ab") as stream:
        stream.write(b"34")
    assert load(project, path, "shop", at=young) == replace(waits, received=0, stored=0), "nothing more can be read"
    with path.open("ab") as stream:
        stream.write(b"5\n3,%s,bought,7,u3" % day)
    assert load(project, path, "shop", at=young) == waits
    assert users() == [("1", "u1"), ("2", "12345")], "no customer was invented"
    settled = age_of(path, minutes=3)
    assert load(project, path, "shop", at=settled) == Ingested(received=1, stored=1, files=1)
    assert users() == [("1", "u1"), ("2", "12345"), ("3", "u3")]
    assert waiting(settled) == []
    assert balance(project) == (3, 3, 0, 0)


def test_a_row_of_several_lines_that_is_half_written_waits_too(project: Project, tmp_path: Path) -> None:
    use_source(project, format="csv")
    path = tmp_path / "landing" / "shop" / "orders.csv"
    day = b"2026-03-01T00:00:00Z"
    write(path, b"id,at,what,amount,user", b"1,%s,bought,7,u1" % day, b'2,%s,"bought' % day, b"two", b"")
    waits = Ingested(files=1, waiting=(f"{path}: its end may be incomplete, and waits",))
    assert load(project, path, "shop", at=age_of(path, minutes=0)) == replace(waits, received=1, stored=1)
    with path.open("ab") as stream:
        stream.write(b'or three",7,u2\n3,%s,"bought,7,u3\n4,%s,bought,7,u4\n' % (day, day))
    assert load(project, path, "shop", at=age_of(path, minutes=0)) == replace(waits, received=1, stored=1)
    assert rows(project, "select event, user_id from raw.events order by 2") == [
        ("bought", "u1"), ("bought\ntwo\nor three", "u2"),
    ]  # fmt: skip
    settled = load(project, path, "shop", at=age_of(path, minutes=2))
    assert settled == Ingested(received=2, stored=1, rejected=1, files=1), "a quote that is never closed"
    assert rejects(project) == [(6, "unclosed_quote")]
    assert balance(project) == (4, 3, 0, 1)


def test_a_last_line_of_json_that_cannot_be_read_waits_for_a_day_and_is_a_reject_then(
    project: Project, tmp_path: Path
) -> None:
    path = write(tmp_path / "log.jsonl", line(1), line(2)[:30])
    waits = Ingested(files=1, waiting=(f"{path}: its end may be incomplete, and waits",))
    assert load(project, path, at=age_of(path, minutes=1)) == replace(waits, received=1, stored=1)
    with path.open("ab") as stream:
        stream.write(line(2)[30:] + b"\n" + line(3)[:40])
    assert load(project, path, at=age_of(path, hours=23)) == replace(waits, received=1, stored=1)
    assert load(project, path, at=age_of(path, hours=25)) == Ingested(received=1, rejected=1, files=1)
    assert rejects(project) == [(3, "invalid_json")]
    assert rows(project, "select payload from raw.rejected_events") == [(line(3)[:40].decode(),)]
    assert balance(project) == (3, 2, 0, 1)
    with path.open("ab") as stream:
        stream.write(line(3)[40:] + b"\n")
    assert load(project, path, at=age_of(path, minutes=1)).stored == 1, "its writer was only slow"
    assert rows(project, "select message_id from raw.events order by 1") == [("m1",), ("m2",), ("m3",)]


def test_a_csv_that_is_written_over_and_grows_again_waits_as_any(project: Project, tmp_path: Path) -> None:
    use_source(project, format="csv", settles_after="2 minutes")
    path = tmp_path / "landing" / "shop" / "orders.csv"
    header, day = b"id,at,what,amount,user", b"2026-03-01T00:00:00Z"
    first = (header, b"1,%s,bought,7,u1" % day, b"")
    for lines in (first, (header, b"2,%s,bought,7,u2" % day, b"")):
        write(path, *lines)
        assert load(project, path, "shop", at=age_of(path, minutes=1)).stored == 1
    write(path, *first[:2], b"3,%s,bought,7,u3" % day)
    for _ in range(2):
        done = load(project, path, "shop", at=age_of(path, minutes=1))
        assert (done.stored, len(done.waiting), done.refused) == (0, 1, ())
    write(path, *first[:2], b"3,%s,bought,7,u3" % day, b"4,bou")
    assert load(project, path, "shop", at=age_of(path, minutes=3)).counts["rejected"] == 1
    assert rows(project, "select message_id from raw.events order by 1") == [("1",), ("2",), ("3",)]
    assert rejects(project) == [(4, "ragged_row")], "a row that is cut is told when it has settled"


def test_a_file_replaced_by_one_of_its_size_and_time_is_seen(project: Project, tmp_path: Path) -> None:
    path = write(tmp_path / "landing" / "segment" / "one.jsonl", line(1), b"")

    def waiting() -> int:
        with project.engine.connect() as connection:
            return len(not_loaded(connection, find_landed(tmp_path / "landing", {"segment"}), now=LOADED_AT))

    load(project, path)
    assert waiting() == 0
    before = path.stat()
    other = write(tmp_path / "other.jsonl", line(2), b"")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.rename(path)
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert waiting() == 1
    assert load(project, path).stored == 1
    with path.open("r+b") as stream:
        stream.write(line(3))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert waiting() == 1, "written over in its place"
    assert load(project, path).stored == 1
    assert waiting() == 0


def test_a_path_may_be_long(project: Project, tmp_path: Path) -> None:
    folder = tmp_path / "landing" / "segment"
    for _ in range(14):
        folder /= secrets.token_hex(100)
    good, bad = write(folder / "one.jsonl", line(1)), write(folder / "bad.gz", b"\x1f\x8b broken")
    done = ingest(
        project.engine, find_files([good, bad], source="segment"), sources=project.sources, loaded_at=LOADED_AT
    )
    assert (done.stored, len(done.refused)) == (1, 1)
    assert load(project, good) == Ingested(files=1, files_already_loaded=1)


def test_a_message_id_of_any_length_stops_no_neighbour(project: Project, tmp_path: Path) -> None:
    long = {"event": "message unsubscribed", "properties": {"message_id": secrets.token_hex(4000)}}
    path = write(tmp_path / "events.jsonl", line(1), line(2, **long), line(3))
    assert load(project, path) == Ingested(received=3, stored=3, files=1)


def test_parquet(project: Project, tmp_path: Path) -> None:
    use_source(project, format="parquet")
    times = [datetime(2026, 3, 1, tzinfo=UTC), None, datetime(2026, 3, 2, tzinfo=UTC)]
    columns = {"id": [1, 2, 3], "user": ["u1", "u2", "u3"], "what": ["a", "b", None], "amount": [1.5, 2.0, None]}
    table = pa.table({**columns, "at": pa.array(times, pa.timestamp("ns", "Europe/Berlin")), "more": ["x"] * 3})
    path = tmp_path / "shop.parquet"
    pq.write_table(table, path)
    assert load(project, path, "shop") == Ingested(received=3, stored=1, rejected=2, files=1)
    assert rows(project, "select message_id, event, occurred_at, properties, flags from raw.events") == [
        ("1", "a", times[0], {"amount": 1.5}, None)
    ]
    assert rejects(project) == [(2, "invalid_timestamp"), (3, "no_event")]
    naive = tmp_path / "naive.parquet"
    pq.write_table(table.slice(0, 1).set_column(4, "at", pa.array([datetime(2026, 3, 3)], pa.timestamp("us"))), naive)  # noqa: DTZ001
    assert load(project, naive, "shop").rejected == 1, "the same id with another time"
    empty = tmp_path / "empty.parquet"
    pq.write_table(table.slice(0, 0), empty)
    assert load(project, empty, "shop") == Ingested(files=1)
    wrong = tmp_path / "wrong.parquet"
    for column, values in (("at", pa.array([2**62] * 3, pa.timestamp("us", "UTC"))),
                           ("what", pa.array([b"\xff"] * 3).view(pa.string()))):  # fmt: skip
        pq.write_table(table.set_column(table.schema.get_field_index(column), column, values), wrong)
        assert "holds a value that cannot be read" in load(project, wrong, "shop").refused[0]
    pq.write_table(table.set_column(1, "user", pa.array([[1], [2], [3]])), wrong)
    assert "column 'user' is list" in load(project, wrong, "shop").refused[0]
    for blown in (pa.array([0] * 100), pa.array([*range(1, 91), *[0] * 10])):
        texts = pa.DictionaryArray.from_arrays(blown, pa.array(["x" * 1_000_000, *map(str, range(100))]))
        same = {name: pa.array([value] * 100) for name, value in (("id", 1), ("user", "u1"), ("amount", 1.0))}
        pq.write_table(pa.table({**same, "what": texts, "at": pa.array([times[0]] * 100)}), wrong)
        assert "unpacks to more than 200 times its size" in load(project, wrong, "shop").refused[0]
    many = {"id": pa.array(range(40_000)), "what": pa.array(f"{number}{'x' * 900}" for number in range(40_000))}
    rest = {name: pa.array([value] * 40_000) for name, value in (("user", "u1"), ("amount", 1.0), ("at", times[0]))}
    pq.write_table(pa.table({**many, **rest}), wrong, dictionary_pagesize_limit=2**30)
    assert "column 'what' has a dictionary of 3" in load(project, wrong, "shop").refused[0]
    pq.write_table(table.drop_columns(["at"]), wrong)
    assert "no column 'at'" in load(project, wrong, "shop").refused[0]
    wrong.write_bytes(path.read_bytes()[:-100])
    assert "cannot be read as Parquet" in load(project, wrong, "shop").refused[0]
    assert balance(project) == (4, 1, 0, 3)


def test_what_does_not_belong_into_landing(project: Project, tmp_path: Path) -> None:
    landing, outside = tmp_path / "landing", tmp_path / "outside"
    write(landing / "segment" / "good.jsonl", line(1))
    write(landing / "segmnet" / "stray.jsonl", line(2))
    write(landing / "beside.jsonl", line(3))
    secret = write(outside / "secret.jsonl", line(4))
    (landing / "segment" / "link.jsonl").symlink_to(secret)
    (landing / "segment" / "up.jsonl").symlink_to("../../outside/secret.jsonl")
    (landing / "segment" / "folder").symlink_to(outside)
    (landing / "segment" / "loop").symlink_to("loop")
    (landing / "playlist").symlink_to(outside)
    done = ingest(
        project.engine, find_landed(landing, {"segment", "playlist"}), sources=project.sources, loaded_at=LOADED_AT
    )
    assert (done.stored, done.received) == (1, 1)
    refused = dict(rows(project, "select path, reason from raw.refused_files"))
    out = "a link that leads out of the landing folder"
    assert {Path(path).relative_to(landing).as_posix(): reason for path, reason in refused.items()} == {
        "beside.jsonl": "lies beside the folders of the sources; move it to segment/, or to its own",
        "segmnet": "the folder names no source; did you mean 'segment'?",
        "segment/loop": "a link that leads to no file",
        **dict.fromkeys(("segment/folder", "segment/link.jsonl", "segment/up.jsonl", "playlist"), out),
    }
    with project.engine.connect() as connection:
        assert not_loaded(connection, find_landed(landing, {"segment", "playlist"}), now=LOADED_AT) == []


def test_a_file_whose_name_is_no_text(project: Project, tmp_path: Path) -> None:
    path = write(tmp_path / os.fsdecode(b"caf\xe9.jsonl"), line(1))
    assert load(project, path).stored == 1
    assert load(project, path).files_already_loaded == 1
    assert rows(project, "select path from raw.loads") == [(f"{tmp_path}/caf\\xe9.jsonl",)]


def test_a_file_that_is_taken_away(project: Project, tmp_path: Path) -> None:
    files = find_files([write(tmp_path / "a.jsonl", line(1)), write(tmp_path / "b.jsonl", line(2))], source="segment")
    (tmp_path / "a.jsonl").unlink()
    done = ingest(project.engine, files, sources=project.sources, loaded_at=LOADED_AT)
    assert (done.stored, done.refused) == (1, (f"{tmp_path / 'a.jsonl'}: cannot be read: No such file or directory",))
    assert rows(project, "select count(*) from raw.refused_files") == [(0,)]


def test_a_mended_mapping_accepts_what_was_rejected(project: Project, tmp_path: Path) -> None:
    use_source(project, occurred_at={"field": "when", "unit": "rfc3339"})
    shop = [
        {"id": number, "user": f"u{number}", "at": "2026-03-01T00:00:00Z", "what": "bought"} for number in range(1, 4)
    ]
    lines = [json.dumps(record).encode() for record in shop]
    load(project, write(tmp_path / "shop.jsonl", *lines, lines[0], b"{broken", b""), "shop")
    assert balance(project) == (5, 0, 0, 5)
    use_source(project)
    load(project, write(tmp_path / "more.jsonl", lines[1], lines[2].replace(b"bought", b"sold"), b""), "shop")
    done = events_rejects.replay(project.engine, project.sources)
    assert done == events_rejects.Replayed(tried=5, stored=1, duplicate=2, rejected=2)
    assert balance(project) == (7, 3, 2, 2)
    assert rejects(project) == [(3, "conflict"), (5, "invalid_json")]
    assert rows(project, "select replayed from raw.loads where replay_of is null order by load_id") == [(3,), (0,)]
    assert events_rejects.replay(project.engine, project.sources) == events_rejects.Replayed(tried=2, rejected=2)
    assert balance(project) == (7, 3, 2, 2)
    summary = events_rejects.summarise(project.engine)
    assert [(row["reason"], row["lines"], row["place"]) for row in summary] == [
        ("conflict", 1, f"{tmp_path / 'shop.jsonl'}:3"), ("invalid_json", 1, f"{tmp_path / 'shop.jsonl'}:5"),
    ]  # fmt: skip
