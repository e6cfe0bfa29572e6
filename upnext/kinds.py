"""Kinds of features and metrics. Pure.

A kind is a field of `Measure` here, and a file of SQL of the same name in `dbt_project/macros/kinds/`.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, get_type_hints

import msgspec

from upnext.conditions import Conditions, check_conditions
from upnext.declarations import Declaration
from upnext.durations import Window
from upnext.errors import nearest

ANY = "any"
_WINDOWED = frozenset({"within", "where", "type"})


@dataclass(frozen=True)
class Kind:
    """The keys that a kind allows, the key that it requires, and where it can be used."""

    goes_with: frozenset[str] = _WINDOWED
    needs: str | None = None
    is_of_users: bool = True
    is_of_accounts: bool = False
    is_of_metrics: bool = False
    is_never_negative: bool = False
    example: object = 12
    """A value such as an active user has; None where it depends on the type."""


class Measure(Declaration, frozen=True, rename={"is_": "is", "in_": "in", "as_": "as"}):
    """One kind, and what goes with it."""

    count_of: Annotated[str | None, Kind(is_of_accounts=True, is_of_metrics=True, is_never_negative=True)] = None
    sum_of: Annotated[str | None, Kind(_WINDOWED | {"of"}, needs="of", is_of_accounts=True, is_of_metrics=True)] = None
    days_of: Annotated[str | None, Kind(is_of_metrics=True, is_never_negative=True)] = None
    ever: Annotated[str | None, Kind(is_of_accounts=True, is_of_metrics=True, example=True)] = None
    first_at: Annotated[str | None, Kind(is_of_accounts=True, example=None)] = None
    last_at: Annotated[str | None, Kind(is_of_accounts=True, example=None)] = None
    latest_of: Annotated[list[str] | None, Kind(frozenset({"within", "where", "is"}), needs="is", example=True)] = None
    latest: Annotated[str | None, Kind(_WINDOWED | {"of", "as"}, example=None)] = None
    latest_trait: Annotated[str | None, Kind(frozenset({"within", "as"}), example=None)] = None
    sequence: Annotated[list[str] | None, Kind(frozenset({"within", "where", "in"}), needs="in", example=True)] = None
    most_in_session: Annotated[str | None, Kind(frozenset({"within", "where"}), is_never_negative=True)] = None
    distinct_users: Annotated[
        bool | None,
        Kind(frozenset({"within", "where"}), is_of_users=False, is_of_accounts=True, is_never_negative=True),
    ] = None
    members_where: Annotated[
        str | None, Kind(frozenset(), is_of_users=False, is_of_accounts=True, is_never_negative=True)
    ] = None

    of: str | None = None
    is_: str | None = None
    in_: Window | None = None
    as_: Literal["text", "number", "boolean", "time"] | None = None
    type: Literal["track", "page", "screen", "identify", "group", "alias"] | None = None
    within: Window | None = None
    where: Conditions | None = None

    def __post_init__(self) -> None:
        given = {
            field.encode_name for field in msgspec.structs.fields(Measure) if getattr(self, field.name) is not None
        }
        kinds = [name for name in KINDS if name in given]
        if len(kinds) != 1:
            found = f"names two kinds, {' and '.join(kinds)}" if kinds else "names no kind"
            raise ValueError(f"{found}; it needs one of {', '.join(KINDS)}")
        (name,) = kinds
        kind = KINDS[name]
        for key in sorted(given - {name} - kind.goes_with):
            known = ", ".join(sorted(kind.goes_with)) or "nothing"
            raise ValueError(f"'{key}' does not go with {name}; known: {known}")
        if kind.needs is not None and kind.needs not in given:
            raise ValueError(f"{name} needs '{kind.needs}'")
        if name == "latest" and self.of is None and self.type is None:
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
        if self.kind in ("latest_trait", "distinct_users", "members_where"):
            return []
        named = self.of if self.of is not None or self.kind == "latest" else getattr(self, self.kind)
        return [named] if isinstance(named, str) else list(named or ())


KINDS: dict[str, Kind] = {
    name: kind
    for name, hint in get_type_hints(Measure, include_extras=True).items()
    for kind in getattr(hint, "__metadata__", ())
    if isinstance(kind, Kind)
}
"""The kinds by name, in the order in which they are documented."""
