"""What people declare in YAML, checked on load: errors name the file, the line and the nearest match."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec
import yaml

from upnext.errors import UpnextError, nearest
from upnext.wording import ANY, explain, worded

MAX_NAME = 63
"""Postgres cuts longer names."""
NAME = rf"^[a-z][a-z0-9_]{{0,{MAX_NAME - 1}}}$"
Name = Annotated[str, worded(NAME, "a name of a-z, 0-9 and _, beginning with a letter")]
"""An identifier: a table, a file or an experiment can be called this."""

Share = Annotated[float, msgspec.Meta(ge=0, lt=1)]
"""A part of all users, 0 up to but not including 1."""

Percent = Annotated[str, worded(r"^(?!0*\.?0* ?%)\d{1,2}(\.\d{1,3})? ?%$", "a share such as 99.9 %")]
"""A part of all, in per cent."""

Date = Annotated[str, worded(r"^\d{4}-\d{2}-\d{2}$", 'a date in quotes such as "2026-04-05"')]

Link = Annotated[
    str,
    worded(
        r"^(https://[^/\s]|/($|[^/\\]))[^\s]*$", "an address such as https://otto.example/upgrade, or a path such as /x"
    ),
]
"""Where a click leads: an https address, or a path of the site that shows it."""

PROGRAMME = "programme"
"""The experiment over all journeys and experiences: no file may have its name."""
Keys = list[str | int]
"""The way to a value of a YAML file, from the top."""


class Problem(NamedTuple):
    """A mistake and its place in the file: by keys in YAML, otherwise by the line, counted from 1."""

    place: Keys | int
    text: str


# libyaml, where the machine has it: reading hundreds of features in Python would take longer than a tick's work in SQL.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Declared = TypeVar("Declared", bound=msgspec.Struct)


class Described(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A model or a column in a dbt file, with the keys that dbt knows beside those that Upnext reads."""

    name: str
    description: str = ""
    meta: Any = None
    access: Any = None
    agg_time_dimension: Any = None
    constraints: Any = None
    data_tests: Any = None
    data_type: Any = None
    deprecation_date: Any = None
    derived_semantics: Any = None
    dimension: Any = None
    docs: Any = None
    entity: Any = None
    granularity: Any = None
    group: Any = None
    latest_version: Any = None
    metrics: Any = None
    policy_tags: Any = None
    primary_entity: Any = None
    quote: Any = None
    quote_columns: Any = None
    semantic_model: Any = None
    tags: Any = None
    tests: Any = None
    time_spine: Any = None
    versions: Any = None

    def __post_init__(self) -> None:
        if self.meta is not None:
            raise ValueError("'meta' stands below config: `config: {meta: {...}}`")


class DescribedFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A dbt file, with the keys that dbt knows beside `models`."""

    version: Any = None
    analyses: Any = None
    anchors: Any = None
    data_tests: Any = None
    exposures: Any = None
    functions: Any = None
    groups: Any = None
    macros: Any = None
    metrics: Any = None
    saved_queries: Any = None
    seeds: Any = None
    semantic_models: Any = None
    snapshots: Any = None
    sources: Any = None
    tests: Any = None
    unit_tests: Any = None


class Declaration(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of everything that is declared in YAML: unknown keys are errors."""


