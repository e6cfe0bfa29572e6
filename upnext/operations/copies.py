"""Messages as somebody would get them: written into files, or sent to one address."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from upnext.clock import utc_now
from upnext.declarations import line_of
from upnext.errors import UpnextError
from upnext.features.definition import example
from upnext.journeys.channels.channel import Outcome
from upnext.journeys.channels.connections import mail
from upnext.journeys.copy import samples
from upnext.journeys.copy.emails import check_address
from upnext.journeys.copy.message import CannotRenderError, Rendered
from upnext.journeys.copy.render_process import RenderProcess
from upnext.journeys.copy.traits import known_traits, traits_and_features
from upnext.journeys.declared import file_of, sender_of
from upnext.journeys.definition import Journey
from upnext.operations.known import declared_journey
from upnext.project import Project
from upnext.ticks.lifecycle import last_published_as_of


def render_journey(project: Project, name: str, folder: Path, *, user_id: str | None = None) -> Iterator[Path]:
    """Write each message of a journey for a user, or a made-up one, into a folder, and yield the files."""
    journey = declared_journey(project, name)
    person = _somebody(project, user_id)
    folder.mkdir(parents=True, exist_ok=True)
    for step, rendered in messages_for(project, name, journey, person):
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
    journey = declared_journey(project, name)
    person = _somebody(project, user_id)
    person = person._replace(traits={**person.traits, "email": address})
    mails = [(step, rendered) for step, rendered in messages_for(project, name, journey, person) if rendered.sender]
    if not mails:
        raise UpnextError(f"journey '{name}' sends no mail")
    connection = mail(project.settings, timeout_seconds=project.policy.email.timeout_seconds)()
    try:
        for step, rendered in mails:
            connection.open()
            answer = connection.send(msgspec.structs.replace(rendered, cc=[]))
            if answer.outcome is not Outcome.SENT:
                raise UpnextError(f"{step} was not sent: {answer.reason}")
    finally:
        connection.close()
    return [step for step, _ in mails]


def made_up_user(project: Project, traits: Mapping[str, Any], *, at: datetime) -> samples.Person:
    """Return a user with examples of all features and of `traits`, as of an instant."""
    features = project.features.get("user_features", {})
    return samples.made_up(traits, {name: example(made_of, at) for name, made_of in features.items()})


def traits_of_users(project: Project) -> dict[str, Any]:
    """Return an example of each trait that identify calls have."""
    with project.engine.connect() as connection:
        return known_traits(connection)


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


def messages_for(
    project: Project, name: str, journey: Journey, person: samples.Person
) -> Iterator[tuple[str, Rendered]]:
    """Yield each message of a journey for somebody, with its step. Its links are samples, and lead nowhere.

    Raises `UpnextError` with file and line for what cannot be written.
    """
    with RenderProcess(sender_of(project.settings, project.policy, ["sample"])) as process:
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
