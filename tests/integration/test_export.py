"""What is known of a person, held against a search through every row of the warehouse."""

import json
import os
import signal
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import AS_OF, UPNEXT, place_of, rows, wait_for
from tests.journeys import Journeys, journey, mail
from upnext.errors import UpnextError
from upnext.people.export import export
from upnext.project import Project

HOUR = timedelta(hours=1)


def exported(project: Project, asked: str, out: Path) -> list[dict[str, Any]]:
    export(place_of(project), asked, out, now=AS_OF)
    assert out.stat().st_mode & 0o077 == 0, "only its owner reads it"
    return [json.loads(line) for line in out.read_text().splitlines()]


def holding(project: Project, text: str) -> dict[str, int]:
    """Count the rows of each table in which a text stands, wherever in it."""
    tables = rows(
        project,
        "select table_schema || '.' || table_name from information_schema.tables where table_type = 'BASE TABLE'"
        " and table_schema not in ('pg_catalog', 'information_schema', 'dagster')",
    )
    counts = {}
    for (table,) in tables:
        ((found,),) = rows(
            project,
            f"select count(*) from {table} as one"
            " where position(:text in one::text) > 0 or position(encode(cast(:text as bytea), 'hex') in one::text) > 0",
            text=text,
        )
        if found:
            counts[table] = found
    return counts


@pytest.fixture
def at_work(journeys: Journeys) -> Journeys:
    """Ada and Bob, both in a journey, with events, a line that was rejected and one that waits in the inbox."""
    for name in ("ada-lovelace", "bob"):
        journeys.person(name)
    journeys.declare(demo=journey(mail("hello")))
    journeys.dispatch()
    journeys.tick(AS_OF + HOUR, "entered", "ada-lovelace", "bob")
    journeys.dispatch(AS_OF + HOUR)
    journeys.write(
        "insert into raw.rejected_events (source, load_id, line, reason, detail, payload)"
        " select 'segment', min(load_id), 1, 'no_event', '', :payload from raw.loads",
        payload='{"userId": "ada-lovelace", "type": "track"}',
    )
    journeys.write(
        "insert into raw.rejected_events (source, load_id, line, reason, detail, payload)"
        " select 'segment', min(load_id), 2, 'no_event', '', :payload from raw.loads",
        payload='{"userId": "joanna", "traits": {"email": "bob-and-ada-lovelace@customer.example"}}',
    )
    journeys.write(
        "insert into edge.inbox (source, received_at, line) values ('segment', :at, :line)",
        at=AS_OF, line=b'{"userId": "ada-lovelace", "type": "track", "event": "login"}',
    )  # fmt: skip
    journeys.write(
        "insert into journeys.suppressions values ('', 'email', 'ada-lovelace@customer.example', 'bounced', :at)",
        at=AS_OF,
    )
    return journeys


def test_every_row_with_the_id_is_in_it_and_none_of_others(at_work: Journeys, tmp_path: Path) -> None:
    lines = exported(at_work.project, "ada-lovelace", tmp_path / "ada.jsonl")
    found: dict[str, int] = {}
    for line in lines:
        found[line["table"]] = found.get(line["table"], 0) + 1
    wanted = holding(at_work.project, "ada-lovelace")
    wanted["raw.rejected_events"] -= 1
    assert "joanna" not in json.dumps(lines), "an address may be a part of another"
    assert {"raw.events", "journeys.messages", "journeys.entries", "raw.rejected_events", "edge.inbox"} <= set(wanted)
    missing = {table: count for table, count in wanted.items() if found.get(table, 0) < count}
    assert missing == {}
    assert "bob" not in json.dumps(lines)
    by_address = exported(at_work.project, "Ada-Lovelace@customer.example", tmp_path / "by_address.jsonl")
    assert by_address == lines


def test_a_person_of_two_devices_is_one(journeys: Journeys, tmp_path: Path) -> None:
    journeys.person("old")
    journeys.person("other")
    journeys.merge(AS_OF + HOUR, old="new")
    by_old, by_new = (exported(journeys.project, name, tmp_path / name) for name in ("old", "new"))
    assert by_old == by_new
    assert "other" not in json.dumps([line["row"].get("user_id") for line in by_old])


def test_another_user_of_the_device_and_one_with_the_same_text_as_id_are_others(
    journeys: Journeys, tmp_path: Path
) -> None:
    store = journeys.product.store
    store("identify", AS_OF - HOUR, user_id="ada", anonymous_id="phone")
    store("track", AS_OF - 2 * HOUR, anonymous_id="phone", event="login")
    store("track", AS_OF, user_id="bob", anonymous_id="phone", event="login")
    store("track", AS_OF, user_id="phone", event="login")
    journeys.merge(AS_OF + HOUR, nobody="somebody")

    def events(asked: str) -> list[tuple[str | None, str | None]]:
        lines = exported(journeys.project, asked, tmp_path / "out")
        rows_of = [line["row"] for line in lines if line["table"] == "raw.events"]
        return sorted((row["user_id"] or "", row["anonymous_id"] or "") for row in rows_of)

    assert events("ada") == [("", "phone"), ("ada", "phone")]
    assert events("visitor:phone") == events("ada"), "the visitor became ada"
    assert events("bob") == [("bob", "phone")]
    assert events("phone") == [("phone", "")], "a user of that id, and not the visitor"


def test_nobody_is_an_error_and_leaves_no_file(journeys: Journeys, tmp_path: Path) -> None:
    with pytest.raises(UpnextError, match="nothing is known of 'nobody'"):
        export(place_of(journeys.project), "nobody", tmp_path / "out", now=AS_OF)
    assert list(tmp_path.glob("*out*")) == []


def test_a_killed_export_leaves_no_half_file(at_work: Journeys, tmp_path: Path) -> None:
    project = at_work.project
    lock = project.engine.connect()
    lock.exec_driver_sql("begin; lock table segments.members in access exclusive mode")
    url = project.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    variables = {**os.environ, "UPNEXT_HOME": str(project.settings.home), "UPNEXT_DATABASE_URL": url}
    folder = tmp_path / "out"
    folder.mkdir()
    command = [UPNEXT, "export", "ada-lovelace", "--out", str(folder / "ada.jsonl")]
    with subprocess.Popen(command, env=variables) as process:
        waits = (
            "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like '%segments.members%'"
        )
        wait_for(lambda: rows(project, waits) != [(0,)], "the export to wait")
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    lock.close()
    assert not (folder / "ada.jsonl").exists()
    assert subprocess.run(command, env=variables, check=False, stdout=subprocess.DEVNULL).returncode == 0
    assert (folder / "ada.jsonl").exists()
