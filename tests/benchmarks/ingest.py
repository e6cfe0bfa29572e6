"""How fast files are loaded, side by side with a bare COPY, pandas and dlt, in one run on one server.

    make bench-ingest                            2 M events into an empty warehouse
    make bench-ingest STORED=20000000            the same, where 20 M are stored already

The bare COPY gets the same rows, ready-made, into a table with the same columns and indexes; both tables are equally
large in each round, and the order within a round alternates. pandas and dlt get fewer events: their rates do not
depend on it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import psycopg
import sqlalchemy as sa
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sqlalchemy.dialects.postgresql import JSONB

from tests.benchmarks.segment_events import lines
from upnext.settings import Settings
from upnext.warehouse.embedded import EmbeddedServer
from upnext.warehouse.engine import connect

BIN = Path(sys.executable).parent
FEW = 50_000
COLUMNS = (
    "source, message_id, type, event, user_id, person_id, anonymous_id, account_id, previous_id, occurred_at,"
    " timestamp, original_timestamp, sent_at, received_at, load_id, properties, context, flags"
)
STORED = f"""
    insert into raw.events ({COLUMNS})
    select
        'segment', gen_random_uuid()::text, 'track',
        (array['login', 'created ml task', 'exported report', 'viewed upgrade plan', 'product viewed'])[1 + number % 5],
        drawn.who, drawn.who, null, 'a' || number % 4000, null,
        at, at, at, at, at, 0, jsonb_build_object('object_id', number % 1000000, 'plan', 'basic'),
        jsonb_build_object('groupId', 'a' || number % 4000, 'app', 'web'), null
    from generate_series(1::bigint, %s) as number
    cross join lateral (select timestamptz '2025-01-01' + number * interval '0.7 second' as at) as clock
    -- Of the number, or it would be drawn once for all.
    cross join lateral (select 'u' || lpad((random() * 99999 + 0 * number)::int::text, 6, '0') as who) as drawn
"""


class Warehouse:
    """A server and a home of the benchmark's own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.url = EmbeddedServer(home / "postgres").start()
        connect(Settings.from_environment({"UPNEXT_HOME": str(home)})).dispose()
        self.connection = psycopg.connect(self.url, autocommit=True)
        self.connection.execute("create schema bench")
        self.connection.execute("create table bench.events (like raw.events including all)")

    def fill(self, count: int) -> None:
        """Store the same `count` events in both tables; the indexes are built afterwards, as after a restore."""
        with self.connection.transaction():
            indexes = self.connection.execute(
                "select schemaname, indexname, indexdef from pg_indexes where tablename = 'events'"
                " and schemaname in ('raw', 'bench') and indexname not like '%pkey'"
            ).fetchall()
            keys = {"raw": "events_pkey", "bench": "events_pkey"}
            for schema, name, _ in indexes:
                self.connection.execute(f"drop index {schema}.{name}")
            for schema, name in keys.items():
                self.connection.execute(f"alter table {schema}.events drop constraint {name}")
            self.connection.execute(STORED.replace("%s", str(count)))
            self.connection.execute("insert into bench.events select * from raw.events")
            for schema, name in keys.items():
                self.connection.execute(
                    f"alter table {schema}.events add constraint {name} primary key (source, message_id)"
                )
            for _, _, definition in indexes:
                self.connection.execute(definition)
        self.connection.execute("vacuum (analyze) raw.events, bench.events")

    def settle(self) -> None:
        """Let nobody pay for the writes of the one before."""
        self.connection.execute("checkpoint")

    def close(self) -> None:
        self.connection.close()
        EmbeddedServer(self.home / "postgres").stop()


