"""A run of the warm process is kept at work where it is wanted."""

import os

import dagster as dg

from assets.runs import LIVE_JOB
from sensors.job_state import EVERY_LOOK, JobState, read_job_state, why_wait
from upnext.clock import utc_now
from upnext.live import LOCK
from upnext.project import Project
from upnext.warehouse.locks import is_held

IS_ON = "UPNEXT_LIVE"
"""`on` turns the sensor on from the start, as `make dev` does; otherwise somebody does so in the UI."""


def decide(*, is_live: bool, waits: str | None) -> dg.RunRequest | dg.SkipReason:
    """Request a run unless one is at work, or the last one has just failed, or `upnext live` is at work."""
    if waits is not None:
        return dg.SkipReason(waits)
    return dg.SkipReason("upnext live is at work") if is_live else dg.RunRequest()


@dg.sensor(
    job_name=LIVE_JOB,
    minimum_interval_seconds=EVERY_LOOK,
    description="Keep a warm process at work that ticks within a second, an hour a run. Off until it is turned on.",
    default_status=(
        dg.DefaultSensorStatus.RUNNING if os.environ.get(IS_ON) == "on" else dg.DefaultSensorStatus.STOPPED
    ),
)
def warm_process(
    context: dg.SensorEvaluationContext, project: dg.ResourceParam[Project]
) -> dg.RunRequest | dg.SkipReason:
    """Keep the warm process at work, an hour a run."""
    state: JobState = read_job_state(context.instance, LIVE_JOB)
    with project.engine.connect() as connection:
        is_live = is_held(connection, LOCK)
    return decide(is_live=is_live, waits=why_wait(state, now=utc_now()))
