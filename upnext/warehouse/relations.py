"""The names of Upnext's own tables and views, which nothing that people declare may take. Pure."""

import re
from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
_MADE = re.compile(r"^create (?:unlogged table|table|or replace view) (\w+)\.(\w+)", re.MULTILINE)


@cache
def taken_names(schema: str) -> frozenset[str]:
    """Return the tables and views of a schema that Upnext itself makes, or has made."""
    made = (one for path in _PACKAGE.rglob("*.sql") for one in _MADE.findall(path.read_text(encoding="utf-8")))
    return frozenset(name for of, name in made if of == schema)
