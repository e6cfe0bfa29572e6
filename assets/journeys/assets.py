"""Journeys as Dagster assets: one for each YAML file, and the tables that they share."""

from collections.abc import Iterable
from dataclasses import asdict

import dagster as dg

from assets.journeys.definition import Journey
from orchestration.runs import asked_as_of, at_work_in_words, told_in_one_line
from orchestration.stages import Platform, dispatch_journeys


def journey_asset(name: str, journey: Journey | None) -> dg.AssetsDefinition:
    """Return the asset that moves people along one journey and sends what is due.

    `journey` is None where a mistake in what is declared keeps it from being read: its steps then tell the mistake.
    """
    lets_in = journey.segment if journey is not None else None

    @dg.asset(
        key=["journeys", name],
        deps=[
            ["segments", "ticks"],
            ["segments", lets_in] if lets_in else ["events", "user_events"],
            ["features", "user_features"],
        ],
        group_name="journeys",
        owners=[journey.owner] if journey is not None else None,
        kinds={"postgres", "view"},
        description=f"One row per entry into the journey. {journey.description if journey is not None else ''}".strip(),
    )
    def _journey(context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]) -> dg.MaterializeResult[None]:
        with told_in_one_line():
            done = asdict(dispatch_journeys(platform, asked_as_of(context.run.tags), only={name}))
        messages = done.pop("messages")
        return dg.MaterializeResult(
            metadata={"at work": at_work_in_words("journeys", name, platform.started), **done, **messages}
        )

    return _journey


def journey_tables(journeys: Iterable[str]) -> list[dg.AssetSpec]:
    """Return the tables that all journeys write."""
    writers = [dg.AssetKey(["journeys", name]) for name in journeys]
    tables = {
        "definitions": "One row per version of a journey that was ever dispatched.",
        "steps": "One row per step of a version: where it leads, and when it is due.",
        "entries": "One row per user and entry into a journey, with its status and reason.",
        "messages": "One row per entry and step that fell due, sent or not, with the reason. The outbox.",
        "suppressions": "One row per user and channel that nothing may be sent to.",
    }
    return [
        dg.AssetSpec(
            ["journeys", table],
            deps=writers,
            group_name="journeys",
            owners=["growth@otto.example"],
            kinds={"postgres", "table"},
            description=description,
        )
        for table, description in tables.items()
    ]
