"""What an operation is about: a name that is declared, and the newest tick."""

from datetime import datetime

from upnext.errors import UpnextError, nearest
from upnext.journeys.definition import Journey
from upnext.project import Project
from upnext.ticks.lifecycle import last_published_as_of


def require_declared(project: Project, kind: str, name: str) -> None:
    """Raise `UpnextError` with the nearest match where no `journey` or `experience` has the name."""
    known = project.journeys if kind == "journey" else project.experiences
    if name not in known:
        raise UpnextError(f"unknown {kind} '{name}'{nearest(name, known)}")


def require_kind(project: Project, kind: str, name: str) -> None:
    """Raise `UpnextError` where a started name is of the other kind, by its file alone: it may have a mistake."""
    folders = {"journeys": "journey", "broadcasts": "journey", "experiences": "experience"}
    found = {of for folder, of in folders.items() if (project.settings.campaigns / folder / f"{name}.yml").exists()}
    if found and kind not in found:
        [other] = found
        raise UpnextError(f"'{name}' is {'an' if other == 'experience' else 'a'} {other}: see upnext {other}s --help")


def declared_journey(project: Project, name: str) -> Journey:
    """Return a journey or a broadcast. Raises `UpnextError` with the nearest match."""
    require_declared(project, "journey", name)
    return project.journeys[name]


def newest_tick(project: Project, *, then: str) -> datetime:
    """Return the instant of the newest tick. Raises `UpnextError`, which says what to do `then`, if there is none."""
    as_of = last_published_as_of(project.engine)
    if as_of is None:
        raise UpnextError(f"there has been no tick yet: run `upnext tick`, then {then}")
    return as_of
