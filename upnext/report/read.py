"""What the report shows, read from the tables at one instant, beside what is declared."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy.engine import Connection

from upnext.analytics import programme
from upnext.analytics.health import CHECKS
from upnext.errors import UpnextError
from upnext.experiences.definition import Experience, Slot
from upnext.journeys.definition import Broadcast, Journey
from upnext.operations.checks import check_results
from upnext.project import Project, readable
from upnext.report.facts import DAYS, Facts, Rows
from upnext.report.sql import SQL
from upnext.segments.declared import descriptions
from upnext.segments.near_misses import near_misses
from upnext.switches import Started, started

MOST_OVERLAPS = 15
"""Segments whose overlaps are shown: the largest ones. A grid of more is not read."""
MOST_EVENTS = 200
MOST_MEMBERS = 2_000_000
"""Members whose overlaps are counted; of more a sample of users is."""

_OF_SEGMENTS = ("segment_days",)
_OF_DAYS = ("entry_days", "message_days", "lift_days")
_PLAIN = (
    "entries", "messages", "steps", "funnel", "results", "by_segment", "copies", "freshness",
    "rejects", "drifts", "unknown_outcomes",
)  # fmt: skip


def read(project: Project) -> Facts:
    """Return the facts as of the newest published tick. Tables are read in one snapshot, checks after it."""
    names = list(project.segment_files)
    said, mistake = _declared(project)
    with project.engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        instants = connection.execute(SQL["instants"]).one()
        values = {"segments": names, "days": DAYS, "as_of": instants.as_of}
        tables = {name: _rows(connection, name, values) for name in _OF_SEGMENTS + _OF_DAYS}
        tables |= {name: _rows(connection, name) for name in _PLAIN}
        tables["newest_events"] = _rows(connection, "newest_events", {"events": _events(project), "most": MOST_EVENTS})
        tables["refusals"] = _rows(connection, "refusals", values)
        tables["counts"] = [
            {name: connection.scalar(SQL[name]) for name in ("refused_files", "waiting")},
        ]
        sizes = _rows(connection, "sizes", values)
        tables["overlaps"] = _overlaps(connection, sizes)
        conditions = project.conditions if instants.as_of is not None and mistake is None else {}
        near = [asdict(one) for one in near_misses(connection, conditions)]
        at_work = started(connection)
    journeys, experiences = readable(project)
    return Facts(
        as_of=instants.as_of,
        analysed_at=instants.analysed_at,
        segments=[_segment(size, *said.get(size["segment"], ("", None))) for size in sizes],
        near_misses=near,
        journeys=[_journey(name, journey, at_work.get(name)) for name, journey in sorted(journeys.items())],
        experiences=[
            _experience(name, experience, project.slots[experience.slot], at_work.get(name))
            for name, experience in sorted(experiences.items())
        ],
        programme=programme.read(project.engine),
        checks=_checks(project, instants.as_of, is_analysed=instants.analysed_at is not None),
        mistake=mistake,
        tables=tables,
    )


def _segment(size: Mapping[str, Any], description: str, owner: str | None) -> dict[str, Any]:
    said = description.removeprefix("One row per member: ")
    return {**size, "name": size["segment"], "description": said, "owner": owner}


def _journey(name: str, journey: Journey | None, at_work: Started | None) -> dict[str, Any]:
    """Return what is declared of a journey; only its name where a mistake keeps it from being read."""
    return {
        "name": name,
        "segment": journey.segment if journey is not None else None,
        "description": journey.description if journey is not None else "",
        "owner": journey.owner if journey is not None else None,
        "goal": _goal(journey.goal) if journey is not None else None,
        "is_broadcast": isinstance(journey, Broadcast),
        "started": None if at_work is None else at_work._asdict(),
    }


def _experience(name: str, experience: Experience, slot: Slot, at_work: Started | None) -> dict[str, Any]:
    return {
        "name": name,
        "segment": experience.segment,
        "description": experience.description,
        "owner": experience.owner,
        "goal": _goal(experience.goal),
        "surface": experience.surface,
        "slot": experience.slot,
        "kind": slot.kind,
        "place": slot.description,
        "variants": {
            variant: {"copy": shown.copy, "url": shown.url, "steps": [step.copy for step in shown.steps or ()]}
            for variant, shown in experience.variants.items()
        },
        "started": None if at_work is None else at_work._asdict(),
    }


def _rows(connection: Connection, statement: str, values: Mapping[str, Any] | None = None) -> Rows:
    return [dict(row) for row in connection.execute(SQL[statement], values or {}).mappings()]


def _overlaps(connection: Connection, sizes: Iterable[Mapping[str, Any]]) -> Rows:
    largest = [size["segment"] for size in sizes if size["members"]][:MOST_OVERLAPS]
    one_in = max(1, int(connection.scalar(SQL["count_members"]) or 0) // MOST_MEMBERS)
    return _rows(connection, "overlaps", {"segments": largest, "one_in": one_in})


def _declared(project: Project) -> tuple[dict[str, tuple[str, str | None]], str | None]:
    """Return what is said of segments, and the first mistake in what is declared."""
    said: dict[str, tuple[str, str | None]] = {}
    try:
        said = descriptions(project.segment_files)
        project.check()
    except UpnextError as error:
        return said, str(error)
    return said, None


def _events(project: Project) -> list[str]:
    """Return the declared events: names of others are whatever somebody sent."""
    try:
        return sorted(project.events)
    except UpnextError:
        return []


def _checks(project: Project, as_of: datetime, *, is_analysed: bool) -> Rows:
    try:
        found = check_results(project, as_of=as_of) if is_analysed else {}
    except UpnextError:
        found = {}
    return [{"text": text, "found": found.get(name)} for name, text in CHECKS.items()]


def _goal(goal: Any) -> str | None:
    """Return a goal in words."""
    if goal is None:
        return None
    wanted = " or ".join(goal.any_of or ()) if goal.any_of else None
    if wanted is None:
        wanted = f"member of {goal.segment}" if goal.segment is not None else "a feature"
    return f"{wanted} within {goal.within}"
