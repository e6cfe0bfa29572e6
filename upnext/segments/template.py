"""A segment's file as SQL: Jinja's own parser reads its Jinja, and table names replace it. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from jinja2 import Environment, TemplateSyntaxError, nodes

_JINJA = Environment(autoescape=False)  # noqa: S701 - parsed, never rendered


@dataclass
class Template:
    """The SQL of a segment's file, with the same lines, and what its Jinja names, each with its line."""

    sql: str = ""
    refs: list[tuple[str, int]] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)
    lists: list[tuple[str, int]] = field(default_factory=list)
    shares: list[tuple[str, Any, int]] = field(default_factory=list)
    """The column and the percentage of each `share()`."""
    others: list[tuple[str, int]] = field(default_factory=list)
    """Calls of other macros."""
    options: list[tuple[str, int]] = field(default_factory=list)
    """The keys of each `config()`."""
    meta: dict[str, Any] | None = None
    meta_line: int = 1
    is_dynamic: bool = False
    """Whether its Jinja has more than ref(), config(), list() and share(), so that only dbt knows its SQL."""


@lru_cache(maxsize=4096)
def read(text: str) -> Template:
    """Read a segment's file. Raises `jinja2.TemplateSyntaxError`, which has the line."""
    template, parts, expression, begun = Template(), [], "", 1
    is_expression = False
    for line, kind, value in _JINJA.lex(text):
        if kind == "variable_begin":
            expression, begun, is_expression = "", line, True
        elif kind == "variable_end":
            parts.append(_add(template, expression, begun) + "\n" * expression.count("\n"))
            is_expression = False
        elif is_expression:
            expression += value
        elif kind == "data":
            parts.append(value)
        else:
            parts.append("\n" * value.count("\n"))
            template.is_dynamic |= kind == "block_begin"
    template.sql = "".join(parts)
    return template


def _add(template: Template, expression: str, line: int) -> str:
    """Note what an expression names, and return its SQL. Raises `TemplateSyntaxError`."""
    for call in _calls(expression, line):
        name = getattr(call.node, "name", "")
        if name == "ref" and call.args and isinstance(call.args[-1], nodes.Const):
            model = str(call.args[-1].value)
            template.refs.append((model, line))
            return model
        if name == "list" and len(call.args) == 1 and isinstance(call.args[0], nodes.Const):
            template.lists.append((str(call.args[0].value), line))
            return "('a list')"
        if name == "share" and len(call.args) in (2, 3) and isinstance(call.args[0], nodes.Name | nodes.Const):
            unit, share = call.args[0], call.args[1]
            column = str(unit.value if isinstance(unit, nodes.Const) else unit.name)
            if column == "account_id" and isinstance(unit, nodes.Name):
                raise TemplateSyntaxError("account_id needs quotes in share('account_id', 10)", line)
            template.shares.append((column, share.value if isinstance(share, nodes.Const) else None, line))
            return f"({column} = 'a share')"
        if name == "config":
            _add_config(template, {keyword.key: keyword.value for keyword in call.kwargs}, line)
            return ""
        if name == "source":
            template.sources.append(line)
        else:
            template.others.append((name, line))
    template.is_dynamic = True
    return "null"


def _add_config(template: Template, options: dict[str, nodes.Expr], line: int) -> None:
    template.options += [(option, line) for option in options]
    if "meta" not in options:
        return
    try:
        template.meta, template.meta_line = options["meta"].as_const(), line
    except nodes.Impossible:
        raise TemplateSyntaxError("the meta of config() has to be written out, without variables", line) from None


def _calls(expression: str, line: int) -> Iterator[nodes.Call]:
    try:
        yield from _JINJA.parse("{{" + expression + "}}").find_all(nodes.Call)
    except TemplateSyntaxError as error:
        raise TemplateSyntaxError(error.message or "not valid Jinja", line + error.lineno - 1) from None
