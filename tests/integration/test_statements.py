"""Statements in files: each is used by the Python beside it, and the server can prepare each."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from upnext.project import Project
from upnext.settings import PROJECT
from upnext.warehouse.statements import load

LINE_LENGTH = 120
FOLDERS = sorted(path.parent for path in (PROJECT / "upnext").rglob("sql/__init__.py"))
# What PREPARE does not take is run and taken back: it also makes the temporary tables of what follows.
UTILITY = re.compile(r"(--.*\n|\s)*(create|drop|truncate|analyze|lock)\b")


def names_used(package: Path) -> set[str]:
    """Return the constants that Python of a package looks up in `SQL`, or names beside it for a loop."""
    texts = [node.value for path in package.rglob("*.py") for node in ast.walk(ast.parse(path.read_text()))
             if isinstance(node, ast.Constant) and isinstance(node.value, str)]  # fmt: skip
    return set(texts)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.parent.name)
def test_each_statement_is_used(folder: Path) -> None:
    assert set(load(folder)) - names_used(folder.parent) == set()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.parent.name)
def test_the_server_can_prepare_each(ticked: Project, folder: Path) -> None:
    statements = load(folder)
    assert statements
    with ticked.engine.connect() as connection:
        utility = {name for name, statement in statements.items() if UTILITY.match(str(statement))}
        makes = {name for name in utility if "create" in str(statements[name])}
        for name in (name for name in statements if name in makes):
            connection.execute(statements[name], dict.fromkeys(statements[name].compile().params))
        for name in statements.keys() - utility:
            compiled: Any = statements[name].compile(dialect=connection.dialect)
            numbers = {bound: f"${place}" for place, bound in enumerate(dict.fromkeys(compiled.params), start=1)}
            text = str(compiled) % numbers
            connection.exec_driver_sql(f'prepare "{name}" as {text}'.replace("%", "%%"))
            connection.exec_driver_sql(f'deallocate "{name}"')
        for name in utility - makes:
            connection.execute(statements[name])
        connection.rollback()


def test_no_line_is_too_long() -> None:
    models = [
        path for folder in ("macros", "engine", "models") for path in (PROJECT / "dbt_project" / folder).rglob("*.sql")
    ]
    files = [*(PROJECT / "upnext").rglob("*.sql"), *models]
    long = [
        f"{path.name}:{number}"
        for path in files
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if len(line) > LINE_LENGTH
    ]
    assert len(files) > 25
    assert long == []


def test_a_name_that_stands_twice_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.sql").write_text("-- name: one\nselect 1;\n-- name: one\nselect 2;\n")
    with pytest.raises(ValueError, match="the statement 'one' stands twice"):
        load(tmp_path)


def test_what_is_between_two_names_is_one_statement(tmp_path: Path) -> None:
    (tmp_path / "a.sql").write_text("-- About both.\n\n-- name: one\n-- Why.\nselect 1;\n\n-- name: two\nselect :x;\n")
    found = load(tmp_path)
    assert {name: str(statement) for name, statement in found.items()} == {
        "one": "-- Why.\nselect 1", "two": "select :x",
    }  # fmt: skip
    assert isinstance(found["two"], sa.TextClause)
