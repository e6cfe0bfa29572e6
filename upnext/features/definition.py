"""The keys of a feature's description (`config.meta` of a column), and the mistakes in it. Pure."""

import re
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from typing import Any

import msgspec

from upnext.declarations import NAME, Keys, Problem
from upnext.errors import nearest
from upnext.kinds import ANY, KINDS, Measure
from upnext.reserved import RESERVED_WORDS


class Feature(Measure, frozen=True):
    """The definition of a feature: its kind, and the keys of that kind."""


class _Config(msgspec.Struct, frozen=True):
    meta: Feature | None = None


class Column(msgspec.Struct, frozen=True):
    """A column, with its definition if it is a feature."""

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

    def find_mistakes(self, events: Collection[str], user_features: Collection[str]) -> Iterator[Problem]:
        """Yield what is wrong with a feature, given the events and the features of users that are declared."""
        for nth_model, model in enumerate(self.models):
            for nth_column, column in enumerate(model.columns):
                keys: Keys = ["models", nth_model, "columns", nth_column]
                if column.config.meta is not None:
                    mistakes = _mistakes_of(column.name, column.config.meta, model.name, events, user_features)
                    keys += ["config", "meta"]
                elif column.name not in ("user_id", "account_id"):
                    mistakes = iter(["has no config.meta, which says what it is made of"])
                else:
                    continue
                yield from (Problem(keys, f"feature '{column.name}' {mistake}") for mistake in mistakes)


def example(feature: Feature, date: datetime) -> Any:
    """Return a value such as the feature has for an active user, as JSON has it."""
    value = KINDS[feature.kind].example
    if value is not None:
        return value
    if feature.kind in ("first_at", "last_at"):
        return date.isoformat()
    return {"number": 12, "boolean": True, "time": date.isoformat()}.get(feature.as_ or "", "premium")


def _mistakes_of(
    name: str, feature: Feature, model: str, events: Collection[str], user_features: Collection[str]
) -> Iterator[str]:
    kind, named = KINDS[feature.kind], feature.members_where
    if not re.fullmatch(NAME, name) or name in RESERVED_WORDS:
        yield "is no name of a column; use a-z, 0-9 and _, beginning with a letter, and no word that SQL reserves"
    for event in feature.events:
        if event != ANY and event not in events:
            yield f"is about '{event}', which models/events/_catalogue.yml does not list{nearest(event, events)}"
    if model == "account_features" and not kind.is_of_accounts:
        yield f"cannot be made by {feature.kind}, which cannot be added up from an account's users"
    if model != "account_features" and not kind.is_of_users:
        yield f"cannot be made by {feature.kind}, which only accounts have"
    if named is not None and named != ANY and named not in user_features:
        yield f"counts members by '{named}', which is no feature of users{nearest(named, user_features)}"


def never_negative(tables: Mapping[str, Mapping[str, Feature]]) -> set[str]:
    """Return the features that count something: a condition `>= 0` on one of them is always true."""
    return {
        name for table in tables.values() for name, feature in table.items() if KINDS[feature.kind].is_never_negative
    }
