"""What an hour's analysis costs: 20 metrics of a million users with their pre-periods, beside tea-tasting.

Upnext's side is the product itself: users see an experience and report their usage before and after, as events; an hour
later the windows of some have closed, others have been exposed, and events have come late. It looks those up, computes
the moments of everybody, and infers. tea-tasting reads the same users from Parquet each time, with DuckDB, with PyArrow
or with pandas: exposures and outcomes that it joins, or rows that were joined beforehand.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow
import pyarrow.parquet
import sqlalchemy as sa
from rich.console import Console
from rich.progress import track
from rich.table import Table

from tests.outcomes import experience, store
from upnext import dbt
from upnext.analytics.comparisons import Arm, Moments, compare_experiments
from upnext.analytics.results import compute_all_users
from upnext.analytics.sql import SQL
from upnext.loop import analyse_results, build
from upnext.project import Project
from upnext.settings import Settings
from upnext.warehouse.embedded import EmbeddedServer

AS_OF = datetime(2026, 3, 31, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
METRICS = 20
BENCH_PYTHON = Path(sys.executable).parents[1] / "bench" / "bin" / "python"
NAMES = [f"m{number:02d}" for number in range(METRICS)]
OUTCOMES = ["has_clicked", "has_reached_goal", *(column for name in NAMES for column in (name, f"{name}__before"))]
HOURS_OF_EXPOSURE = 28 * 24
# Users are exposed at an even pace for four weeks, and are numbered by it: at AS_OF the windows of the first {closed}
# are over, and each hour {hourly} more close. In those hours as many others are exposed, ten times as many look again,
# and some of the usage comes in late.
FILL = """
    insert into experiences.assignments (experience, user_id, variant, assigned_at)
    select
        'offer', 'u' || who, case when upnext.bucket('arm', who::text) < 0.5 then 'control' else 'a' end,
        timestamptz '{as_of}' - interval '60 days'
    from generate_series(1, {users}) as who;
    insert into raw.events (source, message_id, type, event, user_id, person_id, occurred_at, load_id, properties)
    select
        'bench', events.nth || ' ' || who, 'track', events.name, 'u' || who, 'u' || who,
        users.exposed_at + events.after, 0,
        case events.name
            when 'experience viewed' then jsonb_build_object('experience', 'offer', 'variant', assignments.variant)
            when 'experience clicked' then jsonb_build_object('experience', 'offer')
            when 'reported usage' then jsonb_build_object({usage})
            else '{{}}'
        end
    from generate_series(1, {users}) as who
    inner join experiences.assignments on assignments.user_id = 'u' || who
    cross join lateral (
        select
            random_normal() as habit,
            case
                when who <= {closed} + {hours} * {hourly}
                    then timestamptz '{as_of}' - interval '7 days' + (who - {closed}) * interval '1 hour' / {hourly}
                else timestamptz '{as_of}' + (who - {closed} - {hours} * {hourly}) * interval '1 hour' / {hourly}
            end as exposed_at
    ) as users
    cross join lateral (
        values
        (1, 'experience viewed', interval '0', true),
        (2, 'experience clicked', interval '1 minute', random() < 0.2),
        (3, 'subscribed to premium plan', interval '2 days', random() < 0.1),
        (4, 'reported usage', interval '-3 days', true),
        (5, 'reported usage', interval '3 days', true)
    ) as events (nth, name, after, is_there)
    where events.is_there;
    insert into raw.events (source, message_id, type, event, user_id, person_id, occurred_at, load_id, properties)
    select
        'bench', 'again ' || nth, 'track', 'experience viewed', user_id, user_id,
        timestamptz '{as_of}' + nth * interval '1 hour' / {hourly} / 10, 0,
        jsonb_build_object('experience', 'offer', 'variant', variant)
    from (
        select user_id, variant, row_number() over (order by upnext.bucket('again', user_id)) as nth
        from experiences.assignments
        where cast(substr(user_id, 2) as integer) <= {closed}
    ) as users
    where nth <= {hours} * {hourly} * 10
"""
LATE = sa.text("""
    with load as (
        insert into raw.loads
            (source, path, fingerprint, size, modified_at, received, stored, duplicate, rejected, loaded_at, tick_id)
        select 'bench', 'late', tick_id, 0, as_of, 0, 0, 0, 0, as_of, tick_id
        from segments.ticks
        order by tick_id desc
        limit 1
        returning load_id, loaded_at
    )

    insert into raw.events (source, message_id, type, event, user_id, person_id, occurred_at, load_id, properties)
    select 'bench', 'late ' || load.load_id || ' ' || late.message_id, 'track', late.event, late.user_id, late.user_id,
        late.occurred_at, load.load_id, late.properties
    from load
    cross join lateral (
        select * from raw.events
        where event = 'reported usage' and occurred_at < load.loaded_at - interval '7 days'
        order by occurred_at desc
        limit :late
    ) as late
