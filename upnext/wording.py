"""Error messages for declarations, in plain words: the value, the allowed values, the nearest match. Pure.

msgspec checks declarations and reports the place of the first error. This module writes the message from the type
declared for that place, so an error lists the allowed values of that place alone, and never a regular expression.
"""

import datetime
import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import inspect

from upnext.errors import nearest

Keys = list[str | int]
ANY = "..."
"""A value of a mapping, by whatever name: msgspec does not tell which."""

_WORDS: dict[str, str] = {}


def worded(pattern: str, words: str) -> msgspec.Meta:
    """Return the constraint of a text, which errors call by these words."""
    _WORDS[pattern] = words
    return msgspec.Meta(pattern=pattern)


def explain(message: str, where: str, value: Any, kind: type[msgspec.Struct]) -> tuple[Keys, str]:
    """Return the keys of the place that msgspec has complained of, and what is wrong there.

    `message` and `where` are msgspec's own (`Expected ...`, `$.steps[0].name`), `value` is all that was declared.
    """
    keys = _keys(where)
    declared: inspect.Type = inspect.type_info(kind)
    for depth in range(len(keys)):
        declared = _chosen(declared, value)
        if keys[depth] == ANY:
            keys[depth] = _misfit(declared, value)
        declared, value = _below(declared, keys[depth]), _value_below(value, keys[depth])
    declared = _chosen(declared, value)
    if where.startswith("`key` in ") and isinstance(declared, inspect.DictType):
        key = next(str(key) for key in value if not _fits(declared.key_type, key))
        return [*keys, key], f"'{key}' is no key of '{keys[-1]}'; each must be {describe(declared.key_type)}"
    if found := re.match(r"Object missing required field `(.+)`", message):
        return keys, f"'{found[1]}' is missing; it is {describe(_below(declared, found[1]))}"
    if found := re.match(r"Object contains unknown field `(.+)`", message):
        return [*keys, found[1]], f"unknown key '{found[1]}'{nearest(found[1], _allowed_keys(declared))}"
    if re.match(r"Expected |Invalid ", message):
        stated = shown(value)
        if isinstance(value, datetime.date) and "a time with a zone" in describe(declared):
            stated = f"{value}, without a zone"
        return keys, f"{_subject(keys)} is {stated}; it must be {describe(declared)}{_near(value, declared)}"
    return keys, message


def describe(declared: inspect.Type) -> str:
    """Return what a place takes, in words."""
    match declared:
        case inspect.StrType(pattern=str(pattern)):
            return _WORDS.get(pattern, "text of another form")
        case inspect.StrType():
            most = "" if declared.max_length is None else f" of at most {declared.max_length} characters"
            return f"text{most}{', not empty' if declared.min_length else ''}"
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType() | inspect.FloatType():
            noun = "a whole number" if isinstance(declared, inspect.IntType) else "a number"
            bounds = (("of at least", declared.ge), ("above", declared.gt), ("of at most", declared.le),
                      ("below", declared.lt))  # fmt: skip
            return " ".join(
                [noun, " and ".join(f"{word} {bound:g}" for word, bound in bounds if bound is not None)]
            ).strip()
        case inspect.TupleType(item_types=items):
            return f"a list of {len(items)}, such as [{', '.join(str(10 * nth) for nth in range(1, len(items) + 1))}]"
        case inspect.DateTimeType():
            return "a time with a zone, such as 2026-03-01T00:00:00Z"
        case inspect.LiteralType(values=values):
            return f"{'one of ' if len(values) > 1 else ''}{', '.join(map(str, values))}"
        case inspect.ListType():
            such = ", such as [a, b]" if isinstance(declared.item_type, inspect.StrType) else ""
            return f"a list{such}{', with one entry at least' if declared.min_length else ''}"
        case inspect.DictType():
            return f"a mapping, such as {{name: value}}{', with one entry at least' if declared.min_length else ''}"
        case inspect.StructType():
            needed = [field.encode_name for field in declared.fields if field.required]
            if declared.tag is not None:
                return f"a mapping with {declared.tag_field}: {declared.tag}"
            return f"a mapping of {', '.join(needed or [field.encode_name for field in declared.fields])}"
        case inspect.UnionType(types=types):
            tagged = [one for one in types if isinstance(one, inspect.StructType) and one.tag is not None]
            if tagged:
                return f"a mapping with {tagged[0].tag_field}: {', '.join(str(one.tag) for one in tagged)}"
            words = [describe(one) for one in types if not isinstance(one, inspect.NoneType)]
            return " or ".join(dict.fromkeys(words))
    return "something else"


