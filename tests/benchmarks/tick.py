"""What an hourly tick costs, side by side with DuckDB computing the same segments from Parquet.

    make bench-tick                          10 M events of history
    make bench-tick EVENTS=5000000,50000000  the same change upon a short and a long history

The events are made here, 1,000 an hour, so that 10 M are a little more than a year: a longer history is longer in
time, and the hour's change is the same.
Work in SQL is what the server's own log says of the statements of dbt; start-up, and what dbt itself does, are left
out. DuckDB reads events whose users are resolved; so the three segments are user_features and the segments themselves.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pyarrow
import pyarrow.csv
import pyarrow.parquet
from rich.console import Console
from rich.table import Table

from upnext.loop import build
from upnext.operations.controls import start_all
from upnext.project import Project
from upnext.settings import Settings
from upnext.warehouse.embedded import EmbeddedServer

BIN = Path(sys.executable).parent
AS_OF = datetime(2026, 3, 31, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
RATE = 1_000
USERS = 100_000
SEGMENTS = ("basic_plan_power_users", "upgrade_curious", "low_usage_paid_users")
# What DuckDB computes as well: who is who is done for it. A tick evaluates most segments with user_features.
THREE_SEGMENTS = ("user_features", *SEGMENTS)
# One in a hundred is of a visitor who has told, or will tell, who it is; one in two hundred names an account.
EVENTS = """
    insert into raw.events (
        source, message_id, type, event, user_id, anonymous_id, person_id, account_id, occurred_at, load_id, properties
    )
    select
        'bench', %(load)s || '-' || number,
        case when kind < 0.003 then 'identify' when kind < 0.006 then 'group' else 'track' end,
        case
            when kind < 0.006 then null when kind < 0.40 then 'login' when kind < 0.55 then 'created ml task'
            when kind < 0.70 then 'created object' when kind < 0.90 then 'product viewed'
            when kind < 0.95 then 'exported report' when kind < 0.98 then 'viewed upgrade plan'
            when kind < 0.987 then 'invited team member' when kind < 0.992 then 'subscribed newsletter'
            when kind < 0.997 then 'subscribed to basic plan' else 'subscribed to premium plan'
        end,
        case when kind < 0.01 or visits > 0.01 then 'u' || who end,
        case when kind < 0.003 or visits <= 0.01 then 'v' || who end,
        case when kind < 0.01 or visits > 0.01 then 'u' || who else 'visitor:v' || who end,
        case when kind >= 0.003 and kind < 0.006 then 'a' || who %% 5000 end,
        at, %(load)s, '{"plan": "basic"}'
    from generate_series(1, %(count)s) as number
    cross join lateral (
        select
            random() as kind, random() as visits, floor(power(random(), 2) * %(users)s)::int as who,
            %(start)s::timestamptz + number * (%(length)s::interval / %(count)s) as at
    ) as drawn
"""
LOAD = """
    insert into raw.loads (
        source, path, fingerprint, size, modified_at, received, stored, duplicate, rejected, loaded_at
    )
    values ('bench', gen_random_uuid()::text, '', 0, now(), 0, 0, 0, 0, now()) returning load_id
