"""Several loaders at a time: each id is stored once, whoever waits for whom, and the counts are exact.

A loader stops between two batches, when it tells how many bytes it has read: its events are written by then, and not
committed.
"""

import json
import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event

import pytest
import sqlalchemy as sa

from tests.conftest import AS_OF, SmtpServer, rows, wait_for
from tests.journeys import Journeys, journey, mail
from upnext.events import records
from upnext.events.files import find_files
from upnext.events.ingest import Ingested, drain, ingest
from upnext.project import Project
from upnext.warehouse.locks import transaction

LONG = 60


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "BATCH_RECORDS", 2)


def file_of(path: Path, *ids: str, user: str = "ada", **fields: object) -> Path:
    event = {"type": "track", "event": "login", "userId": user, "timestamp": AS_OF.isoformat(), **fields}
    path.write_text("".join(json.dumps({**event, "messageId": one}) + "\n" for one in ids))
    return path


def load(project: Project, path: Path, on_batch: Callable[[int], object] = lambda _: None) -> Ingested:
    files, batches = find_files([path], source="segment"), iter(range(1, 1000))
    return ingest(
        project.engine, files, sources=project.sources, loaded_at=AS_OF, on_bytes=lambda _: on_batch(next(batches))
    )


class Held:
    """A load that has written its first batch, and goes on when it is told to."""

    def __init__(self, pool: ThreadPoolExecutor, project: Project, path: Path) -> None:
        self._is_there, self._may_go_on = Event(), Event()
        self._load: Future[Ingested] = pool.submit(load, project, path, self._on_batch)
        assert self._is_there.wait(LONG)

    def _on_batch(self, nth: int) -> None:
        if nth == 2:
            self._is_there.set()
            assert self._may_go_on.wait(LONG)

    def finish(self) -> Ingested:
        self._may_go_on.set()
        return self._load.result(LONG)


def stored(project: Project) -> dict[str, str]:
    """Return the user of each id."""
    return dict(rows(project, "select message_id, user_id from raw.events"))


def is_waiting(project: Project, kind: str) -> bool:
    return bool(rows(project, "select from pg_locks where locktype = :kind and not granted", kind=kind))


@pytest.mark.not_on_cluster
def test_a_small_file_does_not_wait_for_a_long_one(project: Project, tmp_path: Path) -> None:
    with ThreadPoolExecutor() as pool:
        long = Held(pool, project, file_of(tmp_path / "long.jsonl", *"abcdef"))
        assert load(project, file_of(tmp_path / "short.jsonl", "x", "y")).stored == 2
        assert stored(project).keys() == {"x", "y"}
        assert long.finish().stored == 6
    assert stored(project).keys() == {*"abcdefxy"}


@pytest.mark.not_on_cluster
def test_an_id_that_another_loader_has_written_is_waited_for(project: Project, tmp_path: Path) -> None:
    with ThreadPoolExecutor() as pool:
        first = Held(pool, project, file_of(tmp_path / "first.jsonl", *"abcdef"))
        others = pool.submit(load, project, file_of(tmp_path / "second.jsonl", "n", "a", "b", "o", user="bob"))
        wait_for(lambda: is_waiting(project, "transactionid"), "the second loader to wait for the first")
        assert first.finish().stored == 6
        second = others.result(LONG)
    assert (second.received, second.stored, second.duplicate, second.rejected) == (4, 2, 0, 2)
    assert rows(project, "select distinct reason from raw.rejected_events") == [("conflict",)]
    assert Counter(stored(project).values()) == {"ada": 6, "bob": 2}


@pytest.mark.not_on_cluster
def test_loaders_that_wait_for_each_other_both_end(project: Project, tmp_path: Path) -> None:
    meeting = Barrier(2)

    def meet(nth: int) -> None:
        if nth == 2:
            meeting.wait(LONG)

    with ThreadPoolExecutor() as pool:
        up = pool.submit(load, project, file_of(tmp_path / "up.jsonl", *"abcdefgh"), meet)
        down = pool.submit(load, project, file_of(tmp_path / "down.jsonl", *"hgfedcba"), meet)
        done = up.result(LONG) + down.result(LONG)
    wait_for(lambda: deadlocks(project) > 0, "the server to tell of a deadlock")
    assert (done.received, done.stored, done.duplicate, done.rejected) == (16, 8, 8, 0)
    assert stored(project).keys() == {*"abcdefgh"}


def deadlocks(project: Project) -> int:
    ((found,),) = rows(project, "select deadlocks from pg_stat_database where datname = current_database()")
    return int(found)


def test_the_same_content_under_two_names_is_loaded_once(project: Project, tmp_path: Path) -> None:
    with ThreadPoolExecutor() as pool:
        first = Held(pool, project, file_of(tmp_path / "first.jsonl", *"abcdef"))
        second = pool.submit(load, project, file_of(tmp_path / "second.jsonl", *"abcdef"))
        wait_for(lambda: is_waiting(project, "advisory"), "the second loader to wait for the first")
        assert first.finish().stored == 6
        assert second.result(LONG) == Ingested(files=1, files_already_loaded=1)


