"""Tests of the values in an event's properties or context, as features, derived events and metrics declare them. Pure.

dbt_project/macros/engine/events.sql (`tests_of`) turns them into SQL.
"""

from typing import Annotated

from upnext.declarations import Declaration
from upnext.wording import worded

Scalar = str | int | float | bool
Path = Annotated[str, worded(r"^[^.\s][^.]*(\.[^.]+)*$", "a path such as plan or app.version")]


class Test(Declaration, frozen=True):
    """What a value must be; several tests must all hold."""

    one_of: list[str | int | float] | None = None
    at_least: float | None = None
    at_most: float | None = None
    more_than: float | None = None
    less_than: float | None = None
    contains: str | None = None
    exists: bool | None = None

    def __post_init__(self) -> None:
        if all(getattr(self, name) is None for name in self.__struct_fields__):
            raise ValueError(f"a test that tests nothing; write one of {', '.join(self.__struct_fields__)}")
        if self.one_of == []:
            raise ValueError("one_of names nothing, so that nothing passes")


Conditions = dict[Path, Scalar | Test]
"""By path a value that it must equal, as text, number or boolean, or a test."""


def check_conditions(conditions: Conditions | None) -> None:
    """Raise `ValueError` if tests are declared but empty."""
    if conditions == {}:
        raise ValueError("where: holds no test; leave it out")
