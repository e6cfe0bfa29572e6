"""What to expect of an experiment before it starts: how many users, and how long until there is a word."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import Any

import msgspec
from sqlalchemy.engine import Connection

from upnext.analytics.decision import users_needed
from upnext.analytics.sql import SQL

WEEK = timedelta(weeks=1)


@dataclass(frozen=True)
class Design:
    """An experiment as it is declared: who enters (a segment, or events under conditions), the goal, the arms.

    `goal` has `any_of`, `where`, `context`; `control` is the share of users held out, `arms` the number of variants;
    `starts_with_members` says whether those who are members already take part.
    """

    segment: str | None
    entry: Mapping[str, Any] | None
    goal: Mapping[str, Any]
    within: timedelta
    control: float
    arms: int
    minimum_lift: float
    starts_with_members: bool


@dataclass(frozen=True)
class Plan:
    """What is known, and what follows: `users` until the least lift worth having is decided, and in how many `days`.

    `baseline` is the share of past entrants who reached the goal. None where nothing is known.
    """

    members: int
    entrants_a_day: float
    past_entrants: int
    baseline: float | None
    minimum_lift: float
    users: int | None
    days: int | None
    reason: str | None = None


def plan(connection: Connection, design: Design, *, as_of: datetime) -> Plan:
    """Return the plan of an experiment, from the log of memberships and events up to `as_of`."""
    values: dict[str, Any] = {
        "segment": design.segment,
        "goal": msgspec.json.encode(design.goal).decode(),
        "as_of": as_of,
        # The time for the goal of those who count is over.
        "until": as_of - design.within,
    }
    statement = "entrants_of_segment"
    if design.segment is None and design.entry is not None:
        statement = "entrants_by_event"
        values |= {"events": list(design.entry["any_of"]), "entry": msgspec.json.encode(design.entry).decode()}
    found = connection.execute(SQL[statement], values).one()
    return expected(
        design,
        members=found.members,
        entrants=found.entrants,
        converted=found.converted,
        days=float(found.days),
    )


def expected(design: Design, *, members: int, entrants: int, converted: int, days: float) -> Plan:
    """Return the plan from `entrants` of so many past `days`, of whom so many `converted`, and the `members` now."""
    per_day = entrants / days if days > 0 else 0.0
    baseline = converted / entrants if entrants else None
    known: dict[str, Any] = {
        "members": members, "entrants_a_day": per_day, "past_entrants": entrants, "baseline": baseline,
        "minimum_lift": design.minimum_lift,
    }  # fmt: skip
    if design.control <= 0:
        return Plan(**known, users=None, days=None, reason="there is no control group: hold out a share to measure it")
    if not baseline:
        reason = "nobody who entered reached the goal"
        if not entrants:
            reason = "nobody entered in the past four weeks"
        if days <= 0:
            reason = "the log of the segment is younger than the time for the goal"
        return Plan(**known, users=None, days=None, reason=f"{reason}, so nobody can say how long it takes")
    users = users_needed(
        share_control=design.control,
        share_arm=(1 - design.control) / design.arms,
        mean_control=baseline,
        lift=design.minimum_lift,
        arms=design.arms,
    )
    if users is None:
        return Plan(**known, users=None, days=None, reason="no number of users is enough for so small a lift")
    missing = users - (members if design.starts_with_members else 0)
    if missing > 0 and per_day <= 0:
        return Plan(**known, users=users, days=None, reason="nobody enters any more, and the members are too few")
    enter = ceil(max(missing, 0) / per_day) if missing > 0 else 0
    # Weekdays differ, so a full week is the least.
    return Plan(**known, users=users, days=max(enter, WEEK.days) + ceil(design.within / timedelta(days=1)))