@pytest.mark.not_on_cluster
def test_who_deletes_events_waits_for_all_loaders_and_keeps_new_ones_out(project: Project, tmp_path: Path) -> None:
    def alone() -> int:
        with transaction(project.engine, "ingest") as connection:
            return int(connection.scalar(sa.text("select count(*) from raw.events")) or 0)

    with ThreadPoolExecutor() as pool:
        loaders = [Held(pool, project, file_of(tmp_path / f"{ids}.jsonl", *ids)) for ids in ("abcdef", "uvwxyz")]
        deleting = pool.submit(alone)
        wait_for(lambda: is_waiting(project, "advisory"), "the one who deletes to wait")
        late = pool.submit(load, project, file_of(tmp_path / "late.jsonl", "late"))
        assert [loader.finish().stored for loader in loaders] == [6, 6]
        assert deleting.result(LONG) == 12
        assert late.result(LONG).stored == 1


@pytest.mark.not_on_cluster
def test_an_unsubscription_counts_though_its_load_ends_after_a_later_one(
    journeys: Journeys, tmp_path: Path, smtp: SmtpServer
) -> None:
    project = journeys.project
    journeys.declare(news=journey(mail("hello"), mail("again", after="1 day")))
    journeys.person("ada")
    journeys.dispatch()
    journeys.tick(AS_OF, "entered", "ada")
    journeys.dispatch()
    (message_id,) = smtp.ids
    said = {"event": "message unsubscribed", "properties": {"message_id": message_id}}
    with ThreadPoolExecutor() as pool:
        slow = Held(pool, project, file_of(tmp_path / "slow.jsonl", *"abcd", user="mail provider", **said))
        load(project, file_of(tmp_path / "quick.jsonl", "x"))
        journeys.dispatch()
        assert rows(project, "select reason from journeys.suppressions") == []
        slow.finish()
    journeys.dispatch()
    assert rows(project, "select user_id, reason from journeys.suppressions") == [("ada", "unsubscribed")]
    journeys.write("delete from journeys.suppressions")
    journeys.dispatch()
    assert rows(project, "select reason from journeys.suppressions") == []


@pytest.mark.not_on_cluster
def test_lines_of_the_inbox_and_of_a_file_that_wait_for_each_other(project: Project, tmp_path: Path) -> None:
    lines = [
        {"type": "track", "event": "login", "userId": "ada", "timestamp": AS_OF.isoformat(), "messageId": one}
        for one in "eax"
    ]
    with project.engine.begin() as connection:
        connection.execute(
            sa.text("insert into edge.inbox (source, line) values ('segment', :line)"),
            [{"line": json.dumps(line).encode()} for line in lines],
        )
    with ThreadPoolExecutor() as pool:
        file = Held(pool, project, file_of(tmp_path / "file.jsonl", *"abcdef"))
        inbox = pool.submit(drain, project.engine, sources=project.sources, clock=lambda: AS_OF)
        wait_for(lambda: is_waiting(project, "transactionid"), "the lines of the inbox to wait for the file")
        done = file.finish() + inbox.result(LONG)
    wait_for(lambda: deadlocks(project) > 0, "the server to tell of a deadlock")
    assert (done.received, done.stored, done.duplicate, done.rejected) == (9, 7, 2, 0)
    assert stored(project).keys() == {*"abcdefx"}
    assert rows(project, "select from edge.inbox") == []


def test_who_deletes_lines_of_the_inbox_finds_none_taken(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("upnext.events.ingest.PAGE", 1)
    write = sa.text("insert into edge.inbox (source, line) select 'segment', '{}' from generate_series(1, 3)")
    with project.engine.begin() as connection:
        connection.execute(write)
    with ThreadPoolExecutor() as pool:
        with transaction(project.engine, "ingest") as connection:
            inbox = pool.submit(drain, project.engine, sources=project.sources, clock=lambda: AS_OF)
            wait_for(lambda: is_waiting(project, "advisory"), "the inbox to be waited for")
            connection.execute(sa.text("set local lock_timeout = '20s'"))
            assert connection.execute(sa.text("delete from edge.inbox")).rowcount == 3
        assert inbox.result(LONG) == Ingested()


def test_of_a_file_that_is_cut_while_it_is_read_the_copy_is_loaded_whole(project: Project, tmp_path: Path) -> None:
    """As logrotate's copytruncate does."""
    path = file_of(tmp_path / "app.jsonl", *(f"m{nth}" for nth in range(400)), context={"text": "x" * 25_000})
    copy = tmp_path / "app.jsonl.1"

    def rotate(nth: int) -> None:
        if nth == 1:
            copy.write_bytes(path.read_bytes())
            os.truncate(path, 0)

    first = load(project, path, rotate).stored
    assert 0 < first < 400
    assert first + load(project, copy).stored == 400
