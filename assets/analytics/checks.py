"""Whether results can be believed: as asset checks."""

from collections.abc import Iterator

import dagster as dg

from assets.analytics.health import TROUBLES, find_troubles
from orchestration.stages import Platform
from orchestration.ticks import last_published_as_of

RESULTS = dg.AssetKey(["analytics", "experiment_results"])


@dg.multi_asset_check(
    specs=[dg.AssetCheckSpec(name, asset=RESULTS, description=text) for name, text in TROUBLES.items()],
    can_subset=True,
)
def results_can_be_believed(
    context: dg.AssetCheckExecutionContext, platform: dg.ResourceParam[Platform]
) -> Iterator[dg.AssetCheckResult]:
    """Warn of what would make a result wrong, with the experiment or the event that it is about."""
    as_of = last_published_as_of(platform.engine)
    events = {event for metric in platform.metrics.values() for event in metric.events}
    summed = {metric.of for metric in platform.metrics.values() if metric.of is not None}
    troubles = {} if as_of is None else find_troubles(platform.engine, as_of=as_of, events=events, summed_events=summed)
    for key in context.selected_asset_check_keys:
        found = troubles.get(key.name, {})
        yield dg.AssetCheckResult(
            asset_key=RESULTS,
            check_name=key.name,
            passed=not found,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={name: dg.MetadataValue.float(value) for name, value in found.items()},
        )
