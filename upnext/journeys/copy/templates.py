"""The templates of messages: Jinja in a sandbox, with bounded output, and the mistakes in them.

A trait that a user lacks, or that is null, is undefined: a template can test it and give it a `default`, but a message
that would print it is not sent.
"""

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import FileSystemLoader, Template, TemplateError, TemplateSyntaxError, Undefined, UndefinedError, nodes
from jinja2.meta import find_referenced_templates, find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment

from upnext.declarations import Problem, read_text
from upnext.errors import nearest
from upnext.journeys.copy.message import CannotRenderError, Request

MAX_CHARACTERS = 500_000
# What a template is given.
GIVEN = frozenset(
    {
        "user", "features", "event", "answers", "subject", "preheader", "postal_address", "link", "open_url",
        "unsubscribe_url", "preferences_url", "view_url",
    }
)  # fmt: skip
_HREF = re.compile(r"""\bhref\s*=\s*("[^"]*"|'[^']*'|[^\s>]+)""", re.IGNORECASE)
_NOT_OF_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SAFE_HREF = re.compile(
    r"""^["'](\{\{ *(link\(|(unsubscribe|preferences|view)_url *\}\})|\{% block \w+ %\}|https://[^{]*$|mailto:[^{]*$)"""
)


class _Missing(Undefined):
    """A missing value: false in a test, replaced by `default`, and an error if it is printed."""

    __str__ = Undefined._fail_with_undefined_error


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, in which `user.items` is the trait of that name and not a method."""

    def __init__(self, templates: str | None = None, *, is_xml: bool = False) -> None:
        loader = FileSystemLoader(templates) if templates is not None else None
        finalize = _of_xml if is_xml else _not_null
        super().__init__(loader=loader, undefined=_Missing, autoescape=is_xml, finalize=finalize)

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)


def _not_null(value: Any) -> Any:
    if value is None:
        raise CannotRenderError("a value that it prints is null; write default('...', true) after it")
    return value


def _of_xml(value: Any) -> Any:
    """Leave out what XML cannot hold, such as the control characters of names that were pasted."""
    value = _not_null(value)
    return type(value)(_NOT_OF_XML.sub("", value)) if isinstance(value, str) else value


_TEXT = _Environment()


@functools.cache
def _environments(templates: str) -> dict[str, _Environment]:
    """Return what reads the templates of a folder, by the ending of their files."""
    return {"txt": _Environment(templates), "mjml": _Environment(templates, is_xml=True)}


def template_names(templates: Path) -> set[str]:
    """Return the templates of a folder, without their translations; a file of text or of MJML may be missing."""
    return {path.stem for path in templates.glob("*.*") if path.suffix in (".txt", ".mjml") and "." not in path.stem}


def copy_of(step: Mapping[str, Any], variant: str | None) -> dict[str, Any]:
    """Return a step's definition with the fields that its variant replaces."""
    chosen = step.get("variants", {}).get(variant) or {}
    return {**step, **{key: value for key, value in chosen.items() if value is not None}}


def template_files(templates: Path, name: str) -> list[Path]:
    """Return the files of a template: plain text and MJML, and both in each language that it is translated to."""
    translations = sorted({path.stem for path in templates.glob(f"{name}.*.*") if path.suffix in (".txt", ".mjml")})
    return [templates / f"{stem}{suffix}" for stem in (name, *translations) for suffix in (".txt", ".mjml")]


def languages_of(templates: Path, name: str) -> list[str]:
    """Return the languages that a template is translated to, as the names of its files say."""
    return sorted({path.stem.partition(".")[2] for path in templates.glob(f"{name}.*.txt")})


def languages(stated: object) -> list[str]:
    """Return a user's language, and the one that it is a kind of: de-at and de for `de_AT`."""
    if not isinstance(stated, str) or not re.fullmatch(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8})*", stated):
        return []
    parts = stated.lower().replace("_", "-").split("-")
    return ["-".join(parts[:length]) for length in range(len(parts), 0, -1)]


def in_language(text: str | Mapping[str, str], wanted: list[str]) -> str:
    """Return a text in the first of these languages that it has, or else its default."""
    return text if isinstance(text, str) else next((text[one] for one in wanted if one in text), text["default"])


@functools.cache
def _translations(templates: str, name: str) -> list[str]:
    return languages_of(Path(templates), name)


def translated(templates: str, name: str, wanted: list[str]) -> str:
    """Return the name of a template's files in the first of these languages that it has, or else its own."""
    found = next((one for one in wanted if one in _translations(templates, name)), None)
    return f"{name}.{found}" if found else name


def filled_in(parameters: Mapping[str, str], values: Mapping[str, str]) -> dict[str, str]:
    """Return parameters of links, in which `{journey}`, `{step}` and `{variant}` are replaced; none that are empty."""
    filled = {
        name: re.sub(r"\{(\w+)\}", lambda found: values.get(str(found[1]), ""), text)
        for name, text in parameters.items()
    }
    return {name: text for name, text in filled.items() if text}


