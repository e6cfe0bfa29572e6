"""What people declare in YAML, checked on load: errors name the file, the line and the nearest match."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
import yaml

from orchestration.errors import UpnextError, nearest

Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
"""An identifier: a table, a file or an experiment can be called this."""

Duration = Annotated[str, msgspec.Meta(pattern=r"^\d{1,4} (minute|hour|day)s?$")]
"""A length of time such as `2 days`, in words that Postgres reads as an interval."""

Share = Annotated[float, msgspec.Meta(ge=0, lt=1)]
"""A part of all users, 0 up to but not including 1."""

ANY = "..."

Declared = TypeVar("Declared", bound=msgspec.Struct)


class Declaration(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of everything that is declared in YAML: unknown keys are errors."""


def load(path: Path, kind: type[Declared]) -> Declared:
    """Read one YAML file as `kind`. Raises `UpnextError` with file and line."""
    try:
        text = path.read_text(encoding="utf-8")
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        value = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UpnextError(f"{path}:{line}: not valid YAML: {error.problem}") from None
    except UnicodeDecodeError:
        raise UpnextError(f"{path}: not valid UTF-8") from None
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at ")
        keys = _keys(where)
        unknown = re.search(r"unknown field `(\w+)`", message)
        if unknown:
            keys = [*keys, unknown[1]]
            message = f"unknown key '{unknown[1]}'{nearest(unknown[1], _fields(kind, keys[:-1]))}"
        raise UpnextError(f"{path}:{_line(tree, keys)}: {message}") from None


def load_folder(folder: Path, kind: type[Declared], *, besides: Collection[str] = ()) -> dict[str, Declared]:
    """Read each `*.yml` of a folder, `besides` apart; the key is the file's stem, in the order of the names."""
    paths = [path for path in sorted(folder.glob("*.yml")) if path.stem not in besides]
    for path in paths:
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", path.stem):
            raise UpnextError(
                f"{path}: the file's name is the name in SQL; use a-z, 0-9 and _, beginning with a letter"
            )
    return {path.stem: load(path, kind) for path in paths}


def line_of(path: Path, keys: list[str | int]) -> int:
    """Return the line, counted from 1, at which a key of a YAML file stands."""
    return _line(yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader), keys)


def _keys(where: str) -> list[str | int]:
    """Turn a path such as `$.steps[0].name` in backticks into keys; `[...]`, a value by some name, is `ANY`."""
    parts = re.findall(r"\.(\w+)|\[(\d+)\]|\[(\.\.\.)\]", where)
    return [int(number) if number else name or wildcard for name, number, wildcard in parts]


def _line(node: yaml.Node | None, keys: list[str | int]) -> int:
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


def _leads_on(node: yaml.Node, keys: list[str | int]) -> bool:
    is_mapping = isinstance(node, yaml.MappingNode)
    return not keys or (is_mapping and any(name.value == keys[0] or keys[0] == ANY for name, _ in node.value))


def _fields(kind: type[msgspec.Struct], keys: list[str | int]) -> set[str]:
    """Return the field names of `kind`, or of whichever declarations nest below it at `keys`."""
    if not keys:
        return {field.name for field in msgspec.structs.fields(kind)}
    nested = msgspec.json.schema(kind).get("$defs", {})
    return {name for schema in nested.values() for name in schema.get("properties", {})}
