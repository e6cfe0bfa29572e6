"""Asset checks of segments and features: a change that nobody expected, and drift."""

import dagster as dg

from assets.segments.membership import beyond_limits, held_out
from orchestration.stages import Platform, rebuild

_LOG = dg.AssetKey(["segments", "membership_changes"])
# The last thing of the models that a tick builds, all in one step: what is checked has happened by then.
_BUILT = [dg.AssetKey(["segments", "primary_segment"])]
_FEATURES = dg.AssetKey(["features", "user_features"])


@dg.asset_check(
    asset=_LOG,
    additional_deps=_BUILT,
    description="The last tick changed no segment by more than its owner expects.",
)
def segments_change_within_limits(platform: dg.ResourceParam[Platform]) -> dg.AssetCheckResult:
    """Warn before anybody is messaged; a segment whose owner says `hold` is held back as well."""
    beyond = beyond_limits(platform.engine)
    return dg.AssetCheckResult(
        passed=not beyond,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(map(str, beyond)) or None,
        metadata={change.segment: change.entered + change.exited for change in beyond},
    )


@dg.asset_check(asset=_LOG, additional_deps=_BUILT, description="The last tick could look at every segment.")
def segments_can_be_evaluated(platform: dg.ResourceParam[Platform]) -> dg.AssetCheckResult:
    """Name the segments that were held out, since a condition met a value that it cannot read."""
    failed = held_out(platform.engine)
    return dg.AssetCheckResult(
        passed=not failed,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(f"{segment}: {error}" for segment, error in failed.items()) or None,
        metadata=failed,
    )


@dg.asset_check(asset=_FEATURES, description="Features, identities and users of experiments are what they are afresh.")
def features_do_not_drift(platform: dg.ResourceParam[Platform]) -> dg.AssetCheckResult:
    """Compute everything afresh beside the tables, compare, and mend them: every night, or when somebody asks."""
    drift = rebuild(platform)
    return dg.AssetCheckResult(passed=not any(drift.values()), severity=dg.AssetCheckSeverity.ERROR, metadata=drift)
