"""Analytics: the models that results read, the results, and the checks that decide whether to trust them."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_dbt import DbtCliResource, dbt_assets

from assets import owners
from assets.dbt_runs import stream_dbt
from upnext import dbt
from upnext.analytics.health import CHECKS, run_checks
from upnext.analytics.report import lifts_over_time, markdown, table
from upnext.analytics.results import Analysed, analyse, read_history, read_results
from upnext.kinds import names_of
from upnext.project import Project
from upnext.settings import PROJECT
from upnext.ticks.lifecycle import last_published_as_of

NOTEBOOK = PROJECT / "notebooks" / "what_worked.ipynb"
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
def results(project: dg.ResourceParam[Project]) -> Iterator[Any]:
    """Write the results at the newest published tick."""
    as_of = last_published_as_of(project.engine)
    done = Analysed(0, 0, 0, 0, 0) if as_of is None else analyse(project.engine, as_of=as_of)
    picture = base64.b64encode(lifts_over_time(read_history(project.engine))).decode()
    for name, rows, metadata in (
        (
            "experiment_results",
            done.results,
            {
                "what to do": dg.MetadataValue.md(markdown(table(read_results(project.engine)))),
                "users recomputed": dg.MetadataValue.int(done.users),
                "lift over time": dg.MetadataValue.md(f"![lift over time](data:image/png;base64,{picture})"),
            },
        ),
        ("segment_results", done.segments, {}),
        ("journey_funnel", done.funnel_steps, {}),
        ("copy_ranking", done.copies, {}),
    ):
        yield dg.MaterializeResult(asset_key=["analytics", name], metadata={"dagster/row_count": rows, **metadata})


@dg.asset(
    key=["analytics", "what_worked"],
    deps=[["analytics", name] for name in _RESULTS],
    group_name="analytics",
    owners=owners.GROWTH,
    kinds={"jupyter"},
    description="One page per analysis: what worked, as a notebook to read, in Upnext's home.",
)
def what_worked(project: dg.ResourceParam[Project]) -> dg.MaterializeResult[None]:
    """Run the notebook on the newest results."""
    import papermill  # noqa: PLC0415 - slow to import

    page = project.settings.home / "notebooks" / NOTEBOOK.name
    page.parent.mkdir(parents=True, exist_ok=True)
    papermill.execute_notebook(str(NOTEBOOK), str(page), progress_bar=False)
    return dg.MaterializeResult(metadata={"page": dg.MetadataValue.notebook(str(page))})


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
    metrics, known = project.metrics.values(), project.catalogue.events
    events = names_of((selected for metric in metrics for selected in metric.selected), known)
    summed = names_of((metric.of for metric in metrics if metric.of is not None), known)
    troubles = {} if as_of is None else run_checks(project.engine, as_of=as_of, events=events, summed_events=summed)
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
