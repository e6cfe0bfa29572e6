"""Experiences as Dagster assets."""

import dagster as dg

from assets.experiences.definition import Experience
from orchestration.runs import asked_as_of
from orchestration.stages import Platform, assign_experiences

_OWNER = ["growth@otto.example"]


def experience_assets(experiences: dict[str, Experience]) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """Return the assignments, and what a site reads from them."""
    segments = sorted({experience.segment for experience in experiences.values()})

    @dg.asset(
        key=["experiences", "assignments"],
        deps=[["segments", "ticks"], *(["segments", segment] for segment in segments)],
        group_name="experiences",
        owners=_OWNER,
        kinds={"postgres", "table"},
        description="One row per experience and user: the first variant, drawn by hash and kept for good.",
    )
    def assignments(
        context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]
    ) -> dg.MaterializeResult[None]:
        assigned = assign_experiences(platform, asked_as_of(context.run.tags))
        return dg.MaterializeResult(metadata={"assigned": assigned})

    drawn = dg.AssetKey(["experiences", "assignments"])
    return [
        assignments,
        dg.AssetSpec(
            ["experiences", "definitions"],
            deps=[drawn],
            group_name="experiences",
            owners=_OWNER,
            kinds={"postgres", "table"},
            description="One row per experience as declared: segment, slot, copy and shares.",
        ),
        dg.AssetSpec(
            ["experiences", "live_ctas"],
            deps=[drawn, ["journeys", "messages"]],
            group_name="experiences",
            owners=_OWNER,
            kinds={"postgres", "view"},
            description="One row per user, surface and slot: the call to action to show; control holds its slot.",
        ),
    ]
