"""Raw events as Dagster assets."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from orchestration.runs import told_in_one_line
from orchestration.stages import Platform, ingest_landing

_OWNER = ["data@otto.example"]


def _spec(name: str, description: str) -> dg.AssetSpec:
    return dg.AssetSpec(
        ["raw", name], description=description, group_name="events", owners=_OWNER, kinds={"postgres", "table"}
    )


@dg.multi_asset(
    name="ingest",
    specs=[
        _spec("events", "One row per event, unique by source and message id, as it came in."),
        _spec("loads", "One row per loaded file: the ledger. received = stored + duplicate + rejected."),
        _spec("rejected_events", "One row per line that did not fit, with its payload and the reason."),
    ],
)
def ingest(platform: dg.ResourceParam[Platform]) -> Iterator[Any]:
    """Load what has landed and is not loaded yet."""
    with told_in_one_line():
        done = ingest_landing(platform)
    yield dg.MaterializeResult(
        asset_key=["raw", "events"], metadata={"stored": done.stored, "duplicate": done.duplicate}
    )
    files = {"files": done.files, "files_refused": len(done.refused), "files_changed": len(done.changed)}
    yield dg.MaterializeResult(asset_key=["raw", "loads"], metadata={**files, "received": done.received})
    yield dg.MaterializeResult(asset_key=["raw", "rejected_events"], metadata={"rejected": done.rejected})
