"""What a segment's file may hold: one SELECT over features that says who is in it. Pure.

The text is looked at before dbt compiles it, so that a mistake is told with its line before anything is built.
"""

import re
from collections.abc import Collection, Iterator, Mapping

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from upnext.errors import nearest

_HIDDEN = re.compile(r"\{#.*?#\}|/\*.*?\*/|--[^\n]*|'(?:[^']|'')*'", re.DOTALL)
_JINJA = re.compile(r"\{\{\s*(ref|config)\s*\((.*?)\)\s*\}\}", re.DOTALL)
_JINJA_CONFIG = re.compile(r"\{\{\s*config\s*\(.*?\)\s*\}\}|\{#.*?#\}", re.DOTALL)
_REF = re.compile(r"\{\{\s*ref\s*\(\s*['\"]([^'\"]*)['\"]\s*\)\s*\}\}")
_CLOCK = re.compile(
    r"\b(now|clock_timestamp|statement_timestamp|transaction_timestamp|timeofday|random|gen_random_uuid)\s*\("
    r"|\b(current_timestamp|current_date|current_time|localtime|localtimestamp)\b|\{\{\s*(as_of)\s*\(",
    re.IGNORECASE,
)
_RAW = re.compile(r"\{\{\s*source\s*\(|\b(?:from|join)\s+([a-z_]+\.[a-z_]+)", re.IGNORECASE)
_EVERYONE = re.compile(r"\bwhere\s+(true|1\s*=\s*1|not\s+false)\s*;?\s*$", re.IGNORECASE)
_NO_BOUND = re.compile(r"\b([a-z_][a-z0-9_]*)\s*(>=\s*(?:0\b(?!\.)|-\d)|>\s*-\s*\d+)", re.IGNORECASE)


def references(sql: str) -> list[str]:
    """Return the models that a segment's file names."""
    return _REF.findall(_blank(sql, keep_text_of_jinja=True))


def find_mistakes(sql: str, *, known: Collection[str], counts: Collection[str]) -> Iterator[tuple[int, str]]:
    """Yield what is wrong with a segment's file, each with its line, counted from 1.

    `known` are the tables of features and the segments; `counts` the features that are never negative.
    """
    text = _blank(sql)
    if not re.search(r"\bselect\b", text, re.IGNORECASE):
        yield 1, "holds no SELECT; it needs one, of user_id or account_id"
        return
    for name in references(sql):
        if name not in known:
            yield _line(sql, sql.index(name)), f"reads '{name}', which there is not{nearest(name, known)}"
    for found in _RAW.finditer(text):
        yield (
            _line(text, found.start()),
            f"reads {found[1] or 'a source'}; a segment reads features and segments, by ref()",
        )
    for found in _CLOCK.finditer(text):
        name = found[1] or found[2] or found[3]
        yield _line(text, found.start()), f"asks {name}; a segment changes when a feature does, so make it a feature"
    for found in _NO_BOUND.finditer(text):
        if found[1].lower() in counts:
            yield (
                _line(text, found.start()),
                f"'{' '.join(found[0].split())}' is always true: {found[1]} is never negative",
            )
    if ";" in text:
        yield _line(text, text.index(";")), "holds a ';': it is one SELECT, and ends without"
    if not re.search(r"\b(where|having|join|limit|intersect|except)\b", text, re.IGNORECASE):
        yield 1, "has no condition, so everyone would be in it; add a WHERE"
    for found in _EVERYONE.finditer(text.rstrip()):
        yield _line(text, found.start()), "has a condition that is always true, so everyone would be in it"


UNITS = {"user_features": "user_id", "account_features": "account_id"}
_PARTS_OF_ROW_LOCAL = {"expressions", "from_", "where", "kind"}


def is_row_local(sql: str, *, segments: Collection[str]) -> bool:
    """Whether a segment's SELECT decides by one row of the features alone, and by the same user's membership.

    Then only users whose row or membership has changed have to be evaluated. False is always right: everybody is
    evaluated. `segments` are those declared, which it may name by `user_id in (select user_id from <segment>)`.

    >>> is_row_local("select user_id from {{ ref('user_features') }} where logins_30d >= 5", segments=[])
    True
    >>> is_row_local("select user_id from {{ ref('user_features') }} where true limit 5", segments=[])
    False
    """
    text = _REF.sub(lambda found: f" {found[1]} ", _JINJA_CONFIG.sub(" ", sql))
    if "{{" in text or "{%" in text:
        return False
    try:
        parsed = sqlglot.parse(text, read="postgres")
    except SqlglotError:
        return False
    if len(parsed) != 1 or not isinstance(parsed[0], exp.Select):
        return False
    select = parsed[0]
    table = _only_table(select)
    unit = UNITS.get(table or "")
    if unit is None or _only_column(select) != unit or next(select.find_all(exp.AggFunc, exp.Window), None):
        return False
    return all(_is_membership(inner, unit, segments) for inner in select.find_all(exp.Query) if inner is not select)


def _is_membership(query: exp.Query, unit: str, segments: Collection[str]) -> bool:
    """Whether a SELECT within another is the right side of `<unit> in (select <unit> from <segment>)`."""
    if isinstance(query, exp.Subquery):
        return isinstance(query.this, exp.Select)
    around = query.parent.parent if isinstance(query.parent, exp.Subquery) else query.parent
    return (
        isinstance(query, exp.Select)
        and isinstance(around, exp.In)
        and isinstance(around.this, exp.Column)
        and around.this.name == unit
        and _only_column(query) == unit
        and _only_table(query) in segments
        and query.args.get("where") is None
    )


def _only_table(select: exp.Select) -> str | None:
    """Return the one table that a SELECT reads; None where it does more than to filter its rows."""
    parts = {name for name, value in select.args.items() if value}
    source = select.args["from_"].this if select.args.get("from_") else None
    if parts - _PARTS_OF_ROW_LOCAL or not isinstance(source, exp.Table):
        return None
    if {name for name, value in source.args.items() if value} - {"this", "alias"}:
        return None
    return source.name


def _only_column(select: exp.Select) -> str | None:
    (first, *others) = select.expressions
    return first.name if not others and isinstance(first, exp.Column) else None


def find_cycle(references_by_segment: Mapping[str, Collection[str]]) -> list[str] | None:
    """Return segments that are built on each other in a circle, the first one again at the end; None where none are."""

    def walk(segment: str, path: list[str]) -> list[str] | None:
        if segment in path:
            return [*path[path.index(segment) :], segment]
        for other in sorted(references_by_segment.get(segment, ())):
            found = walk(other, [*path, segment])
            if found:
                return found
        return None

    return next((cycle for segment in sorted(references_by_segment) if (cycle := walk(segment, []))), None)


def _blank(sql: str, *, keep_text_of_jinja: bool = False) -> str:
    """Return the text with comments, strings and what `ref` and `config` name as blanks; its lines stay."""
    kept = [found.span() for found in _JINJA.finditer(sql)]

    def blanked(found: re.Match[str]) -> str:
        if keep_text_of_jinja and found[0].startswith("'") and any(a <= found.start() < b for a, b in kept):
            return found[0]
        return re.sub(r"[^\n]", " ", found[0])

    text = _HIDDEN.sub(blanked, sql)
    return text if keep_text_of_jinja else _JINJA.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1
