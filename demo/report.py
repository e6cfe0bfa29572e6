"""The report at the end of the demo: events, members, messages, and each lift beside the true one."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import sqlalchemy as sa
from rich import box
from rich.console import Console
from rich.table import Table
from sqlalchemy.engine import Engine

from demo.otto import TRUE_LIFTS
from upnext.analytics.statistics import Comparison, compare_proportions_by_split
from upnext.operations.previews import status
from upnext.project import Project


@dataclass(frozen=True)
class MeasuredLift:
    """One experiment's goal: the measured lift with its simultaneous interval over all rows, and the true lift."""

    experiment: str
    measured: Comparison
    true_lift: float

    @property
    def is_covered(self) -> bool | None:
        """Whether the true lift lies in the interval; None without an interval."""
        low, high = self.measured.lift_low, self.measured.lift_high
        return None if low is None or high is None else low <= self.true_lift <= high


def measured_lifts(engine: Engine, *, alpha: float = 0.05) -> list[MeasuredLift]:
    """Compare each experiment's arm with its control, with simultaneous intervals (Bonferroni over the rows)."""
    statement = sa.text(
        "select arms.experiment, jsonb_agg(jsonb_build_object("
        " 'n_control', control.users, 'x_control', control.conversions,"
        " 'n_arm', arms.users, 'x_arm', arms.conversions)) as splits"
        " from analytics.experiment_moments as arms"
        " inner join analytics.experiment_moments as control"
        " on control.experiment = arms.experiment and control.split = arms.split and control.metric = arms.metric"
        " and control.arm = 'control'"
        " where arms.metric = 'goal' and arms.arm <> 'control' group by arms.experiment order by arms.experiment"
    )
    with engine.connect() as connection:
        rows = connection.execute(statement).all()
    return [
        MeasuredLift(
            row.experiment,
            compare_proportions_by_split(splits=row.splits, alpha=alpha / len(rows)),
            TRUE_LIFTS[row.experiment],
        )
        for row in rows
        if row.experiment in TRUE_LIFTS
    ]


def print_report(project: Project, console: Console) -> None:
    """Print the one table that the demo ends with."""
    engine, found = project.engine, status(project)
    caption = "* in 95 of 100 runs, all of these intervals cover their true lift"
    table = Table(
        title="Otto, the demo product",
        title_justify="left",
        caption=caption,
        caption_justify="left",
        box=box.HEAVY_HEAD if console.is_terminal else None,
    )
    table.add_column("")
    table.add_column("number", justify="right")
    table.add_column("true", justify="right")
    table.add_column("95 % interval *", justify="right")
    _add_section(table, "events", ((name, found["events"][name]) for name in ("stored", "duplicate", "rejected")))
    _add_section(table, "members now", found["members"].items())
    for journey, steps in groupby(_messages(engine), key=lambda row: row.journey):
        _add_section(table, f"messages of {journey}", ((f"{row.step}, {row.status}", row.messages) for row in steps))
    _add_section(table, "lift on the goal", ())
    for row in measured_lifts(engine):
        table.add_row(f"  {row.experiment}", _percent(row.measured.lift), _percent(row.true_lift), _interval(row))
    console.print(table)


def _add_section(table: Table, title: str, numbers: Iterable[tuple[str, int]]) -> None:
    table.add_section()
    table.add_row(f"[bold]{title}[/bold]")
    for name, number in numbers:
        table.add_row(f"  {name}", f"{number:,}")


def _messages(engine: Engine) -> list[Any]:
    statement = sa.text(
        "select journey, step, status, count(*) as messages from journeys.messages"
        " group by journey, step, status order by journey, min(due_at), step, status"
    )
    with engine.connect() as connection:
        return list(connection.execute(statement))


def _percent(value: float | None) -> str:
    return "none" if value is None else f"{round(100 * value):+d} %"


def _interval(row: MeasuredLift) -> str:
    if row.is_covered is None:
        return row.measured.reason or "none"
    return f"{_percent(row.measured.lift_low)} to {_percent(row.measured.lift_high)}"
