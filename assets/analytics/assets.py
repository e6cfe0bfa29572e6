"""Results as Dagster assets."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from orchestration.settings import PROJECT
from orchestration.stages import Platform, analyse_results
from orchestration.ticks import last_published_as_of

NOTEBOOK = PROJECT / "notebooks" / "what_worked.ipynb"
_OWNER = ["growth@otto.example"]


def _spec(name: str, reads: str, description: str) -> dg.AssetSpec:
    return dg.AssetSpec(
        ["analytics", name],
        deps=[["analytics", reads]],
        group_name="analytics",
        owners=_OWNER,
        kinds={"postgres", "table", "scipy"},
        description=description,
    )


@dg.multi_asset(
    name="results",
    specs=[
        _spec(
            "experiment_results",
            "experiment_moments",
            "One row per as_of, experiment, metric and arm: the difference to control, its interval and p-values.",
        ),
        _spec(
            "journey_funnel", "journey_steps", "One row per as_of, journey and step: entered, sent, clicked, converted."
        ),
        _spec("copy_ranking", "copy_counts", "One row per as_of and variant: click rate with its interval, ranked."),
    ],
)
def results(platform: dg.ResourceParam[Platform]) -> Iterator[Any]:
    """Write the results at the newest published tick."""
    as_of = last_published_as_of(platform.engine)
    written = {"experiment_results": 0, "journey_funnel": 0, "copy_ranking": 0}
    if as_of is not None:
        done = analyse_results(platform, as_of)
        written = {
            "experiment_results": done.results,
            "segment_results": done.segments,
            "journey_funnel": done.funnel_steps,
            "copy_ranking": done.copies,
        }
    for name, rows in written.items():
        yield dg.MaterializeResult(asset_key=["analytics", name], metadata={"dagster/row_count": rows})


@dg.asset(
    key=["analytics", "what_worked"],
    deps=[["analytics", name] for name in ("experiment_results", "journey_funnel", "copy_ranking")],
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
