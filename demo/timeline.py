"""The demo's last tick, repeated by Dagster's own jobs so that the UI shows runs, numbers, plots and checks."""

import os
import sys

import dagster as dg
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._core.execution.api import execute_run
from dagster._core.remote_origin import ManagedGrpcPythonEnvCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from assets.runs import ANALYSIS_JOB, DISPATCH_JOB, TICK_JOB, as_of_tags
from upnext.dev import prepare
from upnext.settings import PROJECT, Settings
from upnext.ticks.lifecycle import last_as_of
from upnext.warehouse.engine import connect

MODULE = "orchestration.definitions"
# The same name as in workspace.yaml: the UI places a run on its timeline by the location of its job.
_LOCATION = ManagedGrpcPythonEnvCodeLocationOrigin(
    LoadableTargetOrigin(executable_path=sys.executable, module_name=MODULE), location_name="upnext"
)
_REPOSITORY = RemoteRepositoryOrigin(_LOCATION, "__repository__")


def run_jobs(settings: Settings) -> list[str]:
    """Run tick, dispatch and analysis at the newest tick, and return those that failed; nothing is sent twice."""
    os.environ.update(prepare(settings))
    as_of = last_as_of(connect(settings))
    if as_of is None:
        return []
    failed = []
    with dg.DagsterInstance.get() as instance:
        for name in (TICK_JOB, DISPATCH_JOB, ANALYSIS_JOB):
            repository = ReconstructableRepository.for_module(MODULE, "defs", working_directory=str(PROJECT))
            job = repository.get_reconstructable_job(name)
            run = instance.create_run_for_job(
                job.get_definition(),
                tags={**as_of_tags(as_of), ".dagster/repository": "__repository__@upnext"},
                remote_job_origin=_REPOSITORY.get_job_origin(name),
                job_code_origin=job.get_python_origin(),
            )
            if not execute_run(job, run, instance, raise_on_error=False).success:
                failed.append(name)
    return failed


if __name__ == "__main__":
    sys.exit(", ".join(run_jobs(Settings.from_environment())) or 0)
