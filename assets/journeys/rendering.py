"""Rendering a step's copy for one user: Jinja in a sandbox, undefined names are errors. Pure."""

from dataclasses import dataclass
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import FileSystemLoader, StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from assets.journeys.definition import Email

TEMPLATES = Path(__file__).parent / "templates"


class CannotRenderError(Exception):
    """This one message cannot be made: the reason, without personal data."""


@dataclass(frozen=True)
class Recipient:
    """Whom a message is for: traits of the latest identifies, and the user's row of features."""

    user_id: str
    traits: dict[str, Any]
    features: dict[str, Any]


class _Traits(dict[str, Any]):
    """Traits differ from user to user: one that is not there reads as none."""

    def __missing__(self, key: str) -> None:
        return None


def template_names() -> set[str]:
    """Return the templates that exist both as text and as HTML."""
    text = {path.stem for path in TEMPLATES.glob("*.txt")}
    return text & {path.stem for path in TEMPLATES.glob("*.html")}


def _environment(*, autoescape: bool) -> ImmutableSandboxedEnvironment:
    return ImmutableSandboxedEnvironment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, autoescape=autoescape
    )


_TEXT = _environment(autoescape=False)
_HTML = _environment(autoescape=True)


def render_email(step: Email, *, recipient: Recipient, message_id: str, mail_from: str, date: Any) -> EmailMessage:
    """Return the MIME message, text and HTML, of one step for one user. Raises `CannotRenderError`."""
    address = recipient.traits.get("email")
    if not isinstance(address, str) or not address:
        raise CannotRenderError("no address")
    name, sender = parseaddr(mail_from)
    domain = sender.rpartition("@")[2]
    unsubscribe = f"mailto:{sender}?subject={quote(f'unsubscribe {message_id}')}"
    values = {
        "subject": step.subject,
        "user": _Traits(recipient.traits),
        "features": recipient.features,
        "unsubscribe_url": unsubscribe,
    }
    message = EmailMessage(policy=SMTP)
    try:
        message["From"] = Address(name, addr_spec=sender)
        message["To"] = Address(addr_spec=address)
        message["Subject"] = _TEXT.from_string(step.subject).render(values)
    except TemplateError as error:
        raise CannotRenderError(f"subject: {error}") from None
    except Exception as error:  # the header registry raises parse errors of several unrelated kinds
        raise CannotRenderError(f"address or subject is not valid: {type(error).__name__}") from None
    message["Date"] = format_datetime(date)
    message["Message-ID"] = f"<{message_id}@{domain}>"
    message["List-Unsubscribe"] = f"<{unsubscribe}>"
    try:
        message.set_content(_TEXT.get_template(f"{step.template}.txt").render(values))
        message.add_alternative(_HTML.get_template(f"{step.template}.html").render(values), subtype="html")
    except TemplateError as error:
        raise CannotRenderError(f"template {step.template}: {error}") from None
    return message
