"""What a feature's description may say (`config.meta` of a column), and which mistakes it can hold. Pure."""

import re
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from typing import Any, Literal

import msgspec

from upnext.conditions import Conditions, check_conditions
from upnext.declarations import NAME, Declaration
from upnext.durations import Window
from upnext.errors import nearest
from upnext.reserved import RESERVED_WORDS

ANY = "any"
_WINDOWED = {"within", "where", "type"}
KINDS = {
    "count_of": _WINDOWED,
    "sum_of": _WINDOWED | {"of"},
    "days_of": _WINDOWED,
    "ever": _WINDOWED,
    "first_at": _WINDOWED,
    "last_at": _WINDOWED,
    "latest_of": {"within", "where", "is"},
    "latest": _WINDOWED | {"of", "as"},
    "latest_trait": {"within", "as"},
    "sequence": {"within", "where", "in"},
    "most_in_session": {"within", "where"},
    "distinct_users": {"within", "where"},
    "members_where": set(),
}
NEEDED = {"sum_of": "of", "latest_of": "is", "sequence": "in"}
OF_ACCOUNTS = {"count_of", "sum_of", "ever", "first_at", "last_at", "distinct_users", "members_where"}
OF_ACCOUNTS_ONLY = {"distinct_users", "members_where"}
NEVER_NEGATIVE = {"count_of", "days_of", "most_in_session", "distinct_users", "members_where"}


class Feature(Declaration, frozen=True, rename={"is_": "is", "in_": "in", "as_": "as"}):
    """What a feature is made of: one kind, and what goes with it (see dbt_project/macros/features/kinds.sql)."""

    count_of: str | None = None
    sum_of: str | None = None
    days_of: str | None = None
    ever: str | None = None
    first_at: str | None = None
    last_at: str | None = None
    latest_of: list[str] | None = None
    latest: str | None = None
    latest_trait: str | None = None
    sequence: list[str] | None = None
    most_in_session: str | None = None
    distinct_users: bool | None = None
    members_where: str | None = None
    of: str | None = None
    is_: str | None = None
    in_: Window | None = None
    as_: Literal["text", "number", "boolean", "time"] | None = None
    type: Literal["track", "page", "screen", "identify", "group", "alias"] | None = None
    within: Window | None = None
    where: Conditions | None = None

    def __post_init__(self) -> None:
        said = {field.encode_name: value for field in msgspec.structs.fields(self)
                if (value := getattr(self, field.name)) is not None}  # fmt: skip
        kinds = [name for name in said if name in KINDS]
        if len(kinds) != 1:
            found = f"two kinds, {' and '.join(kinds)}" if kinds else "no kind"
            raise ValueError(f"a feature with {found}; it needs one of {', '.join(KINDS)}")
        kind = kinds[0]
        for name in said:
            if name != kind and name not in KINDS[kind]:
                raise ValueError(
                    f"'{name}' does not go with {kind}; known: {', '.join(sorted(KINDS[kind])) or 'nothing'}"
                )
        if kind in NEEDED and NEEDED[kind] not in said:
            raise ValueError(f"{kind} needs '{NEEDED[kind]}'")
        if kind == "latest" and self.of is None and self.type is None:
            raise ValueError("latest needs 'of', an event, or 'type'")
        check_conditions(self.where)
        if self.latest_of is not None and self.is_ not in self.latest_of:
            raise ValueError(f"is: '{self.is_}' is none of latest_of{nearest(self.is_ or '', self.latest_of)}")

    @property
    def kind(self) -> str:
        """The name of the kind."""
        return next(name for name in KINDS if getattr(self, name) is not None)

    @property
    def events(self) -> list[str]:
        """Names of the events that it is about, `any` among them."""
        named = [
            self.count_of, self.days_of, self.ever, self.first_at, self.last_at, self.most_in_session, self.of,
            *(self.latest_of or ()), *(self.sequence or ()),
        ]  # fmt: skip
        return [name for name in named if name is not None]


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
    if feature.kind in ("ever", "latest_of", "sequence"):
        return True
    if feature.kind in ("first_at", "last_at"):
        return date.isoformat()
    if feature.kind in ("latest", "latest_trait"):
        return {"number": 12, "boolean": True, "time": date.isoformat()}.get(feature.as_ or "", "premium")
    return 12


def find_mistake(
    column: Column, feature: Feature, *, is_of_accounts: bool, events: Collection[str], user_features: Collection[str]
) -> str | None:
    """Return what is wrong with a feature, given what else is declared; None where nothing is."""
    if not re.fullmatch(NAME, column.name) or column.name in RESERVED_WORDS:
        return "is no name of a column; use a-z, 0-9 and _, beginning with a letter, and no word that SQL reserves"
    unknown = [name for name in feature.events if name != ANY and name not in events]
    if unknown:
        return f"is about '{unknown[0]}', which models/events/_catalogue.yml does not list{nearest(unknown[0], events)}"
    if is_of_accounts and feature.kind not in OF_ACCOUNTS:
        return f"cannot be made by {feature.kind}, which cannot be added up from an account's users"
    if not is_of_accounts and feature.kind in OF_ACCOUNTS_ONLY:
        return f"cannot be made by {feature.kind}, which only accounts have"
    named = feature.members_where
    if named is not None and named != ANY and named not in user_features:
        return f"counts members by '{named}', which is no feature of users{nearest(named, user_features)}"
    return None


def never_negative(tables: Mapping[str, Mapping[str, Feature]]) -> set[str]:
    """Return the features that count something: a condition `>= 0` on one of them is always true."""
    return {name for table in tables.values() for name, feature in table.items() if feature.kind in NEVER_NEGATIVE}
