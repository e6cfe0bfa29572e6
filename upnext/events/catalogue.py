"""The catalogue: which events there are, and those that are derived from others by conditions. Pure."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec

from upnext.conditions import Conditions, check_conditions
from upnext.declarations import Declaration, Keys, Problem
from upnext.errors import nearest


class Catalogued(Declaration, frozen=True):
    """An event that the product sends."""

    description: str
    owner: str


class Derived(Declaration, frozen=True):
    """An event that is made of others: those of a name or a type for which all tests hold."""

    description: str
    owner: str
    event: str | None = None
    type: Literal["page", "screen", "identify", "group", "alias"] | None = None
    where: Conditions | None = None
    context: Conditions | None = None

    def __post_init__(self) -> None:
        check_conditions(self.where, may_be_relative=False)
        check_conditions(self.context, "context", may_be_relative=False)
        if (self.event is None) == (self.type is None):
            raise ValueError("a derived event is made of one `event` or one `type`")


class Catalogue(Declaration, frozen=True):
    """The events by name. No name stands twice, and a derived event is made of one that is not derived itself."""

    events: dict[str, Catalogued]
    derived: dict[str, Derived] = {}


class _Config(Declaration, frozen=True):
    meta: Catalogue


class _Model(Declaration, frozen=True):
    name: Literal["catalogue"]
    description: str
    config: _Config
    columns: list[Any] = []


class CatalogueFile(Declaration, frozen=True):
    """The dbt file that the catalogue stands in, as the description of the model that lists it."""

    models: Annotated[list[_Model], msgspec.Meta(min_length=1, max_length=1)]

    @property
    def catalogue(self) -> Catalogue:
        """The catalogue itself."""
        return self.models[0].config.meta


def find_mistakes(catalogue: Catalogue) -> Iterator[Problem]:
    """Yield what makes a derived event impossible."""
    for name, derived in catalogue.derived.items():
        keys: Keys = ["models", 0, "config", "meta", "derived", name]
        made_of = f"derived event '{name}' is made of '{derived.event}', which"
        if name in catalogue.events:
            yield Problem(keys, f"derived event '{name}' is an event of the product already; choose another name")
        if derived.event in catalogue.derived:
            yield Problem(keys, f"{made_of} is derived itself; name the event that it is made of")
        elif derived.event is not None and derived.event not in catalogue.events:
            yield Problem(keys, f"{made_of} the catalogue does not list{nearest(derived.event, catalogue.events)}")
