"""Raw events: the ingest, and checks on what came in. The contract of raw events blocks, the others warn."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import dagster as dg
from sqlalchemy.engine import URL

from assets import owners
from assets.expectations import expect
from assets.runs import asked_as_of, told_in_one_line
from upnext.events.event import TYPES
from upnext.events.health import BOUNDS, health
from upnext.loop import ingest_landing
from upnext.project import Project


def _spec(name: str, description: str) -> dg.AssetSpec:
    return dg.AssetSpec(
        ["raw", name], description=description, group_name="events", owners=owners.DATA, kinds={"postgres", "table"}
    )


@dg.multi_asset(
    name="ingest",
    specs=[
        _spec("events", "One row per event, unique by source and message id, as it came in."),
        _spec("loads", "One row per loaded file: the ledger. received = stored + duplicate + rejected."),
        _spec("rejected_events", "One row per line that did not fit, with its payload and the reason."),
    ],
)
def ingest(project: dg.ResourceParam[Project]) -> Iterator[Any]:
    """Load the landed files that are not loaded yet."""
    with told_in_one_line():
        done = ingest_landing(project)
    yield dg.MaterializeResult(
        asset_key=["raw", "events"], metadata={"stored": done.stored, "duplicate": done.duplicate}
    )
    files = {"files": done.files, "files_refused": len(done.refused), "files_changed": len(done.changed)}
    yield dg.MaterializeResult(asset_key=["raw", "loads"], metadata={**files, "received": done.received})
    yield dg.MaterializeResult(asset_key=["raw", "rejected_events"], metadata={"rejected": done.rejected})


_EVENTS = dg.AssetKey(["raw", "events"])

_NOT_TAKEN_IN = """
    select type, event, user_id, anonymous_id from raw.events
    where load_id in (select load_id from raw.loads where tick_id is null)
"""
_CONTRACT = {
    "type_is_known": "Every event has a type of the Segment spec.",
    "track_names_its_event": "Every track names its event.",
    "somebody_did_it": "Every event has a user or an anonymous id.",
}


@dg.multi_asset_check(
    name="raw_events_contract",
    specs=[
        dg.AssetCheckSpec(name, asset=_EVENTS, description=description, blocking=True)
        for name, description in _CONTRACT.items()
    ],
)
def raw_events_contract(project: dg.ResourceParam[Project]) -> Iterator[Any]:
    """Validate, in SQL, the events that no tick has processed yet."""
    import great_expectations.expectations as gxe  # noqa: PLC0415 - slow to import
    from great_expectations.expectations.row_conditions import Column  # noqa: PLC0415

    results = expect(
        project.url,
        schema="raw",
        table="events",
        query=_NOT_TAKEN_IN,
        expectations={
            "type_is_known": gxe.ExpectColumnValuesToBeInSet(column="type", value_set=sorted(TYPES)),
            "track_names_its_event": gxe.ExpectColumnValuesToNotBeNull(
                column="event", row_condition=Column("type") == "track"
            ),
            "somebody_did_it": gxe.ExpectColumnValuesToNotBeNull(
                column="user_id", row_condition=Column("anonymous_id").is_null()
            ),
        },
    )
    yield from results.values()


@dg.multi_asset_check(
    name="raw_events_health",
    specs=[dg.AssetCheckSpec(name, asset=_EVENTS, description=bound.description) for name, bound in BOUNDS.items()],
)
def raw_events_health(context: dg.AssetCheckExecutionContext, project: dg.ResourceParam[Project]) -> Iterator[Any]:
    """Compare the figures of the stream with their bounds."""
    yield from check_health(project.url, asked_as_of(context.run.tags)).values()


def check_health(url: URL, as_of: datetime) -> dict[str, dg.AssetCheckResult]:
    """Return a warning check per bound of the stream's figures at `as_of`."""
    import great_expectations.expectations as gxe  # noqa: PLC0415 - slow to import

    return expect(
        url,
        schema="raw",
        table="events_health",
        query=health(as_of),
        expectations={
            name: gxe.ExpectColumnMaxToBeBetween(column=bound.figure, min_value=bound.least, max_value=bound.most)
            for name, bound in BOUNDS.items()
        },
        severity=dg.AssetCheckSeverity.WARN,
    )
