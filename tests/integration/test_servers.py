"""Servers with other settings than ours, full, or short of connections: the same outcome, or an error and no harm.

The judge is a warehouse on the server as Upnext sets it up, and the mail server's log.
"""

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url

from tests.conftest import AS_OF, Cli, Hold, Product, SmtpServer, create_database, rows, settings_for, start, wait_for
from tests.integration.test_erase import busy, land, line
from upnext.clock import utc_now
from upnext.errors import UpnextError
from upnext.loop import dispatch_journeys, tick
from upnext.project import Project
from upnext.warehouse.embedded import EmbeddedServer

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
SETTINGS = {
    "serializable as default": "set default_transaction_isolation = 'serializable'",
    "repeatable read as default": "set default_transaction_isolation = 'repeatable read'",
    "another time zone": "set timezone = 'Asia/Kathmandu'",
    "dates as Germans write them": "set datestyle = 'German, DMY'",
    "intervals in another style": "set intervalstyle = 'sql_standard'",
    "another search path": "set search_path = 'pg_catalog'",
    "bytes as escapes": "set bytea_output = 'escape'",
    "few digits": "set extra_float_digits = -3",
    "a short idle timeout": "set idle_session_timeout = '2s'",
}
COLLATIONS = {
    "of bytes": "locale = 'C' locale_provider = libc",
    "of the system": "locale = 'C.UTF-8' locale_provider = libc",
}


def loop(project: Project) -> dict[str, list[Any]]:
    """Let people of several scripts live through two ticks, and return what is left, but for ids and clocks."""
    people = ["ada", "Zoë", "Åsa", "ängel", "ÖBB", "zoe", "東京", "a b", "user-1", "user_1"]
    land(project, "first.jsonl", [one for user in people for one in busy(user, AS_OF - 4 * DAY)])
    tick(project, AS_OF - 4 * DAY)
    land(project, "second.jsonl", [line(user, "subscribed to premium plan", AS_OF - 2 * DAY) for user in people[::2]])
    tick(project, AS_OF - DAY)
    return outcome(project)


def outcome(project: Project) -> dict[str, list[Any]]:
    return {
        "features": rows(project, 'select * from features.user_features order by user_id collate "C"'),
        "accounts": rows(project, "select * from features.account_features"),
        "log": rows(project, "select segment, user_id, change, as_of from segments.membership_changes"
                             ' order by segment collate "C", as_of, user_id collate "C", change'),
        "entries": rows(project, "select journey, user_id, status, reason, arm, entered_at, step from journeys.entries"
                                 ' order by journey collate "C", user_id collate "C"'),
        "messages": rows(project, "select journey, step, user_id, channel, due_at, status, reason, variant"
                                  ' from journeys.messages order by journey collate "C", user_id collate "C", due_at'),
        "assignments": rows(project, "select experience, user_id, variant, assigned_at from experiences.assignments"
                                     ' order by experience collate "C", user_id collate "C"'),
        "results": rows(project, "select experiment, metric, arm, n_control, n_arm, mean_arm"
                                 ' from analytics.experiment_results order by as_of, experiment collate "C",'
                                 ' metric collate "C", arm collate "C"'),
    }  # fmt: skip


