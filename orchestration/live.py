"""The warm process as a job, so that the graph shows what it does."""

import threading
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import dagster as dg

from assets.runs import LIVE_JOB, told_in_one_line
from upnext.clock import utc_now
from upnext.live import Did, live
from upnext.project import Project

LASTS = timedelta(hours=1)
REPORTS_EVERY = timedelta(minutes=1)
"""A run may tick every second, and Dagster keeps each report for good."""
GIVES_UP_AFTER = 6
"""Failures in a row, half a minute of tries. The run then fails, which is told; the sensor starts another."""


class Report:
    """What was done since the last report."""

    def __init__(self, begun_at: datetime) -> None:
        self._begun_at = begun_at
        self._done: Counter[str] = Counter()
        self._changes: Counter[str] = Counter()
        self._as_of = ""

    def add(self, did: Did) -> None:
        """Add a piece of work."""
        self._done[did.what] += 1
        self._changes.update(did.changes)
        self._as_of = did.as_of.isoformat()

    def is_due(self, now: datetime) -> bool:
        """Whether there is something to write, and it is time to."""
        return bool(self._done) and now - self._begun_at >= REPORTS_EVERY

    def materializations(self, concerned: Mapping[str, Collection[dg.AssetKey]]) -> list[dg.AssetMaterialization]:
        """Return one for each asset that the work concerned."""
        metadata: dict[str, Any] = {
            "as_of": self._as_of, "ticks": self._done["tick"], "dispatches": self._done["dispatch"], **self._changes,
        }  # fmt: skip
        keys = dict.fromkeys(key for what in self._done for key in concerned[what])
        return [dg.AssetMaterialization(asset_key=key, metadata=metadata) for key in keys]


def live_job(ticked: Collection[dg.AssetKey], dispatched: Collection[dg.AssetKey]) -> dg.JobDefinition:
    """Return the job; `ticked` are the assets that a tick materializes alone, `dispatched` those of a dispatch too."""
    concerned = {"tick": [*ticked, *dispatched], "dispatch": list(dispatched)}

    @dg.op(description="Tick as soon as events wait, and dispatch as soon as steps fall due.")
    def tick_and_dispatch(context: dg.OpExecutionContext, project: dg.ResourceParam[Project]) -> None:
        report = Report(utc_now())

        def write() -> None:
            nonlocal report
            for materialization in report.materializations(concerned):
                context.log_event(materialization)
            report = Report(utc_now())

        def write_if_due() -> None:
            if report.is_due(utc_now()):
                write()

        def warn(words: str, failures: int) -> None:
            context.log.warning(words)
            if failures == GIVES_UP_AFTER:
                raise dg.Failure(words)

        stop = threading.Event()
        timer = threading.Timer(LASTS.total_seconds(), stop.set)
        timer.daemon = True
        timer.start()
        # Whoever ends Dagster, or the run, ends the work of this process; another goes on with it.
        with told_in_one_line(), suppress(dg.DagsterExecutionInterruptedError):
            try:
                for did in live(project.settings, stop=stop, on_failure=warn, on_look=write_if_due, leaves_files=True):
                    report.add(did)
            finally:
                write()

    @dg.job(
        name=LIVE_JOB,
        executor_def=dg.in_process_executor,
        tags={"dagster/max_runtime": int(LASTS.total_seconds()) + 600},
        description="Tick and dispatch within a second, in one warm process, for an hour.",
    )
    def job() -> None:
        tick_and_dispatch()

    return job
