"""Emails: MIME made of a step and a user. HTML is written in MJML, which becomes what mail clients show. Pure.

Links are made by `link(...)`, so that clicks can be counted and only web pages are linked.
"""

import functools
import mimetypes
from binascii import b2a_qp
from collections.abc import Callable
from email.encoders import encode_base64
from email.header import Header
from email.headerregistry import Address
from email.message import Message
from email.mime.base import MIMEBase
from email.mime.multipart import MIMEMultipart
from email.mime.nonmultipart import MIMENonMultipart
from email.policy import compat32
from email.utils import format_datetime, formataddr, parseaddr
from io import StringIO
from pathlib import Path
from typing import Any
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

# Header lines are not folded: List-Unsubscribe has to stand on one. The newer policies of `email` parse each header
# that they are given and encode texts in Python, which takes twice as long as all else of a mail.
_MAX_LINE = 998
_POLICY = compat32.clone(linesep="\r\n", max_line_length=_MAX_LINE)

# Whether a domain is one that the internet knows is for the mail server to say.
email_validator.SPECIAL_USE_DOMAIN_NAMES.clear()


class _Encoded(Header):
    """A header in encoded words, on lines as long as such words may be."""

    def encode(self, splitchars: str = ";, \t", maxlinelen: int | None = None, linesep: str = "\n") -> str:
        """Return the lines, whatever the policy allows for others."""
        return super().encode(splitchars, 76, linesep)


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
    mail_from = _own(mail_from)
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
    copies = [_own(address) for address in step.get("cc") or []]
    headers = {
        "From": formataddr((name, mail_from)),
        "To": recipient,
        "Cc": ", ".join(copies),
        "Reply-To": _own(step["reply_to"]) if step.get("reply_to") else None,
        "Subject": values["subject"],
        "Date": format_datetime(request.date),
        "Message-ID": f"<{request.message_id}@{mail_from.rpartition('@')[2]}>",
    }
    if not step.get("transactional"):
        headers["List-Unsubscribe"] = f"<{unsubscribe}>"
        headers["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click" if links.unsubscribe else None
    headers |= {header: value.replace("{message_id}", request.message_id) for header, value in sender.headers.items()}
    files = [_file(file, _attachment(sender.templates, file)) for file in step.get("attachments") or []]
    message: Any = _mime(text, html, files, boundary=request.message_id)
    for header, value in headers.items():
        if value:
            is_plain = value.isascii() and "=?" not in value and len(value) < _MAX_LINE - len(header)
            message[header] = value if is_plain or header == "From" else _Encoded(value, "utf-8", header_name=header)
    return Rendered(request.message_id, message.as_bytes(), mail_from, recipient, links.used, cc=copies)


def _mime(text: str, html: str, files: list[Message], *, boundary: str) -> Message:
    """Return a text and its HTML, of which a client shows one, and the files that go with them.

    Without a `boundary`, the generator would look for one with a regular expression of its own for each mail.
    """
    parts = [_part("plain", text), _part("html", html)]
    message = MIMEMultipart("alternative", f"=_a{boundary}", parts, policy=_POLICY)
    return MIMEMultipart("mixed", f"=_m{boundary}", [message, *files], policy=_POLICY) if files else message


def _part(subtype: str, text: str) -> Message:
    text = text if text.endswith("\n") else f"{text}\n"
    part = MIMENonMultipart("text", subtype, charset="utf-8", policy=_POLICY)
    longest = max(map(len, StringIO(text, newline=None)), default=0)
    # A boundary begins with `=_`, which no other encoding than 7bit has in it.
    is_plain = text.isascii() and "=_" not in text and longest < _MAX_LINE
    part["Content-Transfer-Encoding"] = "7bit" if is_plain else "quoted-printable"
    part.set_payload(text if is_plain else b2a_qp(text.encode()).decode())
    return part


def _file(name: str, content: bytes) -> Message:
    guessed, encoding = mimetypes.guess_type(name)
    # A mail within a mail may not be encoded as a file is, and what is packed is no longer of its kind.
    is_file = guessed is not None and encoding is None and not guessed.startswith(("message/", "multipart/"))
    kind = (guessed if guessed is not None and is_file else "application/octet-stream").split("/")
    part = MIMEBase(kind[0], kind[1], policy=_POLICY)
    part.set_payload(content)
    encode_base64(part)
    part.add_header("Content-Disposition", "attachment", filename=name)
    return part


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
    if "=?" in address:
        # In a header it would be read as encoded text.
        raise CannotRenderError("address is not valid")
    try:
        return _valid(address)
    except email_validator.EmailNotValidError as error:
        is_international = "nternationalized" in str(error)
        raise CannotRenderError(
            "address needs SMTPUTF8, which few servers have" if is_international else "address is not valid"
        ) from None


@functools.lru_cache(maxsize=100)
def _own(address: str) -> str:
    """Return an address of the sender's, which was checked where it was declared, as `_valid` does."""
    return _valid(address)


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