@pytest.fixture(scope="module")
def expected(embedded_url: URL, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    project = Project(settings_for(tmp_path_factory.mktemp("judge"), create_database(embedded_url)))
    start(project)
    found = loop(project)
    project.engine.dispose()
    assert all(len(one) > 0 for one in found.values())
    return found


def admin(url: URL, *statements: str) -> None:
    engine = sa.create_engine(url.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_of_the_database_changes_nothing(
    name: str, embedded_url: URL, expected: dict[str, list[Any]], tmp_path: Path, smtp: SmtpServer
) -> None:
    url = create_database(embedded_url)
    admin(embedded_url, f"alter database upnext_test {SETTINGS[name]}")
    project = Project(settings_for(tmp_path, url, smtp.url))
    start(project)
    assert loop(project) == expected
    assert max(Counter(smtp.ids).values()) == 1
    project.engine.dispose()


def collated(server: URL, collation: str, home: Path, smtp: SmtpServer) -> dict[str, list[Any]]:
    """Return what is left of the loop in a database of another collation."""
    admin(
        server, "drop database if exists upnext_test with (force)",
        f"create database upnext_test template template0 {collation}",
    )  # fmt: skip
    project = Project(settings_for(home, server.set(database="upnext_test"), smtp.url))
    start(project)
    found = loop(project)
    project.engine.dispose()
    return found


@pytest.mark.parametrize("name", COLLATIONS)
def test_a_collation_changes_nothing(
    name: str, embedded_url: URL, expected: dict[str, list[Any]], tmp_path: Path, smtp: SmtpServer
) -> None:
    assert collated(embedded_url, COLLATIONS[name], tmp_path, smtp) == expected


def test_a_collation_of_icu_changes_nothing(
    postgres15_url: URL, expected: dict[str, list[Any]], tmp_path: Path, smtp: SmtpServer
) -> None:
    icu = "locale_provider = icu icu_locale = 'de-u-co-phonebk-kn' locale = 'C.UTF-8'"
    assert collated(postgres15_url, icu, tmp_path, smtp) == expected


def limited(cli: Cli, *, statement: str, undo: str, told: str) -> None:
    """A tick under a limit fails in one line; without the limit the next one does all."""
    url = make_url(cli.environment["UPNEXT_DATABASE_URL"])
    Product(Project(settings_for(cli.home, url))).power_user("ada", utc_now())
    cli.run("journeys", "start", "earn_upgrade")
    admin(url, statement)
    failed = cli.run("tick")
    assert failed.returncode in (1, 2), failed
    assert told in failed.stderr
    assert failed.stderr.count("\n") == 1
    # By way of another database: this one has the limit.
    admin(url.set(database="postgres"), undo)
    done = cli.run("tick", "--json")
    assert done.returncode == 0, done.stderr
    project = Project(settings_for(cli.home, url))
    assert rows(project, "select count(*) from segments.ticks where published_at is null") == [(0,)]
    assert rows(project, "select count(*) from segments.members where user_id = 'ada'") == [(1,)]
    project.engine.dispose()


def test_a_short_statement_timeout_is_an_error_and_heals(cli: Cli) -> None:
    # A timer that rings as its statement ends cancels the next one, "due to user request" as Postgres puts it.
    limited(
        cli, statement="alter database upnext_test set statement_timeout = '3ms'",
        undo="alter database upnext_test reset statement_timeout", told="canceling statement due to",
    )  # fmt: skip


def test_too_few_connections_are_an_error_and_heal(cli: Cli, embedded_url: URL) -> None:
    # An empty database, whose schema is the role's own.
    url = create_database(embedded_url)
    plain = sa.create_engine(url.set(drivername="postgresql+psycopg", username="poor", password="secret"))
    admin(url, "drop role if exists poor", "create role poor login connection limit 1 password 'secret'",
          "alter database upnext_test owner to poor")  # fmt: skip
    cli.environment["UPNEXT_DATABASE_URL"] = plain.url.set(drivername="postgresql").render_as_string(
        hide_password=False
    )
    failed = cli.run("tick")
    assert failed.returncode in (1, 2)
    assert "too many connections for role" in failed.stderr
    assert failed.stderr.count("\n") == 1
    admin(url, "alter role poor connection limit 20")
    assert cli.run("tick").returncode == 0
    plain.dispose()
    admin(embedded_url, "drop database upnext_test with (force)", "drop role poor")


def test_two_homes_on_one_database_count_and_send_once(embedded_url: URL, tmp_path: Path, smtp: SmtpServer) -> None:
    url = create_database(embedded_url)
    homes = [Project(settings_for(tmp_path / name, url, smtp.url)) for name in ("one", "two")]
    start(homes[0])
    people, now = [f"user{number:02}" for number in range(20)], utc_now()
    for number, project in enumerate(homes):
        land(project, f"{number}.jsonl", [one for user in people[number::2] for one in busy(user, now)])
        land(project, "both.jsonl", [line("both", "login", now)])
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda project: tick(project, None), homes))
    tick(homes[0], None)
    assert rows(homes[0], "select count(*), count(distinct message_id) from raw.events where user_id = 'both'") == [
        (1, 1)
    ]
    assert rows(homes[0], "select count(*) from segments.members where segment = 'busy_users'") == [(20,)]
    sent = rows(homes[0], "select count(*) from journeys.messages where status = 'sent'")
    assert sent == [(len(smtp.ids),)]
    assert max(Counter(smtp.ids).values()) == 1
    for project in homes:
        project.engine.dispose()


def fill(disk: Path, leave: int) -> Path:
    filler = disk / "filler"
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    with filler.open("wb") as file:
        file.truncate(0)
        file.write(b"x" * max(free - leave, 0))
    return filler


def test_the_disk_is_full_in_a_tick_and_in_a_dispatch(small_disk: Path, tmp_path: Path, smtp: SmtpServer) -> None:
    server = EmbeddedServer(small_disk / "server")
    url = create_database(make_url(server.start()))
    project = Project(settings_for(tmp_path / "home", url, smtp.url))
    start(project)
    many = [one for number in range(400) for one in busy(f"user{number:03}", AS_OF)]
    land(project, "many.jsonl", many)
    filler = fill(small_disk, leave=2_000_000)
    with pytest.raises((UpnextError, psycopg.Error, sa.exc.DBAPIError)):
        tick(project, AS_OF)
    assert "No space left on device" in (server.root / "data" / "server.log").read_text()
    filler.unlink()
    server.start()
    project.engine.dispose()
    smtp.holds["DATA"] = hold = Hold()
    with ThreadPoolExecutor(1) as pool:
        ticking = pool.submit(tick, project, AS_OF)
        wait_for(hold.reached.is_set, "a mail to be on its way")
        filler = fill(small_disk, leave=0)
        smtp.holds.clear()
        hold.go.set()
        failure = ticking.exception(timeout=120)
    filler.unlink()
    server.start()
    project.engine.dispose()
    in_hand = rows(project, "select count(*) from journeys.messages where status = 'sending'")[0][0]
    with project.engine.begin() as connection:
        connection.exec_driver_sql("update journeys.messages set lease_until = now() where status = 'sending'")
    dispatch_journeys(project, AS_OF + HOUR)
    tick(project, AS_OF + 2 * HOUR)
    statuses = Counter(dict(rows(project, "select status, count(*) from journeys.messages where channel = 'email'"
                                          " and due_at = :at group by 1", at=AS_OF)))  # fmt: skip
    assert failure is None or in_hand > 0 or statuses["sent"] > 0
    assert set(statuses) <= {"sent", "unknown"}, "nothing is lost"
    assert statuses["unknown"] == in_hand
    assert max(Counter(smtp.ids).values()) == 1, "and nothing goes twice"
    assert statuses["sent"] <= len(smtp.ids) <= statuses["sent"] + statuses["unknown"]
    project.engine.dispose()
    server.stop()
