"""Reading what is declared of metrics, checked: errors name the file, the line and the nearest match."""

from pathlib import Path

from upnext.analytics.definition import Metric, MetricsFile
from upnext.declarations import line_of, load
from upnext.errors import UpnextError


def load_metrics(models: Path, events: set[str]) -> dict[str, Metric]:
    """Read the metrics of all experiments. Raises `UpnextError` with file, line and nearest match."""
    path = models / "analytics" / "_metrics.yml"
    declared = load(path, MetricsFile)
    for keys, mistake in declared.find_mistakes(events):
        raise UpnextError(f"{path}:{line_of(path, keys)}: {mistake}")
    return declared.metrics
