"""Emails: MIME made of a step and a user. HTML is written in MJML, which becomes what mail clients show. Pure.

Links are made by `link(...)`, so that clicks can be counted and only web pages are linked.
"""

import functools
import mimetypes
from collections.abc import Callable
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from pathlib import Path
from urllib.parse import quote, urlsplit

import email_validator
from mjml import mjml2html

from upnext.journeys.copy.links import Links
from upnext.journeys.copy.message import CannotRenderError, Rendered, Request, Sender
from upnext.journeys.copy.templates import (
    copy_of,
    file_of,
    filled_in,
    in_language,
    languages,
    text_of,
    translated,
    values_of,
)

# Header lines are not folded: List-Unsubscribe has to stand on one.
_POLICY = SMTP.clone(max_line_length=998)

# Whether a domain is one that the internet knows is for the mail server to say.
email_validator.SPECIAL_USE_DOMAIN_NAMES.clear()


def check_sender(mail_from: str) -> None:
    """Raise `CannotRenderError` where nothing can be sent from this address."""
    name, sender = parseaddr(mail_from)
    try:
        Address(name, addr_spec=_valid(sender))
    except Exception:  # the header registry raises parse errors of several unrelated kinds
        raise CannotRenderError(f"'{mail_from}' is not an address such as Otto <hello@otto.example>") from None


def check_address(address: str) -> None:
    """Raise `CannotRenderError` for what is no address alone, such as help@otto.example."""
    try:
        _valid(address)
    except email_validator.EmailNotValidError:
        raise CannotRenderError(f"'{address}' is not an address such as help@otto.example") from None


def email(request: Request, sender: Sender) -> Rendered:
    """Return the mail of a step in the language of the user. Raises `CannotRenderError`."""
    step, language = copy_of(request.step, request.variant), languages(request.traits.get(sender.language_trait))
    recipient = _recipient(request.traits.get("email"))
    name, mail_from = parseaddr(step.get("from") or sender.mail_from)
    campaign = {"journey": request.journey, "step": step["name"], "variant": request.variant or ""}
    links = Links(sender.base_url, sender.keys, request.message_id, parameters=filled_in(sender.utm, campaign))
    unsubscribe = links.unsubscribe or f"mailto:{mail_from}?subject={quote(f'unsubscribe {request.message_id}')}"
    values = {
        **values_of(request),
        "subject": step["subject"],
        "preheader": "",
        "postal_address": sender.postal_address,
        "link": _checked(links.click),
        "open_url": links.open,
        "unsubscribe_url": unsubscribe,
        "preferences_url": links.preferences,
        "view_url": links.view,
    }
    for key in ("subject", "preheader"):
        if step.get(key):
            text = text_of(f"step {step['name']}, {key}", in_language(step[key], language), values)
            # A line break would begin another header.
            values[key] = " ".join(text.split())
    template = translated(sender.templates, step["template"], language)
    text, mjml = (file_of(sender.templates, f"{template}.{suffix}", values) for suffix in ("txt", "mjml"))
    try:
        html = mjml2html(mjml)
    except ValueError as error:
        raise CannotRenderError(f"template {template}.mjml is not valid MJML: {error}") from None
    message = EmailMessage(policy=_POLICY)
    message["From"] = Address(name, addr_spec=mail_from)
    try:
        message["To"] = Address(addr_spec=recipient)
    except Exception:  # the header registry raises parse errors of several unrelated kinds
        raise CannotRenderError("address is not valid") from None
    copies = step.get("cc") or []
    if copies:
        message["Cc"] = [Address(addr_spec=address) for address in copies]
    if step.get("reply_to"):
        message["Reply-To"] = Address(addr_spec=step["reply_to"])
    message["Subject"] = values["subject"]
    message["Date"] = format_datetime(request.date)
    message["Message-ID"] = f"<{request.message_id}@{mail_from.rpartition('@')[2]}>"
    if not step.get("transactional"):
        message["List-Unsubscribe"] = f"<{unsubscribe}>"
        if links.unsubscribe:
            message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    for header, value in sender.headers.items():
        message[header] = value.replace("{message_id}", request.message_id)
    message.set_content(text)
    message.add_alternative(html, subtype="html")
    for file in step.get("attachments") or []:
        kind = (mimetypes.guess_type(file)[0] or "application/octet-stream").split("/")
        message.add_attachment(_attachment(sender.templates, file), maintype=kind[0], subtype=kind[1], filename=file)
    return Rendered(request.message_id, message.as_bytes(), mail_from, recipient, links.used, cc=copies)


def attachment_path(templates: Path, file: str) -> Path:
    """Return where a file that mails carry lies: in the folder `attachments` beside that of the templates."""
    return templates.parent / "attachments" / file


@functools.cache
def _attachment(templates: str, file: str) -> bytes:
    try:
        return attachment_path(Path(templates), file).read_bytes()
    except OSError:
        raise CannotRenderError(f"the attachment {file} cannot be read") from None


def _recipient(address: object) -> str:
    if not isinstance(address, str) or not address:
        raise CannotRenderError("no address")
    try:
        return _valid(address)
    except email_validator.EmailNotValidError as error:
        is_international = "nternationalized" in str(error)
        raise CannotRenderError(
            "address needs SMTPUTF8, which few servers have" if is_international else "address is not valid"
        ) from None


def _valid(address: str) -> str:
    """Return an address in ASCII, its domain too. Raises `EmailNotValidError`."""
    valid = email_validator.validate_email(
        address, check_deliverability=False, allow_smtputf8=False, strict=True, globally_deliverable=False
    )
    return valid.ascii_email or ""


def _checked(click: Callable[[str], str]) -> Callable[[str], str]:
    def link(url: str) -> str:
        parts = urlsplit(url) if isinstance(url, str) and url.isprintable() and " " not in url else urlsplit("")
        if parts.scheme not in ("https", "http") or not parts.hostname:
            raise CannotRenderError("link(...) leads to web pages alone, https://...")
        return click(url)

    return link
