"""The contract of raw events, as asset checks on the border. It blocks what is downstream in the run."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from assets.events.event import TYPES
from orchestration.expectations import expect
from orchestration.stages import Platform

_EVENTS = dg.AssetKey(["raw", "events"])

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
def raw_events_contract(platform: dg.ResourceParam[Platform]) -> Iterator[Any]:
    """Validate `raw.events` in SQL."""
    import great_expectations.expectations as gxe  # noqa: PLC0415 - slow to import
    from great_expectations.expectations.row_conditions import Column  # noqa: PLC0415

    results = expect(
        platform.url,
        schema="raw",
        table="events",
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
