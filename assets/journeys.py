"""Journeys: an asset for each YAML file, the tables that they share, and the checks of the outbox."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict

import dagster as dg

from assets import owners
from assets.runs import asked_as_of, at_work_in_words, say, told_in_one_line
from upnext.clock import utc_now
from upnext.journeys.definition import Journey
from upnext.journeys.dispatch import CHECKS, run_checks
from upnext.loop import dispatch_journeys
from upnext.project import Project


def journey_asset(name: str, journey: Journey | None) -> dg.AssetsDefinition:
    """Return the asset that moves users along one journey and sends the messages that are due.

    `journey` is None if a mistake in a declaration keeps it from being read. Its steps then report the mistake.
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
        owners=owners.declared(journey.owner if journey is not None else None),
        kinds={"postgres", "view"},
        description=f"One row per entry into the journey. {journey.description if journey is not None else ''}".strip(),
    )
    def _journey(context: dg.AssetExecutionContext, project: dg.ResourceParam[Project]) -> dg.MaterializeResult[None]:
        with told_in_one_line():
            done = asdict(dispatch_journeys(project, asked_as_of(context.run.tags), only={name}))
        messages = done.pop("messages")
        counts = {what: count for what, count in {**done, **messages}.items() if count}
        if counts:
            say(context, f"{name}: " + ", ".join(f"{what} {count:,}" for what, count in counts.items()))
        return dg.MaterializeResult(
            metadata={"at work": at_work_in_words("journeys", name, project.started), **done, **messages}
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
        "consents": "One row per user and topic: what the user said last about it, with source and time.",
    }
    return [
        dg.AssetSpec(
            ["journeys", table],
            deps=writers,
            group_name="journeys",
            owners=owners.GROWTH,
            kinds={"postgres", "table"},
            description=description,
        )
        for table, description in tables.items()
    ]


MESSAGES = dg.AssetKey(["journeys", "messages"])


@dg.multi_asset_check(
    specs=[dg.AssetCheckSpec(name, asset=MESSAGES, description=text) for name, text in CHECKS.items()],
    can_subset=True,
)
def outbox_works(
    context: dg.AssetCheckExecutionContext, project: dg.ResourceParam[Project]
) -> Iterator[dg.AssetCheckResult]:
    """Warn about overdue steps, unknown outcomes, and failing channels."""
    troubles = run_checks(project.engine, now=utc_now())
    for key in context.selected_asset_check_keys:
        found = troubles[key.name]
        yield dg.AssetCheckResult(
            asset_key=MESSAGES,
            check_name=key.name,
            passed=not any(found.values()),
            severity=dg.AssetCheckSeverity.WARN,
            metadata={name: dg.MetadataValue.int(count) for name, count in found.items()},
        )