"""


@dataclass
class Measured:
    """Figures of one length of history: seconds, and bytes of a row."""

    events: int
    tick: list[float]
    duckdb: list[float]
    command: float
    by_model: dict[str, float]
    first: float
    sizes: dict[str, float] = field(default_factory=dict)


class Warehouse:
    """A server and a home of the benchmark's own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.server = EmbeddedServer(home / "postgres")
        self.url = self.server.start()
        # One statement at a time, so that none is slower for another that runs beside it.
        os.environ["UPNEXT_DBT_THREADS"] = "1"
        self.project = Project(Settings.from_environment({"UPNEXT_HOME": str(home)}))
        start_all(self.project, by="the benchmark")
        self.connection = psycopg.connect(self.url, autocommit=True)
        self.connection.execute("select setseed(0.5)")

    def add(self, count: int, *, start: datetime, length: timedelta) -> None:
        """Store events of a span of time as one load."""
        [(load,)] = self.connection.execute(LOAD).fetchall()
        values = {"load": load, "count": count, "users": USERS, "start": start, "length": length}
        self.connection.execute(EVENTS, values)

    def fill(self, count: int) -> None:
        """Store the history; its indexes are built afterwards, as after a restore."""
        indexes = self.connection.execute(
            "select indexname, indexdef from pg_indexes where schemaname = 'raw' and tablename = 'events'"
            " and indexname <> 'events_pkey'"
        ).fetchall()
        for name, _ in indexes:
            self.connection.execute(f"drop index raw.{name}")
        length = HOUR * (count / RATE)
        self.add(count, start=AS_OF - length, length=length)
        for _, definition in indexes:
            self.connection.execute(definition)
        self.connection.execute("vacuum (analyze) raw.events")

    def tick(self, as_of: datetime) -> dict[str, float]:
        """Tick in this process; return the seconds that the server worked for each of dbt's models."""
        log = self.home / "postgres" / "data" / "server.log"
        self.connection.execute("alter role upnext set log_min_duration_statement = 0")
        begin = log.stat().st_size
        build(self.project, as_of, is_explicit=True)
        self.connection.execute("alter role upnext reset log_min_duration_statement")
        with log.open(errors="replace") as stream:
            stream.seek(begin)
            entries = re.split(r"\n(?=\S+ \S+ \S+ \[)", stream.read())
        by_model: dict[str, float] = {}
        for entry in entries:
            duration = re.search(r"duration: ([0-9.]+) ms  statement: ", entry)
            node = re.search(r'"node_id": "(?:model|test)\.upnext\.(\w+?)(?:\.\w+)?"', entry)
            if duration and node:
                by_model[node[1]] = by_model.get(node[1], 0.0) + float(duration[1]) / 1000
        return by_model

    def export(self, path: Path) -> None:
        """Write what the three segments are made of as Parquet: events under the users who did them."""
        rows = path.with_suffix(".csv")
        columns = "user_id, event, (extract(epoch from occurred_at) * 1000000)::bigint, source, message_id"
        with rows.open("wb") as stream, self.connection.cursor().copy(
            f"copy (select {columns} from events.user_events) to stdout (format csv)"
        ) as copy:  # fmt: skip
            for block in copy:
                stream.write(block)
        options = pyarrow.csv.ReadOptions(column_names=["user_id", "event", "occurred_at", "source", "message_id"])
        time_type = pyarrow.timestamp("us", "UTC")
        with pyarrow.csv.open_csv(rows, read_options=options) as reader:
            schema = reader.schema.set(2, pyarrow.field("occurred_at", time_type))
            with pyarrow.parquet.ParquetWriter(path, schema) as writer:
                for batch in reader:
                    cast = [*batch.columns[:2], batch.column(2).cast(time_type), *batch.columns[3:]]
                    writer.write_batch(pyarrow.RecordBatch.from_arrays(cast, schema=schema))
        rows.unlink()

    def count(self, segment: str) -> int:
        """Return how many members a segment has."""
        [(members,)] = self.connection.execute(f"select count(*) from segments.{segment}").fetchall()
        return int(members)

    def sizes(self) -> dict[str, float]:
        """Return the bytes that a row of each table takes, with its indexes."""
        tables = ("raw.events", "features.user_features", "segments.membership_changes", "journeys.messages")
        return {table: self._bytes_of_row(table) for table in tables}

    def _bytes_of_row(self, table: str) -> float:
        sql = f"select pg_total_relation_size('{table}') / greatest(count(*), 1)::float from {table}"
        [(size,)] = self.connection.execute(sql).fetchall()
        return float(size)

    def close(self) -> None:
        self.connection.close()
        self.project.engine.dispose()
        self.server.stop()


def duckdb(path: Path, as_of: datetime) -> tuple[float, dict[str, int]]:
    """Let DuckDB compute the segments with two threads; return its seconds and the number of members of each."""
    script = Path(__file__).with_name("duckdb_segments.py")
    python = BIN.parent / "bench" / "bin" / "python"
    done = subprocess.run([python, script, path, as_of.isoformat()], check=True, stdout=subprocess.PIPE, text=True)
    answer = json.loads(done.stdout)
    return answer["seconds"], answer["members"]


