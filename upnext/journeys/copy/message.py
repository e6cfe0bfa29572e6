"""What a message is made of, and what is made of it. Pure."""

from datetime import datetime
from typing import Any

import msgspec


class CannotRenderError(Exception):
    """This one message cannot be made: the reason, without personal data."""


class Request(msgspec.Struct, frozen=True):
    """The input of a message: the step's definition, the recipient (traits, and the row of features), and the event.

    `event` are the properties of the event that let the user in; none in a journey of a segment. `answers` are what
    endpoints have answered to earlier steps, by step.
    """

    message_id: str
    journey: str
    step: dict[str, Any]
    variant: str | None
    user_id: str
    traits: dict[str, Any]
    features: dict[str, Any]
    event: dict[str, Any]
    date: datetime
    answers: dict[str, Any] = {}


def request_of(row: Any, date: datetime) -> Request:
    """Return the request for a message, from a row of the warehouse that has what a message is made of."""
    return Request(
        message_id=row.message_id,
        journey=row.journey,
        step=row.step,
        variant=row.variant,
        user_id=row.user_id,
        traits=row.traits,
        features=row.features or {},
        event=row.event or {},
        answers=row.answers or {},
        date=date,
    )


class Body(msgspec.Struct, frozen=True):
    """How the body of a call to an endpoint is written: as JSON, or as the fields of a form."""

    format: str
    template: dict[str, Any]


class Sender(msgspec.Struct, frozen=True):
    """Who sends, under which address links are served (None: direct links, no pixel), and where templates lie.

    `utm` are parameters that links get, and `language_trait` is the trait that tells a user's language.
    """

    mail_from: str
    base_url: str | None
    keys: list[str]
    templates: str
    utm: dict[str, str] = {}
    postal_address: str | None = None
    language_trait: str = "language"
    bodies: dict[str, Body] = {}
    headers: dict[str, str] = {}


class Rendered(msgspec.Struct, frozen=True):
    """A message as it goes out (MIME from one address to another, or JSON to an endpoint), or why there is none.

    `links` are the addresses that its links lead to, by their ids.
    """

    message_id: str
    content: bytes = b""
    sender: str = ""
    recipient: str = ""
    links: dict[str, str] = {}
    reason: str | None = None
    cc: list[str] = []
    content_type: str = "application/json"
