"""Starts, stops and pauses journeys and experiences, and releases segments."""

from datetime import datetime, timedelta

from upnext.clock import utc_now
from upnext.errors import UpnextError, nearest
from upnext.experiences.assign import withdraw
from upnext.journeys.definition import Broadcast, Journey
from upnext.journeys.dispatch import (
    begin_anew,
    end,
    pause,
    resume,
)
from upnext.loop import assign_experiences, show_ctas
from upnext.operations.known import declared_journey, require_declared, require_kind
from upnext.project import Project
from upnext.segments.membership import release
from upnext.switches import switch
from upnext.ticks.lifecycle import last_published_as_of
from upnext.warehouse.locks import transaction


def start(project: Project, kind: str, name: str, *, by: str) -> None:
    """Start a journey or an experience. Raises `UpnextError` if it does not exist or is started already."""
    require_declared(project, kind, name)
    project.check()
    if kind == "journey":
        _check_startable(name, project.journeys[name], last_published_as_of(project.engine) or utc_now())
    elif (ends_at := project.experiences[name].ends_at) is not None and ends_at <= utc_now():
        raise UpnextError(
            f"experience '{name}': its time is over since {ends_at:%Y-%m-%d}; set another `ends_at` first"
        )
    with transaction(project.engine, "dispatch") as connection:
        if not switch(connection, name, is_started=True, at=utc_now(), by=by):
            raise UpnextError(f"{kind} '{name}' is started already")
        if kind == "journey":
            begin_anew(connection, name)
    as_of = last_published_as_of(project.engine)
    if kind == "experience" and as_of is not None:
        assign_experiences(project, as_of)
        show_ctas(project)


def _check_startable(name: str, journey: Journey, now: datetime) -> None:
    """Raise `UpnextError` for a journey that is not to act, or a broadcast whose time is over."""
    if journey.state != "live":
        raise UpnextError(f"journey '{name}' is {journey.state}: set `state: live` in its file, then start it")
    over = timedelta(hours=26) if isinstance(journey, Broadcast) and journey.is_local else timedelta(0)
    if isinstance(journey, Broadcast) and journey.begins_at + over < now:
        raise UpnextError(f"broadcast '{name}': its time, {journey.at}, is over; set another one, then start it")


def stop(project: Project, kind: str, name: str, *, by: str) -> int:
    """Stop a journey or an experience; all users in the journey exit. Returns the number of exits.

    What is started is stopped whatever else is declared wrongly.
    """
    require_kind(project, kind, name)
    if name not in project.started:
        require_declared(project, kind, name)
    with transaction(project.engine, "dispatch") as connection:
        if not switch(connection, name, is_started=False, at=utc_now(), by=by):
            raise UpnextError(f"{kind} '{name}' is not started")
        ended = end(connection, [name], reason="journey stopped", at=utc_now()) if kind == "journey" else 0
        if kind == "experience":
            withdraw(connection, name)
    if kind == "experience":
        show_ctas(project)
    return ended


def start_all(project: Project, *, by: str) -> None:
    """Start all declared journeys and experiences that are not started yet."""
    journeys = [name for name, journey in project.journeys.items() if journey.state == "live"]
    with project.engine.begin() as connection:
        for name in (*journeys, *project.experiences):
            switch(connection, name, is_started=True, at=utc_now(), by=by)


def pause_journey(project: Project, name: str) -> None:
    """Pause all users in a journey, whatever else is declared wrongly."""
    require_kind(project, "journey", name)
    if name not in project.started:
        declared_journey(project, name)
    if not pause(project.engine, name, at=utc_now()):
        raise UpnextError(f"journey '{name}' is paused already")


def resume_journey(project: Project, name: str) -> int:
    """Resume a journey, and return the number of users in it."""
    declared_journey(project, name)
    entries = resume(project.engine, name, at=utc_now())
    if entries is None:
        raise UpnextError(f"journey '{name}' is not paused")
    return entries


def release_segment(project: Project, segment: str) -> int:
    """Let the next tick apply a held change, and return how many would enter and exit as of the last evaluation."""
    if segment not in project.segments:
        raise UpnextError(f"unknown segment '{segment}'{nearest(segment, project.segments)}")
    changes = release(project.engine, segment)
    if changes is None:
        raise UpnextError(f"segment '{segment}' is not held")
    return changes
