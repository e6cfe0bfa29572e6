"""What notebooks show: tables and pictures of one subject. The notebooks themselves compute nothing."""

from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from typing import Any

import pandas as pd

from upnext.errors import UpnextError, nearest
from upnext.project import Project
from upnext.report.facts import Facts, Rows
from upnext.report.pictures import Picture, draw
from upnext.report.read import read
from upnext.report.words import action, evidence, leaders
from upnext.settings import Settings

_COUNTED = ("arm", "n_control", "n_arm", "n_open_control", "n_open_arm", "n_both_control", "n_both_arm", "srm_p")
_COMPARED = (
    "metric", "arm", "mean_control", "mean_arm", "diff", "diff_low", "diff_high", "lift", "lift_low", "lift_high",
    "p_value", "p_adjusted",
)  # fmt: skip
_DECIDED = ("arm", "lift", "lift_always_low", "lift_always_high", "p_always_valid", "days_left", "decision", "reason")


class Book:
    """The facts of the newest tick, and what is shown of them."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    @classmethod
    def open(cls) -> "Book":
        """Read the warehouse that the environment names; tables then show whole texts, and four digits."""
        pd.set_option("display.max_colwidth", None)
        pd.set_option("display.float_format", "{:.4g}".format)
        return cls(read(Project(Settings.from_environment())))

    @property
    def as_of(self) -> str:
        """The time of the newest tick."""
        at = self._facts.as_of
        return "nothing has been computed yet" if at is None else f"{at:%-d %B %Y, %H:%M} UTC"

    def choose(self, kind: str, name: str | None) -> str | None:
        """Return a segment, an experiment or a journey by its name, or else the first there is; None without any.

        Raises `UpnextError` with the nearest match for a name that there is not.
        """
        names = self._names(kind)
        if name is not None and name not in names:
            raise UpnextError(f"no {kind} is called '{name}'{nearest(name, names)}")
        return name or next(iter(names), None)

    def _names(self, kind: str) -> list[str]:
        match kind:
            case "segment":
                return [segment["name"] for segment in self._facts.segments]
            case "journey":
                return [journey["name"] for journey in self._facts.journeys]
            case _:
                return list(dict.fromkeys(row["experiment"] for row in self._facts.rows("results")))

    def segments(self) -> pd.DataFrame:
        """Return the segments, largest first."""
        return _frame(self._facts.segments, ("name", "members", "owner", "description"))

    def members(self, segment: str | None, days: int) -> Picture | str:
        """Draw a segment's members by day."""
        rows = self._of_days("segment_days", "segment", segment, days)
        return _drawn("members", [
            {"segment": row["segment"], "day": row["day"].isoformat(), "members": row["members"]} for row in rows
        ])  # fmt: skip

    def flows(self, segment: str | None, days: int) -> Picture | str:
        """Draw who entered a segment and who left it, by day."""
        rows = self._of_days("segment_days", "segment", segment, days)
        return _drawn("flows", [
            {"day": row["day"].isoformat(), "change": change, "users": sign * row[column], "shown": row[column]}
            for row in rows
            for change, column, sign in (("entered", "entered", 1), ("left", "exited", -1))
        ])  # fmt: skip

    def near_misses(self, segment: str | None) -> pd.DataFrame:
        """Return how many meet all conditions of a segment but one."""
        return _frame(_of(self._facts.near_misses, "segment", segment), ("condition", "users", "is_estimate"))

    def overlaps(self, segment: str | None) -> pd.DataFrame:
        """Return how many members of a segment are in each other one."""
        rows = [row for row in _of(self._facts.rows("overlaps"), "segment", segment) if row["other"] != segment]
        return _frame(rows, ("other", "users"))

    def counts(self, experiment: str | None) -> pd.DataFrame:
        """Return how many users of each arm count, how many are left out as yet, and whether the sizes fit."""
        return _frame(self._goals(experiment), _COUNTED)

    def comparisons(self, experiment: str | None) -> pd.DataFrame:
        """Return each metric of each arm against control."""
        return _frame(_of(self._facts.rows("results"), "experiment", experiment), _COMPARED)

    def lift(self, experiment: str | None, days: int) -> Picture | str:
        """Draw the lift on the goal look by look, with its always-valid interval."""
        rows = self._of_days("lift_days", "experiment", experiment, days)
        return _drawn("lift", [
            {"day": row["day"].isoformat(), "arm": row["arm"], "lift": 100 * row["lift"],
             "low": _per_cent(row["lift_always_low"]), "high": _per_cent(row["lift_always_high"])}
            for row in rows
        ])  # fmt: skip

    def copies(self, experiment: str | None) -> pd.DataFrame:
        """Return the copies of an experiment, the best by goals first."""
        rows = _of(self._facts.rows("copies"), "experiment", experiment)
        return _frame(
            rows, ("segment", "variant", "exposed", "rate", "goal_rate", "is_best_by_clicks", "is_best_by_goals")
        )

    def by_segment(self, experiment: str | None) -> pd.DataFrame:
        """Return what each arm did in each segment that users were in when they were exposed."""
        rows = _of(self._facts.rows("by_segment"), "experiment", experiment)
        return _frame(
            rows, ("segment", "arm", "reference", "n_arm", "n_reference", "lift", "p_always_valid", "finding")
        )

    def decisions(self, experiment: str | None) -> pd.DataFrame:
        """Return the values that the rule of the decision reads, and what it says."""
        rows = [
            {**row, "days_left": row["days_left"] if row["decision"] == "keep going" else None}
            for row in self._goals(experiment)
        ]
        return _frame(rows, _DECIDED)

    def advice(self, experiment: str | None) -> str:
        """Return what to do, in words."""
        subject = self._facts.subjects.get(experiment or "")
        leader = leaders(self._facts.rows("results")).get(experiment or "")
        said = [
            " ".join(filter(None, (action(row, subject, leader), evidence(row, subject), _sentence(row["note"]))))
            for row in self._goals(experiment)
        ]
        return "\n".join(said) or "Nobody has seen it yet."

    def steps(self, journey: str | None) -> pd.DataFrame:
        """Return the steps of a journey with what became of them."""
        counted = {row["step"]: row for row in _of(self._facts.rows("funnel"), "journey", journey)}
        rows = [{**row, **counted.get(row["step"], {})} for row in _of(self._facts.rows("steps"), "journey", journey)]
        return _frame(rows, ("step", "kind", "next", "sent", "opened", "clicked", "converted", "goal_rate"))

    def day_by_day(self, journey: str | None, days: int) -> Picture | str:
        """Draw the entries and messages of a journey by day."""
        entries = [
            {"day": row["day"].isoformat(), "what": "entered", "count": row["entries"]}
            for row in self._of_days("entry_days", "journey", journey, days)
        ]
        messages = [
            {"day": row["day"].isoformat(), "what": f"sent: {row['step']}", "count": row["messages"]}
            for row in self._of_days("message_days", "journey", journey, days)
        ]
        return _drawn("journey", entries + messages)

    def entries(self, journey: str | None) -> pd.DataFrame:
        """Return what became of those who entered a journey."""
        return _frame(_of(self._facts.rows("entries"), "journey", journey), ("status", "reason", "entries"))

    def not_sent(self, journey: str | None) -> pd.DataFrame:
        """Return the messages of a journey that were not sent, with the reasons."""
        rows = [row for row in _of(self._facts.rows("messages"), "journey", journey) if row["status"] != "sent"]
        return _frame(rows, ("step", "channel", "status", "reason", "messages"))

    def _goals(self, experiment: str | None) -> Rows:
        return [row for row in _of(self._facts.rows("results"), "experiment", experiment) if row["metric"] == "goal"]

    def _of_days(self, table: str, key: str, name: str | None, days: int) -> Rows:
        if self._facts.as_of is None:
            return []
        since: date = self._facts.as_of.date() - timedelta(days=days)
        return [row for row in _of(self._facts.rows(table), key, name) if row["day"] > since]


def _of(rows: Iterable[Mapping[str, Any]], key: str, name: str | None) -> Rows:
    return [dict(row) for row in rows if row[key] == name]


def _frame(rows: Rows, columns: Iterable[str]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=list(columns)).astype(object)
    return frame.where(frame.notna(), "")


def _drawn(chart: str, rows: Rows) -> Picture | str:
    return draw(chart, rows) if rows else "Nothing in this time."


def _sentence(note: str | None) -> str | None:
    return None if note is None else f"{note[0].upper()}{note[1:]}."


def _per_cent(value: float | None) -> float | None:
    return None if value is None else 100 * value
