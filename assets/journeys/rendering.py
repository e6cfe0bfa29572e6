"""Rendering a step's copy for one user: Jinja in a sandbox, undefined names are errors. Pure."""

from dataclasses import dataclass
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import FileSystemLoader, StrictUndefined, Template, TemplateSyntaxError
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
    if not address.isascii():
        raise CannotRenderError("address is not ASCII")
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
    except Exception as error:  # the header registry raises parse errors of several unrelated kinds
        raise CannotRenderError(f"address is not valid: {type(error).__name__}") from None
    message["Date"] = format_datetime(date)
    message["Message-ID"] = f"<{message_id}@{domain}>"
    message["List-Unsubscribe"] = f"<{unsubscribe}>"
    try:
        subject, text, html = (template.render(values) for template in compile_step(step))
        message["Subject"] = subject
    except CannotRenderError:
        raise
    except Exception as error:  # a template can raise whatever its expressions do; its text may quote the user
        raise CannotRenderError(f"template {step.template} or its subject: {type(error).__name__}") from None
    message.set_content(text)
    message.add_alternative(html, subtype="html")
    return message


def compile_step(step: Email) -> tuple[Template, Template, Template]:
    """Return the templates of subject, text and HTML. Raises `CannotRenderError` for a mistake in them."""
    try:
        return (
            _TEXT.from_string(step.subject),
            _TEXT.get_template(f"{step.template}.txt"),
            _HTML.get_template(f"{step.template}.html"),
        )
    except TemplateSyntaxError as error:
        where = f"templates/{error.name}:{error.lineno}" if error.name else "subject"
        raise CannotRenderError(f"{where}: {error.message}") from None


def check_sender(mail_from: str) -> None:
    """Raise `CannotRenderError` where nothing can be sent from this address."""
    name, sender = parseaddr(mail_from)
    try:
        Address(name, addr_spec=sender)
    except Exception:  # see render_email
        sender = ""
    if "@" not in sender or not sender.isascii():
        raise CannotRenderError(f"'{mail_from}' is not an address such as Otto <hello@otto.example>")
