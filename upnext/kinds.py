"""Kinds of features and metrics. Pure.

A kind is a field of `Measure` here, and a file of SQL of the same name in `dbt_project/macros/kinds/`.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_type_hints

import msgspec

from upnext.conditions import Conditions, Path, check_conditions
from upnext.declarations import Declaration
from upnext.durations import Window, WindowOrSession, check_length
from upnext.errors import nearest
from upnext.wording import worded

ANY = "any"
MAX_STEPS = 20
_TESTED = frozenset({"within", "where", "context"})
_WINDOWED = _TESTED | {"type"}
_VALUE = _WINDOWED | {"of", "as", "or_null"}
_DATED = frozenset({"of", "type", "where", "context"})


@dataclass(frozen=True)
class Kind:
    """The keys that a kind allows, those that it requires, and where it can be used."""

    goes_with: frozenset[str] = _WINDOWED
    needs: tuple[str, ...] = ()
    is_of_users: bool = True
    is_of_accounts: bool = False
    is_of_metrics: bool = False
    is_never_negative: bool = False
    is_of_property: bool = False
    """Whether it names a property or a trait, of the events that `of` or `type` names, instead of events."""
    is_number: bool = False
    example: object = 12
    """A value such as an active user has; None where it depends on the type."""


class Events(Declaration, frozen=True):
    """Several events as one: those of a list, or those of the catalogue whose names begin alike."""

    any_of: list[str] | None = None
    starts_with: Annotated[str, msgspec.Meta(min_length=1)] | None = None

    def __post_init__(self) -> None:
        if (self.any_of is None) == (self.starts_with is None):
            raise ValueError("several events are either any_of: [a, b] or starts_with: a")
        if self.any_of == []:
            raise ValueError("any_of names no event")


Selected = str | Events
"""One event by its name, or several as one."""


class Step(Declaration, frozen=True):
    """An event under conditions, as a step of a sequence."""

    event: Selected
    where: Conditions | None = None
    context: Conditions | None = None

    def __post_init__(self) -> None:
        check_conditions(self.where, may_be_relative=False)
        check_conditions(self.context, "context", may_be_relative=False)


_COUNT: Any = {"is_never_negative": True, "is_number": True}
_ALL: Any = {**_COUNT, "is_of_property": True}
_NUMBER: Any = {"goes_with": _WINDOWED | {"of"}, "needs": ("of",), "is_of_property": True, "is_number": True}


class Measure(Declaration, frozen=True, rename={"is_": "is", "in_": "in", "as_": "as", "for_": "for"}):
    """One kind, and what goes with it."""

    count_of: Annotated[Selected | None, Kind(is_of_accounts=True, is_of_metrics=True, **_COUNT)] = None
    sum_of: Annotated[str | None, Kind(is_of_accounts=True, is_of_metrics=True, **_NUMBER)] = None
    mean_of: Annotated[str | None, Kind(**_NUMBER)] = None
    min_of: Annotated[str | None, Kind(is_of_accounts=True, **_NUMBER)] = None
    max_of: Annotated[str | None, Kind(is_of_accounts=True, **_NUMBER)] = None
    distinct_of: Annotated[str | None, Kind(is_of_metrics=True, is_never_negative=True, **_NUMBER)] = None
    days_of: Annotated[Selected | None, Kind(is_of_metrics=True, **_COUNT)] = None
    ever: Annotated[Selected | None, Kind(is_of_accounts=True, is_of_metrics=True, example=True)] = None
    first_at: Annotated[Selected | None, Kind(is_of_accounts=True, example=None)] = None
    last_at: Annotated[Selected | None, Kind(is_of_accounts=True, example=None)] = None
    latest_of: Annotated[list[str] | None, Kind(_TESTED | {"is"}, needs=("is",), example=True)] = None
    first: Annotated[str | None, Kind(_VALUE, is_of_property=True, example=None)] = None
    latest: Annotated[str | None, Kind(_VALUE, is_of_property=True, example=None)] = None
    latest_trait: Annotated[
        str | None, Kind(frozenset({"within", "as"}), is_of_accounts=True, is_of_property=True, example=None)
    ] = None
    held_since: Annotated[str | None, Kind(_DATED, is_of_property=True, example=None)] = None
    changed: Annotated[str | None, Kind(_DATED | {"within"}, is_of_property=True, example=True)] = None
    time_since: Annotated[str | None, Kind(_DATED | {"unit"}, is_of_property=True, is_number=True)] = None
    time_until: Annotated[str | None, Kind(_DATED | {"unit"}, is_of_property=True, is_number=True)] = None
    periods_of: Annotated[Selected | None, Kind(_DATED - {"of"} | {"of_last"}, needs=("of_last",), **_COUNT)] = None
    stopped: Annotated[Selected | None, Kind(_DATED - {"of"} | {"for"}, needs=("for",), example=True)] = None
    resumed: Annotated[Selected | None, Kind(_WINDOWED | {"after"}, needs=("after",), example=True)] = None
    sequence: Annotated[
        list[str | Step] | None,
        Kind(_TESTED | {"in", "order", "without", "keyed_by"}, needs=("in",), is_of_metrics=True, example=True),
    ] = None
    unfinished: Annotated[
        str | Step | None, Kind(_TESTED | {"finished", "in", "keyed_by"}, needs=("finished", "in"), **_COUNT)
    ] = None
    most_in_session: Annotated[Selected | None, Kind(_TESTED, is_never_negative=True, is_number=True)] = None
    ratio_of: Annotated[
        str | None, Kind(frozenset({"per"}), needs=("per",), is_of_accounts=True, is_of_property=True, is_number=True)
    ] = None
    distinct_users: Annotated[bool | None, Kind(_TESTED, is_of_users=False, is_of_accounts=True, **_ALL)] = None
    members_where: Annotated[str | None, Kind(frozenset(), is_of_users=False, is_of_accounts=True, **_ALL)] = None

    of: Selected | None = None
    is_: str | None = None
    in_: WindowOrSession | None = None
    of_last: Annotated[str, worded(r"^[1-9][0-9]{0,3} (day|week)s?$", "a number of days or weeks")] | None = None
    for_: Window | None = None
    after: Window | None = None
    order: Literal["any", "strict"] | None = None
    without: str | Step | None = None
    finished: str | Step | None = None
    keyed_by: Path | None = None
    as_: Literal["text", "number", "boolean", "time"] | None = None
    or_null: bool | None = None
    unit: Literal["minutes", "hours", "days", "weeks"] | None = None
    per: Selected | None = None
    type: Literal["track", "page", "screen", "identify", "group", "alias"] | None = None
    within: Window | None = None
    where: Conditions | None = None
    context: Conditions | None = None

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
        for key in sorted(given - {name} - self.goes_with):
            known = ", ".join(sorted(self.goes_with)) or "nothing"
            raise ValueError(f"'{key}' does not go with {name}; known: {known}")
        for key in kind.needs:
            if key not in given:
                raise ValueError(f"{name} needs '{key}'")
        if name in ("latest", "first") and self.of is None and self.type is None:
            raise ValueError(f"{name} needs 'of', an event, or 'type'")
        if self.of is not None and self.type is not None:
            raise ValueError("'of' names an event and 'type' a kind of call; write one of them")
        if self.type is not None and not kind.is_of_property and self.selected != [ANY]:
            raise ValueError(
                f"'type' names a kind of call and {name} an event; write {name}: {ANY}, or leave 'type' out"
            )
        for length in (self.within, self.in_, self.for_, self.after):
            check_length(length)
        if self.without is not None and self.order is not None:
            raise ValueError(f"'without' does not go with order: {self.order}")
        if self.sequence is not None and not 2 <= len(self.sequence) <= MAX_STEPS:
            raise ValueError(f"a sequence has 2 to {MAX_STEPS} steps")
        if self.unfinished is not None and self.in_ == "session":
            raise ValueError("in: session goes with sequence; write a length of time")
        check_conditions(self.where)
        check_conditions(self.context, "context")
        if self.latest_of is not None and self.is_ not in self.latest_of:
            raise ValueError(f"is: '{self.is_}' is none of latest_of{nearest(self.is_ or '', self.latest_of)}")

    @property
    def kind(self) -> str:
        """The name of the kind."""
        return next(name for name in KINDS if getattr(self, name) is not None)

    @property
    def goes_with(self) -> frozenset[str]:
        """The keys that may stand beside its kind."""
        return KINDS[self.kind].goes_with

    @property
    def selected(self) -> list[Selected]:
        """The events that it is about, `any` among them."""
        named = self.of if KINDS[self.kind].is_of_property else getattr(self, self.kind)
        steps = [*(named if isinstance(named, list) else [named]), self.without, self.finished]
        return [step.event if isinstance(step, Step) else step for step in steps if step is not None]


def names_of(selected: Iterable[Selected], known: Collection[str]) -> set[str]:
    """Return the names of the events, given those of the catalogue."""
    names = set()
    for events in selected:
        match events:
            case str():
                names.add(events)
            case Events(any_of=list(listed)):
                names.update(listed)
            case Events(starts_with=str(begin)):
                names.update(name for name in known if name.startswith(begin))
    return names


def unknown_events(selected: Iterable[Selected], known: Collection[str]) -> Iterator[str]:
    """Yield what is wrong with the events that a measure names."""
    for events in selected:
        names = names_of([events], known)
        for name in sorted(names - {ANY, *known}):
            yield f"is about '{name}', which models/events/_catalogue.yml does not list{nearest(name, known)}"
        if not names and isinstance(events, Events):
            yield f"is about events that begin with '{events.starts_with}'; models/events/_catalogue.yml lists none"


KINDS: dict[str, Kind] = {
    name: kind
    for name, hint in get_type_hints(Measure, include_extras=True).items()
    for kind in getattr(hint, "__metadata__", ())
    if isinstance(kind, Kind)
}
"""The kinds by name, in the order in which they are documented."""
