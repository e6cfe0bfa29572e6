"""Features and segments: dbt's models as Dagster assets (group and owner are dbt's), and their checks."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_dbt import DbtCliResource, dbt_assets

from assets import owners
from assets.dbt_runs import stream_dbt
from assets.runs import REBUILD_JOB, asked_as_of, say, told_in_one_line
from upnext import dbt
from upnext.alerts import Alert, send
from upnext.errors import UpnextError
from upnext.loop import build_arguments, last_drift, leap, open_tick, rebuild
from upnext.project import Project
from upnext.segments.membership import beyond_limits, not_evaluated, sizes_at
from upnext.ticks.lifecycle import Tick


def build_models(manifest: Path) -> dg.AssetsDefinition:
    """Return events, features and segments as one op: the body of a tick, published if all of it is built."""

    @dbt_assets(manifest=manifest, exclude=f"{dbt.ANALYTICS} resource_type:unit_test", name="features_and_segments")
    def features_and_segments(
        context: dg.AssetExecutionContext, dbt_cli: DbtCliResource, project: dg.ResourceParam[Project]
    ) -> Iterator[Any]:
        asked = asked_as_of(context.run.tags)
        with told_in_one_line():
            project.check()
        if context.selected_asset_keys != features_and_segments.keys:
            context.log.info("a part of the models was asked for: no tick, the membership log is left as it is")
            yield from stream_dbt(context, dbt_cli, project, dbt.build_arguments(as_of=None, tick_id=None))
            return
        if found := leap(project.engine, asked):
            context.log.warning(found)
        with told_in_one_line(), open_tick(project, asked, is_explicit=False) as tick:
            held = []
            for event in stream_dbt(context, dbt_cli, project, build_arguments(project, tick)):
                # How many members a segment has is known when the tick is published.
                if isinstance(event, dg.Output) and _segment_of(context, event) in project.segments:
                    held.append(event)
                else:
                    yield event
        sizes = sizes_at(project.engine, tick.tick_id, project.segments)
        for event in held:
            yield event.with_metadata({**event.metadata, **_counts(tick, sizes, _segment_of(context, event))})
        say(context, _in_words(tick))
        metadata: dict[str, Any] = {"tick_id": tick.tick_id, "as_of": tick.as_of.isoformat(), **tick.changes}
        for key in (["segments", "membership_changes"], ["segments", "ticks"]):
            context.log_event(dg.AssetMaterialization(asset_key=key, metadata=metadata))
        for segment in tick.together:
            yield dg.MaterializeResult(asset_key=["segments", segment], metadata=_counts(tick, sizes, segment))

    return features_and_segments


def _segment_of(context: dg.AssetExecutionContext, output: dg.Output[Any]) -> str | None:
    key = context.asset_key_for_output(output.output_name)
    return key.path[-1] if key.path[0] == "segments" else None


def _counts(tick: Tick, sizes: Mapping[str, int], segment: str | None) -> dict[str, int]:
    """Return what a tick did to a segment. Dagster draws each number over the runs."""
    counts = {change: tick.changes.get(f"{segment} {change}", 0) for change in ("entered", "exited")}
    members = sizes.get(segment or "")
    return counts if members is None else {**counts, "dagster/row_count": members}


def _in_words(tick: Tick) -> str:
    changes = ", ".join(f"{what} {count:,}" for what, count in sorted(tick.changes.items()) if count)
    return f"tick {tick.tick_id}: {changes or 'nobody entered or left'}"


def membership_log(segments: set[str]) -> list[dg.AssetSpec]:
    """Return the tables that a tick writes beside the segments."""
    built = [dg.AssetKey(["segments", segment]) for segment in sorted(segments)]
    changes = dg.AssetKey(["segments", "membership_changes"])
    return [
        dg.AssetSpec(
            changes,
            deps=built,
            group_name="segments",
            owners=owners.ANALYTICS,
            kinds={"postgres", "table"},
            description="One row per entry to or exit from a segment; never changed. The segments' only state.",
        ),
        dg.AssetSpec(
            ["segments", "evaluations"],
            deps=built,
            group_name="segments",
            owners=owners.ANALYTICS,
            kinds={"postgres", "table"},
            description="One row per segment and tick that looked at it: how many were looked at, entered, exited.",
        ),
        dg.AssetSpec(
            ["segments", "members"],
            deps=[changes],
            group_name="segments",
            owners=owners.ANALYTICS,
            kinds={"postgres", "table"},
            description="One row per segment and member now, by the published log.",
        ),
        dg.AssetSpec(
            ["segments", "ticks"],
            deps=[changes],
            group_name="segments",
            owners=owners.ANALYTICS,
            kinds={"postgres", "table"},
            description="One row per tick, published last: journeys and experiences act on published ticks only.",
        ),
    ]


_LOG = dg.AssetKey(["segments", "membership_changes"])
# A tick builds all models in one step, and this is its last output. By then everything that is checked exists.
_BUILT = [dg.AssetKey(["segments", "primary_segment"])]
_FEATURES = dg.AssetKey(["features", "user_features"])


@dg.asset_check(
    asset=_LOG,
    additional_deps=_BUILT,
    description="The last tick changed no segment by more than its owner expects.",
)
def segments_change_within_limits(project: dg.ResourceParam[Project]) -> dg.AssetCheckResult:
    """Warn before a message is sent; if the owner sets `hold`, the tick also holds the change back."""
    beyond = beyond_limits(project.engine)
    return dg.AssetCheckResult(
        passed=not beyond,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(map(str, beyond)) or None,
        metadata={change.segment: change.entered + change.exited for change in beyond},
    )


@dg.asset_check(asset=_LOG, additional_deps=_BUILT, description="The last tick could look at every segment.")
def segments_can_be_evaluated(project: dg.ResourceParam[Project]) -> dg.AssetCheckResult:
    """Name the segments that the tick left out because a condition met a value that it cannot read."""
    failed = not_evaluated(project.engine)
    return dg.AssetCheckResult(
        passed=not failed,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(f"{segment}: {error}" for segment, error in failed.items()) or None,
        metadata=failed,
    )


@dg.asset_check(
    asset=_FEATURES,
    description="Features, identities and users of experiments are what they are afresh, by the last `rebuild`.",
)
def features_do_not_drift(
    context: dg.AssetCheckExecutionContext, project: dg.ResourceParam[Project]
) -> dg.AssetCheckResult:
    """Recompute everything beside the tables, compare, and repair drift, in the job `rebuild`.

    Elsewhere, as where somebody materializes the features by hand, it tells what the last rebuild found.
    """
    if context.run.job_name != REBUILD_JOB:
        drift = last_drift(project)
        return dg.AssetCheckResult(passed=not any(drift.values()), severity=dg.AssetCheckSeverity.ERROR, metadata=drift)
    with told_in_one_line():
        drift = rebuild(project)
    wrong = {model: rows for model, rows in drift.items() if rows}
    if wrong:
        counted = ", ".join(f"{model} {rows:,}" for model, rows in sorted(wrong.items()))
        alert = Alert("Upnext: tables had drifted", f"rebuild found wrong rows, and mended them: {counted}")
        try:
            send(project.settings, alert)
        except UpnextError as error:
            context.log.warning(f"{error}")
    return dg.AssetCheckResult(passed=not wrong, severity=dg.AssetCheckSeverity.ERROR, metadata=drift)
