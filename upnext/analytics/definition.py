"""The keys of a metric's description (`config.meta` of a column), and the mistakes in it. Pure."""

from collections.abc import Collection, Iterator
from typing import Any

import msgspec

from upnext.conditions import check_conditions
from upnext.declarations import Described, DescribedFile, Keys, Percent, Problem, unknown
from upnext.durations import Window, seconds
from upnext.kinds import KINDS, Measure, Selected, unknown_events
from upnext.reserved import RESERVED_WORDS

LONGEST_NAME = 50
METRICS = "experiment_users"
RESERVED = frozenset({"goal", "clicked"})
# What the table and the moments of an experiment's users say besides.
COLUMNS = frozenset({
    "experiment", "user_id", "arm", "exposed_at", "exposed_on", "closes_at", "is_window_over", "is_in_both_arms",
    "has_clicked", "has_reached_goal", "segments", "weights", "split", "users",
})  # fmt: skip


_KINDS = [name for name, kind in KINDS.items() if kind.is_of_metrics]


class Metric(Measure, frozen=True):
    """A kind of a feature that is a number for each user, with `where`; `per` makes a ratio of a count or a sum.

    `cap: 99.9 %` limits each user's value to that percentile over users, so that one user does not decide the result.
    """

    cap: Percent | None = None
    begins: Window | None = None
    ends: Window | None = None
    """So long after the exposure, within the time of the goal: `ever: login, begins: 7 days` is retention."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind not in _KINDS:
            raise ValueError(f"a metric cannot be made by {self.kind}; it needs one of {', '.join(_KINDS)}")
        check_conditions(self.where, may_be_relative=False)
        check_conditions(self.context, "context", may_be_relative=False)
        for name in ("within", "type"):
            if getattr(self, name) is not None:
                raise ValueError(f"'{name}' does not go with a metric, which counts within the goal's window")
        if self.per is not None and self.count_of is None and self.sum_of is None:
            raise ValueError("per goes with count_of and with sum_of")
        if self.sequence is not None and (self.in_ == "session" or self.order == "strict"):
            raise ValueError("a metric reads the events of its steps alone: it takes no in: session, no order: strict")
        if self.begins is not None and self.ends is not None and seconds(self.begins) >= seconds(self.ends):
            raise ValueError(f"begins {self.begins} after the exposure, and ends {self.ends} after it; turn them round")
        is_share = self.ever is not None or self.sequence is not None
        if self.cap is not None and (is_share or self.per is not None):
            raise ValueError("cap goes with count_of without per, with sum_of and with days_of")

    @property
    def goes_with(self) -> frozenset[str]:
        """The keys that may stand beside its kind."""
        return super().goes_with | {"per", "begins", "ends"}

    @property
    def selected(self) -> list[Selected]:
        """The events that it reads."""
        return [*super().selected, *([self.per] if self.per is not None else [])]


class _Config(msgspec.Struct, frozen=True):
    meta: Metric | None = None


class _Column(Described, frozen=True):
    config: _Config = _Config()


class _Model(Described, frozen=True):
    config: Any = None
    columns: list[_Column] = []


class MetricsFile(DescribedFile, frozen=True):
    """The dbt file that describes `experiment_users`, whose columns with a `meta` are metrics."""

    models: list[_Model] = []

    @property
    def by_name(self) -> dict[str, Metric]:
        """The metrics by name."""
        return {column.name: column.config.meta for _, _, column in self._columns() if column.config.meta is not None}

    def find_mistakes(self, events: Collection[str]) -> Iterator[Problem]:
        """Yield what makes a metric impossible, given the events of the catalogue."""
        for nth, one in enumerate(self.models):
            yield from unknown(["models", nth, "name"], "table of metrics", [one.name], {METRICS})
        for model, place, column in self._columns():
            keys: Keys = ["models", model, "columns", place]
            if not column.name.isidentifier() or not column.name.islower() or len(column.name) > LONGEST_NAME:
                yield Problem(
                    keys,
                    f"'{column.name}' is no name of a metric; use a-z, 0-9 and _, at most {LONGEST_NAME} of them",
                )
            if column.name in RESERVED or "__" in column.name:
                yield Problem(keys, f"'{column.name}' is taken; goal and clicked are measured anyway, and __ is ours")
            if column.name in COLUMNS and column.config.meta is not None:
                yield Problem(keys, f"'{column.name}' has a name that Upnext uses itself; choose another")
            if column.name in RESERVED_WORDS:
                yield Problem(keys, f"'{column.name}' is a word that SQL reserves; choose another name")
            metric = column.config.meta
            if metric is not None:
                for mistake in unknown_events(metric.selected, events):
                    yield Problem([*keys, "config", "meta"], f"metric '{column.name}' {mistake}")

    def find_late(self, longest: str) -> Iterator[Problem]:
        """Yield the metrics that count nothing, because the longest time of a goal is over when they begin."""
        for model, place, column in self._columns():
            begins = column.config.meta.begins if column.config.meta is not None else None
            if begins is not None and seconds(begins) >= seconds(longest):
                yield Problem(
                    ["models", model, "columns", place, "config", "meta", "begins"],
                    f"metric '{column.name}' begins {begins} after the exposure, and no goal's time is longer than"
                    f" {longest}; begin earlier, or give a goal more time",
                )

    def _columns(self) -> Iterator[tuple[int, int, _Column]]:
        for nth_model, model in enumerate(self.models):
            for nth_column, column in enumerate(model.columns):
                yield nth_model, nth_column, column
