"""The content of a segment's file: one SELECT over features that returns its members. Pure.

Upnext reads the text before dbt compiles it, so that a mistake has its line before anything is built.
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from typing import Annotated, Any, NamedTuple

import msgspec
import sqlglot
from jinja2 import TemplateSyntaxError
from sqlglot import Token, TokenType, exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.simplify import simplify

from upnext.declarations import Declaration, Described, DescribedFile, Problem
from upnext.errors import nearest
from upnext.segments.template import Template, read
from upnext.wording import explain, worded

_CLOCK = {
    "now", "clock_timestamp", "statement_timestamp", "transaction_timestamp", "timeofday", "random", "gen_random_uuid",
}  # fmt: skip
# As texts that are read as a time.
_CLOCK_TEXTS = {"now", "today", "tomorrow", "yesterday"}
_CLOCK_WORDS = {"current_timestamp", "current_date", "current_time", "localtime", "localtimestamp"}
_NARROWING = {
    TokenType.WHERE, TokenType.HAVING, TokenType.JOIN, TokenType.LIMIT, TokenType.INTERSECT, TokenType.EXCEPT,
}  # fmt: skip


class Limit(Declaration, frozen=True):
    """By what share of its members a segment may change in one tick; beyond it `hold` keeps the change back."""

    change: Annotated[str, worded(r"^[1-9][0-9]*%$", "a share such as 50%")]
    at_least: int = 0
    hold: bool = False


class Meta(Declaration, frozen=True):
    """The `meta` of a segment. One of a user's segments of an `exclusive_group` is primary, by `priority`.

    With `include_anonymous`, visitors who are not identified yet may be members.
    """

    owner: str | None = None
    priority: int = 0
    exclusive_group: str | None = None
    limit: Limit | None = None
    include_anonymous: bool = False
    dagster: dict[str, Any] | None = None


# What decides how a segment is built is Upnext's.
_OPTIONS = ("docs", "meta", "tags")


class _Config(Declaration, frozen=True):
    meta: Meta | None = None
    tags: Any = None
    docs: Any = None


class _Model(Described, frozen=True):
    config: _Config = _Config()
    columns: Any = None


class SegmentsFile(DescribedFile, frozen=True):
    """A dbt file that describes segments."""

    models: list[_Model] = []


def references(text: str) -> list[str]:
    """Return the models that a segment's file names; none where it cannot be read."""
    try:
        return [name for name, _ in read(text).refs]
    except TemplateSyntaxError:
        return []


def find_mistakes(
    text: str,
    *,
    known: Collection[str],
    columns: Mapping[str, Collection[str]],
    counts: Collection[str],
    lists: Collection[str],
) -> Iterator[Problem]:
    """Yield what is wrong with a segment's file.

    `known` are the tables of features and the segments, `columns` those of each table of features, `counts` the
    features that are never negative, `lists` the files of ids.
    """
    try:
        template = read(text)
        tokens = sqlglot.tokenize(template.sql, read="postgres")
    except TemplateSyntaxError as error:
        yield Problem(error.lineno, f"has Jinja that cannot be read: {error.message}")
        return
    except SqlglotError as error:
        yield Problem(1, f"cannot be read as SQL: {str(error).splitlines()[0]}")
        return
    if not any(token.token_type == TokenType.SELECT for token in tokens):
        yield Problem(1, "holds no SELECT; it needs one, of user_id or account_id")
        return
    yield from _mistakes_of_jinja(template, known)
    yield from _mistakes_of_lists_and_shares(template, lists)
    yield from _mistakes_of_tokens(tokens)
    tree = None if template.is_dynamic else _parsed(template.sql)
    if tree is not None:
        selected = tree.named_selects
        # What Postgres alone can name, it judges.
        is_named = selected and all(selected) and not tree.is_star
        if is_named and [name.lower() for name in selected] not in (["user_id"], ["account_id"]):
            yield Problem(1, f"selects {', '.join(selected)}; it must select user_id alone, or account_id alone")
        yield from _mistakes_of_tree(tree, tokens, counts)
        yield from _unknown_columns(tree, tokens, columns)


def _mistakes_of_lists_and_shares(template: Template, lists: Collection[str]) -> Iterator[Problem]:
    for name, line in template.lists:
        if name not in lists:
            yield Problem(line, f"reads the list '{name}', but there is no lists/{name}.csv{nearest(name, lists)}")
    for column, share, line in template.shares:
        if column not in UNITS.values():
            yield Problem(line, f"takes a share of '{column}'; it must be user_id or account_id")
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 100:
            yield Problem(line, "takes a share that is not above 0 and below 100 percent: {{ share(user_id, 10) }}")
    for name, line in template.others:
        macros = ("list", "share", "ref", "config")
        hint = nearest(name, macros)
        if name not in macros and hint.startswith("; did you mean"):
            yield Problem(line, f"calls {name}(), which does not exist{hint}")
        if name in ("list", "share"):
            example = "list('beta_testers')" if name == "list" else "share(user_id, 10)"
            yield Problem(line, f"calls {name}() in another form than {{{{ {example} }}}}")


