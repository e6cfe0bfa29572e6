"""Renders a step's copy for one user: Jinja in a sandbox, with bounded output. Pure.

A trait that a user lacks, or that is null, is undefined: a template can test it and give it a `default`, but a message
that would print it is not sent. HTML is written in MJML, which becomes what mail clients show. Links are made by
`link(...)`, so that clicks can be counted and only web pages are linked.
"""

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import email_validator
import msgspec
from jinja2 import FileSystemLoader, Template, TemplateError, TemplateSyntaxError, Undefined, UndefinedError, nodes
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment
from mjml import mjml2html

from upnext.declarations import Problem
from upnext.errors import nearest
from upnext.journeys.copy.links import Links

MAX_CHARACTERS = 500_000
# What a template is given.
GIVEN = frozenset({"user", "features", "event", "subject", "link", "open_url", "unsubscribe_url", "preferences_url"})
# Header lines are not folded: List-Unsubscribe has to stand on one.
_POLICY = SMTP.clone(max_line_length=998)
_HREF = re.compile(r"""\bhref\s*=\s*("[^"]*"|'[^']*'|[^\s>]+)""", re.IGNORECASE)
_SAFE_HREF = re.compile(
    r"""^["'](\{\{ *(link\(|(unsubscribe|preferences)_url *\}\})|\{% block \w+ %\}|https://[^{]*$|mailto:[^{]*$)"""
)

# Whether a domain is one that the internet knows is for the mail server to say.
email_validator.SPECIAL_USE_DOMAIN_NAMES.clear()


class CannotRenderError(Exception):
    """This one message cannot be made: the reason, without personal data."""


class Request(msgspec.Struct, frozen=True):
    """The input of a message: the step's definition, the recipient (traits, and the row of features), and the event.

    `event` are the properties of the event that let the user in; none in a journey of a segment.
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


class Sender(msgspec.Struct, frozen=True):
    """Who sends, under which address links are served (None: direct links, no pixel), and where templates lie."""

    mail_from: str
    base_url: str | None
    keys: list[str]
    templates: str


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


class _Missing(Undefined):
    """A missing value: false in a test, replaced by `default`, and an error if it is printed."""

    __str__ = Undefined._fail_with_undefined_error


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, in which `user.items` is the trait of that name and not a method."""

    def __init__(self, templates: str | None = None, *, autoescape: bool = False) -> None:
        loader = FileSystemLoader(templates) if templates is not None else None
        super().__init__(loader=loader, undefined=_Missing, autoescape=autoescape, finalize=_not_null)

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)


def _not_null(value: Any) -> Any:
    if value is None:
        raise CannotRenderError("a value that it prints is null; write default('...', true) after it")
    return value


_TEXT = _Environment()


@functools.cache
def _environments(templates: str) -> dict[str, _Environment]:
    """Return what reads the templates of a folder, by the ending of their files."""
    return {"txt": _Environment(templates), "mjml": _Environment(templates, autoescape=True)}


def template_names(templates: Path) -> set[str]:
    """Return the templates of a folder that exist both as text and as MJML."""
    text = {path.stem for path in templates.glob("*.txt")}
    return text & {path.stem for path in templates.glob("*.mjml")}


def render(request: Request, sender: Sender) -> Rendered:
    """Return the message of one step for one user, as MIME or as the body of a webhook; or the reason why not.

    Never raises: an error that one user's values cause in a library stops only this message.
    """
    try:
        return _RENDERERS[request.step["do"]](request, sender)
    except CannotRenderError as error:
        return Rendered(request.message_id, reason=str(error))
    except MemoryError:
        return Rendered(request.message_id, reason=f"{_name_of(request)}: takes too much memory")
    except Exception as error:  # its text may quote the user
        return Rendered(request.message_id, reason=f"{_name_of(request)}: cannot be written ({type(error).__name__})")


def copy_of(step: Mapping[str, Any], variant: str | None) -> dict[str, Any]:
    """Return a step's definition with the fields that its variant replaces."""
    chosen = step.get("variants", {}).get(variant) or {}
    return {**step, **{key: value for key, value in chosen.items() if value is not None}}


def template_files(templates: Path, name: str) -> list[Path]:
    """Return the files of a template: plain text, and MJML."""
    return [templates / f"{name}.txt", templates / f"{name}.mjml"]


def find_mistakes(source: str) -> Iterator[Problem]:
    """Yield what is wrong in the text of a template: mistakes of Jinja, and links that nothing has checked."""
    try:
        _TEXT.parse(source)
    except TemplateSyntaxError as error:
        yield Problem(error.lineno, error.message or "not valid Jinja")
    for use in names_used(source):
        if not use.of:
            yield Problem(use.line, f"'{use.name}' is not given to templates{nearest(use.name, GIVEN)}")
    for number, line in enumerate(source.splitlines(), start=1):
        for href in _HREF.findall(line):
            if not _SAFE_HREF.match(href):
                yield Problem(number, f"href={href}: write {{{{ link('https://...') }}}}, which is checked")


class Use(NamedTuple):
    """A name that copy reads of `user`, `features` or `event`, or of none of them (`of` is empty), and its line."""

    of: str
    name: str
    line: int


