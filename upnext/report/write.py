"""Writes the report: into the home, for people at this machine, and into the warehouse, for the edge."""

import gzip
import hashlib
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path

from upnext.project import Project
from upnext.report.mails import mails
from upnext.report.page import render
from upnext.report.read import read
from upnext.report.sql import SQL
from upnext.whole_file import replacing


def write(project: Project) -> Path:
    """Write the report of the newest tick, and return its file."""
    facts = read(project)
    facts = replace(facts, mails=mails(project, facts))
    page = render(facts, bundle=vega(), slots_css=slots_css()).encode()
    with project.engine.begin() as connection:
        # No time stands in the gzip, so that the same page is the same bytes.
        values = {"as_of": facts.as_of, "hash": hashlib.sha256(page).hexdigest(), "page": gzip.compress(page, mtime=0)}
        connection.execute(SQL["store_page"], values)
    path = file_of(project)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with replacing(path) as beside:
        beside.write_bytes(page)
    return path


def file_of(project: Project) -> Path:
    """Return the file of the report in Upnext's home."""
    return project.settings.home / "report" / "index.html"


@cache
def vega() -> str:
    """Return Vega's JavaScript, which `vl-convert-python` brings along."""
    import vl_convert  # noqa: PLC0415 - it loads an engine of JavaScript

    return str(vl_convert.javascript_bundle())  # type: ignore[call-arg]


def slots_css() -> str:
    """Return how calls to action look in their slots."""
    return (files("upnext.edge") / "web" / "src" / "slots.css").read_text(encoding="utf-8")
