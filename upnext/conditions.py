"""Conditions on the properties or the context of an event, for features, derived events and metrics. Pure.

`dbt_project/macros/engine/conditions.sql` turns them into SQL.
"""

import math
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any, NoReturn

import msgspec

from upnext.declarations import Declaration
from upnext.durations import UNITS, check_length
from upnext.wording import explain, worded

Scalar = str | int | float | bool
Conditions = dict[str, Any]
"""By path (`plan`, `app.version`) a value that it must equal, or a `Test`; `any`, `all` and `not` hold more of them."""

Text = Annotated[str, msgspec.Meta(min_length=1)]
_AGO = rf"[0-9]{{1,6}} ({UNITS})s? ago|in [0-9]{{1,6}} ({UNITS})s?"
# What upnext.instant reads.
_DATE = r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?( ?(Z|[+-]\d{2}(:?\d{2})?))?)?"
Moment = Annotated[
    str,
    worded(
        rf"^({_DATE}|{_AGO})$",
        "a date in quotes such as '2026-03-01', or 7 days ago, or in 3 days",
    ),
]
"""A date or a time in ISO 8601 (UTC if it names no zone), or one relative to the `as_of` of the tick."""

_PATH = r"^[^.\s][^.]*(\.[^.]+)*$"
Path = Annotated[str, worded(_PATH, "a path such as plan or app.version")]
_TEXT_TESTS = ("equals", "not_", "one_of", "none_of", "contains", "starts_with", "ends_with", "matches")
MAX_PATTERN, MAX_REPEATS = 200, 255
"""Postgres repeats a part of a pattern 255 times at most."""


class Test(Declaration, frozen=True, rename={"not_": "not"}):
    """What a value must be; several tests must all hold. `not` and `none_of` hold for a value that is missing, too."""

    equals: Scalar | None = None
    not_: Scalar | None = None
    one_of: list[Scalar] | None = None
    none_of: list[Scalar] | None = None
    at_least: float | None = None
    at_most: float | None = None
    more_than: float | None = None
    less_than: float | None = None
    between: tuple[float, float] | None = None
    contains: Text | None = None
    starts_with: Text | None = None
    ends_with: Text | None = None
    matches: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_PATTERN)] | None = None
    before: Moment | None = None
    after: Moment | None = None
    exists: bool | None = None
    is_null: bool | None = None
    ignore_case: bool | None = None

    def __post_init__(self) -> None:
        given = {name for name in self.__struct_fields__ if getattr(self, name) is not None} - {"ignore_case"}
        if not given:
            known = [field.encode_name for field in msgspec.structs.fields(Test)]
            raise ValueError(f"a test that tests nothing; write one of {', '.join(known)}")
        for name in ("one_of", "none_of"):
            if getattr(self, name) == []:
                raise ValueError(f"{name} names nothing, so that {'nothing' if name == 'one_of' else 'all'} passes")
        for number in _numbers(self):
            if not math.isfinite(number):
                raise ValueError(f"{number} is no number to compare with")
        low = max((bound for bound in (self.at_least, self.more_than) if bound is not None), default=None)
        high = min((bound for bound in (self.at_most, self.less_than) if bound is not None), default=None)
        for least, most in ((low, high), self.between or (None, None)):
            if least is not None and most is not None and least > most:
                raise ValueError(f"no number is at least {least:g} and at most {most:g}; turn them round")
        if (self.exists is False or self.is_null) and len(given) > 1:
            raise ValueError(f"a value that is {'null' if self.is_null else 'not there'} passes no other test")
        if self.ignore_case is not None and not given & set(_TEXT_TESTS):
            raise ValueError("ignore_case goes with a test of text, such as equals, one_of, contains or matches")
        for moment in (self.before, self.after):
            _check_moment(moment)
            check_length(moment)
        if self.matches is not None:
            _check_pattern(self.matches)


def _numbers(test: Test) -> Iterator[float]:
    for value in msgspec.structs.astuple(test):
        for one in value if isinstance(value, list | tuple) else [value]:
            if isinstance(one, float):
                yield one


def check_conditions(conditions: Conditions | None, key: str = "where", *, may_be_relative: bool = True) -> None:
    """Raise `ValueError` for the first mistake; it ends with the place of the mistake, as msgspec's errors do."""
    if conditions == {}:
        raise ValueError(f"{key}: holds no test; leave it out")
    if conditions is not None:
        _check_all(conditions, f".{key}")
        if not may_be_relative and (place := next(_relative(conditions), None)):
            raise ValueError(f"'{place}' compares with the time of the tick, which only a feature can; give a date")


def tests_of(conditions: Conditions) -> Iterator[tuple[str, Any]]:
    """Yield each path with its test, however deep."""
    for path, test in conditions.items():
        if path in ("any", "all"):
            for one in test:
                yield from tests_of(one)
        elif path == "not":
            yield from tests_of(test)
        else:
            yield path, test


