"""What a metric's description may say (`config.meta` of a column), and which mistakes it can hold. Pure."""

from collections.abc import Collection, Iterator
from typing import Annotated

import msgspec

from upnext.conditions import Conditions, check_conditions
from upnext.declarations import Declaration, Mistake, unknown
from upnext.reserved import RESERVED_WORDS
from upnext.wording import worded

LONGEST_NAME = 50
RESERVED = frozenset({"goal", "clicked"})


class Metric(Declaration, frozen=True):
    """One of `count_of`, `sum_of` (with `of`) and `ever` (see dbt_project/macros/metrics.sql); `per` makes a ratio.

    `cap: 99.9 %` lets no user count for more than that share of the users have at most, so that one does not decide.
    """

    count_of: str | None = None
    sum_of: str | None = None
    of: str | None = None
    ever: str | None = None
    per: str | None = None
    cap: Annotated[str, worded(r"^\d{1,2}(\.\d{1,3})? ?%$", "a share such as 99.9 %")] | None = None
    where: Conditions | None = None

    def __post_init__(self) -> None:
        kinds = [name for name in ("count_of", "sum_of", "ever") if getattr(self, name) is not None]
        if len(kinds) != 1:
            raise ValueError("a metric is made of exactly one of count_of, sum_of, ever")
        if (self.sum_of is None) != (self.of is None):
            raise ValueError("sum_of, a property, and of, an event, go together")
        if self.per is not None and self.count_of is None:
            raise ValueError("per goes with count_of")
        check_conditions(self.where)
        if self.cap is not None and (self.ever is not None or self.per is not None):
            raise ValueError("cap goes with count_of without per, and with sum_of")

    @property
    def events(self) -> list[str]:
        """Names of the events that it is about."""
        return [name for name in (self.count_of, self.of, self.ever, self.per) if name is not None]


class _Config(msgspec.Struct, frozen=True):
    meta: Metric | None = None


class _Column(msgspec.Struct, frozen=True):
    name: str
    config: _Config = _Config()


class _Model(msgspec.Struct, frozen=True):
    name: str
    columns: list[_Column] = []


class MetricsFile(msgspec.Struct, frozen=True):
    """The dbt file that describes `experiment_users`, whose columns with a `meta` are metrics."""

    models: list[_Model] = []

    @property
    def metrics(self) -> dict[str, Metric]:
        """The metrics by name."""
        return {column.name: column.config.meta for _, _, column in self._columns() if column.config.meta is not None}

    def find_mistakes(self, events: Collection[str]) -> Iterator[Mistake]:
        """Yield what makes a metric impossible, given the events of the catalogue."""
        for model, place, column in self._columns():
            keys: list[str | int] = ["models", model, "columns", place]
            if not column.name.isidentifier() or not column.name.islower() or len(column.name) > LONGEST_NAME:
                yield (
                    keys,
                    f"'{column.name}' is no name of a metric; use a-z, 0-9 and _, at most {LONGEST_NAME} of them",
                )
            if column.name in RESERVED or "__" in column.name:
                yield keys, f"'{column.name}' is taken; goal and clicked are measured anyway, and __ is ours"
            if column.name in RESERVED_WORDS:
                yield keys, f"'{column.name}' is a word of SQL, which no column can be called; choose another name"
            metric = column.config.meta
            if metric is not None:
                yield from unknown([*keys, "config", "meta"], "event", metric.events, events)

    def _columns(self) -> Iterator[tuple[int, int, _Column]]:
        for nth_model, model in enumerate(self.models):
            if model.name == "experiment_users":
                for nth_column, column in enumerate(model.columns):
                    yield nth_model, nth_column, column