""")


def project_of(folder: Path) -> Path:
    """Copy the project with the bench's metrics in the place of its own."""
    copied = folder / "dbt_project"
    shutil.copytree(dbt.PROJECT_DIR, copied, ignore=shutil.ignore_patterns("target", "logs"))
    described = copied / "models" / "analytics" / "_metrics.yml"
    before, _, _ = described.read_text().partition("      - name: logins\n")
    metrics = [
        f"      - name: {name}\n        config: {{meta: {{sum_of: {name}, of: reported usage}}}}\n" for name in NAMES
    ]
    described.write_text(before + "".join(metrics))
    return copied


def fill(project: Project, *, closed: int, hourly: int, hours: int) -> None:
    """Store users whose habits show before and after their exposure alike."""
    store(project, as_of=AS_OF, assigned_at=AS_OF, experiences={"offer": experience()}, users={"offer": []}, events=[])
    usage = ", ".join(
        f"'{name}', round(({10 + number} + habit + random_normal())\\:\\:numeric, 3)"
        for number, name in enumerate(NAMES)
    )
    script = FILL.format(
        users=closed + 2 * hours * hourly, closed=closed, hourly=hourly, hours=hours, usage=usage, as_of=AS_OF
    )
    with project.engine.begin() as connection:
        connection.execute(sa.text("select setseed(0.5)"))
        for statement in track(script.split(";\n"), "events of the users"):
            connection.execute(sa.text(statement))
    vacuum(project, "raw.events, experiences.assignments")


def vacuum(project: Project, tables: str) -> None:
    """Do at once what the server does after a while."""
    with project.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text(f"vacuum analyze {tables}"))


def an_hour_later(project: Project, as_of: datetime, late: int) -> None:
    """Publish a tick at `as_of` that has taken in events that came late."""
    with project.engine.begin() as connection:
        connection.execute(
            sa.text("insert into segments.ticks (as_of, published_at) values (:as_of, :as_of)"), {"as_of": as_of}
        )
        connection.execute(LATE, {"late": late})


def export(project: Project, folder: Path) -> None:
    """Write exposures, outcomes, and both joined, as Parquet."""
    for name, columns in (
        ("exposures", ["user_id", "arm"]),
        ("outcomes", ["user_id", *OUTCOMES]),
        ("rows", ["arm", *OUTCOMES]),
    ):
        with project.engine.connect() as connection, ExitStack() as stack:
            rows = connection.execution_options(stream_results=True, yield_per=50_000).execute(
                sa.text(f"select {', '.join(columns)} from analytics.experiment_users where is_window_over")
            )
            writer = None
            for part in rows.mappings().partitions():
                table = pyarrow.Table.from_pylist([dict(row) for row in part])
                writer = writer or stack.enter_context(
                    pyarrow.parquet.ParquetWriter(folder / f"{name}.parquet", table.schema)
                )
                writer.write_table(table)


def arms_of(moments: list[Moments]) -> list[Arm]:
    """Return the arms of the experiments, both of them seen as they should be."""
    names = sorted({(row.experiment, row.split, row.arm, row.users) for row in moments})
    return [
        Arm(name, "experience", "everybody", "g", 0.1, split, arm, users, users) for name, split, arm, users in names
    ]


@dataclass(frozen=True)
class Timed:
    """One analysis: seconds to look users up and to sum what that touched, to read the moments, and to infer."""

    looking_up: float
    reading: float
    inferring: float
    results: list[dict[str, Any]]

    @property
    def whole(self) -> float:
        """All of it, in seconds."""
        return self.looking_up + self.reading + self.inferring


def analyse(project: Project) -> Timed:
    """Analyse as the product does: recompute what is stale, read the moments, compare."""
    started = time.perf_counter()
    compute_all_users(project.engine)
    with project.engine.begin() as connection:
        connection.execute(SQL["refresh_users"])
        connection.execute(SQL["refresh_moments"])
    looked_up = time.perf_counter()
    moments = read_moments(project)
    read = time.perf_counter()
    results = compare_experiments(moments, arms_of(moments), as_of=AS_OF)
    return Timed(looked_up - started, read - looked_up, time.perf_counter() - read, results)


def read_moments(project: Project) -> list[Moments]:
    """Return the moments of all users."""
    with project.engine.connect() as connection:
        rows = connection.execute(sa.text("select * from analytics.experiment_moments"))
        return [Moments(**row) for row in rows.mappings()]