def _mistakes_of_jinja(template: Template, known: Collection[str]) -> Iterator[Problem]:
    for name, line in template.refs:
        if name not in known:
            yield Problem(line, f"reads '{name}', which does not exist{nearest(name, known)}")
    for line in template.sources:
        yield Problem(line, "reads a source; a segment reads features and segments, by ref()")
    for name, line in template.others:
        if name == "as_of":
            yield Problem(line, "asks as_of; a segment changes when a feature does, so make it a feature")
    for option, line in template.options:
        if option not in _OPTIONS:
            yield Problem(line, f"takes no {option} in its config(); known: {', '.join(_OPTIONS)}")
    if template.meta is not None:
        try:
            msgspec.convert(template.meta, Meta)
        except msgspec.ValidationError as error:
            message, _, where = str(error).partition(" - at ")
            yield Problem(template.meta_line, f"has a wrong meta: {explain(message, where, template.meta, Meta)[1]}")


def _mistakes_of_tokens(tokens: list[Token]) -> Iterator[Problem]:
    for token, following in zip(tokens, [*tokens[1:], None], strict=True):
        name = token.text.lower()
        is_call = following is not None and following.token_type == TokenType.L_PAREN
        is_word = token.token_type not in (TokenType.STRING, TokenType.IDENTIFIER)
        if is_word and (name in _CLOCK_WORDS or (is_call and name in _CLOCK)):
            yield Problem(token.line, f"asks {name}; a segment changes when a feature does, so make it a feature")
        if token.token_type == TokenType.SEMICOLON:
            yield Problem(token.line, "holds a ';': it is one SELECT, and ends without")
    if not any(token.token_type in _NARROWING for token in tokens):
        yield Problem(1, "has no condition, so everyone would be in it; add a WHERE")


def _mistakes_of_tree(tree: exp.Query, tokens: list[Token], counts: Collection[str]) -> Iterator[Problem]:
    for table in tree.find_all(exp.Table):
        if table.db:
            text = f"reads {table.db}.{table.name}; a segment reads features and segments, by ref()"
            yield Problem(_line_of(tokens, table.db, "."), text)
    for text in _clock_texts(tree):
        line = _line_of(tokens, text.lower())
        yield Problem(line, f"asks '{text}'; a segment changes when a feature does, so make it a feature")
    for age in tree.find_all(exp.Anonymous):
        if age.name.lower() == "age" and len(age.expressions) == 1:
            line = _line_of(tokens, age.name, "(")
            yield Problem(line, "asks age() of today; a segment changes when a feature does, so make it a feature")
    for comparison in tree.find_all(exp.GTE, exp.GT):
        column, bound = comparison.left, _number(comparison.right)
        is_true = bound is not None and (bound < 0 or (bound == 0 and isinstance(comparison, exp.GTE)))
        if is_true and isinstance(column, exp.Column) and column.name in counts:
            operator = ">=" if isinstance(comparison, exp.GTE) else ">"
            text = f"'{column.name} {operator} {bound:g}' is always true: {column.name} is never negative"
            yield Problem(_line_of(tokens, column.name, operator), text)
    where = tree.args.get("where")
    if where is not None and simplify(where.this.copy()) == exp.true():
        line = _line_of(tokens, "where")
        yield Problem(line, "has a condition that is always true, so everyone would be in it")


def _unknown_columns(tree: exp.Query, tokens: list[Token], columns: Mapping[str, Collection[str]]) -> Iterator[Problem]:
    """Yield the columns that a table of features lacks, of each SELECT that reads that table alone."""
    for select in tree.find_all(exp.Select):
        table = _only_table(select) or ""
        for column in select.find_all(exp.Column) if table in columns else ():
            is_its_own = column.find_ancestor(exp.Select) is select
            if is_its_own and column.name not in columns[table] and not column.this.args.get("quoted"):
                hint = nearest(column.name, columns[table])
                text = f"reads '{column.name}', which {table} does not have{hint}"
                yield Problem(_line_of(tokens, column.name.lower()), text)


@lru_cache(maxsize=4096)
def _parsed(sql: str) -> exp.Query | None:
    """Return the one query of a text; None where it is something else, or cannot be parsed."""
    try:
        parsed = sqlglot.parse(sql, read="postgres")
    except SqlglotError:
        return None
    return parsed[0] if len(parsed) == 1 and isinstance(parsed[0], exp.Query) else None


