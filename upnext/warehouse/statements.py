"""Statements: SQL in files beside the Python that runs them, each under a line `-- name: <name>`."""

import re
from collections.abc import Mapping
from pathlib import Path

import sqlalchemy as sa

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def load(folder: Path) -> Mapping[str, sa.TextClause]:
    """Return the statements of all `*.sql` of a folder by name; `:value` in them is a bound value.

    Raises `ValueError` for a repeated name.
    """
    found: dict[str, sa.TextClause] = {}
    for path in sorted(folder.glob("*.sql")):
        _, *parts = _NAME.split(path.read_text(encoding="utf-8"))
        for name, text in zip(parts[::2], parts[1::2], strict=True):
            if name in found:
                raise ValueError(f"{path}: the statement '{name}' stands twice")
            found[name] = sa.text(text.strip().removesuffix(";"))
    return found
