"""Messages for a made-up user, or for a real one, with which copy is checked and looked at. Pure."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from upnext.journeys.copy.message import Rendered, Request
from upnext.journeys.copy.templates import copy_sources, languages_of, names_used
from upnext.journeys.definition import Email, Identify, Journey, Track, Webhook


class Person(NamedTuple):
    """For whom messages are written; copy that names a trait which a made-up user lacks reads the trait's name."""

    user_id: str
    traits: dict[str, Any]
    features: dict[str, Any]
    is_made_up: bool = False


def made_up(traits: Mapping[str, Any], features: Mapping[str, Any]) -> Person:
    """Return a user with examples of the traits and features that users have."""
    return Person("ada", {**traits, **TRAITS}, dict(features), is_made_up=True)


TRAITS = {"email": "ada@customer.example", "name": "Ada", "timezone": "Europe/Berlin"}


def requests(
    name: str,
    journey: Journey,
    templates: Path,
    *,
    person: Person,
    date: datetime,
    language_trait: str = "language",
) -> Iterator[tuple[int, str, Request]]:
    """Yield the place of each step that sends, a name for its message, and what that is made of.

    There is one for each copy variant and, for a made-up user, for each language of the template.

    A property of the event that the journey's `example` does not give is its own name.
    """
    for position, step in enumerate(journey.steps):
        if not isinstance(step, Email | Webhook | Identify | Track):
            continue
        definition = msgspec.to_builtins(step)
        uses = [use for _, source in copy_sources(definition, templates) for use in names_used(source)]
        named = {of: {use.name: use.name for use in uses if use.of == of} for of in ("user", "event")}
        example = journey.event.example if journey.event is not None else {}
        variants = (None, *step.variants) if isinstance(step, Email) else (None,)
        for variant, language in product(variants, _languages(definition, templates) if person.is_made_up else [None]):
            traits = {**named["user"], **person.traits} if person.is_made_up else person.traits
            request = Request(
                message_id="00000000-0000-0000-0000-000000000000",
                journey=name,
                step=definition,
                variant=variant,
                user_id=person.user_id,
                traits=traits if language is None else {**traits, language_trait: language},
                features=person.features,
                event={**named["event"], **example},
                date=date,
            )
            yield position, ".".join(filter(None, (step.name, variant, language))), request


def _languages(step: Mapping[str, Any], templates: Path) -> list[str | None]:
    """Return the languages of a step's copy, and None for all others."""
    copies = [step, *step.get("variants", {}).values()]
    of_files = {one for copy in copies if copy.get("template") for one in languages_of(templates, copy["template"])}
    of_texts = {one for copy in copies if isinstance(copy.get("subject"), dict) for one in copy["subject"]}
    return [None, *sorted(of_files | of_texts - {"default"})]


def parts(rendered: Rendered) -> Iterator[tuple[str, str]]:
    """Yield the parts of a message by the suffix of a file: `html` and `txt` of an email, `json` of a webhook."""
    if not rendered.sender:
        yield "json", rendered.content.decode()
        return
    message = message_from_bytes(rendered.content, _class=EmailMessage, policy=policy.default)
    for subtype, suffix in (("html", "html"), ("plain", "txt")):
        body = message.get_body((subtype,))
        if body is not None:
            yield suffix, body.get_content()
