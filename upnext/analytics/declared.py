"""Reads and checks the declared metrics; errors name the file, the line and the nearest match."""

from pathlib import Path

from upnext.analytics.definition import Metric, MetricsFile
from upnext.declarations import check, load


def load_metrics(models: Path, events: set[str]) -> dict[str, Metric]:
    """Read the metrics of all experiments. Raises `UpnextError` with file, line and nearest match."""
    path = models / "analytics" / "_metrics.yml"
    declared = load(path, MetricsFile)
    check(path, declared.find_mistakes(events))
    return declared.by_name
