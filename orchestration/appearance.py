"""How assets look in the UI: what is plumbing, who owns a segment, the columns, and how old a table may be."""

from collections.abc import Callable, Mapping
from datetime import timedelta

import dagster as dg

from assets.owners import declared
from upnext.errors import UpnextError
from upnext.features.definition import type_of
from upnext.project import Project
from upnext.segments.declared import descriptions
from upnext.segments.definition import UNITS
from upnext.warehouse.columns import columns

PLUMBING = "plumbing"
"""What stands between what happened and the results. It comes after all other groups, so that no line runs back."""
_PLUMBING = {
    "analytics": (
        "capped_moments", "copy_counts", "daily_moments", "experiment_arms", "experiment_moments", "experiment_users",
        "experiments", "journey_steps", "programme", "programme_shares", "segment_counts", "stale_days",
        "stale_exposures", "stale_moments", "stale_outcomes", "stale_users",
    ),
    "experiences": ("definitions", "held_out", "shares"),
    "journeys": ("definitions", "steps"),
}  # fmt: skip
# The schedule ticks and analyses each hour; a missed one is a warning, three are a failure.
_FRESH = {
    ("raw", "events"), ("features", "user_features"), ("segments", "membership_changes"),
    ("analytics", "experiment_results"), ("analytics", "report"),
}  # fmt: skip
_HOURLY = dg.FreshnessPolicy.time_window(
    warn_window=timedelta(hours=1, minutes=30), fail_window=timedelta(hours=3, minutes=30)
)
# What dbt does not know: the functions of its macros read raw events.
_READS = {("events", "identity_links"): [("raw", "events")]}


def appearance(project: Project) -> Callable[[dg.AssetSpec], dg.AssetSpec]:
    """Return what gives an asset its group, its owner, its columns and its freshness policy."""
    owners, types = _owners(project), _types(project)

    def shown(spec: dg.AssetSpec) -> dg.AssetSpec:
        schema, name = spec.key.path[0], spec.key.path[-1]
        if name in _PLUMBING.get(schema, ()):
            spec = spec.replace_attributes(group_name=PLUMBING)
        if schema == "segments" and owners.get(name):
            spec = spec.replace_attributes(owners=owners[name])
        if (schema, name) in _FRESH:
            spec = spec.replace_attributes(freshness_policy=_HOURLY)
        if (schema, name) in _READS:
            spec = spec.replace_attributes(deps=[*spec.deps, *(list(key) for key in _READS[schema, name])])
        if "dagster/table_name" in spec.metadata:
            # dbt's manifest names a database that is none: reading it needs no connection.
            spec = spec.merge_attributes(metadata={"dagster/table_name": f"{schema}.{name}"})
        known = types.get(f"{schema}.{name}", {})
        return spec.merge_attributes(metadata={"dagster/column_schema": _columns(spec, known)}) if known else spec

    return shown


def _columns(spec: dg.AssetSpec, types: Mapping[str, str]) -> dg.TableSchema:
    """Return the columns that the asset describes with the types that are known, or else all that are known."""
    described = spec.metadata.get("dagster/column_schema")
    found = {column.name: column for column in described.columns} if isinstance(described, dg.TableSchema) else {}
    return dg.TableSchema([
        dg.TableColumn(name, types.get(name, "?"), description=found[name].description if name in found else None)
        for name in dict.fromkeys([*found, *types])
    ])  # fmt: skip


def _owners(project: Project) -> dict[str, list[str]]:
    """Return the owner of each segment, as Dagster has it."""
    try:
        said = descriptions(project.segment_files)
    except UpnextError:
        return {}
    return {name: declared(owner) for name, (_, owner) in said.items()}


def _types(project: Project) -> dict[str, dict[str, str]]:
    """Return the types of the columns of our tables, of features and of segments."""
    types = dict(columns())
    try:
        for table, features in project.features.items():
            key = {UNITS[table]: "text"} if table in UNITS else {}
            types[f"features.{table}"] = key | {name: type_of(made_of) or "?" for name, made_of in features.items()}
        for segment, unit in project.segment_units.items():
            types[f"segments.{segment}"] = {unit: "text", "entered_at": "timestamp with time zone"}
    except UpnextError:
        pass
    return types
