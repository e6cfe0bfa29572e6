"""The warm process: what waits is done at once, whatever fails in between."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.conftest import UPNEXT, Product, SmtpServer, free_port, rows, wait_for
from tests.integration.test_edge import OTTO, Edge, running
from tests.integration.test_journeys import users
from upnext import loop
from upnext.clock import utc_now
from upnext.errors import UpnextError
from upnext.events.ingest import Ingested
from upnext.live import work
from upnext.loop import build, ingest_landing
from upnext.project import Project
from upnext.ticks.lifecycle import loads_to_take_in
from upnext.warehouse.locks import exclusive

SEEKERS = "select user_id from segments.members where segment = 'upgrade_seekers' order by 1"


@contextmanager
def at_work(project: Project) -> Iterator[subprocess.Popen[str]]:
    url = project.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    variables = {**os.environ, "UPNEXT_HOME": str(project.settings.home), "UPNEXT_DATABASE_URL": url}
    variables["UPNEXT_SMTP_URL"] = project.settings.smtp_url or ""
    variables["UPNEXT_MAIL_FROM"] = project.settings.mail_from or ""
    with subprocess.Popen(
        [UPNEXT, "live"], env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def seeker(user: str) -> list[dict[str, Any]]:
    """What makes somebody an upgrade seeker."""
    now = utc_now().isoformat()
    return [
        {"type": "track", "userId": user, "event": event, "messageId": f"{user} {event}", "timestamp": now}
        for event in ("viewed upgrade plan", "subscribed newsletter")
    ]


@pytest.fixture
def edge(project: Project) -> Iterator[Edge]:
    build(project, utc_now(), is_explicit=False)
    with running(project) as running_edge:
        yield running_edge


def send(edge: Edge, user: str) -> None:
    assert edge.post("/v1/batch", {"batch": seeker(user)}, Origin=OTTO).status == 200


def members(project: Project) -> list[str]:
    return [user for (user,) in rows(project, SEEKERS)]


def test_an_event_moves_its_user_at_once_and_the_process_ends_when_told(edge: Edge, content: Path) -> None:
    project = edge.project
    with at_work(project) as process:
        send(edge, "ann")
        wait_for(lambda: members(project) == ["ann"], "ann")
        folder = project.settings.landing / "segment"
        folder.mkdir(parents=True, exist_ok=True)
        lines = "".join(f"{line}\n" for line in (str(one).replace("'", '"') for one in seeker("bob")))
        (folder / "bob.jsonl").write_text(lines)
        wait_for(lambda: members(project) == ["ann", "bob"], "bob")
        newest = content / "models" / "segments" / "all_seekers.sql"
        newest.write_text("select user_id from {{ ref('user_features') }} where upgrade_plan_views_5d >= 1\n")
        send(edge, "cid")
        wait_for(lambda: rows(project, "select to_regclass('segments.all_seekers')") != [(None,)], "the new segment")
        wait_for(lambda: rows(project, "select count(*) from segments.all_seekers") == [(3,)], "its members")
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    assert "upgrade_seekers entered 1" in output


def test_an_edit_of_the_content_leaves_no_connection_behind(edge: Edge, content: Path) -> None:
    project, policy = edge.project, content / "campaigns" / "policy.yml"
    connections = "select count(*) from pg_stat_activity where datname = current_database()"
    counted = []
    with at_work(project):
        for user in ("ann", "bob", "cid", "dee", "eve"):
            policy.write_text(f"{policy.read_text()}# for {user}\n")
            send(edge, user)
            wait_for(lambda user=user: user in members(project), user)  # type: ignore[misc]
            counted += rows(project, connections)[0]
    assert max(counted) - counted[0] <= 1, counted


def test_it_goes_on_when_the_warehouse_is_back(edge: Edge) -> None:
    project = edge.project
    other = sa.create_engine(project.engine.url.set(database="postgres"), isolation_level="AUTOCOMMIT")
    database = project.engine.url.database
    with at_work(project) as process, other.connect() as connection:
        send(edge, "ann")
        wait_for(lambda: members(project) == ["ann"], "ann")
        connection.exec_driver_sql(f'alter database "{database}" allow_connections false')
        ends = "select pg_terminate_backend(pid) from pg_stat_activity where datname = %(name)s"
        connection.exec_driver_sql(ends, {"name": database})
        assert process.stderr is not None
        told = process.stderr.readline()
        connection.exec_driver_sql(f'alter database "{database}" allow_connections true')
        wait_for(lambda: edge.post("/v1/batch", {"batch": seeker("bob")}).status == 200, "the edge")
        wait_for(lambda: members(project) == ["ann", "bob"], "bob")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
    assert told.startswith("upnext: ")
    other.dispose()


def test_killed_in_a_tick_the_next_process_goes_on(edge: Edge) -> None:
    project = edge.project
    with project.engine.begin() as held, at_work(project) as process:
        # The tick waits for this lock when it writes that it has evaluated a segment.
        held.execute(sa.text("lock table segments.evaluations in share mode"))
        send(edge, "ann")
        waits = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like '%model.upnext.%'"
        wait_for(lambda: rows(project, waits) != [(0,)], "the tick to wait")
        process.kill()
        process.wait()
    assert members(project) == []
    with at_work(project):
        wait_for(lambda: members(project) == ["ann"], "ann")


def owe_a_mail_and_hear(project: Project, product: Product, smtp: SmtpServer, event: str) -> None:
    """Let a mail be due, and an event of its user wait in the inbox."""
    (ada,) = users(held_out=False, count=1)
    now = utc_now()
    product.power_user(ada, now - timedelta(hours=1))
    build(project, now, is_explicit=False)
    smtp.answers = ["451 later"]
    loop.dispatch_journeys(project, now)
    line = json.dumps({"type": "track", "userId": ada, "event": event, "messageId": "m"}).encode()
    with project.engine.begin() as connection:
        connection.execute(sa.text("update journeys.messages set retry_at = null"))
        arrived = sa.text("insert into edge.inbox (source, line) values ('segment', :line)")
        connection.execute(arrived, {"line": line})


def test_mails_go_while_a_rebuild_is_at_work(project: Project, product: Product, smtp: SmtpServer) -> None:
    owe_a_mail_and_hear(project, product, smtp, "login")
    with exclusive(project.engine, "tick"):
        did = work(project, leaves_files=True)
    assert did is not None
    assert (did.what, len(smtp.accepted)) == ("dispatch", 1)
    assert rows(project, "select count(*) from edge.inbox") == [(0,)], "what people say is heard meanwhile"
    ticked = work(project, leaves_files=True)
    assert ticked is not None
    assert ticked.what == "tick"
    with project.engine.connect() as connection:
        assert loads_to_take_in(connection) == 0


def test_who_reaches_the_goal_during_a_rebuild_gets_no_mail(
    project: Project, product: Product, smtp: SmtpServer
) -> None:
    owe_a_mail_and_hear(project, product, smtp, "subscribed to premium plan")
    with exclusive(project.engine, "tick"):
        work(project, leaves_files=True)
    assert smtp.accepted == []


def test_without_a_mail_server_what_users_see_and_results_go_on(project: Project, product: Product) -> None:
    (ada,) = users(held_out=False, count=1)
    project.settings = replace(project.settings, smtp_url=f"smtp://127.0.0.1:{free_port()}")
    product.power_user(ada, utc_now() - timedelta(hours=1))
    with pytest.raises(UpnextError, match=r"the mail server .* cannot be used"):
        loop.tick(project, None)
    assert rows(project, "select count(*) from experiences.live_ctas where user_id = :user", user=ada) != [(0,)]
    assert rows(project, "select count(*) from analytics.experiment_results") != [(0,)]


def test_what_occurs_while_a_tick_begins_is_in_it(
    project: Project, product: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = utc_now()

    def arrived(now: Project) -> Ingested:
        product.track("ann", "login", utc_now())
        return ingest_landing(now)

    monkeypatch.setattr(loop, "ingest_landing", arrived)
    assert loop.tick(project, None).as_of > begun
    assert rows(project, "select user_id, logins_30d from features.user_features") == [("ann", 1)]


def test_of_two_processes_one_stands_by_and_takes_over(edge: Edge) -> None:
    project = edge.project
    holder = "select count(*) from pg_locks where locktype = 'advisory' and upnext.is_locked('live')"
    with at_work(project) as first:
        wait_for(lambda: rows(project, holder) != [(0,)], "the first")
        with at_work(project) as second:
            send(edge, "ann")
            wait_for(lambda: members(project) == ["ann"], "ann")
            first.kill()
            first.wait()
            send(edge, "bob")
            wait_for(lambda: members(project) == ["ann", "bob"], "bob")
            second.terminate()
            output, errors = second.communicate(timeout=60)
    assert errors == ""
    assert output.count(" tick") == 1, "the second did nothing while the first worked"