def load(path: Path, kind: type[Declared]) -> Declared:
    """Read one YAML file as `kind`. Raises `UpnextError` with file and line."""
    text = read_text(path)
    try:
        tree = _LOADER(text).get_single_node()
        _check_keys(tree, path)
        value = _value_of(tree, path)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UpnextError(f"{path}:{line}: not valid YAML: {error.problem}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UpnextError(f"{path}:{line}: not valid YAML: {error.reason}") from None
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        # A check of its own names a place within the one that msgspec names after it.
        message, *places = str(error).split(" - at ")
        where = "".join(reversed(places))
        keys, mistake = explain(message, where, value, kind)
        raise UpnextError(f"{path}:{_line(tree, keys)}: {mistake}") from None


def read_text(path: Path) -> str:
    """Return the text of a file that people write. Raises `UpnextError` where it is not in UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UpnextError(f"{path}:{line}: not valid UTF-8") from None


def load_folder(folder: Path, kind: type[Declared]) -> dict[str, Declared]:
    """Read each `*.yml` of a folder; the key is the file's stem, in the order of the names."""
    paths = sorted(folder.glob("*.yml"))
    for path in folder.glob("*.yaml"):
        raise UpnextError(f"{path}: files that declare something end in .yml; rename it")
    for path in (*folder.glob("[!.]*/**/*.yml"), *folder.glob("[!.]*/**/*.yaml")):
        raise UpnextError(f"{path}: nobody looks for it in a folder of its own; move it into {folder}")
    for path in paths:
        check_name(path)
    return {path.stem: load(path, kind) for path in paths}


def check_name(path: Path) -> None:
    """Raise `UpnextError` for a file whose name is no name in SQL."""
    if not re.fullmatch(NAME, path.stem):
        raise UpnextError(f"{path}: the file's name is the name in SQL; use a-z, 0-9 and _, beginning with a letter")


def check(path: Path, problems: Iterable[Problem]) -> None:
    """Raise `UpnextError` with the line for the first problem of a file."""
    for place, text in problems:
        line = place if isinstance(place, int) else line_of(path, place)
        raise UpnextError(f"{path}:{line}: {text}")


def unknown(keys: Keys, kind: str, names: Iterable[str], known: Collection[str]) -> Iterator[Problem]:
    """Yield a problem for each name that is not known, with its nearest match."""
    for name in names:
        if name not in known:
            yield Problem(keys, f"unknown {kind} '{name}'{nearest(name, known)}")


def segment_of_users(keys: Keys, name: str, units: Mapping[str, str]) -> Iterator[Problem]:
    """Yield a problem if a segment does not exist or holds accounts; `units` are `user_id` and `account_id`."""
    yield from unknown(keys, "segment", [name], units)
    if units.get(name) == "account_id":
        yield Problem(keys, f"'{name}' is a segment of accounts; this takes one that selects user_id")


def markup(keys: Keys, text: str) -> Iterator[Problem]:
    """Yield a problem if a text holds HTML or a script, because the page that shows it may not escape it."""
    found = re.search(r"<\s*[A-Za-z/!?][^>]*>?|&(#\w+|[A-Za-z]+);|javascript:", text, re.IGNORECASE)
    if found:
        yield Problem(keys, f"copy is plain text, and '{found[0]}' is markup; leave it out")


def line_of(path: Path, keys: Keys) -> int:
    """Return the line, counted from 1, of a key in a YAML file."""
    return _line(yaml.compose(read_text(path), Loader=_LOADER), keys)


# A plain text, and `<<`, which takes in another mapping.
_TEXT_KEYS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")


def _value_of(tree: yaml.Node | None, path: Path) -> Any:
    """Return the value of a document. Raises `UpnextError` with the line for what no value can be made of."""
    try:
        return None if tree is None else _LOADER("").construct_document(tree)
    except (ValueError, AttributeError, KeyError) as error:
        nodes = [node for node in _scalars(tree) if not _has_value(node)]
        line = nodes[0].start_mark.line + 1 if nodes else 1
        raise UpnextError(f"{path}:{line}: '{nodes[0].value if nodes else ''}' is no value: {error}") from None


def _has_value(node: yaml.ScalarNode) -> bool:
    try:
        _LOADER("").construct_object(node)
    except (ValueError, AttributeError, KeyError):
        return False
    return True


def _scalars(node: yaml.Node | None) -> Iterator[yaml.ScalarNode]:
    match node:
        case yaml.ScalarNode():
            yield node
        case yaml.SequenceNode():
            for value in node.value:
                yield from _scalars(value)
        case yaml.MappingNode():
            for _, value in node.value:
                yield from _scalars(value)


def _check_keys(node: yaml.Node | None, path: Path, *, within: tuple[yaml.Node, ...] = ()) -> None:
    """Raise `UpnextError` for a key that is no text, or is repeated (YAML keeps the last), and for an endless value."""
    if node is not None and any(node is outer for outer in within):
        raise UpnextError(f"{path}:{node.start_mark.line + 1}: what stands here holds itself, and would never end")
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise UpnextError(f"{path}:{key.start_mark.line + 1}: '{key.value}' stands here twice")
            if isinstance(key, yaml.ScalarNode) and key.tag not in _TEXT_KEYS:
                kind = key.tag.rpartition(":")[2]
                raise UpnextError(
                    f"{path}:{key.start_mark.line + 1}: YAML reads the key '{key.value}' as {kind}, not as text;"
                    " put it in quotes, or use another word"
                )
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else "")
            _check_keys(value, path, within=(*within, node))
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _check_keys(value, path, within=(*within, node))


def _line(node: yaml.Node | None, keys: Keys) -> int:
    line = node.start_mark.line + 1 if node else 1
    for depth, key in enumerate(keys, start=1):
        if isinstance(node, yaml.MappingNode):
            pairs = [pair for pair in node.value if pair[0].value == key]
            if key == ANY:
                pairs = [pair for pair in node.value if _leads_on(pair[1], keys[depth:])]
            if not pairs:
                break
            name, node = pairs[0]
            line = name.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            line = node.start_mark.line + 1
        else:
            break
    return line


def _leads_on(node: yaml.Node, keys: Keys) -> bool:
    is_mapping = isinstance(node, yaml.MappingNode)
    return not keys or (is_mapping and any(name.value == keys[0] or keys[0] == ANY for name, _ in node.value))
