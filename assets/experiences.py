"""Experiences: the assignments, and the calls to action that each user sees now."""

from collections.abc import Iterable

import dagster as dg

from assets import owners
from assets.runs import at_work_in_words, told_in_one_line
from upnext.experiences.definition import Experience
from upnext.loop import assign_experiences, show_ctas
from upnext.project import Project
from upnext.ticks.lifecycle import last_published_as_of

_TABLES = {
    "definitions": "One row per experience as declared: segment, slot, trigger, copy and shares.",
    "held_out": "One row per user whom the global holdout keeps from experiences.",
    "shares": "One row per experience and change of its traffic split: the shares, and when they took effect.",
}


def experience_assets(
    experiences: dict[str, Experience], journeys: Iterable[str]
) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """Return the assets of the assignments and of the table that a site reads."""
    segments = sorted({experience.segment for experience in experiences.values()})

    @dg.asset(
        key=["experiences", "assignments"],
        deps=[["segments", "ticks"], *(["segments", segment] for segment in segments)],
        group_name="experiences",
        owners=owners.GROWTH,
        kinds={"postgres", "table"},
        description="One row per experience and user: the first variant, assigned by hash and never changed.",
    )
    def assignments(project: dg.ResourceParam[Project]) -> dg.MaterializeResult[None]:
        as_of = last_published_as_of(project.engine)
        with told_in_one_line():
            assigned = 0 if as_of is None else assign_experiences(project, as_of)
        at_work = {name: at_work_in_words("experiences", name, project.started) for name in sorted(experiences)}
        return dg.MaterializeResult(metadata={"assigned": assigned, **at_work})

    drawn = dg.AssetKey(["experiences", "assignments"])

    @dg.asset(
        key=["experiences", "live_ctas"],
        deps=[drawn, *(["journeys", journey] for journey in journeys)],
        group_name="experiences",
        owners=owners.GROWTH,
        kinds={"postgres", "table"},
        description="One row per user, surface and slot: the call to action to show; control holds its slot.",
    )
    def live_ctas(project: dg.ResourceParam[Project]) -> dg.MaterializeResult[None]:
        shown = show_ctas(project)
        return dg.MaterializeResult(metadata={"dagster/row_count": shown.live, "changed": shown.changed})

    return [
        assignments,
        live_ctas,
        *(
            dg.AssetSpec(
                ["experiences", table],
                deps=[drawn],
                group_name="experiences",
                owners=owners.GROWTH,
                kinds={"postgres", "table"},
                description=description,
            )
            for table, description in _TABLES.items()
        ),
    ]