def shown(value: Any) -> str:
    """Return a value of YAML as a sentence names it."""
    match value:
        case None:
            return "empty"
        case bool():
            return str(value).lower()
        case str():
            return f"'{value[:60]}'"
        case datetime.date():
            return f"the date {value}, which counts as text only in quotes"
        case list():
            return "a list" if value else "an empty list"
        case Mapping():
            return "a mapping" if value else "an empty mapping"
    return f"{value}"


def _subject(keys: Keys) -> str:
    names = [key for key in keys if isinstance(key, str)]
    return f"'{names[-1]}'" if names else "the file"


def _near(value: Any, declared: inspect.Type) -> str:
    options = _options(declared)
    hint = nearest(value, options) if isinstance(value, str) and options else ""
    return hint if hint.startswith("; did you mean") else ""


def _options(declared: inspect.Type) -> list[str]:
    match declared:
        case inspect.LiteralType(values=values):
            return [str(value) for value in values]
        case inspect.UnionType(types=types):
            return [option for one in types for option in _options(one)]
    return []


def _keys(where: str) -> Keys:
    """Turn a path such as `$.steps[0].name` into keys."""
    parts = re.findall(r"\.(\w+)|\[(\d+)\]|\[(\.\.\.)\]|\[\"([^\"]*)\"\]", where)
    return [int(number) if number else name or wildcard or quoted for name, number, wildcard, quoted in parts]


def _chosen(declared: inspect.Type, value: Any) -> inspect.Type:
    """Return the member of a union that a value is meant to be, where that is clear."""
    if not isinstance(declared, inspect.UnionType):
        return declared
    structs = [one for one in declared.types if isinstance(one, inspect.StructType)]
    if isinstance(value, Mapping):
        for one in structs:
            if one.tag is not None and value.get(one.tag_field) == one.tag:
                return one
        others = [one for one in declared.types if isinstance(one, inspect.DictType)]
        untagged = [one for one in structs if one.tag is None]
        if len([*untagged, *others]) == 1:
            return [*untagged, *others][0]
    if isinstance(value, list):
        return next((one for one in declared.types if isinstance(one, inspect.ListType)), declared)
    return declared


def _below(declared: inspect.Type, key: str | int) -> inspect.Type:
    match declared:
        case inspect.StructType() if key in _fields(declared):
            return _fields(declared)[str(key)].type
        case inspect.StructType(tag=str(tag), tag_field=str(field)) if key == field:
            return inspect.LiteralType((tag,))
        case inspect.DictType(value_type=below) | inspect.ListType(item_type=below):
            return below
        case inspect.UnionType(types=types):
            tags = tuple(str(one.tag) for one in types if isinstance(one, inspect.StructType) and one.tag_field == key)
            if tags:
                return inspect.LiteralType(tags)
    return inspect.AnyType()


def _value_below(value: Any, key: str | int) -> Any:
    try:
        return value[key]
    except (KeyError, IndexError, TypeError):
        return None


def _fields(declared: inspect.Type) -> dict[str, inspect.Field]:
    return {field.encode_name: field for field in declared.fields} if isinstance(declared, inspect.StructType) else {}


def _allowed_keys(declared: inspect.Type) -> list[str]:
    tag_field = getattr(declared, "tag_field", None)
    return [*_fields(declared), *([tag_field] if tag_field else [])]


def _misfit(declared: inspect.Type, value: Any) -> str:
    """Return the key of a mapping whose value does not fit; msgspec has found one of them."""
    entries = value if isinstance(value, Mapping) else {}
    below = declared.value_type if isinstance(declared, inspect.DictType) else inspect.AnyType()
    return next((str(key) for key, one in entries.items() if not _fits(below, one)), ANY)


def _fits(declared: inspect.Type, value: Any) -> bool:
    match declared:
        case inspect.UnionType(types=types):
            return any(_fits(one, value) for one in types)
        case inspect.StructType(cls=kind):
            try:
                msgspec.convert(value, kind)
            except msgspec.ValidationError:
                return False
            return True
        case inspect.StrType(pattern=pattern):
            return isinstance(value, str) and (pattern is None or re.search(pattern, value) is not None)
        case inspect.BoolType():
            return isinstance(value, bool)
        case inspect.IntType() | inspect.FloatType():
            return isinstance(value, int | float) and not isinstance(value, bool)
        case inspect.ListType(item_type=item):
            return isinstance(value, list) and all(_fits(item, one) for one in value)
        case inspect.NoneType():
            return value is None
    return True
