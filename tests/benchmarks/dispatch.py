"""What the dispatch costs: sending 20,000 mails against a bare loop, moving people in SQL, and what they see.

The bare loop renders the same templates into the same MIME, and hands them to smtplib over as many connections; both
send to a server in a process of its own that answers at once.
"""

import argparse
import smtplib
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import sqlalchemy as sa
from rich.console import Console
from rich.table import Table

from tests.conftest import free_port
from upnext.journeys.channels.outbox import BEGINNING, stop_parameters
from upnext.journeys.copy.message import Request, Sender, request_of
from upnext.journeys.copy.rendering import render
from upnext.journeys.dispatch import DispatchResult, dispatch
from upnext.journeys.sql import SQL
from upnext.loop import assign_experiences, build, dispatch_journeys, show_ctas
from upnext.operations.controls import start_all
from upnext.project import Project
from upnext.settings import Settings
from upnext.warehouse.embedded import EmbeddedServer

AS_OF = datetime(2026, 3, 31, 12, tzinfo=UTC)
JOURNEY = "encourage_upgrade"
_WAITING = "update journeys.messages set status = 'pending', reason = null, sent_at = null"
SINK = """
import sys, threading
from aiosmtpd.controller import Controller

class Sink:
    async def handle_DATA(self, server, session, envelope):
        return "250 OK"

controller = Controller(Sink(), hostname="127.0.0.1", port=int(sys.argv[1]))
controller.start()
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def sink(port: int) -> Iterator[None]:
    """Run an SMTP server that answers at once, in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", SINK, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield
    finally:
        process.kill()
        process.wait()


def fill(project: Project, people: int) -> None:
    """Store people who are all power users of the basic plan."""
    with project.engine.begin() as connection:
        connection.execute(
            sa.text("""
                insert into raw.loads (
                    source, path, fingerprint, size, modified_at, received, stored, duplicate, rejected, loaded_at
                )
                values ('bench', 'bench', '', 0, now(), 0, 0, 0, 0, now())
            """)
        )
        connection.execute(
            sa.text("""
                insert into raw.events
                    (source, message_id, type, event, user_id, person_id, occurred_at, received_at, load_id, properties)
                select
                    'bench', concat_ws('-', who, kind.name, nth), kind.type, kind.name, 'u' || who, 'u' || who,
                    :at, :at,
                    (select max(load_id) from raw.loads),
                    case when kind.type = 'identify'
                        then jsonb_build_object('email', 'u' || who || '@customer.example', 'name', 'Ada ' || who)
                        else '{}'
                    end
                from generate_series(1, :people) as who
                cross join (values
                    ('identify', null, 1), ('track', 'subscribed to basic plan', 1), ('track', 'product viewed', 1),
                    ('track', 'login', 10), ('track', 'created ml task', 5)
                ) as kind (type, name, times)
                cross join lateral generate_series(1, kind.times) as nth
            """),
            {"people": people, "at": AS_OF - timedelta(days=2)},
        )
        connection.execute(sa.text("analyze raw.events"))


def requests(project: Project) -> list[Request]:
    """Return what the messages that wait are made of."""
    values = {
        **stop_parameters(project.policy, AS_OF), "journeys": [JOURNEY], "channel": "email", "are_transactional": False,
        "time_zone_trait": "timezone", "time_zone": "UTC", **BEGINNING,
        "page": 10_000_000,
    }  # fmt: skip
    with project.engine.connect() as connection:
        return [request_of(row, AS_OF) for row in connection.execute(SQL["prepare"], values)]


