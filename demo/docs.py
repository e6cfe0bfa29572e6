"""`make pictures`: the tables and pictures of README and guides, made from current output, mails and pages.

The tables come from the demo at a fixed end. `sources.json`, beside the pictures, has a fingerprint of what each
picture shows. With it a test detects an outdated picture, even on a machine without a browser.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from demo.otto import END
from demo.pictures import report, site
from upnext.errors import UpnextError
from upnext.features.definition import example
from upnext.journeys.copy import samples
from upnext.journeys.copy.message import Sender
from upnext.journeys.copy.rendering import render
from upnext.project import Project
from upnext.settings import PROJECT, Settings

PICTURES = PROJECT / "docs" / "pictures"
SOURCES = PICTURES / "sources.json"
README = PROJECT / "README.md"
RESULTS_GUIDE = PROJECT / "docs" / "results.md"
# The page and the block that show each printed output.
BLOCKS = ((README, "demo"), (README, "results"), (RESULTS_GUIDE, "results"))
SIZE = (640, 760)


def printed_tables(home: Path, *, picture: str | None = None) -> dict[str, str]:
    """Run the demo in an empty home, and return its output and that of `upnext results`, by the name of the block.

    `picture` is the browser that then takes pictures of the report and of the graph.
    """
    environment = {**os.environ, "UPNEXT_HOME": str(home), "UPNEXT_DATABASE_URL": "", "COLUMNS": "100"}
    upnext = str(Path(sys.executable).parent / "upnext")

    def printed(*command: str) -> str:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=PROJECT)
        if done.returncode:
            raise UpnextError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
        return "\n".join(line.rstrip() for line in done.stdout.splitlines())

    try:
        demo = printed(sys.executable, "-m", "demo", "--no-ui", "--end", END.isoformat())
        results = printed(upnext, "results")
        if picture is not None:
            report.take(home, PICTURES, picture)
    finally:
        subprocess.run([upnext, "down"], env=environment, check=True, stdout=subprocess.DEVNULL)
    return {"demo": demo.partition("\nMails are in")[0], "results": results}


def block(page: str, name: str) -> str:
    """Return the text of a block of a page."""
    found = re.search(_pattern(name), page, re.DOTALL)
    if found is None:
        raise UpnextError(f"no block <!-- make pictures: {name} --> on the page")
    return found[2]


def with_block(page: str, name: str, text: str) -> str:
    """Return a page with the text of one block replaced."""
    return re.sub(_pattern(name), lambda found: f"{found[1]}{text}{found[3]}", page, flags=re.DOTALL)


def mails() -> dict[str, str]:
    """Return the HTML of each mail that the product sends, for a made-up user, by the name of its step."""
    project = Project(Settings.from_environment({}))
    features = {name: example(feature, END) for name, feature in project.features["user_features"].items()}
    templates = project.settings.campaigns / "templates"
    person = samples.made_up({}, features)
    sender = Sender("Otto <hello@otto.example>", None, [], str(templates))
    return {
        label: dict(samples.parts(render(request, sender)))["html"]
        for name, journey in project.journeys.items()
        for _, label, request in samples.requests(name, journey, templates, person=person, date=END)
    }


def fingerprints() -> dict[str, str]:
    """Return a fingerprint of what each picture shows: a mail, by the name of its step, a page, or the graph."""
    of_mails = {name: hashlib.sha256(html.encode()).hexdigest()[:16] for name, html in mails().items()}
    return {**of_mails, **dict.fromkeys(site.NAMES, site.fingerprint()), **report.fingerprints()}


def main() -> None:
    """Rewrite the tables and pictures."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        raise UpnextError("the pictures of the mails need a browser: install chromium")
    with tempfile.TemporaryDirectory() as folder:
        for page, text in _pages(printed_tables(Path(folder) / "home", picture=browser)).items():
            page.write_text(text)
        for name, html in mails().items():
            _photograph(browser, Path(folder), name, html)
        site.take(Path(folder) / "site", PICTURES, browser)
    SOURCES.write_text(json.dumps(fingerprints(), indent=2) + "\n")


def _pages(printed: dict[str, str]) -> dict[Path, str]:
    pages = {page: page.read_text() for page, _ in BLOCKS}
    for page, name in BLOCKS:
        pages[page] = with_block(pages[page], name, printed[name])
    return pages


def _photograph(browser: str, folder: Path, name: str, html: str) -> None:
    page = folder / f"{name}.html"
    page.write_text(html)
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
               "--disable-component-update", "--disable-sync", "--hide-scrollbars",
               f"--user-data-dir={folder / 'browser'}", f"--window-size={SIZE[0]},{SIZE[1]}",
               f"--screenshot={PICTURES / name}.png"]  # fmt: skip
    subprocess.run([browser, *options, page.as_uri()], check=True, stderr=subprocess.DEVNULL)


def _pattern(name: str) -> str:
    begin, end = "```text\n(?:\\$ [^\n]*\n)?", "\n```"
    return rf"(<!-- make pictures: {name} -->\n+{begin})(.*?)({end})"


if __name__ == "__main__":
    try:
        main()
    except UpnextError as error:
        sys.exit(f"docs: {error}")
