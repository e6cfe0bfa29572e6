"""The mails of journeys as a made-up user gets them."""

from collections.abc import Iterator
from datetime import datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from itertools import islice

from upnext.journeys.copy import samples
from upnext.journeys.copy.message import Rendered
from upnext.journeys.copy.render_process import RenderProcess
from upnext.journeys.definition import Email
from upnext.operations.copies import made_up_user, traits_of_users
from upnext.project import Project
from upnext.report.facts import Facts, Mail

MOST_MAILS = 60
"""Mails that are shown; each is some 10 KB."""


def mails(project: Project, facts: Facts) -> list[Mail]:
    """Return the mails of all journeys, of started ones first; none where the declarations have a mistake."""
    if facts.as_of is None or facts.mistake is not None:
        return []
    order = sorted(facts.journeys, key=lambda journey: (journey["started"] is None, journey["name"]))
    names = [journey["name"] for journey in order]
    return list(islice(_written(project, names, facts.as_of), MOST_MAILS))


def _written(project: Project, names: list[str], at: datetime) -> Iterator[Mail]:
    person = made_up_user(project, traits_of_users(project), at=at)
    templates, trait = project.settings.campaigns / "templates", project.policy.language_trait
    with RenderProcess(project.sender) as process:
        for name in names:
            journey = project.journeys[name]
            for position, label, request in samples.requests(
                name, journey, templates, person=person, date=at, language_trait=trait
            ):
                step = journey.steps[position]
                if isinstance(step, Email):
                    yield _mail(name, step.name, label, process.render(request))


def _mail(journey: str, step: str, label: str, rendered: Rendered | None) -> Mail:
    if rendered is None or rendered.reason is not None:
        reason = rendered.reason if rendered is not None else "the process that writes mails was ended"
        return Mail(journey, step, label, reason=reason)
    html = dict(samples.parts(rendered)).get("html")
    subject = message_from_bytes(rendered.content, _class=EmailMessage, policy=policy.default)["Subject"]
    return Mail(journey, step, label, subject=str(subject), html=html)
