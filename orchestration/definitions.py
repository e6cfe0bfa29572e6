"""The composition root: everything that Dagster sees. It computes nothing."""

from collections.abc import Iterator
from contextlib import nullcontext

import dagster as dg

from assets.analytics.assets import results, touched, what_worked
from assets.analytics.checks import results_can_be_believed
from assets.events.assets import ingest
from assets.events.checks import raw_events_contract, raw_events_health
from assets.experiences.assets import experience_assets
from assets.journeys.assets import journey_asset, journey_tables
from assets.journeys.checks import outbox_works
from assets.segments.checks import features_do_not_drift, segments_can_be_evaluated, segments_change_within_limits
from orchestration import dbt
from orchestration.dbt_assets import analytics_models, build_models, dbt_resource, membership_log
from orchestration.runs import at_work
from orchestration.schedules import (
    analysis_job,
    dispatch_job,
    hourly_analysis,
    hourly_tick,
    nightly_rebuild,
    rebuild_job,
    tick_job,
)
from orchestration.settings import Settings
from orchestration.stages import Platform, readable
from sensors.arrivals import arrivals
from sensors.due_steps import due_steps
from sensors.failures import failures
from sensors.membership import membership_changes

_settings = Settings.from_environment()
_platform = Platform(_settings)
_manifest = dbt.manifest_path(_settings)
_journeys, _experiences = readable(_platform)


@dg.resource(description="The warehouse, and what is declared. A run holds a lock there, which tells that it lives.")
def _platform_at_work(context: dg.InitResourceContext) -> Iterator[Platform]:
    with at_work(_platform.engine, context.run.run_id) if context.run is not None else nullcontext():
        yield _platform


defs = dg.Definitions(
    assets=[
        ingest,
        build_models(_manifest),
        *membership_log(_platform.segments),
        *(journey_asset(name, journey) for name, journey in _journeys.items()),
        *journey_tables(_journeys),
        *experience_assets(_experiences, _journeys),
        analytics_models(_manifest),
        *touched,
        results,
        what_worked,
    ],
    asset_checks=[
        raw_events_contract,
        raw_events_health,
        segments_can_be_evaluated,
        segments_change_within_limits,
        features_do_not_drift,
        outbox_works,
        results_can_be_believed,
    ],
    jobs=[tick_job, dispatch_job, analysis_job, rebuild_job],
    schedules=[hourly_tick, hourly_analysis, nightly_rebuild],
    sensors=[arrivals, membership_changes, due_steps, failures],
    executor=dg.in_process_executor,
    resources={
        "platform": _platform_at_work,
        "dbt_cli": dbt_resource(_settings),
    },
)
