"""dbt's models as Dagster assets: key is (schema, name), group and owner are dbt's."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_dbt import DbtCliResource, dbt_assets
from dagster_dbt.errors import DagsterDbtCliRuntimeError

from orchestration import dbt
from orchestration.runs import asked_as_of, told_in_one_line
from orchestration.settings import Settings
from orchestration.stages import Platform, leap, open_tick
from orchestration.warehouse import exclusive

ANALYTICS = "upnext.analytics"


def dbt_resource(settings: Settings) -> DbtCliResource:
    """Return dbt as a subprocess of a run, from the same virtual environment."""
    return DbtCliResource(
        project_dir=str(dbt.PROJECT_DIR),
        profiles_dir=str(dbt.PROJECT_DIR),
        dbt_executable=str(Path(sys.executable).parent / "dbt"),
        global_config_flags=["--no-use-colors"],
    )


def build_models(manifest: Path) -> dg.AssetsDefinition:
    """Return events, features and segments as one op: the body of a tick, published where all of it was built."""

    @dbt_assets(manifest=manifest, exclude=f"{ANALYTICS} resource_type:unit_test", name="features_and_segments")
    def features_and_segments(
        context: dg.AssetExecutionContext, dbt_cli: DbtCliResource, platform: dg.ResourceParam[Platform]
    ) -> Iterator[Any]:
        asked = asked_as_of(context.run.tags)
        with told_in_one_line():
            platform.check()
        if context.selected_asset_keys != features_and_segments.keys:
            context.log.info("a part of the models was asked for: no tick, the membership log is left as it is")
            yield from _stream(context, dbt_cli, platform, dbt.build_arguments(as_of=None, tick_id=None))
            return
        if found := leap(platform.engine, asked):
            context.log.warning(found)
        with told_in_one_line(), open_tick(platform, asked, is_explicit=False) as tick:
            arguments = dbt.build_arguments(as_of=tick.as_of, tick_id=tick.tick_id)
            yield from _stream(context, dbt_cli, platform, arguments)
        metadata: dict[str, Any] = {"tick_id": tick.tick_id, "as_of": tick.as_of.isoformat(), **tick.changes}
        for key in (["segments", "membership_changes"], ["segments", "ticks"]):
            context.log_event(dg.AssetMaterialization(asset_key=key, metadata=metadata))

    return features_and_segments


def analytics_models(manifest: Path) -> dg.AssetsDefinition:
    """Return the views that analytics read."""

    @dbt_assets(manifest=manifest, select=ANALYTICS, exclude="resource_type:unit_test", name="moments")
    def moments(
        context: dg.AssetExecutionContext, dbt_cli: DbtCliResource, platform: dg.ResourceParam[Platform]
    ) -> Iterator[Any]:
        yield from _stream(context, dbt_cli, platform, dbt.build_arguments(as_of=None, tick_id=None))

    return moments


def membership_log(segments: set[str]) -> list[dg.AssetSpec]:
    """Return the tables that a tick writes beside the segments."""
    built = [dg.AssetKey(["segments", segment]) for segment in sorted(segments)]
    changes = dg.AssetKey(["segments", "membership_changes"])
    return [
        dg.AssetSpec(
            changes,
            deps=built,
            group_name="segments",
            owners=["analytics@otto.example"],
            kinds={"postgres", "table"},
            description="One row per entry to or exit from a segment; never changed. The segments' only state.",
        ),
        dg.AssetSpec(
            ["segments", "evaluations"],
            deps=built,
            group_name="segments",
            owners=["analytics@otto.example"],
            kinds={"postgres", "table"},
            description="One row per segment and tick that looked at it: how many were looked at, entered, exited.",
        ),
        dg.AssetSpec(
            ["segments", "members"],
            deps=[changes],
            group_name="segments",
            owners=["analytics@otto.example"],
            kinds={"postgres", "table"},
            description="One row per segment and member now, by the published log.",
        ),
        dg.AssetSpec(
            ["segments", "ticks"],
            deps=[changes],
            group_name="segments",
            owners=["analytics@otto.example"],
            kinds={"postgres", "table"},
            description="One row per tick, published last: journeys and experiences act on published ticks only.",
        ),
    ]


def _stream(
    context: dg.AssetExecutionContext, dbt_cli: DbtCliResource, platform: Platform, arguments: list[str]
) -> Iterator[Any]:
    os.environ.update(dbt.environment(platform.url))
    with exclusive(platform.engine, "dbt"):
        target = platform.settings.dbt_target / "runs" / context.op_execution_context.op.name
        invocation = dbt_cli.cli(arguments, context=context, target_path=target)
        try:
            yield from invocation.stream()
        except DagsterDbtCliRuntimeError:
            raise dg.Failure(_first_failure(target)) from None


def _first_failure(target: Path) -> str:
    """Return what dbt says of the first node that failed, as the command line tells it."""
    try:
        results = json.loads((target / "run_results.json").read_text())["results"]
        nodes = json.loads((target / "manifest.json").read_text())["nodes"]
    except (OSError, ValueError, KeyError):
        return "dbt failed before it built anything; see the output of this step"
    failed = [result for result in results if result["status"] in ("error", "fail", "runtime error")]
    if not failed:
        return "dbt failed; see the output of this step"
    node = nodes.get(failed[0]["unique_id"], {})
    columns = {
        column
        for parent in node.get("depends_on", {}).get("nodes", [])
        for column in nodes.get(parent, {}).get("columns", {})
    }
    message = dbt.in_one_line(failed[0]["message"] or "", columns=columns)
    return (
        f"dbt failed: {node.get('original_file_path', failed[0]['unique_id'])}: {message} ({len(failed)} failed in all)"
    )
