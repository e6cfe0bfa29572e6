"""Analytics: the models that results read, the results, and the checks that decide whether to trust them."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_dbt import DbtCliResource, dbt_assets

from assets import owners
from assets.dbt_runs import stream_dbt
from assets.runs import say, told_in_one_line
from upnext import dbt
from upnext.analytics.health import CHECKS
from upnext.analytics.results import Analysed, analyse, read_results
from upnext.analytics.text import markdown, table
from upnext.operations.checks import check_results
from upnext.project import Project
from upnext.report import notebooks
from upnext.report.write import write as write_report
from upnext.ticks.lifecycle import last_published_as_of

_RESULTS = ("experiment_results", "segment_results", "journey_funnel", "copy_ranking")


def _spec(name: str, reads: list[str], description: str) -> dg.AssetSpec:
    return dg.AssetSpec(
        ["analytics", name],
        deps=[["analytics", view] for view in reads],
        group_name="analytics",
        owners=owners.GROWTH,
        kinds={"postgres", "table", "scipy"},
        description=description,
    )


# What an analysis recomputed and has to recompute, and what the programme is. The views of the models read it.
stale = [
    dg.AssetSpec(
        ["analytics", name],
        group_name="analytics",
        owners=owners.GROWTH,
        kinds={"postgres", "table"},
        description=description,
    )
    for name, description in (
        ("stale_users", "One row per user whose exposures and outcomes the newest analysis recomputed."),
        ("stale_events", "One row per event that an analysis computes outcomes from, while it runs."),
        ("stale_days", "One row per experiment and day of first exposure whose moments are to be recomputed."),
        ("programme", "One row per programme: its goal, none if the policy declares none."),
        ("programme_shares", "One row per size of the global holdout, with the time from which it applies."),
    )
]


@dg.multi_asset(
    name="results",
    specs=[
        _spec(
            "experiment_results",
            ["experiment_moments", "experiment_arms"],
            "One row per as_of, experiment, metric and arm: the difference to control, its interval, p-values, and what"
            " to do.",
        ),
        _spec(
            "segment_results",
            ["segment_counts"],
            "One row per as_of, segment, experiment, arm and reference: whether the copy does better there, corrected"
            " for looking at many.",
        ),
        _spec(
            "journey_funnel",
            ["journey_steps"],
            "One row per as_of, journey and step: entered, sent, opened, clicked, converted.",
        ),
        _spec(
            "copy_ranking",
            ["copy_counts"],
            "One row per as_of and variant: rates of clicks and of goals with their intervals, ranked.",
        ),
    ],
)
def results(context: dg.AssetExecutionContext, project: dg.ResourceParam[Project]) -> Iterator[Any]:
    """Write the results at the newest published tick."""
    as_of = last_published_as_of(project.engine)
    done = Analysed(0, 0, 0, 0, 0) if as_of is None else analyse(project.engine, as_of=as_of)
    found = read_results(project.engine)
    decisions = Counter(row["decision"] for row in found)
    say(
        context,
        ", ".join(f"{decision or 'no decision'} {count}" for decision, count in decisions.items()) or "no results yet",
    )
    for name, rows, metadata in (
        (
            "experiment_results",
            done.results,
            {
                "what to do": dg.MetadataValue.md(markdown(table(found))),
                "users recomputed": dg.MetadataValue.int(done.users),
                # Dagster draws a number of each run as a line.
                **{
                    f"lift of {row['experiment']}: {row['arm']}": dg.MetadataValue.float(row["lift"])
                    for row in found
                    if row["lift"] is not None
                },
            },
        ),
        ("segment_results", done.segments, {}),
        ("journey_funnel", done.funnel_steps, {}),
        ("copy_ranking", done.copies, {}),
    ):
        yield dg.MaterializeResult(asset_key=["analytics", name], metadata={"dagster/row_count": rows, **metadata})


_NOTEBOOKS = {
    "segment_explorer": "One page per analysis: a segment, who came and left, and who is one condition short of it.",
    "experiment_readout": "One page per analysis: an experiment, from the raw counts to the decision.",
    "journey_review": "One page per analysis: a journey, its steps, and what became of those who entered.",
}


class Parameters(dg.Config):
    """Parameters of a notebook, such as `segment: upgrade_curious`."""

    parameters: dict[str, str] = {}


def _notebook(name: str, description: str) -> dg.AssetsDefinition:
    @dg.asset(
        key=["analytics", name],
        deps=[["analytics", table] for table in _RESULTS],
        group_name="reports",
        owners=owners.GROWTH,
        kinds={"jupyter"},
        description=description,
    )
    def notebook(config: Parameters, project: dg.ResourceParam[Project]) -> dg.MaterializeResult[None]:
        with told_in_one_line():
            page = notebooks.run(project.settings, name, config.parameters)
        return dg.MaterializeResult(
            metadata={
                "page": dg.MetadataValue.path(str(page)),
                "notebook": dg.MetadataValue.notebook(str(page.with_suffix(".ipynb"))),
            }
        )

    return notebook


notebook_pages = [_notebook(name, description) for name, description in _NOTEBOOKS.items()]


@dg.asset(
    key=["analytics", "report"],
    deps=[["analytics", name] for name in _RESULTS],
    group_name="reports",
    owners=owners.GROWTH,
    kinds={"html", "vegalite"},
    description="One page per analysis: all results, for people who never open a terminal; the edge has it at /report.",
)
def report(project: dg.ResourceParam[Project]) -> dg.MaterializeResult[None]:
    """Write the report, into Upnext's home and for the edge."""
    with told_in_one_line():
        path = write_report(project)
    metadata: dict[str, Any] = {"file": dg.MetadataValue.path(str(path)), "bytes": path.stat().st_size}
    if project.settings.report_url is not None:
        metadata["report"] = dg.MetadataValue.url(project.settings.report_url)
    return dg.MaterializeResult(metadata=metadata)


RESULTS = dg.AssetKey(["analytics", "experiment_results"])


@dg.multi_asset_check(
    specs=[dg.AssetCheckSpec(name, asset=RESULTS, description=text) for name, text in CHECKS.items()],
    can_subset=True,
)
def results_can_be_believed(
    context: dg.AssetCheckExecutionContext, project: dg.ResourceParam[Project]
) -> Iterator[dg.AssetCheckResult]:
    """Warn about anything that makes a result wrong, and name the experiment or the event."""
    as_of = last_published_as_of(project.engine)
    troubles = {} if as_of is None else check_results(project, as_of=as_of)
    for key in context.selected_asset_check_keys:
        found = troubles.get(key.name, {})
        yield dg.AssetCheckResult(
            asset_key=RESULTS,
            check_name=key.name,
            passed=not found,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={name: dg.MetadataValue.float(value) for name, value in found.items()},
        )


def analytics_models(manifest: Path) -> dg.AssetsDefinition:
    """Return the views that analytics read."""

    @dbt_assets(manifest=manifest, select=dbt.ANALYTICS, exclude="resource_type:unit_test", name="moments")
    def moments(
        context: dg.AssetExecutionContext, dbt_cli: DbtCliResource, project: dg.ResourceParam[Project]
    ) -> Iterator[Any]:
        yield from stream_dbt(context, dbt_cli, project, dbt.build_arguments(as_of=None, tick_id=None))

    return moments
