"""What a report says, as plain values. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

DAYS = 366
"""How far back the report looks."""

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Mail:
    """A mail of a step as a made-up user gets it, in HTML; or the reason why it cannot be written."""

    journey: str
    step: str
    label: str
    subject: str | None = None
    html: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Subject:
    """What an experiment is about: `experience`, its `rules`, `journey`, `broadcast`, or the `programme` as a whole."""

    kind: str
    is_started: bool = True


@dataclass(frozen=True)
class Facts:
    """All that the report says. `as_of` is the newest published tick, `analysed_at` the newest analysis."""

    as_of: datetime | None = None
    analysed_at: datetime | None = None
    segments: Rows = field(default_factory=list)
    """name, members, is_held, error, description, owner, is_of_accounts: largest first"""
    near_misses: Rows = field(default_factory=list)
    """segment, condition, users, is_estimate: most users first"""
    journeys: Rows = field(default_factory=list)
    """name, segment, description, goal, owner, started (since, by; None where it is not)"""
    experiences: Rows = field(default_factory=list)
    """name, segment, description, goal, owner, surface, slot, kind, place, variants (copy, url, steps), started"""
    programme: dict[str, Any] | None = None
    checks: Rows = field(default_factory=list)
    """text, found (a number by what it was found of; None before the first analysis): the checks of the results"""
    mistake: str | None = None
    """The first mistake in what is declared: then the report shows less."""
    mails: list[Mail] = field(default_factory=list)
    tables: Mapping[str, Rows] = field(default_factory=dict)
    """Rows of the statements in `report.sql`, by their name."""

    @property
    def subjects(self) -> dict[str, "Subject"]:
        """What each experiment of the results is about, by its name; nothing of one that is no longer declared."""
        declared = {one["name"]: Subject("experience", one["started"] is not None) for one in self.experiences}
        rules = {
            name: Subject("rules", declared[of].is_started)
            for name in {row["experiment"] for row in self.rows("results")}
            for of, _, against in [name.partition("/")]
            if against and of in declared
        }
        journeys = {
            one["name"]: Subject("broadcast" if one.get("is_broadcast") else "journey", one["started"] is not None)
            for one in self.journeys
        }
        programme = {} if self.programme is None else {"programme": Subject("programme")}
        return {**declared, **rules, **journeys, **programme}

    def rows(self, table: str) -> Rows:
        """Return the rows of a statement, none where there are none."""
        return self.tables.get(table, [])
