"""Files that arrive in the landing folder, and lines that arrive in the inbox, start a tick."""

from datetime import datetime

import dagster as dg

from assets.runs import TICK_JOB
from sensors.job_state import EVERY_LOOK, JobState, read_job_state, why_wait
from upnext.clock import utc_now
from upnext.events.declared import load_sources
from upnext.events.files import find_landed
from upnext.events.ledger import has_lines_waiting, not_loaded
from upnext.events.source import OWN
from upnext.live import LOCK, TICKS
from upnext.project import Project
from upnext.ticks.lifecycle import loads_to_take_in
from upnext.warehouse.locks import is_held


def decide(
    *,
    arrived: int,
    loaded: int,
    state: JobState,
    now: datetime,
    has_lines: bool = False,
    is_live: bool = False,
    is_ticking: bool = False,
) -> dg.RunRequest | dg.SkipReason:
    """Request a tick if files, lines or unprocessed loads wait, and no tick is running.

    Lines alone are left to the warm process where one is at work, and so are the loads of the tick that it is in.

    The request sets no `as_of`. The tick sets it after loading, so that it includes what just arrived.
    """
    if arrived == 0 and loaded == 0 and not has_lines:
        return dg.SkipReason("no new files in landing, and no lines in the inbox")
    if (is_live and arrived == 0 and loaded == 0) or (is_ticking and arrived == 0):
        return dg.SkipReason("upnext live takes them in")
    waiting_for = why_wait(state, now=now)
    if waiting_for is not None:
        return dg.SkipReason(f"{arrived} new files, {loaded} loads that no tick has taken in; {waiting_for}")
    return dg.RunRequest()


@dg.sensor(
    job_name=TICK_JOB,
    minimum_interval_seconds=EVERY_LOOK,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Start a tick when files arrive in the landing folder, or lines in the inbox of the edge.",
)
def arrivals(context: dg.SensorEvaluationContext, project: dg.ResourceParam[Project]) -> dg.RunRequest | dg.SkipReason:
    """Start a tick when files or lines of the inbox arrive."""
    # Read anew: a source may have been declared since this process began.
    sources = load_sources(project.settings.sources)
    landed, now = find_landed(project.settings.landing, sources), utc_now()
    with project.engine.connect() as connection:
        arrived = len(not_loaded(connection, landed, now=now)) if landed else 0
        loaded = loads_to_take_in(connection)
        has_lines = has_lines_waiting(connection, [*sources, OWN])
        is_live, is_ticking = is_held(connection, LOCK), is_held(connection, TICKS)
    return decide(
        arrived=arrived,
        loaded=loaded,
        has_lines=has_lines,
        state=read_job_state(context.instance, TICK_JOB),
        now=now,
        is_live=is_live,
        is_ticking=is_ticking,
    )
