"""Checks of what is declared, and of what it comes to."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from upnext.analytics.health import run_checks
from upnext.clock import utc_now
from upnext.declarations import line_of
from upnext.errors import nearest
from upnext.features.declared import TABLES
from upnext.journeys.copy import samples
from upnext.journeys.copy.templates import copy_sources, mentions, names_used
from upnext.journeys.declared import file_of, files_of_marketing
from upnext.kinds import names_of
from upnext.operations.copies import made_up_user, messages_for, traits_of_users
from upnext.project import Project
from upnext.segments.lists import read_lists


def check(project: Project) -> dict[str, int]:
    """Read everything that is declared, and return how much there is of each kind. No database is needed.

    Raises `UpnextError` with file, line and nearest match for the first mistake, also for copy that cannot be written.
    """
    project.check()
    return {
        "events": len(project.events),
        **{f"features of {table}": len(features) for table, features in project.features.items() if table in TABLES},
        "segments": len(project.segments),
        "lists": len(read_lists(project.lists)),
        "journeys": len(project.journeys),
        "messages": sum(len(steps) for steps in check_journeys(project, traits={}).values()),
        "experiences": len(project.experiences),
        "slots": len(project.slots),
        "metrics": len(project.metrics),
        "sources": len(project.sources),
    }


def check_journeys(project: Project, *, traits: Mapping[str, Any]) -> dict[str, list[str]]:
    """Write each message of each journey for a made-up user, and return the steps by journey.

    `traits` are examples of those that users have. Raises `UpnextError` with the file for what cannot be written.
    """
    person = made_up_user(project, traits, at=utc_now())
    return {
        name: [step for step, _ in messages_for(project, name, journey, person)]
        for name, journey in project.journeys.items()
    }


def doubtful_copy(project: Project, journeys: Iterable[str]) -> Iterator[str]:
    """Yield each trait that the copy of journeys names and no identify call has, with file, line and nearest match.

    And each template of marketing without a link to unsubscribe.
    """
    traits = traits_of_users(project)
    templates = project.settings.campaigns / "templates"
    for name in journeys:
        path = file_of(project.settings.campaigns, name, project.journeys[name])
        for position, step in enumerate(project.journeys[name].steps):
            for file in sorted(files_of_marketing(project.journeys[name], step, templates)):
                if not mentions(templates, file, "unsubscribe_url"):
                    yield f"{templates / file}: does not print {{{{ unsubscribe_url }}}}, which marketing needs"
            for where, source in copy_sources(msgspec.to_builtins(step), templates):
                for use in names_used(source):
                    if isinstance(where, Path):
                        place = f"{where}:{use.line}"
                    else:
                        place = f"{path}:{line_of(path, ['steps', position, *where])}"
                    if use.of == "user" and traits and use.name not in {*traits, *samples.TRAITS}:
                        yield f"{place}: no identify call has the trait '{use.name}'{nearest(use.name, traits)}"


def check_results(project: Project, *, as_of: datetime) -> dict[str, dict[str, float]]:
    """Return what each check of the results finds: nothing, or a number by experiment or event."""
    metrics, known = project.metrics.values(), project.catalogue.events
    return run_checks(
        project.engine,
        as_of=as_of,
        events=names_of((selected for metric in metrics for selected in metric.selected), known),
        summed_events=names_of((metric.of for metric in metrics if metric.of is not None), known),
    )
