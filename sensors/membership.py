"""Published membership changes, and events that journeys listen to, start the dispatch of those journeys."""

from collections.abc import Collection
from datetime import datetime

import dagster as dg

from assets.runs import DISPATCH_JOB
from sensors.job_state import EVERY_LOOK, LIVE_CTAS, JobState, read_job_state, why_wait
from upnext.clock import utc_now
from upnext.journeys.dispatch import consumer_of
from upnext.journeys.plan import follows_segments, listens_to
from upnext.live import TICKS
from upnext.project import Project
from upnext.ticks.offsets import consumers_behind, consumers_with_new_events
from upnext.warehouse.locks import is_held

EXPERIENCES = "experiences"


def consumers(project: Project) -> dict[str, set[str]]:
    """Return the consumers of membership changes, and the segments of each."""
    by_journey = {
        consumer_of(name): segments
        for name, journey in project.journeys_at_work.items()
        if (segments := follows_segments(journey))
    }
    return {**by_journey, EXPERIENCES: {experience.segment for experience in project.experiences_at_work.values()}}


def listeners(project: Project) -> dict[str, set[str]]:
    """Return the consumers of events, and the events of each."""
    return {
        consumer_of(name): events
        for name, journey in project.journeys_at_work.items()
        if (events := listens_to(journey))
    }


def asset_of(consumer: str) -> dg.AssetKey:
    """Return the asset that does a consumer's work."""
    if consumer == EXPERIENCES:
        return dg.AssetKey(["experiences", "assignments"])
    return dg.AssetKey(["journeys", consumer.removeprefix("journey:")])


def decide(
    *, waiting: Collection[str], state: JobState, now: datetime, is_at_work: bool = False
) -> dg.RunRequest | dg.SkipReason:
    """Request a run of the assets of the waiting consumers, if no dispatch is running.

    `is_at_work` is whether the warm process is in a tick of its own, which ends with a dispatch.
    """
    if not waiting:
        return dg.SkipReason("no membership changes that somebody has yet to act on")
    if is_at_work:
        return dg.SkipReason("upnext live acts on them")
    waiting_for = why_wait(state, now=now)
    if waiting_for is not None:
        return dg.SkipReason(f"{len(waiting)} consumers have changes; {waiting_for}")
    selection = [*(asset_of(name) for name in sorted(waiting)), LIVE_CTAS]
    return dg.RunRequest(asset_selection=selection)


@dg.sensor(
    job_name=DISPATCH_JOB,
    minimum_interval_seconds=EVERY_LOOK,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Start a dispatch of the journeys whose segment has changed, or that users enter by an event.",
)
def membership_changes(
    context: dg.SensorEvaluationContext, project: dg.ResourceParam[Project]
) -> dg.RunRequest | dg.SkipReason:
    """Start the dispatch of the journeys whose segment changed, or that users enter by an event of a tick."""
    waiting = consumers_behind(project.engine, consumers(project)) | consumers_with_new_events(
        project.engine, listeners(project)
    )
    with project.engine.connect() as connection:
        is_at_work = is_held(connection, TICKS)
    state = read_job_state(context.instance, DISPATCH_JOB)
    return decide(waiting=waiting, state=state, now=utc_now(), is_at_work=is_at_work)
