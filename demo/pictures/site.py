"""The pictures of Otto's website: the real site, the real edge, and two invented users who see something."""

import hashlib
import json
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from urllib.request import urlopen
from wsgiref.simple_server import make_server

from demo.dev import Quiet, key_of_site
from demo.site.app import COOKIE, HERE, Site, create
from upnext.clock import utc_now
from upnext.edge import script
from upnext.experiences.definition import CONTROL, arm_of
from upnext.loop import tick
from upnext.operations.controls import start_all
from upnext.project import Project
from upnext.settings import Settings
from upnext.warehouse.embedded import EmbeddedServer

SITE_PORT, EDGE_PORT = 8781, 8780
CURIOUS = ("subscribed newsletter", "viewed upgrade plan")
POWER_USER = ("subscribed to basic plan", "product viewed", *["login"] * 10, *["created ml task"] * 5)
NAMES = ("otto_home", "otto_dashboard")


def fingerprint() -> str:
    """Return a fingerprint of what the pictures show."""
    project = Project(Settings.from_environment({}))
    shown = [project.settings.campaigns / "experiences" / f"{name}.yml" for name in ("upgrade_banner", "feature_modal")]
    files = [*sorted(path for path in HERE.rglob("*") if path.suffix in (".html", ".css", ".js")), *shown]
    files += sorted((Path(script.__file__).parent / "web" / "built").glob("*.js"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]


def take(folder: Path, pictures: Path, chromium: str) -> None:
    """Photograph the home page with a banner, and the dashboard with a dialog."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - of the tests, which those who run this have

    with served(folder) as users, sync_playwright() as driver:
        # A browser that calls itself headless is taken for a program.
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        agent = f"Mozilla/5.0 (X11; Linux x86_64) Chrome/{browser.version} Safari/537.36"
        for name, user in users.items():
            context = browser.new_context(
                user_agent=agent, viewport={"width": 1000, "height": 560}, reduced_motion="reduce"
            )
            context.add_cookies([{"name": COOKIE, "value": user, "url": f"http://127.0.0.1:{SITE_PORT}"}])
            page = context.new_page()
            page.goto(f"http://127.0.0.1:{SITE_PORT}/{'dashboard' if name == 'otto_dashboard' else ''}")
            page.wait_for_load_state("networkidle")
            if name == "otto_dashboard":
                page.get_by_role("button", name="Forecasts").click()
            page.locator("upnext-cta").first.wait_for(state="attached")
            page.screenshot(path=pictures / f"{name}.png")
            context.close()
        browser.close()


@contextmanager
def served(folder: Path) -> Iterator[dict[str, str]]:
    """Serve the site and the edge from a home in a folder; yield who looks at which picture."""
    secret = secrets.token_urlsafe(32)
    variables = {"UPNEXT_HOME": str(folder), "UPNEXT_DATABASE_URL": "", "UPNEXT_EDGE_TOKEN_KEYS": secret}
    project = Project(Settings.from_environment({"UPNEXT_HOME": str(folder)}))
    start_all(project, by="make pictures")
    users = {
        "otto_home": treated(project, "upgrade_banner", "Robin"),
        "otto_dashboard": treated(project, "feature_modal", "Sam"),
    }
    write(project.settings.landing / "segment", users["otto_home"], POWER_USER)
    write(project.settings.landing / "segment", users["otto_dashboard"], CURIOUS)
    tick(project, None)
    key = key_of_site(project, f"http://127.0.0.1:{SITE_PORT}")
    site = Site(project.engine, f"http://127.0.0.1:{EDGE_PORT}", key, secret)
    server = make_server("127.0.0.1", SITE_PORT, create(site), handler_class=Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    command = [str(Path(sys.executable).parent / "upnext"), "edge", "--port", f"{EDGE_PORT}"]
    with subprocess.Popen(command, env={**os.environ, **variables}, stdout=subprocess.DEVNULL) as edge:
        try:
            wait_for(f"http://127.0.0.1:{EDGE_PORT}/readyz")
            yield users
        finally:
            edge.terminate()
            server.shutdown()
            project.engine.dispose()
            EmbeddedServer(folder / "postgres").stop()


def treated(project: Project, experience: str, name: str) -> str:
    """Return a name, with a number where it has to be, that the experience does not draw into its control group."""
    names = (f"{name.lower()}{number or ''}" for number in range(100))
    declared = project.experiences[experience]
    return next(one for one in names if arm_of(experience, declared, one) != CONTROL)


def write(folder: Path, user: str, events: tuple[str, ...]) -> None:
    """Let a file with a user's events land."""
    folder.mkdir(parents=True, exist_ok=True)
    at = (utc_now() - timedelta(hours=1)).isoformat()
    lines = [
        json.dumps({"type": "track", "event": event, "userId": user, "messageId": f"{user}-{nth}", "timestamp": at})
        for nth, event in enumerate(events)
    ]
    (folder / f"{user}.jsonl").write_text("\n".join(lines) + "\n")


def wait_for(url: str) -> None:
    """Return when a server of ours answers."""
    for _ in range(600):
        try:
            with urlopen(url, timeout=2):  # noqa: S310 - on loopback
                return
        except OSError:
            threading.Event().wait(0.1)
    raise TimeoutError(f"{url} does not answer")
