"""The pictures of the demo: the report, and the graph in Dagster's UI."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from demo.pictures.site import wait_for
from upnext.dev import prepare
from upnext.project import Project
from upnext.report import page
from upnext.report.write import write
from upnext.settings import PROJECT, Settings

UI_PORT = 8782
SIZE = (1200, 760)
GRAPH_AT: Any = {"x": 550, "y": 350, "width": 640, "height": 100}
"""Where the UI draws the groups."""
GRAPH = PROJECT / "tests" / "fixtures" / "graph.json"
"""The groups of the graph, as the tests hold them."""


def fingerprints() -> dict[str, str]:
    """Return a fingerprint of what each picture shows."""
    folder = Path(page.__file__).parent
    files = [
        *sorted((folder / "template").iterdir()),
        *(folder / name for name in ("page.py", "charts.py", "words.py")),
    ]
    return {"report": _hash(*files), "graph": _hash(GRAPH, PROJECT / "orchestration" / "appearance.py")}


def take(home: Path, pictures: Path, chromium: str) -> None:
    """Photograph the report of the demo in a home, and the graph."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - of the tests, which those who run this have

    settings = Settings.from_environment({"UPNEXT_HOME": str(home)})
    project = Project(settings)
    path = write(project)
    project.engine.dispose()
    environment = {**os.environ, **prepare(settings), "PYTHONWARNINGS": "ignore"}
    command = [str(Path(sys.executable).parent / "dagster-webserver"), "-w", str(PROJECT / "workspace.yaml"),
               "-h", "127.0.0.1", "-p", f"{UI_PORT}", "--log-level", "warning"]  # fmt: skip
    with (
        subprocess.Popen(command, env=environment, cwd=settings.dagster_home) as webserver,
        sync_playwright() as driver,
    ):
        try:
            browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            size = {"width": SIZE[0], "height": SIZE[1]}
            tab = browser.new_page(viewport=size, device_scale_factor=2)  # type: ignore[arg-type]
            tab.goto(path.as_uri())
            tab.wait_for_selector("html[data-drawn=all]", state="attached")
            tab.screenshot(path=pictures / "report.png", scale="css")
            wait_for(f"http://127.0.0.1:{UI_PORT}/server_info")
            tab.goto(f"http://127.0.0.1:{UI_PORT}/asset-groups")
            # The first is in the list beside the graph.
            tab.get_by_text("reports", exact=True).filter(visible=True).nth(1).wait_for(timeout=60_000)
            tab.wait_for_load_state("networkidle")
            tab.screenshot(path=pictures / "graph.png", clip=GRAPH_AT)
            browser.close()
        finally:
            webserver.terminate()


def _hash(*files: Path) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]
