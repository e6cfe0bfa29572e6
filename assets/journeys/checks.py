"""Whether messages go out: as asset checks of the outbox."""

from collections.abc import Iterator

import dagster as dg

from assets.journeys.dispatch import count_troubles
from orchestration.stages import Platform, utc_now

MESSAGES = dg.AssetKey(["journeys", "messages"])
TROUBLES = {
    "steps_are_not_overdue": "Steps and messages of journeys that are not paused go out within an hour of their time.",
    "outcomes_are_known": "The fate of no message of the last week is unknown.",
    "channels_do_not_fail": "Of a channel's messages of the last day not more than one in twenty fail.",
}


@dg.multi_asset_check(
    specs=[dg.AssetCheckSpec(name, asset=MESSAGES, description=text) for name, text in TROUBLES.items()],
    can_subset=True,
)
def outbox_works(
    context: dg.AssetCheckExecutionContext, platform: dg.ResourceParam[Platform]
) -> Iterator[dg.AssetCheckResult]:
    """Warn of steps that are overdue, of outcomes that nobody knows, and of channels that fail."""
    troubles = count_troubles(platform.engine, now=utc_now())
    for key in context.selected_asset_check_keys:
        found = troubles[key.name]
        yield dg.AssetCheckResult(
            asset_key=MESSAGES,
            check_name=key.name,
            passed=not any(found.values()),
            severity=dg.AssetCheckSeverity.WARN,
            metadata={name: dg.MetadataValue.int(count) for name, count in found.items()},
        )
