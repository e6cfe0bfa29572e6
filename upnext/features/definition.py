"""The keys of a feature's description (`config.meta` of a column), and the mistakes in it. Pure."""

import re
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any

import msgspec

from upnext.declarations import MAX_NAME, NAME, Described, DescribedFile, Keys, Problem
from upnext.durations import Window, check_length, short
from upnext.errors import nearest
from upnext.kinds import ANY, KINDS, Measure, unknown_events
from upnext.reserved import RESERVED_WORDS


class Feature(Measure, frozen=True):
    """The definition of a feature: its kind, and the keys of that kind. `windows` makes one feature for each."""

    windows: Annotated[list[Window], msgspec.Meta(min_length=1)] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.per is not None and not isinstance(self.per, str):
            raise ValueError("per names another feature")
        if self.windows is not None:
            if self.within is not None or "within" not in KINDS[self.kind].goes_with:
                raise ValueError(f"'windows' does not go with {self.kind if self.within is None else 'within'}")
            for window in self.windows:
                check_length(window)


def of_each_window(name: str, feature: Feature) -> dict[str, Feature]:
    """Return the features of a column by name: one for each of its windows, such as `logins_30d`."""
    if feature.windows is None:
        return {name: feature}
    return {
        f"{name}_{short(window)}": msgspec.structs.replace(feature, within=window, windows=None)
        for window in feature.windows
    }


class _Config(msgspec.Struct, frozen=True):
    meta: Feature | None = None


class Column(Described, frozen=True):
    """A column, with its definition if it is a feature."""

    config: _Config = _Config()


class Model(Described, frozen=True):
    """A table of features."""

    config: Any = None
    columns: list[Column] = []


class FeaturesFile(DescribedFile, frozen=True):
    """A dbt file that describes tables of features."""

    models: list[Model] = []

    def find_mistakes(self, events: Collection[str], tables: Mapping[str, Mapping[str, Feature]]) -> Iterator[Problem]:
        """Yield what is wrong with a feature, given the events and the features of each table that are declared."""
        for nth_model, model in enumerate(self.models):
            seen: set[str] = set()
            for nth_column, column in enumerate(model.columns):
                keys: Keys = ["models", nth_model, "columns", nth_column]
                if column.config.meta is not None:
                    names = list(of_each_window(column.name, column.config.meta))
                    for name in names:
                        if len(name) > MAX_NAME:
                            yield Problem(keys, f"feature '{name}' has a name of over {MAX_NAME} characters")
                        if name in seen or names.count(name) > 1:
                            yield Problem(keys, f"feature '{name}' stands in {model.name} twice")
                    seen.update(names)
                    mistakes = _mistakes_of(column.name, column.config.meta, model.name, events, tables)
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
    if feature.kind in ("first_at", "last_at", "held_since"):
        return date.isoformat()
    return {"number": 12, "boolean": True, "time": date.isoformat()}.get(feature.as_ or "", "premium")


def _mistakes_of(
    name: str, feature: Feature, model: str, events: Collection[str], tables: Mapping[str, Mapping[str, Feature]]
) -> Iterator[str]:
    user_features, features = tables.get("user_features", {}), tables.get(model, {})
    kind, named = KINDS[feature.kind], feature.members_where
    if not re.fullmatch(NAME, name) or name in RESERVED_WORDS:
        yield "is no name of a column; use a-z, 0-9 and _, beginning with a letter, and no word that SQL reserves"
    yield from unknown_events(feature.selected, events)
    if model == "account_features" and not kind.is_of_accounts:
        yield f"cannot be made by {feature.kind}, which cannot be added up from an account's users"
    if model != "account_features" and not kind.is_of_users:
        yield f"cannot be made by {feature.kind}, which only accounts have"
    if named is not None and named != ANY and named not in user_features:
        yield f"counts members by '{named}', which is no feature of users{nearest(named, user_features)}"
    if name == "recompute_at":
        yield "has a name that Upnext uses itself; choose another"
    if feature.ratio_of is not None:
        numbers = {other for other, one in features.items() if is_number(one) and one.ratio_of is None}
        for part in (feature.ratio_of, str(feature.per)):
            if part not in numbers:
                yield f"divides '{part}', which is no number among the features of {model}{nearest(part, numbers)}"


def is_number(feature: Feature) -> bool:
    """Return whether a feature is a number."""
    return KINDS[feature.kind].is_number or feature.as_ == "number"


def type_of(feature: Feature) -> str | None:
    """Return what a feature's values are: number, boolean or time; None for texts, and where only the events know."""
    kind = KINDS[feature.kind]
    if kind.is_number:
        return "number"
    if feature.kind in ("first_at", "last_at", "held_since"):
        return "time"
    if kind.example is True:
        return "boolean"
    return feature.as_ if feature.as_ != "text" else None


def never_negative(tables: Mapping[str, Mapping[str, Feature]]) -> set[str]:
    """Return the features that count something: a condition `>= 0` on one of them is always true."""
    return {
        name for table in tables.values() for name, feature in table.items() if KINDS[feature.kind].is_never_negative
    }
