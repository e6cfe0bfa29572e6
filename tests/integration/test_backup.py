"""A dump while all is at work, restored elsewhere: the mail server's log says that nothing went twice."""

import json
import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy.engine import URL

from tests.conftest import AS_OF, Cli, SmtpServer, create_database, rows, settings_for
from tests.integration.test_erase import busy, land
from tests.journeys import Journeys, journey, mail
from upnext import dbt
from upnext.errors import UpnextError
from upnext.loop import adopt_copy, dispatch_journeys, ingest_landing, tick
from upnext.project import Project
from upnext.settings import PROJECT, Settings
from upnext.warehouse.embedded import binaries

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
BEGIN = AS_OF - 10 * DAY


def dumped(project: Project, folder: Path) -> Path:
    """Dump a warehouse as docs/run/backup.md says."""
    path = folder / "upnext.dump"
    command = [binaries() / "pg_dump", "--format=custom", f"--file={path}"]
    subprocess.run(command, env=named_by(project.settings, project.engine.url), check=True)
    return path


def named_by(settings: Settings, url: URL) -> dict[str, str]:
    """Return the variables by which the tools of Postgres find a database: what `upnext env` prints."""
    return {**os.environ, **dbt.shell_environment(settings, url)}


@pytest.fixture
def restore(embedded_url: URL, tmp_path: Path, smtp: SmtpServer) -> Iterator[object]:
    made: list[Project] = []

    def restored(dump: Path, home: Path) -> Project:
        url = create_database(embedded_url, "upnext_restored")
        project = Project(settings_for(home, url, smtp.url))
        command = [binaries() / "pg_restore", "--no-owner", f"--dbname={url.database}", dump]
        subprocess.run(command, env=named_by(project.settings, url), check=True)
        made.append(project)
        return project

    yield restored
    for project in made:
        project.engine.dispose()


def test_the_path_of_the_guide_leads_to_the_tools_of_the_embedded_server() -> None:
    guide = (PROJECT / "docs" / "run" / "backup.md").read_text()
    (line,) = re.findall(r"^\$ (export PATH=.*)$", guide, re.MULTILINE)
    done = subprocess.run(
        ["/bin/bash", "-c", f"{line}; command -v pg_dump"], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert Path(done.stdout.strip()).samefile(binaries() / "pg_dump")


@pytest.mark.not_on_cluster
def test_a_restored_copy_goes_on_and_sends_nothing_twice(
    project: Project, restore: object, smtp: SmtpServer, tmp_path: Path
) -> None:
    people = [f"user{number:02}" for number in range(12)]
    land(project, "first.jsonl", [one for user in people for one in busy(user, BEGIN)])
    tick(project, BEGIN)
    dump = dumped(project, tmp_path)
    first = Counter(smtp.ids)
    assert len(first) > 5
    # What the original does after the dump: it sends second steps, and others enter.
    others = [f"later{number:02}" for number in range(6)]
    land(project, "second.jsonl", [one for user in others for one in busy(user, BEGIN + HOUR)])
    tick(project, BEGIN + 2 * HOUR)
    tick(project, BEGIN + 2 * DAY + HOUR)
    died_at = BEGIN + 3 * DAY
    by_original = set(smtp.ids)
    assert len(by_original) > len(first) + 5
    seen = rows(project, "select max(entry_id), count(*) from journeys.entries")

    copy = restore(dump, project.settings.home)  # type: ignore[operator]
    for act in (lambda: tick(copy, died_at), lambda: dispatch_journeys(copy, died_at)):
        with pytest.raises(UpnextError, match=r"is a copy of another one.*say so by `upnext adopt`"):
            act()
    assert set(smtp.ids) == by_original
    adopt_copy(copy, sent_until=died_at, now=died_at)
    tick(copy, died_at + HOUR)
    assert Counter(smtp.ids) == Counter(by_original), "nothing that was due before goes again"
    assert rows(copy, "select count(distinct user_id) from journeys.entries") == [(len(people) + len(others),)]
    assert rows(copy, "select max(entry_id), count(*) from journeys.entries") >= seen
    newcomers = ["fresh00", "fresh01", "fresh02", "fresh03"]
    land(copy, "third.jsonl", [one for user in newcomers for one in busy(user, died_at + 2 * HOUR)])
    tick(copy, died_at + 3 * HOUR)
    went = rows(copy, "select count(*) from journeys.messages where status = 'sent' and user_id like 'fresh%'")
    assert went[0][0] > 0
    assert max(Counter(smtp.ids).values()) == 1
    assert len(smtp.ids) == len(by_original) + went[0][0]
    again = ingest_landing(copy)
    assert (again.received, again.files_already_loaded) == (0, 0)


@pytest.mark.not_on_cluster
def test_a_message_in_the_hands_of_a_sender_when_dumped_is_unknown(
    journeys: Journeys, restore: object, smtp: SmtpServer, tmp_path: Path
) -> None:
    journeys.person("ada", "bob")
    journeys.declare(demo=journey(mail("hello"), mail("again", after="2 days")))
    journeys.dispatch()
    journeys.tick(AS_OF + HOUR, "entered", "ada", "bob")
    journeys.dispatch(AS_OF + HOUR)
    journeys.write("update journeys.messages set status = 'sending', lease_until = now() where user_id = 'ada'")
    dump = dumped(journeys.project, tmp_path)
    copy = restore(dump, journeys.project.settings.home)  # type: ignore[operator]
    copy.journeys, copy.policy = journeys.project.journeys, journeys.project.policy
    copy.check = lambda: None
    adopt_copy(copy, sent_until=AS_OF + 2 * HOUR, now=AS_OF + 2 * HOUR)
    assert rows(copy, "select user_id, status, reason from journeys.messages order by 1") == [
        ("ada", "unknown", "restored"), ("bob", "sent", None),
    ]  # fmt: skip
    assert len(smtp.ids) == 2


def test_the_command_asks_whether_there_is_anything_to_adopt(cli: Cli) -> None:
    assert "is no copy of another one" in cli.fails("adopt")
    assert "--sent-until" in cli.fails("adopt", "--sent-until", "yesterday")
    assert json.loads(cli.run("tick", "--json").stdout)
    assert "is no copy of another one" in cli.fails("adopt")
