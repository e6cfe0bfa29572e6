"""Whether a job is at work, or has just failed: so that a sensor neither piles up runs nor repeats a failure."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg

BACKOFF = timedelta(minutes=5)
# What users see follows from journeys and assignments alike, so every dispatch ends with it.
LIVE_CTAS = dg.AssetKey(["experiences", "live_ctas"])


@dataclass(frozen=True)
class JobState:
    """State of the newest run of a job; `failed_at` is None where it did not fail."""

    is_busy: bool
    failed_at: datetime | None


def why_wait(state: JobState, *, now: datetime) -> str | None:
    """Return why a run should not be requested now, or None."""
    if state.is_busy:
        return "a run is queued or at work"
    if state.failed_at is not None and now - state.failed_at < BACKOFF:
        return f"the last run failed at {state.failed_at:%H:%M:%S}; the next try is five minutes later"
    return None


def read_job_state(instance: dg.DagsterInstance, job: str) -> JobState:
    """Read the newest run of `job` from Dagster's storage."""
    records = instance.get_run_records(dg.RunsFilter(job_name=job), limit=1)
    if not records:
        return JobState(is_busy=False, failed_at=None)
    run, ended = records[0].dagster_run, records[0].end_time
    is_failed = run.status is dg.DagsterRunStatus.FAILURE and ended is not None
    return JobState(
        is_busy=not run.is_finished,
        failed_at=datetime.fromtimestamp(ended, UTC) if is_failed and ended is not None else None,
    )