def _number(value: exp.Expr) -> float | None:
    """Return the value of a literal number, also with a minus before it."""
    if isinstance(value, exp.Neg):
        inner = _number(value.this)
        return None if inner is None else -inner
    return float(value.this) if isinstance(value, exp.Literal) and not value.is_string else None


def _clock_texts(tree: exp.Query) -> Iterator[str]:
    """Yield the texts that Postgres reads as the time of the clock: `'now'::timestamptz`, `at >= 'today'`."""
    for node in tree.find_all(exp.Cast, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.Add, exp.Sub):
        if isinstance(node, exp.Cast) and not node.to.is_type(*exp.DataType.TEMPORAL_TYPES):
            continue
        for value in node.iter_expressions():
            if isinstance(value, exp.Literal) and value.is_string and value.name.strip().lower() in _CLOCK_TEXTS:
                yield value.name


def _line_of(tokens: list[Token], *texts: str) -> int:
    """Return the line where these tokens stand one after the other, the first time."""
    found = [token.text.lower() for token in tokens]
    places = (place for place in range(len(found)) if found[place : place + len(texts)] == list(texts))
    return tokens[next(places, 0)].line


UNITS = {"user_features": "user_id", "account_features": "account_id"}


def unit_of(text: str) -> str:
    """Return what a segment's SELECT has members of: `account_id` if it selects that, or else `user_id`."""
    try:
        template = read(text)
    except TemplateSyntaxError:
        return "user_id"
    query = _parsed(template.sql)
    column = query.selects[0] if query is not None and len(query.selects) == 1 else None
    return "account_id" if column is not None and column.alias_or_name == "account_id" else "user_id"


_PARTS_OF_ROW_LOCAL = {"expressions", "from_", "where", "kind"}


def is_row_local(text: str, *, segments: Collection[str]) -> bool:
    """Whether a segment's SELECT decides by one row of the features alone, and by the same user's membership.

    Then only users whose row or membership has changed have to be evaluated. False is always safe: all users are
    evaluated. `segments` are those declared, which it may name by `user_id in (select user_id from <segment>)`.

    >>> is_row_local("select user_id from {{ ref('user_features') }} where logins_30d >= 5", segments=[])
    True
    >>> is_row_local("select user_id from {{ ref('user_features') }} where true limit 5", segments=[])
    False
    """
    try:
        template = read(text)
    except TemplateSyntaxError:
        return False
    select = None if template.is_dynamic else _parsed(template.sql)
    if not isinstance(select, exp.Select):
        return False
    table = _only_table(select)
    unit = UNITS.get(table or "")
    if unit is None or _only_column(select) != unit or next(select.find_all(exp.AggFunc, exp.Window), None):
        return False
    return all(_is_membership(inner, unit, segments) for inner in select.find_all(exp.Query) if inner is not select)


class Condition(NamedTuple):
    """The condition of a segment that depends on one row of `features` alone, and a hash of all that decides it."""

    features: str
    sql: str
    text_hash: str


def condition_of(text: str, *, excludes_visitors: bool) -> Condition | None:
    """Return a segment's condition where its file has one table of features, one WHERE, and no Jinja beside ref().

    It is evaluated beside those of other segments, so the table may not have another name in it.

    >>> condition_of("select user_id from {{ ref('user_features') }} where logins >= 5", excludes_visitors=False).sql
    'logins >= 5'
    """
    try:
        template = read(text)
    except TemplateSyntaxError:
        return None
    if template.lists or template.shares or not is_row_local(text, segments=()):
        return None
    query, tokens = _parsed(template.sql), sqlglot.tokenize(template.sql, read="postgres")
    table = query.find(exp.Table) if query is not None else None
    where = next((token for token in tokens if token.token_type == TokenType.WHERE), None)
    if table is None or table.alias or where is None:
        return None
    sql = template.sql[where.end + 1 :].strip()
    if excludes_visitors and table.name == "user_features":
        sql = f"({sql}\n) and not upnext.is_visitor(user_id)"
    return Condition(table.name, sql, hashlib.sha256(f"{excludes_visitors} {text}".encode()).hexdigest())


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
    """Return a cycle of segments that depend on each other, the first one again at the end; None without a cycle."""

    def walk(segment: str, path: list[str]) -> list[str] | None:
        if segment in path:
            return [*path[path.index(segment) :], segment]
        for other in sorted(references_by_segment.get(segment, ())):
            found = walk(other, [*path, segment])
            if found:
                return found
        return None

    return next((cycle for segment in sorted(references_by_segment) if (cycle := walk(segment, []))), None)
