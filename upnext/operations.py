"""Manual operations: preview and release segments; check, preview, start, pause and explain journeys."""

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy.exc import ProgrammingError

from upnext import dbt
from upnext.analytics.health import run_checks
from upnext.analytics.plan import Design, Plan, plan
from upnext.clock import utc_now
from upnext.declarations import line_of
from upnext.durations import minutes
from upnext.errors import UpnextError, nearest
from upnext.experiences.learn import in_words, learn, write
from upnext.features.declared import TABLES
from upnext.features.definition import example
from upnext.journeys.channels.channel import Outcome
from upnext.journeys.channels.connections import channels
from upnext.journeys.copy import samples
from upnext.journeys.copy.emails import check_address
from upnext.journeys.copy.message import CannotRenderError, Rendered
from upnext.journeys.copy.render_process import RenderProcess
from upnext.journeys.copy.templates import copy_sources, names_used
from upnext.journeys.copy.traits import known_traits, traits_and_features
from upnext.journeys.declared import file_of
from upnext.journeys.definition import Broadcast, Journey
from upnext.journeys.dispatch import Preview as JourneyPreview
from upnext.journeys.dispatch import (
    begin_anew,
    end,
    pause,
    resume,
)
from upnext.journeys.dispatch import preview as preview_dispatch
from upnext.journeys.explain import Line, explain
from upnext.kinds import names_of
from upnext.loop import assign_experiences, show_ctas
from upnext.project import Project
from upnext.segments.declared import anonymous_segments, find_segment
from upnext.segments.lists import read_lists, store_lists
from upnext.segments.membership import Preview, preview, release
from upnext.status import read_status
from upnext.switches import switch
from upnext.ticks.lifecycle import last_published_as_of
from upnext.warehouse.locks import transaction

STARTER = Path(__file__).parent / "starter"


def status(project: Project) -> dict[str, Any]:
    """Return the state of the warehouse."""
    return read_status(
        project.engine,
        segments=project.segments,
        experiments={*project.journeys, *project.experiences},
        now=utc_now(),
    )


def preview_segment(project: Project, path_or_name: str, *, with_ids: bool) -> Preview:
    """Run a segment without touching anything. Raises `UpnextError` with the file for what cannot be run."""
    file = find_segment(project.segment_files, path_or_name)
    features = project.features
    project.check_segments({**project.segment_files, file.stem: file})
    store_lists(project.engine, project.lists)
    sql = project.dbt.compile(file.read_text(encoding="utf-8"))
    with project.engine.connect().execution_options(postgresql_readonly=True) as connection:
        try:
            includes_anonymous = bool(anonymous_segments({file.stem: file}))
            return preview(connection, file.stem, sql, with_ids=with_ids, includes_anonymous=includes_anonymous)
        except ProgrammingError as error:
            message = str(error.orig).strip().splitlines()[0]
            known = {name for table in features.values() for name in table}
            missing = re.search(r'column "?(?:\w+\.)?(\w+)"? does not exist', message)
            if missing is not None and missing[1] in known:
                raise UpnextError(f"{file}: the feature '{missing[1]}' is new: it comes with the next tick") from None
            raise UpnextError(f"{file}: {dbt.with_nearest(message, columns=known)}") from None
        except ValueError as error:
            raise UpnextError(f"{file}: {error}") from None


def release_segment(project: Project, segment: str) -> int:
    """Let the next tick apply a held change, and return how many would enter and exit as of the last evaluation."""
    if segment not in project.segments:
        raise UpnextError(f"unknown segment '{segment}'{nearest(segment, project.segments)}")
    changes = release(project.engine, segment)
    if changes is None:
        raise UpnextError(f"segment '{segment}' is not held")
    return changes


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
        name: [step for step, _ in _messages_for(project, name, journey, person)]
        for name, journey in project.journeys.items()
    }


def traits_of_users(project: Project) -> dict[str, Any]:
    """Return an example of each trait that identify calls have."""
    with project.engine.connect() as connection:
        return known_traits(connection)


def check_results(project: Project, *, as_of: datetime) -> dict[str, dict[str, float]]:
    """Return what each check of the results finds: nothing, or a number by experiment or event."""
    metrics, known = project.metrics.values(), project.catalogue.events
    return run_checks(
        project.engine,
        as_of=as_of,
        events=names_of((selected for metric in metrics for selected in metric.selected), known),
        summed_events=names_of((metric.of for metric in metrics if metric.of is not None), known),
    )


