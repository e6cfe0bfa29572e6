"""Steps that fall due, and messages that wait for a sender, start a dispatch."""

from collections.abc import Collection
from datetime import datetime

import dagster as dg

from assets.journeys.dispatch import journeys_with_work
from orchestration.runs import DISPATCH_JOB, as_of_tags
from orchestration.schedules import dispatch_job
from orchestration.stages import Platform, utc_now
from sensors.job_state import LIVE_CTAS, JobState, read_job_state, why_wait


def decide(*, journeys: Collection[str], state: JobState, now: datetime) -> dg.RunRequest | dg.SkipReason:
    """Request a dispatch of the journeys with work, where none is at work."""
    if not journeys:
        return dg.SkipReason("no step is due")
    waiting_for = why_wait(state, now=now)
    if waiting_for is not None:
        return dg.SkipReason(f"{len(journeys)} journeys have steps due; {waiting_for}")
    selection = [*(dg.AssetKey(["journeys", name]) for name in sorted(journeys)), LIVE_CTAS]
    return dg.RunRequest(asset_selection=selection, tags=as_of_tags(now))


@dg.sensor(job=dispatch_job, minimum_interval_seconds=15, default_status=dg.DefaultSensorStatus.RUNNING)
def due_steps(
    context: dg.SensorEvaluationContext, platform: dg.ResourceParam[Platform]
) -> dg.RunRequest | dg.SkipReason:
    """Start a dispatch when steps fall due."""
    now = utc_now()
    journeys = journeys_with_work(platform.engine, set(platform.journeys_at_work), now=now)
    return decide(journeys=journeys, state=read_job_state(context.instance, DISPATCH_JOB), now=now)
