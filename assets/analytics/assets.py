"""Results as Dagster assets."""

import base64
from collections.abc import Iterator
from typing import Any

import dagster as dg

from assets.analytics.report import lifts_over_time, markdown, table
from assets.analytics.results import Analysed, read_history, read_results
from orchestration.settings import PROJECT
from orchestration.stages import Platform, analyse_results
from orchestration.ticks import last_published_as_of

NOTEBOOK = PROJECT / "notebooks" / "what_worked.ipynb"
_OWNER = ["growth@otto.example"]
_RESULTS = ("experiment_results", "segment_results", "journey_funnel", "copy_ranking")


def _spec(name: str, reads: list[str], description: str) -> dg.AssetSpec:
    return dg.AssetSpec(
        ["analytics", name],
        deps=[["analytics", view] for view in reads],
        group_name="analytics",
        owners=_OWNER,
        kinds={"postgres", "table", "scipy"},
        description=description,
    )


# What an analysis leaves of its work. The views that it reads depend on them, so they are no part of `results`.
touched = [
    dg.AssetSpec(
        ["analytics", name],
        group_name="analytics",
        owners=_OWNER,
        kinds={"postgres", "table"},
        description=description,
    )
    for name, description in (
        ("touched_users", "One row per user whom the newest analysis looked up again."),
        ("touched_days", "One row per experiment and day of first exposure whose moments it computed again."),
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
def results(platform: dg.ResourceParam[Platform]) -> Iterator[Any]:
    """Write the results at the newest published tick."""
    as_of = last_published_as_of(platform.engine)
    done = Analysed(0, 0, 0, 0, 0) if as_of is None else analyse_results(platform, as_of)
    picture = base64.b64encode(lifts_over_time(read_history(platform.engine))).decode()
    for name, rows, metadata in (
        (
            "experiment_results",
            done.results,
            {
                "what to do": dg.MetadataValue.md(markdown(table(read_results(platform.engine)))),
                "users looked up again": dg.MetadataValue.int(done.users),
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
    owners=_OWNER,
    kinds={"jupyter"},
    description="One page per analysis: what worked, as a notebook to read, in Upnext's home.",
)
def what_worked(platform: dg.ResourceParam[Platform]) -> dg.MaterializeResult[None]:
    """Run the notebook on the newest results."""
    import papermill  # noqa: PLC0415 - slow to import

    page = platform.settings.home / "notebooks" / NOTEBOOK.name
    page.parent.mkdir(parents=True, exist_ok=True)
    papermill.execute_notebook(str(NOTEBOOK), str(page), progress_bar=False)
    return dg.MaterializeResult(metadata={"page": dg.MetadataValue.notebook(str(page))})
