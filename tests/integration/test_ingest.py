"""Files into `raw.events`, on real servers: received = stored + duplicate + rejected."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from assets.events.files import find_files, find_landed
from assets.events.ingest import Ingested, ingest
from assets.events.ledger import not_loaded
from orchestration.errors import UpnextError
from orchestration.stages import Platform
from tests.conftest import rows

LOADED_AT = datetime(2026, 4, 1, tzinfo=UTC)


def line(number: int, **fields: Any) -> bytes:
    event = {"type": "track", "event": "login", "userId": f"u{number}", "messageId": f"m{number}", **fields}
    return json.dumps(event).encode()


def load(platform: Platform, path: Path, source: str = "segment") -> Ingested:
    return ingest(platform.engine, find_files([path], source=source), loaded_at=LOADED_AT)


def write(path: Path, *lines: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\n".join(lines))
    return path


def test_every_line_is_accounted_for(platform: Platform, tmp_path: Path) -> None:
    path = write(
        tmp_path / "events.jsonl",
        b"\xef\xbb\xbf" + line(1), b"", line(2), line(2), b"{broken", b"\xff\xfe{", line(3, type="odd"),
        line(4, properties={"big": 10**30, "name": "Robert'); drop table raw.events;--"}), b"   ",
        line(5, event="x\ty\\n\\."),
    )  # fmt: skip
    assert load(platform, path) == Ingested(received=8, stored=4, duplicate=1, rejected=3, files=1)
    assert rows(platform, "select message_id from raw.events order by 1") == [("m1",), ("m2",), ("m4",), ("m5",)]
    assert rows(platform, "select line, reason, payload from raw.rejected_events order by line") == [
        (5, "invalid_json", "{broken"),
        (6, "invalid_utf8", "\\xff\\xfe{"),
        (7, "unknown_type", line(3, type="odd").decode()),
    ]
    assert rows(platform, "select (properties ->> 'big') from raw.events where message_id = 'm4'") == [(str(10**30),)]
    assert rows(platform, "select event from raw.events where message_id = 'm5'") == [("x\ty\\n\\.",)]
    assert rows(platform, "select received, stored, duplicate, rejected from raw.loads") == [(8, 4, 1, 3)]


def test_a_file_is_loaded_once_whatever_its_name(platform: Platform, tmp_path: Path) -> None:
    first = write(tmp_path / "a" / "events.jsonl", line(1), line(2))
    assert load(platform, first).stored == 2
    assert load(platform, first) == Ingested(files=1, files_already_loaded=1)
    copy = write(tmp_path / "a" / "copy.jsonl", line(1), line(2))
    assert load(platform, copy) == Ingested(files=1, files_already_loaded=1)
    assert rows(platform, "select count(*) from raw.events") == [(2,)]


def test_the_same_id_from_two_sources_is_two_events(platform: Platform, tmp_path: Path) -> None:
    song = {"userId": "1", "sessionId": 1, "itemInSession": 1, "ts": 1541106106796, "page": "Home"}
    load(platform, write(tmp_path / "s.json", json.dumps(song).encode()), source="sparkify")
    load(platform, write(tmp_path / "t.json", line(1, messageId="1/1/1/1541106106796")))
    assert rows(platform, "select source from raw.events order by 1") == [("segment",), ("sparkify",)]


def test_the_ledger_tells_what_waits(platform: Platform, tmp_path: Path) -> None:
    write(tmp_path / "landing" / "segment" / "one.jsonl", line(1))
    write(tmp_path / "landing" / "segment" / "two.jsonl.part", line(2))
    write(tmp_path / "landing" / "segment" / ".hidden", line(3))
    landed = find_landed(tmp_path / "landing", {"segment"})
    assert [file.path.name for file in landed] == ["one.jsonl"]
    with platform.engine.connect() as connection:
        assert not_loaded(connection, landed) == landed
    ingest(platform.engine, landed, loaded_at=LOADED_AT)
    with platform.engine.connect() as connection:
        assert not_loaded(connection, landed) == []


def test_a_file_of_many_chunks(platform: Platform, tmp_path: Path) -> None:
    count = 45_000
    path = write(tmp_path / "large.jsonl", *(line(number) for number in range(count)), b"x", b"")
    assert load(platform, path) == Ingested(received=count + 1, stored=count, rejected=1, files=1)
    assert rows(platform, "select line from raw.rejected_events") == [(count + 1,)]


def test_an_empty_file_is_loaded(platform: Platform, tmp_path: Path) -> None:
    assert load(platform, write(tmp_path / "empty.jsonl")) == Ingested(files=1)


def test_a_line_without_end_is_one_reject(platform: Platform, tmp_path: Path) -> None:
    path = write(tmp_path / "long.jsonl", b'{"x":"' + b"y" * 1_000_000, line(2))
    assert load(platform, path) == Ingested(received=2, stored=1, rejected=1, files=1)
    assert rows(platform, "select reason from raw.rejected_events") == [("too_large",)]


def test_unknown_sources_and_paths(platform: Platform, tmp_path: Path) -> None:
    path = write(tmp_path / "events.jsonl", line(1))
    with pytest.raises(UpnextError, match="unknown source 'sparkfy'; did you mean 'sparkify'"):
        load(platform, path, source="sparkfy")
    with pytest.raises(UpnextError, match="no such file"):
        find_files([tmp_path / "nowhere"], source="segment")
    assert rows(platform, "select count(*) from raw.loads") == [(0,)]
