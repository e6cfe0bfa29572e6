"""The closed loop of the demo, short: who responds was really reached, and a stopped run goes on where it was."""

import json
import subprocess
import sys
from dataclasses import replace
from email import message_from_bytes
from pathlib import Path

import pytest
import sqlalchemy as sa
from rich.console import Console
from sqlalchemy.engine import URL, make_url

from demo.__main__ import main
from demo.loop import run
from demo.otto import WARM_UP_DAYS, Otto
from demo.report import print_report
from tests.conftest import CONTENT, Cli, create_database, rows, settings_for
from upnext.errors import UpnextError
from upnext.project import Project
from upnext.settings import PROJECT

DAYS = WARM_UP_DAYS + 3


def files(home: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((home / "landing" / "segment").iterdir())}


def test_the_loop_is_closed(tmp_path: Path, embedded_url: URL) -> None:
    project = Project(settings_for(tmp_path, create_database(embedded_url, "upnext_demo")))
    run(project, Otto(seed=5, users=150), on_day=lambda _: None, days=DAYS - 1)
    half = files(tmp_path)
    run(project, Otto(seed=5, users=150), on_day=lambda _: None, days=DAYS)
    assert len(half) == DAYS - 1
    assert {name: content for name, content in files(tmp_path).items() if name in half} == half

    mails = [message_from_bytes(path.read_bytes()) for path in (tmp_path / "mail" / "new").iterdir()]
    reached = {mail["Message-ID"].strip("<>").partition("@")[0] for mail in mails}
    assert len(reached) == len(mails) > 20
    opened = rows(project, "select distinct properties ->> 'message_id' from raw.events where event = 'message opened'")
    assert opened
    assert {row[0] for row in opened} <= reached

    seen = rows(
        project,
        "select count(*), count(variant), count(*) filter (where properties ->> 'variant' = variant) from raw.events"
        " left join experiences.assignments on assignments.user_id = events.user_id"
        " and assignments.experience = events.properties ->> 'experience' where event = 'experience viewed'",
    )[0]
    assert seen[0] == seen[1] == seen[2] > 50
    assert rows(project, "select count(*) from raw.loads where received <> stored + duplicate + rejected") == [(0,)]
    lines = sum(len(content.splitlines()) for content in half.values())
    assert rows(
        project, "select sum(received) from raw.loads where path not like :last", last=f"%{max(files(tmp_path))}"
    ) == [(lines,)]

    console = Console(record=True, width=100, file=(tmp_path / "out").open("w"))
    print_report(project, console)
    text = console.export_text()
    for word in ("stored", "rejected", "upgrade_curious", "check_in"):
        assert word in text
    project.engine.dispose()

    again = Project(
        replace(settings_for(tmp_path / "again", create_database(embedded_url, "upnext_demo_again")), smtp_url=None)
    )
    run(again, Otto(seed=5, users=150), on_day=lambda _: None, days=DAYS)
    assert files(tmp_path / "again") == files(tmp_path)
    shown = json.loads(sorted((tmp_path / "demo").iterdir())[-1].read_text())
    assert shown["offers"]
    again.engine.dispose()


@pytest.mark.parametrize(("variables", "message"), [
    ({"UPNEXT_CONTENT": str(CONTENT)}, "it shows Otto, the content that ships: unset UPNEXT_CONTENT"),
    ({"UPNEXT_DATABASE_URL": "postgresql://h/db"}, "UPNEXT_DATABASE_URL names a warehouse of yours, and"),
])  # fmt: skip
def test_it_leaves_alone_what_is_yours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    for name, value in {"UPNEXT_HOME": str(tmp_path), **variables}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.argv", ["demo"])
    with pytest.raises(UpnextError, match=message):
        main()
    assert list(tmp_path.iterdir()) == []


def test_the_runs_that_the_ui_shows(cli: Cli) -> None:
    assert cli.run("tick", "--as-of", "2026-01-01T00:00:00Z").returncode == 0
    done = subprocess.run(
        [sys.executable, "-m", "demo.timeline"], cwd=PROJECT, env=cli.environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    engine = sa.create_engine(make_url(cli.environment["UPNEXT_DATABASE_URL"]).set(drivername="postgresql+psycopg"))
    with engine.connect() as connection:
        runs = connection.execute(sa.text("select pipeline_name, status from dagster.runs order by id")).all()
    engine.dispose()
    assert [tuple(run) for run in runs] == [("tick", "SUCCESS"), ("dispatch", "SUCCESS"), ("analysis", "SUCCESS")]