def upnext(warehouse: Warehouse, path: Path) -> tuple[float, int]:
    """Load a file by the command line; return its seconds, start-up included, and its peak memory in bytes."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [BIN / "upnext", "ingest", path, "--json"],
        env={**os.environ, "UPNEXT_HOME": str(warehouse.home)},
        stdout=subprocess.PIPE,
        text=True,
    )
    printed = process.stdout.read() if process.stdout else ""
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    counts = json.loads(printed)
    if status != 0 or counts["stored"] != counts["received"]:
        raise SystemExit(f"the load went wrong: {printed}")
    return seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def bare_copy(warehouse: Warehouse, rows: Path) -> float:
    """COPY ready-made rows in blocks of 1 MB; return its seconds."""
    started = time.perf_counter()
    with rows.open("rb") as stream, warehouse.connection.cursor().copy("copy bench.events from stdin") as copy:
        while block := stream.read(1024 * 1024):
            copy.write(block)
    return time.perf_counter() - started


def ready_rows(warehouse: Warehouse, path: Path) -> None:
    """Write the rows of the newest load as COPY wants them."""
    with path.open("wb") as stream, warehouse.connection.cursor().copy(
        "copy (select * from raw.events where load_id = (select max(load_id) from raw.loads)) to stdout"
    ) as copy:  # fmt: skip
        for block in copy:
            stream.write(block)


def to_sql(warehouse: Warehouse) -> float:
    """Insert `FEW` of the events with pandas into an equal, empty table; return its events a second."""
    engine = sa.create_engine(warehouse.url.replace("postgresql:", "postgresql+psycopg:"))
    frame = pd.read_sql(f"select * from raw.events order by load_id desc limit {FEW}", engine).drop(columns="flags")
    with engine.begin() as connection:
        connection.execute(sa.text("create table bench.pandas (like raw.events including all)"))
    started = time.perf_counter()
    frame.to_sql(
        "pandas", engine, schema="bench", if_exists="append", index=False, method="multi", chunksize=1_000,
        dtype={"properties": JSONB, "context": JSONB},
    )  # fmt: skip
    seconds = time.perf_counter() - started
    engine.dispose()
    return FEW / seconds


def dlt(warehouse: Warehouse, path: Path) -> float | None:
    """Load `FEW` of the events with dlt; return its events a second, None where it is not installed."""
    python = BIN.parent / "bench" / "bin" / "python"
    if not python.exists():
        return None
    few = path.with_suffix(".few.jsonl")
    with path.open("rb") as stream, few.open("wb") as out:
        out.writelines(islice(stream, FEW))
    script = Path(__file__).with_name("dlt_load.py")
    done = subprocess.run(
        [python, script, few, warehouse.url, str(warehouse.home / "dlt")], check=True, capture_output=True, text=True
    )
    return FEW / float(done.stdout.split()[-1])


def main() -> None:
    """Run the benchmark and print a table of rates and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--stored", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=2)
    asked = parser.parse_args()
    console = Console()
    with TemporaryDirectory(prefix="upnext-bench-", dir=Path.cwd()) as folder:
        home = Path(folder)
        warehouse = Warehouse(home)
        try:
            if asked.stored:
                with console.status(f"storing {asked.stored:,} events twice"):
                    warehouse.fill(asked.stored)
            table = _rounds(warehouse, asked, home)
        finally:
            warehouse.close()
    console.print(table)


def _rounds(warehouse: Warehouse, asked: argparse.Namespace, home: Path) -> Table:
    file, rows = home / "events.jsonl", home / "rows.tsv"
    rates: dict[str, list[float]] = {"upnext ingest": [], "bare COPY of ready-made rows": []}
    ratios: list[float] = []
    peak = size = 0
    for round_ in range(asked.rounds):
        with file.open("wb") as stream:
            made = lines(asked.events, seed=round_)
            stream.writelines(track(made, f"writing events, round {round_ + 1}", total=asked.events))
        size = file.stat().st_size // asked.events
        if not asked.stored:
            warehouse.connection.execute("truncate raw.events, bench.events")
        warehouse.settle()
        seconds, memory = upnext(warehouse, file)
        ready_rows(warehouse, rows)
        warehouse.settle()
        bare = bare_copy(warehouse, rows)
        rates["upnext ingest"].append(asked.events / seconds)
        rates["bare COPY of ready-made rows"].append(asked.events / bare)
        ratios.append(bare / seconds)
        peak = max(peak, memory)
    rows.unlink()
    ours = statistics.median(rates["upnext ingest"])
    table = Table(
        title=f"{asked.events:,} events of {size} bytes, {asked.stored:,} stored before; {asked.rounds} rounds",
        title_justify="left",
    )
    for column in ("", "events a second", "upnext is"):
        table.add_column(column, justify="left" if not column else "right")
    table.add_row("upnext ingest", f"{ours:,.0f}", "")
    bare_rate = statistics.median(rates["bare COPY of ready-made rows"])
    each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    table.add_row(
        "bare COPY of ready-made rows", f"{bare_rate:,.0f}", f"{statistics.median(ratios):.2f} of it ({each})"
    )
    rivals: dict[str, Callable[[], float | None]] = {
        "pandas.to_sql, 1,000 a chunk": lambda: to_sql(warehouse),
        "dlt, append": lambda: dlt(warehouse, file),
    }
    # They load into empty tables: beside one that is full their rates would say nothing.
    for name, run in rivals.items() if not asked.stored else ():
        warehouse.settle()
        rate = run()
        table.add_row(name, "not installed" if rate is None else f"{rate:,.0f}", _times(ours, rate))
    table.add_row("peak memory of upnext ingest", f"{peak / 1e6:,.0f} MB", "")
    if not asked.stored:
        one, two = (_events_a_second(warehouse, asked.events, home, processes=processes) for processes in (1, 2))
        table.add_row("two files, by two processes at once", f"{two:,.0f}", f"{two / one:.2f} times by one")
        # Only Linux lets a process choose its core.
        if sys.platform == "linux" and len(os.sched_getaffinity(0)) > 1:
            one, two = (_with_a_core_each(warehouse, asked.events, home, processes=processes) for processes in (1, 2))
            table.add_row(
                "the same, a core for each process and its session", f"{two:,.0f}", f"{two / one:.2f} times by one"
            )
    return table


