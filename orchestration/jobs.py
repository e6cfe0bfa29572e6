"""Jobs and their schedules: the tick every hour, the analysis after it, the rebuild at night."""

import dagster as dg

from assets.runs import ANALYSIS_JOB, DISPATCH_JOB, REBUILD_JOB, TICK_JOB
from orchestration.appearance import PLUMBING

# Sensors request runs for waiting work. The hourly schedule covers what changes only with time: checks, and experiences
# that start or end.
_OUTBOX = dg.AssetSelection.checks_for_assets(dg.AssetKey(["journeys", "messages"]))
_DRIFT = dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey(["features", "user_features"]), "features_do_not_drift"))
_SEGMENTS = dg.AssetSelection.checks_for_assets(dg.AssetKey(["segments", "membership_changes"]))

# A tick and a rebuild wait for each other. In the queue they take no place from a dispatch.
_ONE_AT_A_TIME = {"upnext/lock": "tick"}

tick_job = dg.define_asset_job(
    TICK_JOB,
    tags=_ONE_AT_A_TIME,
    selection=dg.AssetSelection.groups("events", "features", "segments") - _DRIFT | _SEGMENTS,
    description="Load what has landed, build features and segments, publish the tick.",
)

dispatch_job = dg.define_asset_job(
    DISPATCH_JOB,
    selection=dg.AssetSelection.groups("journeys", "experiences"),
    description="Move people along their journeys, send what is due, assign experiences.",
)

analysis_job = dg.define_asset_job(
    ANALYSIS_JOB,
    selection=dg.AssetSelection.groups("analytics", "reports", "experiences", PLUMBING) | _OUTBOX,
    description="Compute what experiments, journeys and copies were worth, and check that messages go out.",
)


rebuild_job = dg.define_asset_job(
    REBUILD_JOB,
    tags=_ONE_AT_A_TIME,
    selection=_DRIFT,
    description="Compute identities, features and users of experiments afresh, compare, and mend what was kept.",
)


# It sets no `as_of`: what is loaded after the hour would wait for the next one.
hourly_tick = dg.ScheduleDefinition(
    name="hourly_tick",
    description="A tick on each hour, for what changes with time alone; sensors tick sooner when events come.",
    job=tick_job,
    cron_schedule="0 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)

hourly_analysis = dg.ScheduleDefinition(
    name="hourly_analysis",
    description="What experiments and journeys were worth, and the report, at twenty past each hour.",
    job=analysis_job,
    cron_schedule="20 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)

nightly_rebuild = dg.ScheduleDefinition(
    name="nightly_rebuild",
    description="Compute everything afresh at 3:40, compare it with what ticks kept, and mend what differs.",
    job=rebuild_job,
    cron_schedule="40 3 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
