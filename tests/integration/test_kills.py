"""Each process of `upnext dev` killed for real: mails go on without a hand, and the mail server's log is the judge."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy.engine import make_url

from tests.conftest import Hold, SmtpServer, free_port, rows, settings_for, start, wait_for
from tests.integration.test_daemon import DEADLINE_SECONDS, dev, processes_of, write_power_user
from tests.integration.test_journeys import users
from upnext.project import Project
from upnext.warehouse.embedded import EmbeddedServer

PARTS = {
    "the daemon": ["dagster-daemon"],
    "the code server": ["dagster api grpc"],
    "the webserver, the proxy of the code server and the edge": [
        "orchestration.webserver",
        "code-server start",
        "upnext edge",
    ],
}


@contextmanager
def at_work(home: Path, smtp: SmtpServer) -> Iterator[tuple[subprocess.Popen[bytes], EmbeddedServer, Project]]:
    """`upnext dev` on an embedded server of its own."""
    server = EmbeddedServer(home / "postgres")
    url = make_url(server.start())
    project = Project(settings_for(home, url))
    start(project)
    try:
        with dev(home, None, smtp.url, free_port()) as process:
            yield process, server, project
    finally:
        project.engine.dispose()
        server.stop()


def killed(process: subprocess.Popen[bytes], command: str) -> None:
    """Kill the processes with such a command, and see that they were there and are gone."""
    pids = [pid for pid, line in processes_of(process).items() if command in line]
    assert pids, processes_of(process)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not any(is_alive(pid) for pid in pids), "them to be gone")


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


SECRETS = {"postgres/password", "signing_keys", "erasure_keys", "report_password"}


def nothing_is_told(process: subprocess.Popen[bytes], home: Path, project: Project) -> None:
    """Look for secrets and addresses in the process list, in Dagster's tables, and in every file of the home."""
    for pid in processes_of(process):
        with suppress(FileNotFoundError):
            limits = Path(f"/proc/{pid}/limits").read_text()
            assert re.search(r"Max core file size +0 +0 ", limits), "a core file tells all"
    secrets = [(home / name).read_text().strip() for name in sorted(SECRETS)]
    assert all(len(secret) > 20 for secret in secrets)
    told = "\n".join(processes_of(process).values())
    for (table,) in rows(project, "select tablename from pg_tables where schemaname = 'dagster'"):
        told += "\n".join(text for (text,) in rows(project, f"select one::text from dagster.{table} as one"))
    assert "dagster" in told
    for secret in [*secrets, "@customer.example"]:
        assert secret not in told
    kept = {home / name for name in SECRETS}
    for path in (path for path in home.rglob("*") if path.is_file() and path not in kept):
        if not path.is_relative_to(home / "postgres" / "data"):
            content = path.read_bytes()
            assert not any(secret.encode() in content for secret in secrets), path
            is_for_people = path.is_relative_to(home / "landing") or path.is_relative_to(home / "mail")
            assert is_for_people or b"@customer.example" not in content, path


def test_after_each_part_is_killed_mails_go_on(tmp_path: Path, smtp: SmtpServer) -> None:
    people = iter(users(held_out=False, count=12))
    landing = tmp_path / "landing" / "segment"
    landing.mkdir(parents=True)
    sent: list[str] = []
    recorded = "select count(*) from journeys.messages where status = 'sent'"

    def mailed(after: str, project: Project) -> None:
        """A mail arrives, and is noted as sent: one that nobody noted before the next kill would stay unknown."""
        user = next(people)
        smtp.arrived.clear()
        write_power_user(landing / f"{user}.jsonl", user, datetime.now(UTC) - timedelta(hours=1))
        told = smtp.arrived.wait(DEADLINE_SECONDS)
        assert told, f"no mail after {after} was killed: {(tmp_path / 'dev.log').read_text()[-5000:]}"
        sent.append(f"{user}@customer.example")
        wait_for(lambda: rows(project, recorded) == [(len(sent),)], f"the mail after {after} was killed to be noted")

    with at_work(tmp_path, smtp) as (process, server, project):
        mailed("nothing", project)
        nothing_is_told(process, tmp_path, project)
        for part, commands in PARTS.items():
            for command in commands:
                killed(process, command)
            mailed(part, project)
        postmaster = int((tmp_path / "postgres" / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(postmaster, signal.SIGKILL)
        wait_for(lambda: not is_alive(postmaster), "the server to be gone")
        project.engine.dispose()
        mailed("the database server", project)
        # A run that is sending: of the mail in its hands nobody knows, and it is not sent again.
        smtp.holds["MAIL"] = hold = Hold()
        write_power_user(landing / "held.jsonl", next(people), datetime.now(UTC) - timedelta(hours=1))
        assert hold.reached.wait(DEADLINE_SECONDS)
        killed(process, "multiprocessing.spawn")
        smtp.holds.clear()
        hold.go.set()
        mailed("a run that was sending", project)
        assert [message["To"] for message in smtp.accepted] == sent, "each once, in their order"
        told = (tmp_path / "dev.log").read_text()
        assert "the edge has ended with status -9, and is started again" in told
    statuses = rows(Project(settings_for(tmp_path, make_url(server.start()))),
                    "select status, count(*) from journeys.messages group by 1 order by 1")  # fmt: skip
    server.stop()
    assert dict(statuses) == {"sent": len(sent), "sending": 1} or dict(statuses) == {"sent": len(sent), "unknown": 1}