def paths_of(conditions: Conditions) -> Iterator[str]:
    """Yield the path of each test, however deep."""
    return (path for path, _ in tests_of(conditions))


_OF_TEXT = {"contains", "starts_with", "ends_with", "matches", "ignore_case"}
_OF_NUMBERS = {"at_least", "at_most", "more_than", "less_than", "between"}
_OF_TIMES = {"before", "after"}
_NEVER_TRUE = {
    "number": _OF_TEXT | _OF_TIMES, "boolean": _OF_TEXT | _OF_TIMES | _OF_NUMBERS, "time": _OF_TEXT | _OF_NUMBERS,
}  # fmt: skip


def find_misfits(conditions: Conditions, types: Mapping[str, str | None]) -> Iterator[str]:
    """Yield what a test asks of a value that is of another type: it would never be true.

    `types` are number, boolean, time or None (any) by path.
    """
    for path, test in tests_of(conditions):
        kind = types.get(path)
        if kind is None:
            continue
        stated = test if isinstance(test, Mapping) else {"equals": test}
        for name, value in stated.items():
            values = value if isinstance(value, list) else [value]
            if name in _NEVER_TRUE[kind] or (
                name in ("equals", "not", "one_of", "none_of") and not all(_is_of(kind, one) for one in values)
            ):
                yield f"'{path}' is a {kind}, and cannot be compared by {name}: {value}"


def _is_of(kind: str, value: Any) -> bool:
    if kind == "boolean":
        return isinstance(value, bool)
    if kind == "number":
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, str)


class _Tested(msgspec.Struct):
    test: Scalar | Test


def _check_all(conditions: Any, place: str) -> None:
    if not isinstance(conditions, Mapping) or not conditions:
        _fail("is a mapping of a path and its test, such as {plan: premium}", place)
    for path, test in conditions.items():
        below = f'{place}["{path}"]'
        if path in ("any", "all"):
            if not isinstance(test, list) or not test:
                _fail(f"'{path}' takes a list of conditions, such as [{{plan: basic}}, {{seats: 5}}]", below)
            for nth, one in enumerate(test):
                _check_all(one, f"{below}[{nth}]")
        elif path == "not":
            _check_all(test, below)
        elif not isinstance(path, str) or re.search(_PATH, path) is None:
            _fail(f"'{path}' is no path such as plan or app.version", below)
        else:
            _check_test(path, test, below)


def _check_test(path: str, test: Any, place: str) -> None:
    if isinstance(test, float) and not math.isfinite(test):
        _fail(f"'{path}' is {test}, which is no number to compare with", place)
    try:
        msgspec.convert({"test": test}, _Tested)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at ")
        keys, mistake = explain(message, where or "$.test", {"test": test}, _Tested)
        below = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys[1:])
        _fail(re.sub("^'test' is ", f"'{path}' is ", mistake), place + below)


def _fail(mistake: str, place: str) -> NoReturn:
    raise ValueError(f"{mistake} - at `${place}`")


def _relative(conditions: Conditions) -> Any:
    for path, test in conditions.items():
        if path in ("any", "all"):
            for one in test:
                yield from _relative(one)
        elif path == "not":
            yield from _relative(test)
        elif isinstance(test, Mapping):
            yield from (
                f"{name}: {test[name]}" for name in ("before", "after") if re.fullmatch(_AGO, test.get(name, ""))
            )


def _check_moment(moment: str | None) -> None:
    if moment is not None and not re.fullmatch(_AGO, moment):
        try:
            datetime.fromisoformat(moment)
        except ValueError:
            raise ValueError(f"'{moment}' is no date, such as 2026-03-01 or 2026-03-01T12:00:00Z") from None


def _check_pattern(pattern: str) -> None:
    """Raise `ValueError` for what Postgres cannot match in a time that grows with the text alone.

    Without references back, Postgres matches with an automaton. Only repeats of repeats make that too large.
    """
    # Python 3.11 takes a `+` after a quantifier as one of its own, and Postgres does not. In a class it is a character.
    without_classes = re.sub(r"\[\^?\]?(?:\\.|[^\]\\])*\]", "", pattern)
    found = re.search(r"\(\?(?!:)|\\[^dDwWsS\W]|\\_|\[[.=:]", pattern)
    if found := found or re.search(r"(?<!\\)[*+?}]\+", without_classes):
        raise ValueError(
            f"matches: '{found[0]}' is not supported; use letters, classes, groups, ., *, +, ?, {{n,m}}, |, ^, $"
            " and the escapes \\d, \\w and \\s"
        )
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"matches: '{pattern}' is no regular expression: {error.msg}") from None
    repeats = 1
    for bounds in re.findall(r"(?<!\\)\{(\d+)(?:,(\d*))?\}", pattern):
        repeats *= max(int(bound or 1) for bound in bounds)
    if repeats > MAX_REPEATS:
        raise ValueError(f"matches: '{pattern}' repeats {repeats} times in all; at most {MAX_REPEATS} are allowed")
