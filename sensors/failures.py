"""Alerts about failed runs, by mail or by an HTTP call."""

import dagster as dg

from sensors.job_state import read_job_state
from upnext.alerts import Alert, send
from upnext.project import Project


def decide(*, job: str, run_id: str, failures: int, words: str) -> Alert | dg.SkipReason:
    """Alert about the first of consecutive failures only: the retries would repeat the alert."""
    if failures > 1:
        return dg.SkipReason(f"{job} has failed {failures} times in a row, and the first was told")
    return Alert(
        f"Upnext: {job} failed",
        f"{words}\n\nRun {run_id}. It is tried again; nobody is told until it has been well in between.",
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
    job = context.dagster_run.job_name
    decided = decide(
        job=job,
        run_id=context.dagster_run.run_id,
        failures=read_job_state(context.instance, job, at_run=context.dagster_run.run_id).failures,
        words=_words(context),
    )
    if isinstance(decided, dg.SkipReason):
        return decided
    send(settings, decided)
    return None


def _words(context: dg.RunFailureSensorContext) -> str:
    """Return the message of the first step that failed, or of the run if no step failed."""
    for event in context.get_step_failure_events():
        failure = event.step_failure_data
        if failure.user_failure_data is not None and failure.user_failure_data.description:
            return failure.user_failure_data.description
        if failure.error is not None:
            return failure.error.message.strip().splitlines()[0]
    return (context.failure_event.message or "").strip().splitlines()[0]
