"""The columns of Upnext's own tables, as the schema and its migrations declare them. Pure."""

import logging
from functools import cache
from pathlib import Path

import sqlglot
from sqlglot import exp

# It warns of functions and triggers that it cannot read. They have no columns.
logging.getLogger("sqlglot").setLevel(logging.ERROR)
_FOLDERS = (Path(__file__).parent / "schema", Path(__file__).parent / "migrations")


@cache
def columns() -> dict[str, dict[str, str]]:
    """Return the columns of each table by its full name, with their types."""
    found: dict[str, dict[str, str]] = {}
    for folder in _FOLDERS:
        for path in sorted(folder.glob("*.sql")):
            for statement in sqlglot.parse(path.read_text(encoding="utf-8"), read="postgres"):
                _read(statement, found)
    return found


def _read(statement: exp.Expr | None, found: dict[str, dict[str, str]]) -> None:
    match statement:
        case exp.Create(kind="TABLE", this=exp.Schema() as schema):
            table = schema.this
            found[f"{table.db}.{table.name}"] = {
                column.name: _type_of(column) for column in schema.expressions if isinstance(column, exp.ColumnDef)
            }
        case exp.Alter(kind="TABLE"):
            table = statement.this
            known = found.get(f"{table.db}.{table.name}", {})
            for action in statement.args.get("actions", ()):
                if isinstance(action, exp.ColumnDef):
                    known[action.name] = _type_of(action)
                elif isinstance(action, exp.Drop) and action.args.get("kind") == "COLUMN":
                    for column in action.args["tables"]:
                        known.pop(column.name, None)
        case exp.Drop(kind="TABLE"):
            for table in statement.args["tables"]:
                found.pop(f"{table.db}.{table.name}", None)
        case _:
            pass


def _type_of(column: exp.ColumnDef) -> str:
    kind = column.args.get("kind")
    return kind.sql(dialect="postgres").lower() if kind is not None else ""