def names_used(source: str) -> list[Use]:
    """Return what copy reads of the user, of the features and else, by line; nothing where it cannot be parsed."""
    try:
        tree = _TEXT.parse(source)
    except TemplateSyntaxError:
        return []
    # Blocks see what the file imports and sets, which Jinja itself does not count.
    imported = {
        names if isinstance(names, str) else names[-1] for one in tree.find_all(nodes.FromImport) for names in one.names
    }
    stored = {node.name for node in tree.find_all(nodes.Name) if node.ctx == "store"}
    undeclared = find_undeclared_variables(tree) - GIVEN - imported - stored
    uses = [Use("", name, _line_of(tree, name)) for name in undeclared]
    for attribute in tree.find_all(nodes.Getattr):
        uses += _use_of(attribute.node, attribute.attr, attribute.lineno)
    for item in tree.find_all(nodes.Getitem):
        uses += _use_of(item.node, getattr(item.arg, "value", None), item.lineno)
    return sorted(set(uses), key=lambda use: (use.line, use.of, use.name))


def _use_of(read: nodes.Node, key: object, line: int) -> Iterator[Use]:
    if isinstance(read, nodes.Name) and read.name in ("user", "features", "event") and isinstance(key, str):
        yield Use(read.name, key, line)


def copy_sources(step: Mapping[str, Any], templates: Path) -> Iterator[tuple[list[str | int] | Path, str]]:
    """Yield each text of a step that is a template: by its keys within the step, or by its file."""
    variants = [(["variants", name], variant) for name, variant in step.get("variants", {}).items()]
    for keys, texts in [([], step), *variants]:
        if texts.get("subject"):
            yield [*keys, "subject"], texts["subject"]
        if texts.get("template"):
            for path in (templates / f"{texts['template']}.txt", templates / f"{texts['template']}.mjml"):
                yield path, path.read_text(encoding="utf-8")
    for field in ("data", "traits", "properties"):
        yield from _texts([field], step.get(field, {}))


def _texts(keys: list[str | int], value: Any) -> Iterator[tuple[list[str | int], str]]:
    """Yield the texts of a value, however deep, each with the keys that lead to it."""
    if isinstance(value, str):
        yield keys, value
    elif isinstance(value, dict | list):
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _texts([*keys, key], one)


def _line_of(tree: nodes.Template, name: str) -> int:
    return min(node.lineno for node in tree.find_all(nodes.Name) if node.name == name)


def check_sender(mail_from: str) -> None:
    """Raise `CannotRenderError` where nothing can be sent from this address."""
    name, sender = parseaddr(mail_from)
    try:
        Address(name, addr_spec=_valid(sender))
    except Exception:  # the header registry raises parse errors of several unrelated kinds
        raise CannotRenderError(f"'{mail_from}' is not an address such as Otto <hello@otto.example>") from None


def _email(request: Request, sender: Sender) -> Rendered:
    step = copy_of(request.step, request.variant)
    address = request.traits.get("email")
    if not isinstance(address, str) or not address:
        raise CannotRenderError("no address")
    try:
        recipient = _valid(address)
    except email_validator.EmailNotValidError as error:
        is_international = "nternationalized" in str(error)
        raise CannotRenderError(
            "address needs SMTPUTF8, which few servers have" if is_international else "address is not valid"
        ) from None
    name, mail_from = parseaddr(sender.mail_from)
    links = Links(sender.base_url, sender.keys, request.message_id)
    unsubscribe = links.unsubscribe or f"mailto:{mail_from}?subject={quote(f'unsubscribe {request.message_id}')}"
    values = {
        **_values(request),
        "subject": step["subject"],
        "link": _checked(links.click),
        "open_url": links.open,
        "unsubscribe_url": unsubscribe,
        "preferences_url": links.preferences,
    }
    subject = _run(f"{_name_of(request)}, subject", _compiler(step["subject"]), values)
    # A line break would begin another header.
    values["subject"] = " ".join(subject.split())
    text, mjml = (
        _run(f"template {step['template']}.{suffix}", _loader(environment, f"{step['template']}.{suffix}"), values)
        for suffix, environment in _environments(sender.templates).items()
    )
    try:
        html = mjml2html(mjml)
    except ValueError as error:
        raise CannotRenderError(f"template {step['template']}.mjml is not valid MJML: {error}") from None
    message = EmailMessage(policy=_POLICY)
    message["From"] = Address(name, addr_spec=mail_from)
    try:
        message["To"] = Address(addr_spec=recipient)
    except Exception:  # the header registry raises parse errors of several unrelated kinds
        raise CannotRenderError("address is not valid") from None
    message["Subject"] = values["subject"]
    message["Date"] = format_datetime(request.date)
    message["Message-ID"] = f"<{request.message_id}@{mail_from.rpartition('@')[2]}>"
    message["List-Unsubscribe"] = f"<{unsubscribe}>"
    if links.unsubscribe:
        message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    message.set_content(text)
    message.add_alternative(html, subtype="html")
    return Rendered(request.message_id, message.as_bytes(), mail_from, recipient, links.used)