def bare_loop(messages: list[Request], sender: Sender, *, port: int, connections: int) -> float:
    """Render and send with smtplib alone, a thread for each connection; return the seconds."""

    def work(part: list[Request]) -> None:
        with smtplib.SMTP("127.0.0.1", port) as client:
            for message in part:
                rendered = render(message, sender)
                client.sendmail(rendered.sender, [rendered.recipient], rendered.content)

    threads = [threading.Thread(target=work, args=[messages[n::connections]]) for n in range(connections)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - started


def measure_sending(project: Project, port: int, rounds: int, table: Table) -> None:
    """Measure, in turn, the bare loop, rendering alone and the dispatch on the same messages."""
    connections = project.policy.email.connections
    with project.engine.begin() as connection:
        connection.execute(sa.text(_WAITING))
    messages = requests(project)
    ratios: list[float] = []
    for _ in range(rounds):
        started = time.perf_counter()
        for message in messages[:2000]:
            render(message, project.sender)
        rendering = (time.perf_counter() - started) / len(messages[:2000])
        bare = bare_loop(messages, project.sender, port=port, connections=connections)
        with project.engine.begin() as connection:
            connection.execute(
                sa.text("update journeys.messages set status = 'pending', reason = null, sent_at = null")
            )
        started = time.perf_counter()
        sent = dispatch_journeys(project, AS_OF, only={JOURNEY}).messages
        ours = time.perf_counter() - started
        assert sent == {"sent": len(messages)}, sent
        ratios.append(bare / ours)
        table.add_row(
            f"{len(messages):,}", f"{connections}", f"{1 / rendering:,.0f}/s ({rendering * 1000:.2f} ms)",
            f"{len(messages) / bare:,.0f}/s", f"{len(messages) / ours:,.0f}/s", f"{bare / ours:.2f}",
        )  # fmt: skip
    table.caption = f"median {statistics.median(ratios):.2f} of the bare loop"


def enter(project: Project, at: datetime, *, people: int, prefix: str) -> None:
    """Publish a tick in which people enter the segment of the journey, and of two experiences."""
    tick = "insert into segments.ticks (as_of, published_at) values (:at, now()) returning tick_id"
    with project.engine.begin() as connection:
        tick_id = connection.scalar(sa.text(tick), {"at": at})
        connection.execute(
            sa.text("""
                with entered as (
                    insert into segments.membership_changes (tick_id, segment, user_id, change, as_of)
                    select :tick_id, 'basic_plan_power_users', :prefix || n, 'entered', :at
                    from generate_series(1, :people) as n
                    returning segment, user_id, as_of
                )

                insert into segments.members select * from entered on conflict do nothing
            """),
            {"tick_id": tick_id, "at": at, "people": people, "prefix": prefix},
        )


def measure_moving(project: Project, entries: int, table: Table) -> None:
    """Enrol 100,000 people; then go on with many active entries of which one in a hundred is due."""
    engine, journeys = project.engine, {JOURNEY: project.journeys[JOURNEY]}

    def timed(as_of: datetime) -> tuple[float, DispatchResult]:
        started = time.perf_counter()
        done = dispatch(engine, project.policy, journeys, only={JOURNEY}, as_of=as_of, is_replay=True)
        return time.perf_counter() - started, done

    for hour, first in enumerate(("1 hour", "0 hours"), start=1):
        step = msgspec.structs.replace(project.journeys[JOURNEY].steps[0], after=first)
        journey = msgspec.structs.replace(project.journeys[JOURNEY], steps=[step, *project.journeys[JOURNEY].steps[1:]])
        journeys = {JOURNEY: journey}
        at = AS_OF + timedelta(hours=hour)
        with engine.begin() as connection:
            connection.execute(sa.text("truncate journeys.messages, journeys.entries"))
        enter(project, at, people=100_000, prefix="e")
        seconds, done = timed(at)
        what = "enrol 100,000" + (", and write their first messages" if done.due else "")
        table.add_row(what, f"{done.enrolled:,}", f"{done.due:,}", f"{seconds:.2f} s")
    for count in (entries // 10, entries):
        with engine.begin() as connection:
            connection.execute(sa.text("truncate journeys.messages, journeys.entries"))
            connection.execute(
                sa.text("""
                    insert into journeys.entries
                        (journey, version, user_id, change_id, cause, seed, entered_at, status, step, reached_at,
                            next_due_at)
                    select
                        journey, version, 'a' || n, n, 'change ' || n, 'a' || n, :at, 'active', 'premium_reminder', :at,
                        case when n <= :due then :at else :at + interval '1 day' end
                    from generate_series(1, :count) as n
                    cross join (select journey, version from journeys.steps where journey = :journey limit 1) as steps
                """),
                {"journey": JOURNEY, "count": count, "due": entries // 100, "at": AS_OF + timedelta(hours=3)},
            )
            connection.execute(sa.text("analyze journeys.entries"))
        seconds, done = timed(AS_OF + timedelta(hours=3))
        table.add_row(f"advance, {count:,} active entries", "", f"{done.due:,}", f"{seconds:.2f} s")


def measure_showing(project: Project, members: int, table: Table) -> None:
    """Assign and show to many members, to few who enter, and again after an experience was edited."""

    def timed(what: str, as_of: datetime) -> None:
        started = time.perf_counter()
        assigned = assign_experiences(project, as_of)
        drawn = time.perf_counter()
        shown = show_ctas(project)
        table.add_row(
            what, f"{assigned:,}", f"{drawn - started:.2f} s", f"{shown.changed:,}",
            f"{time.perf_counter() - drawn:.2f} s",
        )  # fmt: skip

    hours = [AS_OF + timedelta(hours=hour) for hour in (4, 5)]
    enter(project, hours[0], people=members, prefix="m")
    timed(f"{members:,} members, all new", hours[0])
    with project.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("vacuum analyze experiences.assignments, experiences.live_ctas, segments.members"))
    enter(project, hours[1], people=1000, prefix="n")
    timed("1,000 more", hours[1])
    timed("nobody more", hours[1])
    edited = msgspec.structs.replace(project.experiences["upgrade_banner"], priority=1)
    project.experiences = {**project.experiences, "upgrade_banner": edited}
    timed("one of two experiences edited", hours[1])


def main() -> None:
    """Run all parts and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mails", type=int, default=20_000)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory(prefix="upnext-bench-", dir=".") as folder:
        home = Path(folder).resolve()
        server = EmbeddedServer(home / "postgres")
        server.start()
        port = free_port()
        settings = replace(Settings.from_environment({"UPNEXT_HOME": str(home)}), smtp_url=f"smtp://127.0.0.1:{port}")
        project = Project(replace(settings, mail_from="Otto <hello@otto.example>"))
        start_all(project, by="the benchmark")
        try:
            with console.status("making people whose first mail is due"):
                fill(project, arguments.mails)
                build(project, AS_OF, is_explicit=True)
                everybody = msgspec.structs.replace(project.journeys[JOURNEY], holdout=0)
                project.journeys = {JOURNEY: everybody}
                dispatch_journeys(project, AS_OF, only={JOURNEY}, is_replay=True)
            sending = Table(title="Sending, to a server that answers at once", title_justify="left")
            for column in ("mails", "connections", "rendering alone", "bare loop", "dispatch", "dispatch / bare loop"):
                sending.add_column(column, justify="right")
            with sink(port):
                measure_sending(project, port, arguments.rounds, sending)
            console.print(sending)
            moving = Table(title="Moving people, in SQL", title_justify="left")
            for column in ("what", "entered", "messages written", "time"):
                moving.add_column(column, justify="right")
            measure_moving(project, arguments.entries, moving)
            console.print(moving)
            showing = Table(title="Assigning and showing", title_justify="left")
            for column in ("what", "assigned", "time", "shown anew", "time"):
                showing.add_column(column, justify="right")
            measure_showing(project, arguments.entries, showing)
            console.print(showing)
        finally:
            project.engine.dispose()
            server.stop()


if __name__ == "__main__":
    main()
