"""Alerts about failed runs, by mail or by an HTTP call."""

from collections.abc import Sequence
from datetime import timedelta

import dagster as dg

from sensors.job_state import read_job_state
from upnext.alerts import Alert, send
from upnext.project import Project

WELL_FOR = timedelta(minutes=10)
"""How long a run has to work before its failure is not that of the runs before it."""


def decide(*, job: str, failed: Sequence[str], told: str | None, words: str) -> Alert | dg.SkipReason:
    """Alert once about consecutive failures: the retries would repeat the alert.

    `failed` are the runs that failed in a row, newest first, `told` the last one that somebody was told about, or that
    followed such a run.
    """
    if told in failed:
        return dg.SkipReason(f"{job} has failed {len(failed)} times in a row, and that was told")
    return Alert(
        f"Upnext: {job} failed",
        f"{words}\n\nRun {failed[0]}. The next failures of {job} are told once it has been well.",
    )


@dg.run_failure_sensor(
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tell of a failed run by UPNEXT_ALERTS_URL and UPNEXT_ALERTS_TO.",
)
def failures(context: dg.RunFailureSensorContext, project: dg.ResourceParam[Project]) -> dg.SkipReason | None:
    """Send an alert for a failed run."""
    settings = project.settings
    if settings.alerts_url is None and settings.alerts_to is None:
        return dg.SkipReason("neither UPNEXT_ALERTS_URL nor UPNEXT_ALERTS_TO is set")
    job, run_id = context.dagster_run.job_name, context.dagster_run.run_id
    failed = read_job_state(context.instance, job, at_run=run_id).failed
    decided = decide(
        job=job,
        failed=(run_id,) if not failed or was_well(context.instance, run_id) else failed,
        told=told(context.instance, job),
        words=_words(context),
    )
    if isinstance(decided, Alert):
        # Where it cannot be delivered, the next failure is told.
        send(settings, decided)
    remember(context.instance, job, run_id)
    return decided if isinstance(decided, dg.SkipReason) else None


def was_well(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether a run worked for long before it failed, as one of the warm process does."""
    record = instance.get_run_record_by_id(run_id)
    if record is None or record.start_time is None or record.end_time is None:
        return False
    return record.end_time - record.start_time > WELL_FOR.total_seconds()


def told(instance: dg.DagsterInstance, job: str) -> str | None:
    """Return the last run of a job that somebody was told about, or that followed such a run."""
    return instance.daemon_cursor_storage.get_cursor_values({_key(job)}).get(_key(job))


def remember(instance: dg.DagsterInstance, job: str, run_id: str) -> None:
    """Keep that a run was told about."""
    instance.daemon_cursor_storage.set_cursor_values({_key(job): run_id})


def _key(job: str) -> str:
    return f"upnext/told/{job}"


def _words(context: dg.RunFailureSensorContext) -> str:
    """Return the message of the first step that failed, or of the run if no step failed."""
    for event in context.get_step_failure_events():
        failure = event.step_failure_data
        if failure.user_failure_data is not None and failure.user_failure_data.description:
            return failure.user_failure_data.description
        if failure.error is not None:
            return failure.error.message.strip().splitlines()[0]
    return (context.failure_event.message or "").strip().splitlines()[0]
