"""What is old, deleted every night: in the warehouse and the home as the policy says, and runs of Dagster."""

import shutil
from datetime import datetime
from pathlib import Path

import dagster as dg
from dagster._core.storage.dagster_run import FINISHED_STATUSES

from assets.runs import PRUNE_JOB, told_in_one_line
from upnext.clock import utc_now
from upnext.loop import prune_old
from upnext.project import Project
from upnext.retention.prune import RECENT
from upnext.settings import Settings

AT_ONCE = 100


def delete_old_runs(instance: dg.DagsterInstance, settings: Settings, *, before: datetime) -> int:
    """Delete the runs that ended before an instant, their events and their folders; return how many."""
    deleted = 0
    old = dg.RunsFilter(statuses=list(FINISHED_STATUSES), updated_before=before)
    while ids := instance.get_run_ids(filters=old, limit=AT_ONCE):
        for run_id in ids:
            instance.delete_run(run_id)
            shutil.rmtree(settings.dagster_home / "storage" / run_id, ignore_errors=True)
        deleted += len(ids)
    for folder in _old_folders(settings.dbt_target / "runs", before):
        shutil.rmtree(folder, ignore_errors=True)
    return deleted


def _old_folders(parent: Path, before: datetime) -> list[Path]:
    """Return the folders that runs of dbt have left."""
    found = parent.iterdir() if parent.is_dir() else []
    return [folder for folder in found if folder.is_dir() and folder.stat().st_mtime < before.timestamp()]


@dg.op(description="Delete and archive what is older than the policy keeps it.")
def delete_what_is_old(context: dg.OpExecutionContext, project: dg.ResourceParam[Project]) -> None:
    """Delete it, and log how much of what."""
    now = utc_now()
    with told_in_one_line():
        done = prune_old(project, now)
    done["runs of Dagster"] = delete_old_runs(context.instance, project.settings, before=now - RECENT)
    context.log.info("deleted: %s", ", ".join(f"{name} {count}" for name, count in done.items()))


@dg.job(
    name=PRUNE_JOB,
    executor_def=dg.in_process_executor,
    description="Delete what is older than the policy keeps it, and what nobody reads after a month.",
)
def prune_job() -> None:
    """Delete what is old."""
    delete_what_is_old()


nightly_prune = dg.ScheduleDefinition(
    name="nightly_prune",
    description="Delete what is old, at 4:20.",
    job=prune_job,
    cron_schedule="20 4 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
