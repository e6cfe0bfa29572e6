"""The page of promises names tests that there are."""

import ast
import re

import pytest

from upnext.settings import PROJECT

ROW = re.compile(r"^\| (?P<fault>[^|]+) \| (?P<promise>[^|]+) \| `(?P<file>[\w/]+\.py)::(?P<test>test_\w+)` \|$")
PAGE = (PROJECT / "docs" / "trust.md").read_text().splitlines()
ROWS = [line for line in PAGE if line.startswith("|") and "---" not in line and "| test |" not in line]


def test_the_page_has_rows() -> None:
    assert len(ROWS) > 50


@pytest.mark.parametrize("row", ROWS)
def test_each_promise_has_a_test(row: str) -> None:
    found = ROW.match(row)
    assert found, row
    tree = ast.parse((PROJECT / "tests" / found["file"]).read_text())
    assert found["test"] in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