def from_all_rows(project: Project) -> float:
    """Return the seconds that the moments take where nothing is kept by day, the faster of two times."""
    sql = "{{ moments_of('analytics.experiment_users', described_columns('experiment_users')) }}"
    statement = sa.text(project.dbt.compile(sql, {}).replace(":", r"\:"))
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        with project.engine.connect() as connection:
            connection.execute(statement).all()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def whole_analysis(project: Project) -> float:
    """Return the seconds that everything takes that an analysis does: arms, segments and copies too."""
    started = time.perf_counter()
    analyse_results(project, AS_OF)
    return time.perf_counter() - started


def inference(project: Project) -> float:
    """Return the seconds that 100 comparisons take."""
    means = [row for row in read_moments(project) if row.type == "mean"]
    many = [replace(row, experiment=f"offer {copy}") for copy in range(5) for row in means]
    arms = arms_of(many)
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        results = compare_experiments(many, arms, as_of=AS_OF)
        seconds.append(time.perf_counter() - started)
    assert len(results) == 100
    return statistics.median(seconds)


def hour_by_hour(project: Project, folder: Path, *, rounds: int, late: int) -> tuple[list[Timed], list[dict[str, Any]]]:
    """Analyse one hour after the other, and have tea-tasting analyse what is in the folder after each."""
    ours, theirs = [], []
    command = [BENCH_PYTHON, "-W", "ignore", "-m", "tests.benchmarks.tea_tasting_moments", folder, str(METRICS)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as tea:
        assert tea.stdin is not None
        assert tea.stdout is not None
        for hour in range(1, rounds + 1):
            an_hour_later(project, AS_OF + hour * HOUR, late=late)
            ours.append(analyse(project))
            tea.stdin.write(f"{hour}\n")
            theirs.append(json.loads(tea.stdout.readline()))
        tea.stdin.close()
    return ours, theirs


def main() -> None:
    """Compare, print a table, and fail where tea-tasting was faster, or says something else."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    # The first round of each is there to warm up, and one more is for a whole analysis.
    rounds = arguments.rounds + 1
    hourly = arguments.users // HOURS_OF_EXPOSURE
    with TemporaryDirectory(prefix="upnext-bench-", dir=Path.cwd()) as folder:
        home = Path(folder)
        dbt.PROJECT_DIR = project_of(home)
        server = EmbeddedServer(home / "postgres")
        try:
            settings = Settings.from_environment({"UPNEXT_HOME": folder, "UPNEXT_DATABASE_URL": server.start()})
            project = Project(settings)
            build(project, AS_OF - HOUR, is_explicit=True)
            fill(project, closed=arguments.users, hourly=hourly, hours=rounds + 1)
            first = analyse(project)
            vacuum(project, "analytics.experiment_users")
            export(project, home)
            ours, theirs = hour_by_hour(project, home, rounds=rounds, late=hourly // 3)
            an_hour_later(project, AS_OF + (rounds + 1) * HOUR, late=hourly // 3)
            others = {
                "everybody looked up in the events, the first time": first.looking_up,
                "moments summed from the rows of everybody": from_all_rows(project),
                "a whole analysis: arms, segments and copies too": whole_analysis(project),
                "inference of 100 comparisons": (hundred := inference(project)),
            }
            project.engine.dispose()
        finally:
            server.stop()
    found = {row["metric"]: row["diff"] for row in first.results}
    assert all(abs(found[name] - theirs[0]["effects"][name]) < 1e-4 for name in NAMES), "they differ"
    title = f"{METRICS} metrics of {arguments.users:,} users, CUPED, an hour after the last time"
    ratios = show(ours[1:], theirs[1:], others, title=title)
    sys.exit(0 if min(ratios.values()) > 1 and hundred < 0.01 else 1)


def show(ours: list[Timed], theirs: list[dict[str, Any]], others: dict[str, float], *, title: str) -> dict[str, float]:
    """Print the middle of all rounds, and return how many times ours each of their ways took."""
    table = Table(title=title)
    table.add_column("")
    table.add_column("seconds", justify="right")
    table.add_column("times ours", justify="right")
    for name, seconds in (
        ("whom the hour has touched looked up and summed", [one.looking_up for one in ours]),
        ("moments of all read", [one.reading for one in ours]),
        ("inference", [one.inferring for one in ours]),
    ):
        table.add_row(name, f"{statistics.median(seconds):.4f}", "")
    table.add_row("all three", f"{statistics.median(one.whole for one in ours):.3f}", "1.00", end_section=True)
    ratios = {}
    for way in theirs[0]["seconds"]:
        seconds = [row["seconds"][way] for row in theirs]
        ratios[way] = statistics.median(their / one.whole for their, one in zip(seconds, ours, strict=True))
        table.add_row(f"tea-tasting, Parquet, {way}", f"{statistics.median(seconds):.3f}", f"{ratios[way]:.2f}")
    table.add_section()
    for name, one in others.items():
        table.add_row(name, f"{one:.4f}" if one < 1 else f"{one:.1f}", "")
    Console(width=100).print(table)
    return ratios


if __name__ == "__main__":
    main()
