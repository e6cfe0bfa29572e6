"""Reads and checks the declared metrics; errors name the file, the line and the nearest match."""

from collections.abc import Collection
from pathlib import Path

from upnext.analytics.definition import Metric, MetricsFile
from upnext.declarations import check, load
from upnext.durations import seconds


def load_metrics(models: Path, events: set[str]) -> dict[str, Metric]:
    """Read the metrics of all experiments. Raises `UpnextError` with file, line and nearest match."""
    path = _file(models)
    declared = load(path, MetricsFile)
    check(path, declared.find_mistakes(events))
    return declared.by_name


def check_times(models: Path, goals: Collection[str]) -> None:
    """Raise `UpnextError` for a metric that begins when the time of every goal is over, of which `goals` has each."""
    if goals:
        path, longest = _file(models), max(goals, key=seconds)
        check(path, load(path, MetricsFile).find_late(longest))


def _file(models: Path) -> Path:
    return models / "analytics" / "_metrics.yml"
