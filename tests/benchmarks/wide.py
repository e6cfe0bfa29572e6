"""What an hourly tick costs with many features and segments, beside one with few, upon the same history.

    make bench-wide                         500 features and 200 segments, and 20 and 10

Both contents are made here. Their features are counts, sums, days, latest values and sequences, with windows and
conditions; each segment reads a few of them. The ticks of the two take turns. A last tick adds one feature to the wide
content: only the new column is computed.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from rich.console import Console
from rich.progress import track
from rich.table import Table

from tests.benchmarks import tick
from tests.benchmarks.tick import AS_OF, BIN, HOUR, RATE, Warehouse
from upnext import dbt
from upnext.project import Project
from upnext.settings import Settings

NARROW, WIDE = (20, 10), (500, 200)
EVENTS = (
    "login", "created ml task", "created object", "product viewed", "exported report", "viewed upgrade plan",
    "invited team member", "subscribed newsletter", "subscribed to basic plan", "subscribed to premium plan",
)  # fmt: skip
WINDOWS = ("1 day", "5 days", "10 days", "30 days", "90 days")


def features(count: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and the definition of features, each another one."""
    for nth in range(count):
        event, within = EVENTS[nth % 10], f"{nth // 10 + 1} days" if nth % 3 else WINDOWS[nth % 5]
        kinds: list[dict[str, Any]] = [
            {"count_of": event, "within": within},
            {"count_of": event, "where": {"plan": {"one_of": ["basic", f"plan {nth}"]}}},
            {"count_of": event, "within": within},
            {"days_of": event, "within": within},
            {"ever": event},
            {"count_of": event, "within": within},
            {"last_at": event, "where": {"plan": {"not": f"plan {nth}"}}},
            {"latest": "plan", "of": event, "within": within},
            {"count_of": event, "within": within},
            {"sequence": [event, "login"], "in": within, "within": "30 days"},
        ]
        yield f"feature_{nth}", kinds[nth % 7 if nth % 20 else nth // 20 % 10]


def segments(count: int, counts: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the name and the SELECT of segments over features that count."""
    for nth in range(count):
        first, second = counts[nth % len(counts)], counts[(nth * 7 + 3) % len(counts)]
        condition = f"{first} >= {nth % 5 + 1} and {second} < {nth % 11 + 1}"
        yield f"segment_{nth}", f"select user_id from {{{{ ref('user_features') }}}} where {condition}"


def content(folder: Path, feature_count: int, segment_count: int) -> Path:
    """Write a content of so many features and segments."""
    shipped = Settings.from_environment({})
    shutil.copytree(shipped.sources, folder / "sources")
    shutil.copytree(dbt.own_models(shipped), folder / "models")
    (folder / "campaigns").mkdir()
    shutil.copy(shipped.campaigns / "slots.yml", folder / "campaigns")
    shutil.rmtree(folder / "models" / "segments")
    (folder / "models" / "segments").mkdir()
    made = dict(features(feature_count))
    declare(folder, made)
    counts = [name for name, meta in made.items() if "count_of" in meta]
    for name, select in segments(segment_count, counts):
        (folder / "models" / "segments" / f"{name}.sql").write_text(select)
    described = [{"name": f"segment_{nth}", "description": "One row per member."} for nth in range(segment_count)]
    (folder / "models" / "segments" / "_segments.yml").write_text(yaml.safe_dump({"models": described}))
    return folder


def declare(folder: Path, made: dict[str, dict[str, Any]]) -> None:
    """Write these features of users; those of accounts stay as they ship, without what reads features of users."""
    path = folder / "models" / "features" / "_features.yml"
    declared = yaml.safe_load(path.read_text())
    columns = [{"name": name, "description": name, "config": {"meta": meta}} for name, meta in made.items()]
    for model in declared["models"]:
        if model["name"] == "user_features":
            model["columns"] = [{"name": "user_id", "description": "The user."}, *columns]
        else:
            model["columns"] = [
                column for column in model["columns"]
                if column.get("config", {}).get("meta", {}).get("members_where", "any") == "any"
            ]  # fmt: skip
    path.write_text(yaml.safe_dump(declared, sort_keys=False))


def wide_warehouse(home: Path, size: tuple[int, int]) -> Warehouse:
    """Return a warehouse with a content of this size."""
    warehouse = Warehouse(home)
    folder = content(home / "content", *size)
    warehouse.project.engine.dispose()
    warehouse.project = Project(Settings.from_environment({"UPNEXT_HOME": str(home), "UPNEXT_CONTENT": str(folder)}))
    return warehouse


def command(warehouse: Warehouse, nth: int) -> float:
    """Run `upnext tick` an hour later, with an hour's events, and return its seconds."""
    as_of = AS_OF + nth * HOUR
    warehouse.add(RATE, start=as_of - HOUR, length=HOUR)
    begun = time.perf_counter()
    # With as many statements at a time as everybody's ticks have.
    os.environ.pop("UPNEXT_DBT_THREADS", None)
    environment = {"UPNEXT_HOME": str(warehouse.home), "UPNEXT_CONTENT": str(warehouse.home / "content")}
    done = subprocess.run(
        [BIN / "upnext", "tick", "--as-of", as_of.isoformat(), "--json"],
        env={**os.environ, **environment}, check=False, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stderr)
    return time.perf_counter() - begun


def main() -> None:
    """Run the benchmark and print a table of times and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=500_000)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--ticks", type=int, default=5)
    asked = parser.parse_args()
    tick.USERS = asked.users
    console = Console()
    with TemporaryDirectory(prefix="upnext-bench-", dir=Path.cwd()) as root:
        both = [wide_warehouse(Path(root) / name, size) for name, size in (("narrow", NARROW), ("wide", WIDE))]
        for warehouse in both:
            warehouse.fill(asked.events)
        first = [command(warehouse, 0) for warehouse in both]
        for warehouse in both:
            command(warehouse, 1)
        taken = [
            [command(warehouse, nth) for warehouse in both] for nth in track(range(2, asked.ticks + 2), console=console)
        ]
        wide = both[1]
        declare(wide.home / "content", dict(features(WIDE[0] + 1)))
        added = command(wide, asked.ticks + 2)
        for warehouse in both:
            warehouse.close()
    table = Table(title=f"`upnext tick`: {asked.events:,} events, {asked.users:,} users", title_justify="left")
    for column in ("features, segments", "first tick", f"hourly tick, median of {asked.ticks}", "adds one feature"):
        table.add_column(column, justify="right")
    medians = [statistics.median(times) for times in zip(*taken, strict=True)]
    for size, begun, median, one in zip((NARROW, WIDE), first, medians, ("", f"{added:.1f} s"), strict=True):
        table.add_row(f"{size[0]}, {size[1]}", f"{begun:.1f} s", f"{median:.1f} s", one)
    console.print(table)
    ratios = ", ".join(f"{wide / narrow:.2f}" for narrow, wide in taken)
    console.print(f"wide against narrow: {medians[1] / medians[0]:.2f} ({ratios})")


if __name__ == "__main__":
    main()
