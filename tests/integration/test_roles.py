"""Roles with few rights: what each process does under its own, and what each role must not do."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import URL

from tests.conftest import AS_OF, UPNEXT, Product, SmtpServer, create_database, rows, settings_for, start
from tests.integration.test_edge import running
from upnext.errors import UpnextError
from upnext.loop import dispatch_journeys, show_ctas, tick
from upnext.project import Project
from upnext.report.write import write as write_report
from upnext.settings import PROJECT
from upnext.warehouse import roles
from upnext.warehouse.statements import load

READS = {
    "raw.events": "select * from raw.events",
    "a feature": "select * from features.user_features",
    "a segment": "select * from segments.busy_users",
    "a message": "select * from journeys.messages",
    "an assignment": "select * from experiences.assignments",
    "a result": "select * from analytics.experiment_results",
    "the report": "select * from analytics.report",
    "who is in an experiment": "select * from analytics.experiment_users",
    "the inbox": "select * from edge.inbox",
    "a key": "select * from edge.keys",
    "who was erased": "select * from upnext.erased",
}
WRITES = {
    "take out of the inbox": "delete from edge.inbox",
    "put into the inbox": "insert into edge.inbox (source, line) values ('segment', '{}')",
    "an event": "insert into raw.loads (source, path, fingerprint, size, modified_at, received, stored, duplicate,"
    " rejected, loaded_at) values ('x', 'x', 'x', 0, now(), 0, 0, 0, 0, now())",
    "delete events": "delete from raw.events where false",
    "send again": "update journeys.messages set status = 'pending' where false",
    "suppress": "insert into journeys.suppressions values ('u', 'email', '', 'bounced', now())",
    "start": "insert into upnext.switches (name, is_started, changed_by) values ('x', true, 'x')",
    "a member": "insert into segments.members values ('x', 'x', now())",
    "a change of the log": "delete from segments.membership_changes where false",
    "a feature": "update features.user_features set logins_30d = 0 where false",
    "a result": "delete from analytics.experiment_results where false",
    "a key": "update edge.keys set disabled_at = now() where false",
    "forget the erased": "delete from upnext.erased where false",
    "a table": "create table raw.mine (x int)",
    "a role": "create role mine",
    "migrate": "delete from upnext.migrations where false",
}
NOBODYS = {"delete events of the log", "a member", "a change of the log", "a feature", "a result", "a table", "a role",
           "migrate", "forget the erased"}  # fmt: skip
MAY_READ = {
    "collector": {"a key"},
    "edge": {"a key", "raw.events", "a feature", "a message", "an assignment", "the report"},
    "sender": set(READS) - {"the inbox", "a key"},
    "operator": set(READS),
    "analyst": set(READS) - {"the inbox", "a key", "who was erased"},
    "reader": {"a result", "the report"},
}
MAY_WRITE = {
    "collector": {"put into the inbox"},
    "edge": {"put into the inbox", "suppress"},
    "sender": {"put into the inbox", "send again", "suppress", "start"},
    "operator": set(WRITES) - NOBODYS,
    "analyst": set(),
    "reader": set(),
}  # fmt: skip


@pytest.fixture
def owner(embedded_url: URL, tmp_path: object) -> Iterator[URL]:
    """The URL of a database whose owner has no other right."""
    admin = sa.create_engine(embedded_url.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    url = create_database(embedded_url)
    with admin.connect() as connection:
        connection.exec_driver_sql("create role plain_owner login password 'secret'")
        connection.exec_driver_sql("alter database upnext_test owner to plain_owner")
    yield url.set(username="plain_owner", password="secret")
    with admin.connect() as connection:
        connection.exec_driver_sql("drop database upnext_test with (force)")
        ours = "select rolname from pg_roles where rolname <> current_user and rolname ~ '^(upnext_|plain_owner)'"
        for (name,) in connection.exec_driver_sql(ours).all():
            connection.exec_driver_sql(f'drop role "{name}"')
    admin.dispose()


@pytest.fixture
def project(owner: URL, tmp_path: object, smtp: SmtpServer) -> Iterator[Project]:
    """A warehouse of a plain owner, with one tick."""
    project = Project(settings_for(tmp_path, owner, smtp.url))  # type: ignore[arg-type]
    start(project)
    Product(project).power_user("ada", AS_OF)
    tick(project, AS_OF)
    yield project
    project.engine.dispose()


def as_admin(project: Project, embedded_url: URL, *statements: str) -> None:
    admin = sa.create_engine(
        embedded_url.set(drivername="postgresql+psycopg", database=project.engine.url.database),
        isolation_level="AUTOCOMMIT",
    )
    with admin.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    admin.dispose()


@pytest.fixture
def made(project: Project, embedded_url: URL) -> Project:
    """The roles, made by an administrator from what the owner printed, each with a user of its own."""
    as_admin(project, embedded_url, *roles.statements("upnext_", **roles.known(project.engine)))
    as_admin(project, embedded_url, *(
        f"create role upnext_user_of_{name} login password 'secret' in role upnext_{name}" for name in roles.ROLES
    ))  # fmt: skip
    return project


def url_of(project: Project, role: str) -> URL:
    return project.engine.url.set(drivername="postgresql", username=f"upnext_user_of_{role}", password="secret")


def may(project: Project, role: str, statements: dict[str, str]) -> set[str]:
    """Which of the statements a role may run."""
    found = set()
    url = url_of(project, role).render_as_string(hide_password=False)
    with closing(psycopg.connect(url)) as connection:
        for name, statement in statements.items():
            try:
                connection.execute(statement)  # type: ignore[arg-type]
                found.add(name)
            except psycopg.errors.InsufficientPrivilege:
                pass
            connection.rollback()
    return found


def test_a_plain_owner_does_everything(project: Project, smtp: SmtpServer) -> None:
    assert rows(project, "select rolsuper, rolcreaterole, rolcreatedb from pg_roles where rolname = current_user") == [
        (False, False, False)
    ]
    assert rows(project, "select status from journeys.entries") != []
    assert len(smtp.ids) == len(rows(project, "select from journeys.messages where status = 'sent'"))
    with pytest.raises(UpnextError, match=r"this user may not make roles \(.*\): let one who may run what"):
        roles.make(project.engine, "upnext_")
    with pytest.raises(UpnextError, match="'a; drop' is no beginning of a name"):
        list(roles.statements("a; drop", **roles.known(project.engine)))


@pytest.mark.parametrize("role", roles.ROLES)
def test_each_role_may_do_this_and_no_more(made: Project, role: str) -> None:
    assert may(made, role, READS) == MAY_READ[role]
    assert may(made, role, WRITES) == MAY_WRITE[role]


def test_the_edge_may_run_each_of_its_statements(made: Project) -> None:
    of_operators = {"add_key", "disable_key"}
    engine = sa.create_engine(url_of(made, "edge").set(drivername="postgresql+psycopg"))
    denied: dict[str, str] = {}
    for name, statement in load(PROJECT / "upnext" / "edge" / "sql").items():
        with engine.connect() as connection:
            try:
                connection.execute(statement, dict.fromkeys(statement.compile().params))
            except sa.exc.ProgrammingError as error:
                if isinstance(error.orig, psycopg.errors.InsufficientPrivilege):
                    denied[name] = str(error.orig)
            except sa.exc.DBAPIError:
                pass
    engine.dispose()
    assert denied.keys() == of_operators, denied


def test_what_dbt_makes_later_can_be_read_and_a_right_that_was_given_by_hand_is_taken(
    made: Project, embedded_url: URL
) -> None:
    with made.engine.begin() as connection:
        connection.exec_driver_sql("create table segments.later (user_id text)")
        connection.exec_driver_sql("grant delete on raw.events to upnext_analyst")
    assert may(made, "analyst", {"later": "select * from segments.later"}) == {"later"}
    as_admin(made, embedded_url, *roles.statements("upnext_", **roles.known(made.engine)))
    assert may(made, "analyst", WRITES) == set()


def test_each_process_runs_under_its_own(made: Project, embedded_url: URL, smtp: SmtpServer) -> None:
    write_report(made)
    sender = Project(settings_for(made.settings.home, url_of(made, "sender"), smtp.url))
    Product(made, stored_already=100).power_user("bob", AS_OF)
    tick(made, AS_OF)
    assert dispatch_journeys(sender, AS_OF) is not None
    assert show_ctas(sender).live > 0
    sender.engine.dispose()

    def run(role: str, *arguments: str) -> str:
        variables = {
            **os.environ, "UPNEXT_HOME": str(made.settings.home),
            "UPNEXT_DATABASE_URL": url_of(made, role).render_as_string(hide_password=False),
        }  # fmt: skip
        done = subprocess.run([UPNEXT, *arguments], env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert json.loads(run("operator", "status", "--json"))
    run("operator", "journeys", "stop", "earn_upgrade")
    run("operator", "journeys", "start", "earn_upgrade")
    run("operator", "experiences", "stop", "upsell_banner")
    run("operator", "experiences", "start", "upsell_banner")
    assert "busy_users" in run("analyst", "preview", "busy_users")
    before = rows(made, "select count(*) from edge.inbox")[0][0]
    for role in ("collector", "edge"):
        url = url_of(made, role).render_as_string(hide_password=False)
        with running(made, UPNEXT_DATABASE_URL=url) as edge:
            event = {"event": "login", "userId": "ada", "messageId": role}
            assert edge.post("/v1/track", event).body == {"success": True}
    assert rows(made, "select count(*) from edge.inbox") == [(before + 2,)]
