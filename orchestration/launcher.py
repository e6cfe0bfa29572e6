"""Dagster's own run launcher, extended to detect dead run processes, even after all of Dagster was killed."""

from datetime import UTC, datetime, timedelta
from functools import cached_property

import dagster as dg
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from sqlalchemy.engine import Engine

from upnext.clock import utc_now
from upnext.settings import Settings
from upnext.warehouse.engine import connect
from upnext.warehouse.locks import is_at_work

# The time from a run's first event to its lock in the warehouse.
GRACE = timedelta(seconds=20)


class Launcher(dg.DefaultRunLauncher):
    """A run holds a lock in the warehouse while its process is alive; Dagster ends a run whose lock is free."""

    @cached_property
    def _engine(self) -> Engine:
        return connect(Settings.from_environment())

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Dagster's run monitoring calls `check_run_worker_health` for each run that has started."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Return whether the run's process is alive."""
        record = self._instance.get_run_record_by_id(run.run_id)
        started = record.start_time if record is not None else None
        is_new = started is None or utc_now() - datetime.fromtimestamp(started, UTC) < GRACE
        is_alive = is_new or is_at_work(self._engine, run.run_id)
        return CheckRunHealthResult(WorkerStatus.RUNNING if is_alive else WorkerStatus.NOT_FOUND)
