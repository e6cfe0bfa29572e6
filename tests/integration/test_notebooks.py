"""Notebooks: run on a warehouse, shown as pages that ask for nothing, and without outputs in git."""

import json
import re
from pathlib import Path

import pytest

from tests.conftest import AS_OF, Product, start
from upnext.errors import UpnextError
from upnext.loop import tick
from upnext.project import Project
from upnext.report import notebooks
from upnext.report.book import Book
from upnext.report.read import read


def test_they_hold_no_outputs_and_no_logic() -> None:
    for name in notebooks.names():
        cells = json.loads((notebooks.FOLDER / f"{name}.ipynb").read_text())["cells"]
        code = [cell for cell in cells if cell["cell_type"] == "code"]
        assert [cell for cell in code if cell["outputs"] or cell["execution_count"]] == [], name
        assert code[0]["metadata"]["tags"] == ["parameters"], name
        text = "".join(line for cell in code for line in cell["source"])
        assert re.findall(r"select|for |def |if |lambda", text) == [], name


@pytest.fixture
def at_hand(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A warehouse with members, which the environment names too: a notebook is a process of its own."""
    product = Product(project)
    start(project)
    for name in ("ada", "bob"):
        product.power_user(name, AS_OF)
    tick(project, AS_OF)
    monkeypatch.setenv("UPNEXT_HOME", str(project.settings.home))
    monkeypatch.setenv("UPNEXT_DATABASE_URL", project.settings.database_url or "")
    return project


def test_each_runs_and_is_a_page_that_asks_for_nothing(at_hand: Project) -> None:
    assert notebooks.names() == ["experiment_readout", "journey_review", "segment_explorer"]
    for name in notebooks.names():
        page = notebooks.run(at_hand.settings, name, {"days": "30"}).read_text()
        assert re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="http[^"]*"', page) == []
        assert page.count("<details") >= 5
        assert "ada@" not in page
    explored = (at_hand.settings.home / "notebooks" / "segment_explorer.html").read_text()
    assert "image/svg+xml" in explored
    assert "busy_users" in explored


def test_what_there_is_not_is_named(at_hand: Project) -> None:
    for name, parameters, mistake in (
        ("segment_explored", {}, "no notebook is called 'segment_explored'; did you mean 'segment_explorer'"),
        ("segment_explorer", {"segments": "x"}, "has no parameter 'segments'; did you mean 'segment'"),
        ("segment_explorer", {"segment": "busy_user"}, "no segment is called 'busy_user'; did you mean 'busy_users'"),
    ):
        with pytest.raises(UpnextError, match=mistake):
            notebooks.run(at_hand.settings, name, parameters)


def test_an_empty_warehouse_reads_well(project: Project) -> None:
    book = Book(read(project))
    assert book.as_of == "nothing has been computed yet"
    assert book.choose("experiment", None) is None
    assert book.members(book.choose("segment", None), 30) == "Nothing in this time."
    assert book.advice(None) == "Nobody has seen it yet."
    assert len(book.steps(None)) == 0


def test_the_page_of_a_failed_run_is_not_that_of_an_older_one(at_hand: Project, tmp_path: Path) -> None:
    page = notebooks.run(at_hand.settings, "journey_review", {})
    before = page.stat().st_mtime_ns
    with pytest.raises(UpnextError):
        notebooks.run(at_hand.settings, "journey_review", {"journey": "nowhere"})
    assert page.stat().st_mtime_ns == before