def new_content(folder: Path) -> None:
    """Write a small content to begin with. Raises `UpnextError` where the folder holds something already."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UpnextError(f"{folder} is not empty; name a new folder")
    shutil.copytree(STARTER, folder, dirs_exist_ok=True)


def doubtful_copy(project: Project, journeys: Iterable[str]) -> Iterator[str]:
    """Yield each trait that the copy of journeys names and no identify call has, with file, line and nearest match."""
    traits = traits_of_users(project)
    templates = project.settings.campaigns / "templates"
    for name in journeys:
        path = file_of(project.settings.campaigns, name, project.journeys[name])
        for position, step in enumerate(project.journeys[name].steps):
            for where, source in copy_sources(msgspec.to_builtins(step), templates):
                for use in names_used(source):
                    if isinstance(where, Path):
                        place = f"{where}:{use.line}"
                    else:
                        place = f"{path}:{line_of(path, ['steps', position, *where])}"
                    if use.of == "user" and traits and use.name not in {*traits, *samples.TRAITS}:
                        yield f"{place}: no identify call has the trait '{use.name}'{nearest(use.name, traits)}"


def render_journey(project: Project, name: str, folder: Path, *, user_id: str | None = None) -> Iterator[Path]:
    """Write each message of a journey for a user, or a made-up one, into a folder, and yield the files."""
    journey = _declared_journey(project, name)
    person = (
        made_up_user(project, traits_of_users(project), at=utc_now()) if user_id is None else _person(project, user_id)
    )
    folder.mkdir(parents=True, exist_ok=True)
    for step, rendered in _messages_for(project, name, journey, person):
        for suffix, content in samples.parts(rendered):
            path = folder / f"{step}.{suffix}"
            path.write_text(content, encoding="utf-8")
            yield path


def send_test(project: Project, name: str, address: str, *, user_id: str | None = None) -> list[str]:
    """Send each mail of a journey to one address, as for a user or a made-up one, and return the steps.

    Nobody else gets a copy, and nothing is recorded. Raises `UpnextError` where the mail server does not accept one.
    """
    try:
        check_address(address)
    except CannotRenderError as error:
        raise UpnextError(f"--to: {error}") from None
    journey = _declared_journey(project, name)
    person = (
        made_up_user(project, traits_of_users(project), at=utc_now()) if user_id is None else _person(project, user_id)
    )
    person = person._replace(traits={**person.traits, "email": address})
    mails = [(step, mail) for step, mail in _messages_for(project, name, journey, person) if mail.sender]
    if not mails:
        raise UpnextError(f"journey '{name}' sends no mail")
    connections = channels(project.engine, project.settings, project.policy, clock=utc_now)["email"]
    with connections() as connect:
        connection = connect()
        for step, mail in mails:
            connection.open()
            answer = connection.send(msgspec.structs.replace(mail, cc=[]))
            if answer.outcome is not Outcome.SENT:
                raise UpnextError(f"{step} was not sent: {answer.reason}")
        connection.close()
    return [step for step, _ in mails]


def made_up_user(project: Project, traits: Mapping[str, Any], *, at: datetime) -> samples.Person:
    """Return a user with examples of all features and of `traits`, as of an instant."""
    features = project.features["user_features"]
    return samples.made_up(traits, {name: example(made_of, at) for name, made_of in features.items()})


def _somebody(project: Project, user_id: str | None) -> samples.Person:
    """Return a user as of the newest tick, or a made-up one."""
    if user_id is not None:
        return _person(project, user_id)
    return made_up_user(project, traits_of_users(project), at=utc_now())


def _person(project: Project, user_id: str) -> samples.Person:
    """Return a user as of the newest tick. Raises `UpnextError` where there is none of this id."""
    with project.engine.connect() as connection:
        as_of = last_published_as_of(project.engine)
        found = traits_and_features(connection, user_id, as_of=as_of) if as_of is not None else None
    if found is None:
        raise UpnextError(f"no user has the id '{user_id}' at the newest tick")
    return samples.Person(user_id, *found)


def _messages_for(
    project: Project, name: str, journey: Journey, person: samples.Person
) -> Iterator[tuple[str, Rendered]]:
    with RenderProcess(project.sender) as process:
        templates, trait = project.settings.campaigns / "templates", project.policy.language_trait
        for position, label, request in samples.requests(
            name, journey, templates, person=person, date=utc_now(), language_trait=trait
        ):
            rendered = process.render(request)
            if rendered is None:
                raise UpnextError("the process that writes messages was ended; run it again")
            if rendered.reason is not None:
                path = file_of(project.settings.campaigns, name, journey)
                raise UpnextError(f"{path}:{line_of(path, ['steps', position])}: {rendered.reason}")
            yield label, rendered


def plan_experiment(project: Project, name: str) -> Plan:
    """Return what to expect of a journey, a broadcast or an experience before it starts."""
    if name not in {*project.journeys, *project.experiences}:
        known = [*project.journeys, *project.experiences]
        raise UpnextError(f"no journey or experience is called '{name}'{nearest(name, known)}")
    as_of = last_published_as_of(project.engine)
    if as_of is None:
        raise UpnextError("there has been no tick yet: run `upnext tick`, then plan again")
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
    _declared(project, "experience", name)
    experience = project.experiences[name]
    if experience.policy != "learn":
        raise UpnextError(
            f"experience '{name}' keeps no features to learn from: set `policy: learn` in its file, and wait for users"
        )
    as_of = last_published_as_of(project.engine)
    if as_of is None:
        raise UpnextError("there has been no tick yet: run `upnext tick`, then learn again")
    proposal, variants = learn(project.engine, name, list(experience.variants))
    if not proposal.rules:
        return in_words(proposal, variants), None
    path = project.settings.campaigns / "policies" / f"{name}.yml"
    write(path, name, proposal, variants, as_of=as_of)
    return in_words(proposal, variants), path


def explain_journey(project: Project, name: str, user_id: str) -> list[Line]:
    """Return the history of a user in a journey, in words."""
    with project.engine.connect() as connection:
        as_of = last_published_as_of(project.engine) or utc_now()
        journey = _declared_journey(project, name)
        return explain(connection, project.policy, name, journey, user_id, as_of=as_of)


def preview_journey(project: Project, name: str) -> JourneyPreview:
    """Return what the next dispatch would do in a journey, were it started; nothing is changed and nothing is sent."""
    journey = _declared_journey(project, name)
    as_of = last_published_as_of(project.engine)
    if as_of is None:
        raise UpnextError("there has been no tick yet: run `upnext tick`, then preview again")
    at_work = {**project.journeys_at_work, name: journey}
    return preview_dispatch(project.engine, project.policy, at_work, name, as_of=as_of)


def start(project: Project, kind: str, name: str, *, by: str) -> None:
    """Start a journey or an experience. Raises `UpnextError` if it does not exist or is started already."""
    _declared(project, kind, name)
    project.check()
    if kind == "journey":
        _check_startable(name, project.journeys[name], last_published_as_of(project.engine) or utc_now())
    with transaction(project.engine, "dispatch") as connection:
        if not switch(connection, name, is_started=True, at=utc_now(), by=by):
            raise UpnextError(f"{kind} '{name}' is started already")
        if kind == "journey":
            begin_anew(connection, name)
    if kind == "experience":
        _refresh_experiences(project)


def _check_startable(name: str, journey: Journey, now: datetime) -> None:
    """Raise `UpnextError` for a journey that is not to act, or a broadcast whose time is over."""
    if journey.state != "live":
        raise UpnextError(f"journey '{name}' is {journey.state}: set `state: live` in its file, then start it")
    over = timedelta(hours=26) if isinstance(journey, Broadcast) and journey.is_local else timedelta(0)
    if isinstance(journey, Broadcast) and journey.begins_at + over < now:
        raise UpnextError(f"broadcast '{name}': its time, {journey.at}, is over; set another one, then start it")


def stop(project: Project, kind: str, name: str, *, by: str) -> int:
    """Stop a journey or an experience; all users in the journey exit. Returns the number of exits."""
    _declared(project, kind, name)
    with transaction(project.engine, "dispatch") as connection:
        if not switch(connection, name, is_started=False, at=utc_now(), by=by):
            raise UpnextError(f"{kind} '{name}' is not started")
        ended = end(connection, [name], reason="journey stopped", at=utc_now()) if kind == "journey" else 0
    if kind == "experience":
        _refresh_experiences(project)
    return ended


def start_all(project: Project, *, by: str) -> None:
    """Start all declared journeys and experiences that are not started yet."""
    journeys = [name for name, journey in project.journeys.items() if journey.state == "live"]
    with project.engine.begin() as connection:
        for name in (*journeys, *project.experiences):
            switch(connection, name, is_started=True, at=utc_now(), by=by)


def _refresh_experiences(project: Project) -> None:
    as_of = last_published_as_of(project.engine)
    if as_of is not None:
        assign_experiences(project, as_of)
        show_ctas(project)


def _declared(project: Project, kind: str, name: str) -> None:
    known = project.journeys if kind == "journey" else project.experiences
    if name not in known:
        raise UpnextError(f"unknown {kind} '{name}'{nearest(name, known)}")


def pause_journey(project: Project, name: str) -> None:
    """Pause all users in a journey."""
    _declared_journey(project, name)
    if not pause(project.engine, name, at=utc_now()):
        raise UpnextError(f"journey '{name}' is paused already")


def resume_journey(project: Project, name: str) -> int:
    """Resume a journey, and return the number of users in it."""
    _declared_journey(project, name)
    entries = resume(project.engine, name, at=utc_now())
    if entries is None:
        raise UpnextError(f"journey '{name}' is not paused")
    return entries


def _declared_journey(project: Project, name: str) -> Journey:
    if name not in project.journeys:
        raise UpnextError(f"unknown journey '{name}'{nearest(name, project.journeys)}")
    return project.journeys[name]