def _events_a_second(warehouse: Warehouse, events: int, home: Path, *, processes: int) -> float:
    """Load two files of half the events each into an empty table, by one process or by two."""
    files = _halves(warehouse, events, home, seed=100 + 2 * processes)
    started = time.perf_counter()
    loaders = [_loader(warehouse, files[nth::processes]) for nth in range(processes)]
    stored = sum(json.loads(loader.communicate()[0])["stored"] for loader in loaders)
    seconds = time.perf_counter() - started
    if stored != 2 * (events // 2):
        raise SystemExit(f"{processes} processes stored {stored:,} of {events:,} events")
    return stored / seconds


def _with_a_core_each(warehouse: Warehouse, events: int, home: Path, *, processes: int) -> float:
    """Load half the events by each process, on a core that it shares with its session; return the sum of their rates.

    A session runs on the core that the server has when the session begins.
    """
    files = _halves(warehouse, events, home, seed=200 + 2 * processes)
    server = int((home / "postgres" / "data" / "postmaster.pid").read_text().split()[0])
    cores = sorted(os.sched_getaffinity(0))

    def load(core: int, file: Path) -> float:
        started = time.perf_counter()
        loader = _loader(warehouse, [file])
        os.sched_setaffinity(loader.pid, {core})
        stored: int = json.loads(loader.communicate()[0])["stored"]
        return stored / (time.perf_counter() - started)

    rates: list[Future[float]] = []
    with ThreadPoolExecutor(processes) as pool:
        for core, file in zip(cores, files[:processes], strict=False):
            os.sched_setaffinity(server, {core})
            rates.append(pool.submit(load, core, file))
            while not rates[-1].done() and _copying(warehouse) < len(rates):
                time.sleep(0.01)
    os.sched_setaffinity(server, cores)
    return sum(rate.result() for rate in rates)


def _copying(warehouse: Warehouse) -> int:
    (count,) = warehouse.connection.execute("select count(*) from pg_stat_progress_copy").fetchone() or (0,)
    return int(count)


def _halves(warehouse: Warehouse, events: int, home: Path, *, seed: int) -> list[Path]:
    """Write two files of half the events each, and empty the table."""
    files = [home / f"half {seed + half}.jsonl" for half in range(2)]
    for half, file in enumerate(files):
        with file.open("wb") as stream:
            stream.writelines(lines(events // 2, seed=seed + half))
    warehouse.connection.execute("truncate raw.events")
    warehouse.settle()
    return files


def _loader(warehouse: Warehouse, files: list[Path]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [BIN / "upnext", "ingest", *files, "--json"],
        env={**os.environ, "UPNEXT_HOME": str(warehouse.home)},
        stdout=subprocess.PIPE,
    )


def _times(ours: float, theirs: Any) -> str:
    return "" if theirs is None else f"{ours / theirs:.1f} times it"


if __name__ == "__main__":
    main()
