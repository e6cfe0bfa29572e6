"""What a feature's description may say (`config.meta` of a column), and which mistakes it can hold. Pure."""

import re
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from typing import Any

import msgspec

from upnext.declarations import NAME
from upnext.errors import nearest
from upnext.kinds import ANY, KINDS, Measure
from upnext.reserved import RESERVED_WORDS


class Feature(Measure, frozen=True):
    """What a feature is made of: a kind, and what goes with it."""


class _Config(msgspec.Struct, frozen=True):
    meta: Feature | None = None


class Column(msgspec.Struct, frozen=True):
    """A column, and what it is made of where it is a feature."""

    name: str
    description: str = ""
    config: _Config = _Config()


class Model(msgspec.Struct, frozen=True):
    """A table of features."""

    name: str
    columns: list[Column] = []


class FeaturesFile(msgspec.Struct, frozen=True):
    """A dbt file that describes tables of features."""

    models: list[Model] = []

    def features(self) -> Iterator[tuple[int, int, str, Column, Feature]]:
        """Yield each feature with the places of its model and its column, and the model's name."""
        for nth_model, model in enumerate(self.models):
            for nth_column, column in enumerate(model.columns):
                if column.config.meta is not None:
                    yield nth_model, nth_column, model.name, column, column.config.meta

    def unexplained(self) -> Iterator[tuple[int, int, str]]:
        """Yield each column that is neither a feature nor an id, with the places of its model and its own."""
        for nth_model, model in enumerate(self.models):
            for nth_column, column in enumerate(model.columns):
                if column.config.meta is None and column.name not in ("user_id", "account_id"):
                    yield nth_model, nth_column, column.name


def example(feature: Feature, date: datetime) -> Any:
    """Return a value such as the feature has for an active user, as JSON has it."""
    value = KINDS[feature.kind].example
    if value is not None:
        return value
    if feature.kind in ("first_at", "last_at"):
        return date.isoformat()
    return {"number": 12, "boolean": True, "time": date.isoformat()}.get(feature.as_ or "", "premium")


def find_mistake(
    column: Column, feature: Feature, *, is_of_accounts: bool, events: Collection[str], user_features: Collection[str]
) -> str | None:
    """Return what is wrong with a feature, given what else is declared; None where nothing is."""
    if not re.fullmatch(NAME, column.name) or column.name in RESERVED_WORDS:
        return "is no name of a column; use a-z, 0-9 and _, beginning with a letter, and no word that SQL reserves"
    unknown = [name for name in feature.events if name != ANY and name not in events]
    if unknown:
        return f"is about '{unknown[0]}', which models/events/_catalogue.yml does not list{nearest(unknown[0], events)}"
    if is_of_accounts and not KINDS[feature.kind].is_of_accounts:
        return f"cannot be made by {feature.kind}, which cannot be added up from an account's users"
    if not is_of_accounts and not KINDS[feature.kind].is_of_users:
        return f"cannot be made by {feature.kind}, which only accounts have"
    named = feature.members_where
    if named is not None and named != ANY and named not in user_features:
        return f"counts members by '{named}', which is no feature of users{nearest(named, user_features)}"
    return None


def never_negative(tables: Mapping[str, Mapping[str, Feature]]) -> set[str]:
    """Return the features that count something: a condition `>= 0` on one of them is always true."""
    return {
        name for table in tables.values() for name, feature in table.items() if KINDS[feature.kind].is_never_negative
    }