MJML = (
    "mjml", "mj-accordion", "mj-accordion-element", "mj-accordion-text", "mj-accordion-title", "mj-all",
    "mj-attributes", "mj-body", "mj-breakpoint", "mj-button", "mj-carousel", "mj-carousel-image", "mj-class",
    "mj-column", "mj-divider", "mj-font", "mj-group", "mj-head", "mj-hero", "mj-html-attributes", "mj-html-attribute",
    "mj-image", "mj-include", "mj-navbar", "mj-navbar-link", "mj-preview", "mj-raw", "mj-section", "mj-selector",
    "mj-social", "mj-social-element", "mj-spacer", "mj-style", "mj-table", "mj-text", "mj-title", "mj-wrapper",
)  # fmt: skip


def find_mistakes(source: str) -> Iterator[Problem]:
    """Yield what is wrong in the text of a template: mistakes of Jinja, and links that nothing has checked."""
    try:
        # It looks for filters and tests as well.
        find_undeclared_variables(_TEXT.parse(source))
    except TemplateSyntaxError as error:
        yield Problem(error.lineno, error.message or "not valid Jinja")
    for use in names_used(source):
        if not use.of:
            yield Problem(use.line, f"'{use.name}' is not given to templates{nearest(use.name, GIVEN)}")
    for number, line in enumerate(source.splitlines(), start=1):
        for href in _HREF.findall(line):
            if not _SAFE_HREF.match(href):
                yield Problem(number, f"href={href}: write {{{{ link('https://...') }}}}, which is checked")
        for tag in re.findall(r"<(mj-?[a-z-]*)", line):
            if tag not in MJML:
                yield Problem(number, f"<{tag}> is no tag of MJML, and would be left out{nearest(tag, MJML)}")


def mentions(templates: Path, file: str, name: str) -> bool:
    """Return whether a template, or one that it extends or includes, reads a name."""
    path = templates / file
    if not path.is_file():
        return False
    tree = _TEXT.parse(read_text(path))
    return name in find_undeclared_variables(tree) or any(
        mentions(templates, other, name) for other in find_referenced_templates(tree) if other is not None
    )


class Use(NamedTuple):
    """A name that copy reads of `user`, `features` or `event`, or of none of them (`of` is empty), and its line."""

    of: str
    name: str
    line: int


def names_used(source: str) -> list[Use]:
    """Return what copy reads of the user, of the features and else, by line; nothing where it cannot be parsed."""
    try:
        tree = _TEXT.parse(source)
        read = find_undeclared_variables(tree)
    except TemplateSyntaxError:
        return []
    # Blocks see what the file imports and sets, which Jinja itself does not count.
    imported = {
        names if isinstance(names, str) else names[-1] for one in tree.find_all(nodes.FromImport) for names in one.names
    }
    stored = {node.name for node in tree.find_all(nodes.Name) if node.ctx == "store"}
    undeclared = read - GIVEN - imported - stored
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
        for key in ("subject", "preheader"):
            yield from _texts([*keys, key], texts.get(key))
        if texts.get("template"):
            for path in template_files(templates, texts["template"]):
                yield path, read_text(path)
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


def text_of(name: str, text: str, values: dict[str, Any]) -> str:
    """Return a text in which its expressions are replaced. Raises `CannotRenderError`, which calls it by its name."""
    return _run(name, lambda: _compiled(text), values)


@functools.lru_cache(maxsize=1024)
def _compiled(text: str) -> Template:
    return _TEXT.from_string(text)


def file_of(templates: str, file: str, values: dict[str, Any]) -> str:
    """Return the text that a file of templates makes. Raises `CannotRenderError`, which names the file."""
    environment = _environments(templates)[file.rpartition(".")[2]]
    return _run(f"template {file}", lambda: environment.get_template(file), values)


def filled(name: str, value: Any, values: dict[str, Any]) -> Any:
    """Return a value in which each text, however deep, is rendered; a text of one expression becomes its value."""
    if isinstance(value, str):
        return _value(name, value, values)
    if isinstance(value, dict):
        return {key: filled(f"{name}.{key}", one, values) for key, one in value.items()}
    if isinstance(value, list):
        return [filled(f"{name}[{nth}]", one, values) for nth, one in enumerate(value)]
    return value


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
    return text_of(name, template, values)


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


def values_of(request: Request) -> dict[str, Any]:
    """Return what templates are given of a user: traits and properties that are null are missing."""
    traits, event = (
        {name: value for name, value in given.items() if value is not None} for given in (request.traits, request.event)
    )
    return {"user": traits, "features": request.features, "event": event, "answers": request.answers}