def measure(home: Path, events: int, ticks: int, console: Console) -> Measured:
    """Measure one length of history."""
    warehouse = Warehouse(home)
    try:
        with console.status(f"storing {events:,} events"):
            warehouse.fill(events)
        with console.status("the first tick, from all events"):
            first = sum(warehouse.tick(AS_OF).values())
        found = Measured(events, [], [], 0.0, {}, first=first)
        as_of = AS_OF
        for _ in range(ticks):
            warehouse.add(RATE, start=as_of, length=HOUR)
            as_of += HOUR
            found.by_model = warehouse.tick(as_of)
            found.tick.append(sum(found.by_model.get(model, 0.0) for model in THREE_SEGMENTS))
        parquet = home / "events.parquet"
        with console.status("DuckDB"):
            warehouse.export(parquet)
            for _ in range(ticks):
                elapsed, members = duckdb(parquet, as_of)
                found.duckdb.append(elapsed)
        parquet.unlink()
        ours = {segment: warehouse.count(segment) for segment in SEGMENTS}
        if ours != members:
            raise SystemExit(f"not the same members: {ours} and {members}")
        # The first whole tick enrols all members there are; the second is like any other.
        for _ in range(2):
            warehouse.add(RATE, start=as_of, length=HOUR)
            as_of += HOUR
            started = time.perf_counter()
            subprocess.run(
                [BIN / "upnext", "tick", "--as-of", as_of.isoformat(), "--json"],
                env={**os.environ, "UPNEXT_HOME": str(home)}, check=True, capture_output=True,
            )  # fmt: skip
            found.command = time.perf_counter() - started
        found.sizes = warehouse.sizes()
        return found
    finally:
        warehouse.close()


def main() -> None:
    """Run the benchmark and print a table of times and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=lambda text: [int(count) for count in text.split(",")], default=[10_000_000])
    parser.add_argument("--ticks", type=int, default=5)
    asked = parser.parse_args()
    console = Console()
    measured = []
    for events in asked.events:
        with TemporaryDirectory(prefix="upnext-bench-", dir=Path.cwd()) as folder:
            measured.append(measure(Path(folder), events, asked.ticks, console))
    table = Table(
        title=f"An hourly tick: {RATE:,} events upon a history of as many an hour, {USERS:,} users; median of"
        f" {asked.ticks} ticks",
        title_justify="left",
    )
    names = (
        "events of history",
        "three segments, in SQL",
        "DuckDB, 2 threads",
        "DuckDB / Upnext",
        "all of dbt, in SQL",
        "`upnext tick`",
    )
    for column in names:
        table.add_column(column, justify="right")
    for found in measured:
        tick, rival = statistics.median(found.tick), statistics.median(found.duckdb)
        ratios = ", ".join(f"{b / a:.1f}" for a, b in zip(found.tick, found.duckdb, strict=True))
        row = (
            f"{found.events:,}",
            f"{tick:.3f} s",
            f"{rival:.2f} s",
            f"{rival / tick:.1f} ({ratios})",
            f"{sum(found.by_model.values()):.3f} s",
            f"{found.command:.1f} s",
        )
        table.add_row(*row)
    console.print(table)
    first, last = statistics.median(measured[0].tick), statistics.median(measured[-1].tick)
    if len(measured) > 1:
        console.print(
            f"{measured[-1].events:,} against {measured[0].events:,} events: {last / first:.2f} times the time"
        )
    where = Table(title="Where the time of the last tick goes, ms in SQL", title_justify="left")
    where.add_column("model")
    for found in measured:
        where.add_column(f"{found.events:,}", justify="right")
    for model in sorted(measured[-1].by_model, key=lambda name: -measured[-1].by_model[name]):
        where.add_row(model, *(f"{found.by_model.get(model, 0.0) * 1000:.0f}" for found in measured))
    console.print(where)
    console.print(f"the first tick, from all {measured[-1].events:,} events: {measured[-1].first:.1f} s in SQL")
    for table, size in measured[-1].sizes.items():
        console.print(f"{table}: {size:,.0f} bytes a row, indexes included")


if __name__ == "__main__":
    main()
