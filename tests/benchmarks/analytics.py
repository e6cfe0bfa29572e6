"""What results cost: 20 metrics of a million users with their pre-periods, beside tea-tasting on the same rows.

Upnext's side is its own SQL for the moments, over exposures joined to outcomes in Postgres, and its own inference;
tea-tasting reads the joined rows from Parquet, with DuckDB, with PyArrow or with pandas.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow
import pyarrow.parquet
import sqlalchemy as sa
from rich.console import Console
from rich.table import Table

from assets.analytics.comparisons import Arm, Moments, compare_experiments
from orchestration.embedded import EmbeddedServer
from orchestration.settings import Settings
from orchestration.stages import Platform, build

AS_OF = datetime(2026, 3, 31, 12, tzinfo=UTC)
METRICS = 20
BENCH_PYTHON = Path(sys.executable).parents[1] / "bench" / "bin" / "python"
# What joins exposures to outcomes as we do, or reads into memory; DuckDB over rows joined beforehand does less.
SAME_WORK = ("DuckDB, which joins", "PyArrow, joined before", "pandas, joined before")
NAMES = [f"m{number:02d}" for number in range(METRICS)]
FILL = """
    create schema bench;
    create table bench.exposures as
    select
        'offer' as experiment, 'u' || who as user_id,
        case when upnext.bucket('arm', who::text) < 0.5 then 'control' else 'a' end as arm,
        timestamptz '2026-03-01T00:00:00Z' as exposed_at, true as is_window_over
    from generate_series(1, {users}) as who;
    select setseed(0.5);
    create table bench.outcomes as
    select {columns}, random() < 0.2 as has_clicked, random() < 0.1 as has_reached_goal, 'u' || who as user_id
    from generate_series(1, {users}) as who
    cross join lateral (select random_normal() as habit where who > 0) as habits;
    create view bench.experiment_users as
    select exposures.*, {outcomes}
    from bench.exposures inner join bench.outcomes on exposures.user_id = outcomes.user_id;
    vacuum analyze bench.exposures;
    vacuum analyze bench.outcomes;
