"""The resources of assets and sensors: the project, and dbt."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_dbt import DbtCliResource

from assets.runs import at_work
from upnext import dbt
from upnext.project import Project


def project_at_work(project: Project) -> dg.ResourceDefinition:
    """Return the project as a resource. A run holds a lock in the warehouse, which shows that its process is alive."""

    @dg.resource(description="What is declared, and its warehouse.")
    def resource(context: dg.InitResourceContext) -> Iterator[Project]:
        with at_work(project.engine, context.run.run_id) if context.run is not None else nullcontext():
            yield project

    return resource


class Dbt(DbtCliResource):
    """dbt, without the connection of its own that Dagster would open to look at columns and to count rows."""

    def _initialize_dbt_core_adapter(self, args: Sequence[str]) -> Any:
        return None


def dbt_cli() -> Dbt:
    """Return dbt as a subprocess of a run, from the same virtual environment, with Upnext's patches."""
    return Dbt(
        project_dir=str(dbt.PROJECT_DIR),
        profiles_dir=str(dbt.PROJECT_DIR),
        dbt_executable=str(Path(sys.executable).parent / "upnext-dbt"),
        global_config_flags=["--no-use-colors"],
    )
