"""Whether a job is running or has just failed, so that a sensor neither piles up runs nor repeats a failure."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import dropwhile, takewhile

import dagster as dg

# Seconds. The daemon looks at sensors every 5 seconds, or a moment less: with 5, it would leave out every other look.
EVERY_LOOK = 2
# The first retry comes soon, because the process may just have been killed. Each later wait is twice the one before.
FIRST_WAIT = timedelta(seconds=15)
LONGEST_WAIT = timedelta(minutes=5)
_REMEMBERED = 6
_FAILED = (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
# What users see depends on journeys and on assignments, so every dispatch ends with it.
LIVE_CTAS = dg.AssetKey(["experiences", "live_ctas"])


@dataclass(frozen=True)
class JobState:
    """State of the newest run of a job; `failed_at` is None if it did not fail.

    `failed` are the consecutive failed runs up to the newest, newest first. A run that somebody ended counts as failed:
    one that is started again at once could not be ended.
    """

    is_busy: bool
    failed_at: datetime | None
    failed: tuple[str, ...] = ()


def why_wait(state: JobState, *, now: datetime) -> str | None:
    """Return why a run should not be requested now, or None."""
    if state.is_busy:
        return "a run is queued or at work"
    if state.failed_at is not None:
        next_try = state.failed_at + min(FIRST_WAIT * 2 ** max(len(state.failed) - 1, 0), LONGEST_WAIT)
        if now < next_try:
            return f"the last run failed at {state.failed_at:%H:%M:%S}; the next try is at {next_try:%H:%M:%S}"
    return None


def read_job_state(instance: dg.DagsterInstance, job: str, *, at_run: str | None = None) -> JobState:
    """Read the newest run of `job` from Dagster's storage, or the one that was newest when the run `at_run` ended."""
    records = instance.get_run_records(dg.RunsFilter(job_name=job), limit=_REMEMBERED)
    if at_run is not None:
        records = list(dropwhile(lambda record: record.dagster_run.run_id != at_run, records))
    failed = list(takewhile(lambda record: record.dagster_run.status in _FAILED, records))
    ended = failed[0].end_time if failed else None
    return JobState(
        is_busy=bool(records) and not records[0].dagster_run.is_finished,
        failed_at=datetime.fromtimestamp(ended, UTC) if ended is not None else None,
        failed=tuple(record.dagster_run.run_id for record in failed),
    )
