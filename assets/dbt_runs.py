"""dbt within a run of Dagster: its events as they come, and its first failure in one line."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_dbt import DbtCliResource
from dagster_dbt.errors import DagsterDbtCliRuntimeError

from upnext import dbt
from upnext.project import Project
from upnext.warehouse.locks import exclusive


def stream_dbt(
    context: dg.AssetExecutionContext, dbt_cli: DbtCliResource, project: Project, arguments: list[str]
) -> Iterator[Any]:
    """Run dbt under its lock and yield its events. Raises `dg.Failure` with what the command line would print."""
    os.environ.update(dbt.environment(project.settings, project.url))
    with exclusive(project.engine, "dbt"):
        target = project.settings.dbt_target / "runs" / context.op_execution_context.op.name
        invocation = dbt_cli.cli(arguments, context=context, target_path=target)
        try:
            yield from invocation.stream()
        except DagsterDbtCliRuntimeError:
            raise dg.Failure(_first_failure(project, target)) from None


def _first_failure(project: Project, target: Path) -> str:
    """Return dbt's message about the first node that failed, as the command line prints it."""
    try:
        results = json.loads((target / "run_results.json").read_text())["results"]
        nodes = json.loads((target / "manifest.json").read_text())["nodes"]
    except (OSError, ValueError, KeyError):
        return "dbt failed before it built anything; see the output of this step"
    failed = [result for result in results if result["status"] in ("error", "fail", "runtime error")]
    if not failed:
        return "dbt failed; see the output of this step"
    node = nodes.get(failed[0]["unique_id"], {})
    columns = {
        column
        for parent in node.get("depends_on", {}).get("nodes", [])
        for column in nodes.get(parent, {}).get("columns", {})
    }
    message = dbt.in_one_line(failed[0]["message"] or "", columns=columns)
    file = dbt.shown_path(project.settings, node.get("original_file_path", failed[0]["unique_id"]))
    return f"dbt failed: {file}: {message} ({len(failed)} failed in all)"
