"""The real daemon: a file in landing becomes a mail, and no command is given in between."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from sqlalchemy.engine import URL

from tests.conftest import Cli, Hold, SmtpServer, create_database, free_port, rows, settings_for, start, wait_for
from tests.integration.test_journeys import users
from upnext.project import Project

DEADLINE_SECONDS = 240


def write_power_user(path: Path, user_id: str, at: datetime) -> None:
    """Write a file of Segment lines, whole at once, as a careful producer does."""
    names = ["subscribed to basic plan", "product viewed", *["login"] * 10, *["created ml task"] * 5]
    events = [{"type": "identify", "traits": {"email": f"{user_id}@customer.example"}}]
    events += [{"type": "track", "event": name} for name in names]
    lines = [
        json.dumps({**event, "userId": user_id, "messageId": f"{user_id}-{number}", "timestamp": at.isoformat()})
        for number, event in enumerate(events)
    ]
    path.with_suffix(".part").write_text("\n".join(lines) + "\n")
    path.with_suffix(".part").rename(path)


@contextmanager
def dev(home: Path, database: URL | None, smtp_url: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run `upnext dev`, by default on the embedded server, and end everything that it started."""
    environment = {
        **os.environ,
        "UPNEXT_HOME": str(home),
        "UPNEXT_DATABASE_URL": "" if database is None else database.render_as_string(hide_password=False),
        "UPNEXT_SMTP_URL": smtp_url,
        "UPNEXT_MAIL_FROM": "Otto <hello@otto.example>",
    }
    command = [str(Path(sys.executable).parent / "upnext"), "dev", "--port", str(port), "--edge-port", str(free_port())]
    with (home / "dev.log").open("wb") as log:
        # As a script starts it in the background: Ctrl-C is ignored.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        signal.signal(signal.SIGINT, before)
        try:
            yield process
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(60)
            kill_session(process)


def processes_of(process: subprocess.Popen[bytes]) -> dict[int, str]:
    """Return the command of each process that a process has started, and of itself: those of its session."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            session = int((folder / "stat").read_text().rpartition(")")[2].split()[3])
            if session == process.pid:
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def kill_session(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and all that it has started."""
    for pid in processes_of(process):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def graphql(port: int, query: str) -> dict[str, object]:
    request = Request(
        f"http://127.0.0.1:{port}/graphql",
        data=json.dumps({"query": query}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urlopen(request, timeout=30) as answer:  # noqa: S310 - our own server on loopback
        data: dict[str, object] = json.load(answer)["data"]
    return data


LAUNCH = (
    'mutation { launchRun(executionParams: {mode: "default", selector: {repositoryLocationName: "upnext",'
    ' repositoryName: "__repository__", jobName: "rebuild"}}) { __typename } }'
)


def ask_across_sites(port: int) -> set[int]:
    """Ask for a run as a page of another site can: by a picture, by a form, by a script; return the statuses."""
    url, evil = f"http://127.0.0.1:{port}/graphql", {"Origin": "https://evil.example"}
    body, asking = json.dumps({"query": LAUNCH}).encode(), f"{url}?{urlencode({'query': LAUNCH})}"
    asked = [
        Request(asking),  # noqa: S310 - our own server on loopback
        Request(asking, data=b"x=1", headers=evil),  # noqa: S310
        Request(url, data=body, headers={**evil, "Content-Type": "application/json"}),
        Request(url, data=body, headers={"Content-Type": "text/plain"}),
        Request(url, data=body, headers={"Content-Type": "application/json", "Host": "rebound.example"}),
    ]
    statuses = set()
    for one in asked:
        try:
            with urlopen(one, timeout=30) as answer:  # noqa: S310 - our own server on loopback
                statuses.add(answer.status)
        except HTTPError as error:
            statuses.add(error.code)
    return statuses


def kill_all(process: subprocess.Popen[bytes], project: Project) -> None:
    """Kill all of Dagster at once, and wait until none of its sessions is left."""
    sessions = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
    kill_session(process)
    assert process.wait() == -signal.SIGKILL
    project.engine.dispose()
    wait_for(lambda: rows(project, sessions) == [(0,)], "its sessions to end")


def test_a_file_in_landing_becomes_a_mail_also_after_all_was_killed(
    tmp_path: Path, embedded_url: URL, smtp: SmtpServer
) -> None:
    database = create_database(embedded_url, "upnext_daemon")
    project = Project(settings_for(tmp_path, database))
    start(project)
    ada, bob = users(held_out=False, count=2)
    landing = tmp_path / "landing" / "segment"
    landing.mkdir(parents=True)
    port = free_port()
    smtp.holds["MAIL"] = hold = Hold()
    with dev(tmp_path, database, smtp.url, port) as process:
        write_power_user(landing / "ada.jsonl", ada, datetime.now(UTC) - timedelta(hours=1))
        assert hold.reached.wait(DEADLINE_SECONDS), (tmp_path / "dev.log").read_text()[-5000:]
        kill_all(process, project)
    # On the hour, a tick of the schedule may run as well.
    unfinished = rows(project, "select pipeline_name, status from dagster.runs where status <> 'SUCCESS'")
    assert ("dispatch", "STARTED") in unfinished
    smtp.holds.clear()
    hold.go.set()
    with dev(tmp_path, database, smtp.url, port):
        write_power_user(landing / "bob.jsonl", bob, datetime.now(UTC) - timedelta(hours=1))
        assert smtp.arrived.wait(DEADLINE_SECONDS), (tmp_path / "dev.log").read_text()[-5000:]
        cli = Cli(tmp_path, database)
        assert cli.fails("dev", "--port", str(free_port()), "--edge-port", str(free_port())) == (
            f"upnext: Upnext runs in this home already, on http://127.0.0.1:{port}\n"
        )
        assert "would lose its database; end it first" in cli.fails("down")
        assert cli.run("journeys", "stop", "earn_upgrade").returncode == 0
        started = cli.run("journeys", "start", "earn_upgrade")
        assert (started.returncode, started.stderr) == (0, ""), "the UI has read again what is declared"
        quiet = [
            line for line in (tmp_path / "dev.log").read_text().splitlines() if "arning" in line or "skipped" in line
        ]
        assert quiet == []
        refused = ask_across_sites(port)
        assets = graphql(port, "{ assetNodes { groupName description } }")["assetNodes"]
    assert refused == {403}
    assert rows(project, "select count(*) from dagster.runs where pipeline_name = 'rebuild'") == [(0,)]
    assert isinstance(assets, list)
    assert {asset["groupName"] for asset in assets} == {
        "events", "features", "segments", "journeys", "experiences", "analytics", "plumbing", "reports",
    }  # fmt: skip
    assert all(asset["description"] for asset in assets)
    assert [message["To"] for message in smtp.accepted] == [f"{bob}@customer.example"], "what is unclear is not sent"
    assert sorted(rows(project, "select journey, user_id, reason from journeys.entries")) == [
        ("earn_upgrade", ada, "journey stopped"), ("earn_upgrade", bob, "journey stopped"),
    ]  # fmt: skip
    project.engine.dispose()
