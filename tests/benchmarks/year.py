"""How large a home is after each of 18 months, with the policy's retention and a prune a night.

    make bench-year

Events come for nine months, and none for the next nine; they are kept for three. A month has a few days of hourly ticks
in place of thirty, so that all takes minutes; what one tick leaves behind is the same.
"""

import argparse
import json
import os
import random
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from upnext.clock import utc_now
from upnext.journeys.policy import Landed, Policy, Retention
from upnext.loop import ingest_landing, prune_old, tick
from upnext.project import Project
from upnext.retention.archive import archive
from upnext.settings import Settings
from upnext.warehouse.engine import embedded_server

BEGIN = datetime(2025, 1, 1, tzinfo=UTC)
MONTH = timedelta(days=30)
MONTHS, OF_EVENTS = 18, 9
EVENTS_A_USER = 12
NAMES = ("login", "created object", "viewed upgrade plan", "exported report", "created ml task", "product viewed")
KEEP = ["product viewed", "subscribed to basic plan", "subscribed to premium plan", "subscribed newsletter", "login",
        "created object"]  # fmt: skip


def lines(users: int, month: int) -> Iterator[str]:
    """Yield the events of a month: some of each user, and in the first month who they are."""
    draw = random.Random(month)  # noqa: S311 - made-up users
    begin = BEGIN + month * MONTH
    for user in range(users):
        if month == 0:
            yield json.dumps({"type": "identify", "userId": f"u{user}", "messageId": f"i{user}", "timestamp":
                              begin.isoformat(), "traits": {"email": f"u{user}@customer.example"}})  # fmt: skip
        for nth in range(EVENTS_A_USER):
            at = begin + timedelta(seconds=draw.randrange(int(MONTH.total_seconds())))
            yield json.dumps({"type": "track", "event": draw.choice(NAMES), "userId": f"u{user}",
                              "messageId": f"{month} {user} {nth}", "timestamp": at.isoformat()})  # fmt: skip


def megabytes(project: Project) -> tuple[float, float]:
    """Return the size of the database, and of the home without the server's files."""
    with project.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        # What autovacuum does in a month.
        connection.exec_driver_sql("vacuum")
        database = connection.exec_driver_sql("select pg_database_size(current_database())").scalar_one()
    files = sum(
        path.lstat().st_size
        for path in project.settings.home.rglob("*")
        if "postgres" not in path.relative_to(project.settings.home).parts and path.is_file()
    )
    return database / 1e6, files / 1e6


def main() -> None:
    """Tick through the months, and print the sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, required=True)
    parser.add_argument("--ticks", type=int, required=True)
    asked = parser.parse_args()
    table = Table(title=f"{asked.users:,} users, {asked.ticks} hourly ticks a month", title_justify="left")
    for column in ("month", "new events", "events kept", "ticks", "evaluations", "database MB", "home MB"):
        table.add_column(column, justify="right")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["UPNEXT_HOME"] = folder
        project = Project(Settings.from_environment())
        project.policy = Policy(
            retention=Retention(after="3 months", keep=KEEP),
            landed=Landed(archive_after="1 day", delete_after="30 days"),
        )
        for month in track(range(MONTHS), description="months"):
            new = 0
            if month < OF_EVENTS:
                path = Path(folder) / "landing" / "segment" / f"{month}.jsonl"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("\n".join(lines(asked.users, month)) + "\n")
                new = ingest_landing(project).stored
            end = BEGIN + (month + 1) * MONTH
            for nth in range(asked.ticks):
                tick(project, end - (asked.ticks - 1 - nth) * timedelta(hours=1), is_replay=True)
            prune_old(project, end)
            # The system's clock has not moved on with the months.
            archive(project.engine, project.settings.landing, project.settings.archive, project.sources,
                    project.policy.landed, now=utc_now() + MONTH)  # fmt: skip
            database, home = megabytes(project)
            with project.engine.connect() as connection:
                counts = [
                    connection.exec_driver_sql(f"select count(*) from {name}").scalar_one()
                    for name in ("raw.events", "segments.ticks", "segments.evaluations")
                ]
            table.add_row(
                f"{month + 1}", f"{new:,}", *(f"{count:,}" for count in counts), f"{database:.0f}", f"{home:.1f}"
            )
        project.engine.dispose()
        embedded_server(project.settings).stop()
    Console().print(table)


if __name__ == "__main__":
    main()
