"""How long an experiment takes, and what its results teach."""

from datetime import timedelta
from pathlib import Path

import msgspec

from upnext.analytics.plan import Design, Plan, plan
from upnext.durations import minutes
from upnext.errors import UpnextError, nearest
from upnext.experiences.learn import in_words, learn, write
from upnext.operations.known import newest_tick, require_declared
from upnext.project import Project


def plan_experiment(project: Project, name: str) -> Plan:
    """Return what to expect of a journey, a broadcast or an experience before it starts."""
    if name not in {*project.journeys, *project.experiences}:
        known = [*project.journeys, *project.experiences]
        raise UpnextError(f"no journey or experience is called '{name}'{nearest(name, known)}")
    as_of = newest_tick(project, then="plan again")
    with project.engine.connect() as connection:
        return plan(connection, _design(project, name), as_of=as_of)


def _design(project: Project, name: str) -> Design:
    experience = project.experiences.get(name)
    if experience is not None:
        return Design(
            segment=experience.segment,
            entry=None,
            goal=msgspec.to_builtins(experience.goal),
            within=timedelta(minutes=minutes(experience.goal.within)),
            control=experience.control,
            arms=len(experience.variants),
            minimum_lift=experience.minimum_lift,
            starts_with_members=True,
        )
    journey = project.journeys[name]
    if journey.goal.any_of is None:
        raise UpnextError(f"journey '{name}': only a goal of events can be planned, because the log has no others")
    return Design(
        segment=journey.segment,
        entry=msgspec.to_builtins(journey.event) if journey.event is not None else None,
        goal=msgspec.to_builtins(journey.goal),
        within=timedelta(minutes=minutes(journey.goal.within)),
        control=journey.holdout,
        arms=1,
        minimum_lift=journey.minimum_lift or 0.1,
        starts_with_members=journey.existing_members == "enroll",
    )


def learn_experience(project: Project, name: str) -> tuple[str, Path | None]:
    """Learn which variant of an experience is for whom; return a sentence, and the file that was written, if any."""
    require_declared(project, "experience", name)
    experience = project.experiences[name]
    if experience.policy != "learn":
        raise UpnextError(
            f"experience '{name}' keeps no features to learn from: set `policy: learn` in its file, and wait for users"
        )
    as_of = newest_tick(project, then="learn again")
    proposal, variants = learn(project.engine, name, list(experience.variants))
    if not proposal.rules:
        return in_words(proposal, variants), None
    path = project.settings.campaigns / "policies" / f"{name}.yml"
    write(path, name, proposal, variants, as_of=as_of)
    return in_words(proposal, variants), path
