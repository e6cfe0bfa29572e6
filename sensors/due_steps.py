"""Steps that fall due, and messages that wait for a sender, start a dispatch."""

from collections.abc import Collection
from datetime import datetime

import dagster as dg

from assets.runs import DISPATCH_JOB
from sensors.job_state import LIVE_CTAS, JobState, read_job_state, why_wait
from upnext.clock import utc_now
from upnext.journeys.dispatch import journeys_with_work
from upnext.live import LOCK
from upnext.project import Project
from upnext.warehouse.locks import is_held


def decide(
    *, journeys: Collection[str], state: JobState, now: datetime, is_live: bool = False
) -> dg.RunRequest | dg.SkipReason:
    """Request a dispatch of the journeys with work, if no dispatch is running and no warm process is at work.

    The request sets no `as_of`: by the time that a queued run starts, quiet hours may have begun.
    """
    if not journeys:
        return dg.SkipReason("no step is due")
    if is_live:
        return dg.SkipReason("upnext live dispatches them")
    waiting_for = why_wait(state, now=now)
    if waiting_for is not None:
        return dg.SkipReason(f"{len(journeys)} journeys have steps due; {waiting_for}")
    selection = [*(dg.AssetKey(["journeys", name]) for name in sorted(journeys)), LIVE_CTAS]
    return dg.RunRequest(asset_selection=selection)


@dg.sensor(
    job_name=DISPATCH_JOB,
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Start a dispatch of the journeys with steps that fall due or messages that wait.",
)
def due_steps(context: dg.SensorEvaluationContext, project: dg.ResourceParam[Project]) -> dg.RunRequest | dg.SkipReason:
    """Start a dispatch when steps fall due."""
    now = utc_now()
    journeys = journeys_with_work(project.engine, set(project.journeys_at_work), now=now)
    with project.engine.connect() as connection:
        is_live = is_held(connection, LOCK)
    return decide(journeys=journeys, state=read_job_state(context.instance, DISPATCH_JOB), now=now, is_live=is_live)
