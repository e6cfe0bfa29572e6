"""The catalogue: which events there are, and those that are derived from others by conditions. Pure."""

from typing import Annotated, Any, Literal

import msgspec

from upnext.conditions import Conditions, check_conditions
from upnext.declarations import Declaration
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
        check_conditions(self.where)
        check_conditions(self.context)
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


def find_mistake(catalogue: Catalogue) -> tuple[str, str] | None:
    """Return the first derived event that cannot be, with what is wrong; None where all are right."""
    for name, derived in catalogue.derived.items():
        if name in catalogue.events:
            return name, "is an event of the product already; a derived event needs a name of its own"
        if derived.event in catalogue.derived:
            return name, f"is made of '{derived.event}', which is derived itself; name the event that it is made of"
        if derived.event is not None and derived.event not in catalogue.events:
            hint = nearest(derived.event, catalogue.events)
            return name, f"is made of '{derived.event}', which the catalogue does not list{hint}"
    return None
