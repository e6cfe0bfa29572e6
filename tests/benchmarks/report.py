"""What the report costs: its size, and how long a browser draws it; and how long the code location takes to load.

    make bench-report

The facts are made up: a report as small as the demo's, and one of 200 segments, 100 experiences and a year of days.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright
from rich.console import Console
from rich.table import Table

from tests.reports import made_up
from upnext.report.facts import Facts
from upnext.report.page import render
from upnext.report.write import slots_css, vega
from upnext.settings import PROJECT

ROUNDS = 5
LOADS = "from orchestration.definitions import defs; assert len(defs().resolve_asset_graph().get_all_asset_keys()) > 30"


def drawn(browser: Browser, path: Path) -> float:
    """Return the seconds from opening a page to its last chart."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    begun = time.perf_counter()
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-drawn=all]", state="attached")
    seconds = time.perf_counter() - begun
    page.close()
    return seconds


def loaded(home: Path) -> float:
    """Return the seconds in which a process loads the code location, without a database."""
    environment = {**os.environ, "UPNEXT_HOME": str(home), "UPNEXT_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/x"}
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-W", "ignore", "-c", LOADS], cwd=PROJECT, env=environment, check=True)
    return time.perf_counter() - begun


def main() -> None:
    """Measure, and print a table."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise SystemExit("bench-report needs chromium")
    reports: dict[str, tuple[Facts, int, float]] = {
        "as small as the demo's": (made_up(segments=3, experiences=6, journeys=2, days=30), 2, 2),
        "200 segments, 100 experiences": (made_up(segments=200, experiences=100, journeys=10, days=366), 6, 5),
    }
    table = Table(title="The report", title_justify="left")
    for column in ("what", "asked", "median", "all"):
        table.add_column(column, justify="left" if column == "what" else "right")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, (facts, most_bytes, most_seconds) in reports.items():
            path = Path(folder) / "report.html"
            path.write_text(render(facts, bundle=vega(), slots_css=slots_css()), encoding="utf-8")
            seconds = [drawn(browser, path) for _ in range(ROUNDS)]
            table.add_row(f"{name}: MB", f"< {most_bytes}", f"{path.stat().st_size / 1e6:.1f}", "")
            _add(table, f"{name}: seconds to draw all of it", f"< {most_seconds}", seconds)
        browser.close()
        # The first load parses the dbt project.
        loaded(Path(folder) / "home")
        _add(table, "seconds to load the code location, no database", "< 5",
             [loaded(Path(folder) / "home") for _ in range(ROUNDS)])  # fmt: skip
    Console().print(table)


def _add(table: Table, name: str, asked: str, seconds: list[float]) -> None:
    table.add_row(name, asked, f"{statistics.median(seconds):.1f}", ", ".join(f"{one:.1f}" for one in seconds))


if __name__ == "__main__":
    main()