"""
OUTCOMES = ["has_clicked", "has_reached_goal", *(column for name in NAMES for column in (name, f"{name}__before"))]


def fill(platform: Platform, users: int) -> None:
    """Store users whose habits show before and after their exposure alike."""
    columns = [
        f"{10 + number} + habit + random_normal() as {name}, {10 + number} + habit + random_normal() as {name}__before"
        for number, name in enumerate(NAMES)
    ]
    script = FILL.format(
        users=users, columns=", ".join(columns), outcomes=", ".join(f"outcomes.{column}" for column in OUTCOMES)
    )
    with platform.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in script.split(";\n"):
            if statement.strip():
                connection.execute(sa.text(statement.replace(":", r"\:")))


def export(platform: Platform, folder: Path) -> None:
    """Write exposures, outcomes, and both joined, as Parquet."""
    for name, source, columns in (
        ("exposures", "bench.exposures", ["user_id", "arm"]),
        ("outcomes", "bench.outcomes", ["user_id", *OUTCOMES]),
        ("rows", "bench.experiment_users", ["arm", *OUTCOMES]),
    ):
        with platform.engine.connect() as connection, ExitStack() as stack:
            rows = connection.execution_options(stream_results=True, yield_per=50_000).execute(
                sa.text(f"select {', '.join(columns)} from {source}")
            )
            writer = None
            for part in rows.mappings().partitions():
                table = pyarrow.Table.from_pylist([dict(row) for row in part])
                writer = writer or stack.enter_context(
                    pyarrow.parquet.ParquetWriter(folder / f"{name}.parquet", table.schema)
                )
                writer.write_table(table)


def moments_sql(platform: Platform) -> str:
    """Return the product's SQL for the moments, of the bench's rows and metrics."""
    metrics = [{"name": name, "config": {"meta": {"count_of": name}}} for name in NAMES]
    return platform.dbt.compile("{{ moments_of('bench.experiment_users', " + json.dumps(metrics) + ") }}")


def arms_of(moments: list[Moments]) -> list[Arm]:
    """Return the arms of the experiments, both of them seen as they should be."""
    names = sorted({(row.experiment, row.arm, row.users) for row in moments})
    return [Arm(experiment, "experience", "everybody", "g", 0.1, arm, users, users) for experiment, arm, users in names]


def analyse(platform: Platform, sql: str) -> tuple[float, float, list[dict[str, Any]]]:
    """Return the seconds that moments and inference took, and the results."""
    started = time.perf_counter()
    with platform.engine.connect() as connection:
        moments = [Moments(**row) for row in connection.execute(sa.text(sql.replace(":", r"\:"))).mappings()]
    read = time.perf_counter()
    results = compare_experiments(moments, arms_of(moments), as_of=AS_OF)
    return read - started, time.perf_counter() - read, results


def inference(platform: Platform, sql: str) -> float:
    """Return the seconds that 100 comparisons take."""
    with platform.engine.connect() as connection:
        rows = [dict(row) for row in connection.execute(sa.text(sql.replace(":", r"\:"))).mappings()]
    means = [Moments(**row) for row in rows if row["type"] == "mean"]
    many = [replace(row, experiment=f"offer {copy}") for copy in range(5) for row in means]
    arms = arms_of(many)
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        results = compare_experiments(many, arms, as_of=AS_OF)
        seconds.append(time.perf_counter() - started)
    assert len(results) == 100
    return statistics.median(seconds)


def main() -> None:
    """Compare, print a table, and fail where tea-tasting was faster at the same work, or says something else."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with TemporaryDirectory(prefix="upnext-bench-", dir=Path.cwd()) as folder:
        home = Path(folder)
        server = EmbeddedServer(home / "postgres")
        try:
            settings = Settings.from_environment({"UPNEXT_HOME": folder, "UPNEXT_DATABASE_URL": server.start()})
            platform = Platform(settings)
            build(platform, AS_OF, is_explicit=True)
            fill(platform, arguments.users)
            export(platform, home)
            sql = moments_sql(platform)
            ours, theirs = [], []
            command = [BENCH_PYTHON, "-m", "tests.benchmarks.tea_tasting_moments", home, str(METRICS)]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as tea:
                assert tea.stdin is not None
                assert tea.stdout is not None
                for number in range(arguments.rounds + 1):
                    ours.append(analyse(platform, sql))
                    tea.stdin.write(f"{number}\n")
                    theirs.append(json.loads(tea.stdout.readline()))
                tea.stdin.close()
            hundred = inference(platform, sql)
            platform.engine.dispose()
        finally:
            server.stop()
    found = {row["metric"]: row["diff"] for row in ours[0][2]}
    assert all(abs(found[name] - theirs[0]["effects"][name]) < 1e-4 for name in NAMES), "they differ"
    # The first round of each is there to warm up.
    ours, theirs = ours[1:], theirs[1:]
    whole = [moments + inferred for moments, inferred, _ in ours]
    table = Table(
        title=f"{METRICS} metrics of {arguments.users:,} users, CUPED; the middle of {arguments.rounds} rounds"
    )
    table.add_column("")
    table.add_column("seconds", justify="right")
    table.add_column("times ours", justify="right")
    table.add_row("moments in Postgres, exposures joined", f"{statistics.median(row[0] for row in ours):.3f}", "")
    table.add_row("inference", f"{statistics.median(row[1] for row in ours):.4f}", "")
    table.add_row("both", f"{statistics.median(whole):.3f}", "1.00")
    ratios = {}
    for way in theirs[0]["seconds"]:
        seconds = [row["seconds"][way] for row in theirs]
        ratios[way] = statistics.median(their / our for their, our in zip(seconds, whole, strict=True))
        table.add_row(f"tea-tasting, Parquet, {way}", f"{statistics.median(seconds):.3f}", f"{ratios[way]:.2f}")
    table.add_row("inference of 100 comparisons", f"{hundred:.4f}", "")
    Console(width=100).print(table)
    sys.exit(0 if min(ratios[way] for way in SAME_WORK) > 1 and hundred < 0.01 else 1)


if __name__ == "__main__":
    main()