def _webhook(request: Request, sender: Sender) -> Rendered:
    values = _values(request)
    data = _filled(f"{_name_of(request)}, data", request.step.get("data", {}), values)
    body = {
        "type": f"journey.{request.journey}.{request.step['name']}",
        "timestamp": request.date.isoformat(),
        "data": {"user_id": request.user_id, "message_id": request.message_id, **data},
    }
    return Rendered(request.message_id, msgspec.json.encode(body), recipient=request.step["endpoint"])


def _event(request: Request, sender: Sender) -> Rendered:
    """Return the line of an event, as a source of format `segment` sends it."""
    step, values = request.step, _values(request)
    field = "traits" if step["do"] == "identify" else "properties"
    line = {
        "type": step["do"],
        "messageId": request.message_id,
        "userId": request.user_id,
        "timestamp": request.date.isoformat(),
        field: _filled(f"{_name_of(request)}, {field}", step.get(field, {}), values),
        "context": {"journey": request.journey, "step": step["name"]},
    }
    if step["do"] == "track":
        line["event"] = step["event"]
    return Rendered(request.message_id, msgspec.json.encode(line))


_RENDERERS: dict[str, Callable[[Request, Sender], Rendered]] = {
    "email": _email,
    "webhook": _webhook,
    "identify": _event,
    "track": _event,
}


def _values(request: Request) -> dict[str, Any]:
    traits, event = (
        {name: value for name, value in given.items() if value is not None} for given in (request.traits, request.event)
    )
    return {"user": traits, "features": request.features, "event": event}


def _valid(address: str) -> str:
    """Return an address in ASCII, its domain too. Raises `EmailNotValidError`."""
    valid = email_validator.validate_email(
        address, check_deliverability=False, allow_smtputf8=False, strict=True, globally_deliverable=False
    )
    return valid.ascii_email or ""


def _name_of(request: Request) -> str:
    return f"step {request.step['name']}"


def _loader(environment: ImmutableSandboxedEnvironment, name: str) -> Callable[[], Template]:
    return lambda: environment.get_template(name)


def _compiler(text: str) -> Callable[[], Template]:
    return lambda: _TEXT.from_string(text)


def _checked(click: Callable[[str], str]) -> Callable[[str], str]:
    def link(url: str) -> str:
        parts = urlsplit(url) if isinstance(url, str) and url.isprintable() and " " not in url else urlsplit("")
        if parts.scheme not in ("https", "http") or not parts.hostname:
            raise CannotRenderError("link(...) leads to web pages alone, https://...")
        return click(url)

    return link


def _run(name: str, compiled: Callable[[], Template], values: dict[str, Any]) -> str:
    """Render a template. Raises `CannotRenderError`; the values that it read are never told."""
    parts: list[str] = []
    length = 0
    with _told(name):
        for part in compiled().generate(values):
            length += len(part)
            if length > MAX_CHARACTERS:
                raise CannotRenderError(f"longer than {MAX_CHARACTERS:,} characters")
            parts.append(part)
    return "".join(parts)


def _value(name: str, template: str, values: dict[str, Any]) -> Any:
    """Return the value of a template that is one expression, with its type; the text of any other template."""
    with _told(name):
        match _TEXT.parse(template).body:
            case [nodes.Output(nodes=[nodes.Expr() as expression])] if not isinstance(expression, nodes.TemplateData):
                source = template.strip().removeprefix("{{").removesuffix("}}").strip("-+")
                with suppress(TemplateSyntaxError):  # what stands around an expression, such as a comment
                    value = _TEXT.compile_expression(source, undefined_to_none=False)(values)
                    if not isinstance(value, Undefined):
                        return value
    return _run(name, _compiler(template), values)


def _filled(name: str, value: Any, values: dict[str, Any]) -> Any:
    """Return a value in which each text, however deep, is rendered; a text of one expression becomes its value."""
    if isinstance(value, str):
        return _value(name, value, values)
    if isinstance(value, dict):
        return {key: _filled(f"{name}.{key}", one, values) for key, one in value.items()}
    if isinstance(value, list):
        return [_filled(f"{name}[{nth}]", one, values) for nth, one in enumerate(value)]
    return value


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Turn whatever the template of this name raises into a `CannotRenderError` that names it."""
    try:
        yield
    except MemoryError:
        raise
    except CannotRenderError as error:
        raise CannotRenderError(f"{name}: {error}") from None
    except UndefinedError as error:
        raise CannotRenderError(f"{name}: {_in_words(error)}") from None
    except TemplateSyntaxError as error:
        raise CannotRenderError(f"{name}, line {error.lineno}: {error.message}") from None
    except TemplateError as error:
        raise CannotRenderError(f"{name}: {type(error).__name__} {error.message or ''}".rstrip()) from None
    except Exception as error:  # a template can raise whatever its expressions do; its text may quote the user
        raise CannotRenderError(f"{name}: {type(error).__name__}") from None


def _in_words(error: UndefinedError) -> str:
    missing = re.fullmatch(r"'dict object' has no attribute '(\w+)'", error.message or "")
    return f"'{missing[1]}' is missing" if missing else error.message or "something is missing"
