"""The composition root: everything that Dagster sees. It computes nothing, and importing it reads nothing."""

from collections.abc import Iterable

import dagster as dg

from assets.analytics import analytics_models, notebook_pages, report, results, results_can_be_believed, stale
from assets.events import ingest, raw_events_contract, raw_events_health
from assets.experiences import experience_assets
from assets.features_and_segments import (
    build_models,
    features_do_not_drift,
    membership_log,
    segments_can_be_evaluated,
    segments_change_within_limits,
)
from assets.journeys import journey_asset, journey_tables, outbox_works
from orchestration.appearance import appearance
from orchestration.jobs import (
    analysis_job,
    dispatch_job,
    hourly_analysis,
    hourly_tick,
    nightly_rebuild,
    rebuild_job,
    tick_job,
)
from orchestration.live import live_job
from orchestration.prune import nightly_prune, prune_job
from orchestration.resources import dbt_cli, project_at_work
from sensors.arrivals import arrivals
from sensors.due_steps import due_steps
from sensors.failures import failures
from sensors.membership import membership_changes
from sensors.warm_process import warm_process
from upnext import dbt
from upnext.garbage import collect_seldom
from upnext.project import Project, readable
from upnext.settings import Settings

Shown = dg.AssetsDefinition | dg.AssetSpec


def keys_of(assets: Iterable[Shown]) -> list[dg.AssetKey]:
    """Return the keys of assets."""
    return [key for one in assets for key in (one.keys if isinstance(one, dg.AssetsDefinition) else [one.key])]


@dg.definitions
def defs() -> dg.Definitions:
    """Return everything that Dagster sees. It reads the files and dbt's manifest, and connects to nothing."""
    collect_seldom()
    settings = Settings.from_environment()
    project, manifest = Project(settings), dbt.manifest_path(settings)
    journeys, experiences = readable(project)
    ticked: list[Shown] = [ingest, build_models(manifest), *membership_log(project.segments)]
    dispatched: list[Shown] = [
        *(journey_asset(name, journey) for name, journey in journeys.items()),
        *journey_tables(journeys),
        *experience_assets(experiences, journeys),
    ]
    return dg.Definitions(
        assets=dg.map_asset_specs(
            appearance(project),
            [*ticked, *dispatched, analytics_models(manifest), *stale, results, report, *notebook_pages],
        ),
        asset_checks=[
            raw_events_contract,
            raw_events_health,
            segments_can_be_evaluated,
            segments_change_within_limits,
            features_do_not_drift,
            outbox_works,
            results_can_be_believed,
        ],
        jobs=[
            tick_job,
            dispatch_job,
            analysis_job,
            rebuild_job,
            prune_job,
            live_job(keys_of(ticked), keys_of(dispatched)),
        ],
        schedules=[hourly_tick, hourly_analysis, nightly_rebuild, nightly_prune],
        sensors=[arrivals, membership_changes, due_steps, warm_process, failures],
        executor=dg.in_process_executor,
        resources={"project": project_at_work(project), "dbt_cli": dbt_cli()},
    )
