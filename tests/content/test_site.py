"""Otto's website in a real browser: what somebody does there moves them, and changes what they see, within seconds."""

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from wsgiref.simple_server import make_server

import jwt
import pytest
from playwright.sync_api import Page, sync_playwright

from demo.dev import Quiet, key_of_site
from demo.site.app import Site, create
from tests.conftest import UPNEXT, free_port, rows, start, wait_for
from tests.integration.test_edge import Edge, running
from upnext.clock import utc_now
from upnext.loop import analyse_results, build, ingest_landing
from upnext.project import Project

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0 Safari/537.36"
SECRET = "a secret that signs for everybody in the demo"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


@pytest.fixture
def otto(project: Project) -> Iterator[tuple[Edge, str]]:
    """The site, the edge and the warm process on a warehouse of their own; the address of the site."""
    start(project)
    build(project, utc_now(), is_explicit=False)
    port = free_port()
    origin = f"http://127.0.0.1:{port}"
    key = key_of_site(project, origin)
    url = project.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    variables = {**os.environ, "UPNEXT_HOME": str(project.settings.home), "UPNEXT_DATABASE_URL": url}
    with running(project, UPNEXT_EDGE_TOKEN_KEYS=SECRET.replace(" ", "-")) as edge:
        site = Site(project.engine, f"http://127.0.0.1:{edge.port}", key, SECRET.replace(" ", "-"))
        server = make_server("127.0.0.1", port, create(site), handler_class=Quiet)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with subprocess.Popen([UPNEXT, "live"], env=variables, stdout=subprocess.DEVNULL) as live:
            yield edge, origin
            live.terminate()
        server.shutdown()


def become_curious(page: Page, origin: str) -> str:
    """Be somebody new who wants the newsletter and looks at the prices, and return who that is."""
    page.goto(origin)
    page.locator(".switch select").select_option("new")
    page.get_by_role("button", name="Switch").click()
    page.wait_for_load_state("load")
    user = page.locator(".switch b").inner_text()
    page.wait_for_function("window.upnext")
    page.get_by_role("button", name="Get the newsletter").click()
    page.get_by_role("link", name="See the plans").click()
    page.get_by_text("Told: viewed upgrade plan.").wait_for()
    return user


def shown(project: Project, user: str) -> str | None:
    """The variant that a user sees in the dialog, once the user is a member."""
    seen = "select variant from experiences.live_ctas where source = 'feature_modal' and user_id = :user"
    return next((variant for (variant,) in rows(project, seen, user=user)), None)


def test_a_visit_changes_what_is_shown_and_is_measured_in_both_arms(otto: tuple[Edge, str]) -> None:
    edge, origin = otto
    project = edge.project
    arms: dict[str, str] = {}
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for _ in range(20):
            page = browser.new_context(user_agent=AGENT).new_page()
            user = become_curious(page, origin)
            wait_for(lambda user=user: shown(project, user) is not None, "the slot")  # type: ignore[misc]
            arms[user] = shown(project, user) or ""
            page.goto(f"{origin}/dashboard")
            page.wait_for_load_state("networkidle")
            page.get_by_role("button", name="Forecasts").click()
            if arms[user] == "control":
                page.wait_for_timeout(100)
                assert page.locator("upnext-cta").count() == 0
            else:
                page.get_by_role("link", name="This feature is part of Premium").click(no_wait_after=True)
            page.context.close()
            if set(arms.values()) == {"control", "early_access"}:
                break
        browser.close()
    heard = (
        "select user_id, event, properties ->> 'variant' from raw.events"
        " where event like 'experience %' and properties ->> 'experience' = 'feature_modal'"
    )

    def reported() -> set[tuple[str, str, str]]:
        ingest_landing(project)
        return set(rows(project, heard))

    views = {(user, "experience viewed", arm) for user, arm in arms.items()}
    clicks = {(user, "experience clicked", arm) for user, arm in arms.items() if arm != "control"}
    wait_for(lambda: reported() == views | clicks, "the reports")
    assert len(set(arms.values())) == 2, json.dumps(arms)
    tick = build(project, utc_now(), is_explicit=False)
    analyse_results(project, tick.as_of)
    counted = "select distinct user_id from analytics.experiment_users where experiment = 'feature_modal'"
    assert {user for (user,) in rows(project, counted)} == set(arms)


def test_clients_that_nobody_wrote_for_this_do_the_same(otto: tuple[Edge, str], clients: Path) -> None:
    """Segment's client moves a user into a segment, and OpenFeature's provider for browsers sees the call to action."""
    edge, origin = otto
    project = edge.project
    esbuild = clients / "node_modules" / ".bin" / "esbuild"
    subprocess.run([esbuild, "page.mjs", "--bundle", "--outfile=page.js"], cwd=clients, check=True, capture_output=True)
    flag, arms = "in_app.feature_gated_modal", {}
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for number in range(20):
            user = f"stranger{number}"
            # The page is one of Otto's, without the policy that lets nothing in but Otto's own.
            page = browser.new_context(user_agent=AGENT, bypass_csp=True).new_page()
            page.goto(f"{origin}/pricing")
            page.add_script_tag(content=(clients / "page.js").read_text())
            claims = {"sub": user, "aud": "upnext", "exp": utc_now() + timedelta(hours=1)}
            token = jwt.encode(claims, SECRET.replace(" ", "-"), algorithm="HS256")
            asked = {"edge": f"http://127.0.0.1:{edge.port}", "key": key_of_site(project, origin)}
            page.evaluate("begin", {**asked, "user": user, "token": token})
            assert page.evaluate("look", flag)["variant"] == "none"
            assert page.evaluate("look", "in_app.nowhere")["errorCode"] == "FLAG_NOT_FOUND"
            for event in ("subscribed newsletter", "viewed upgrade plan"):
                page.evaluate("(event) => analytics.track(event).then(() => true)", event)
            wait_for(lambda page=page: page.evaluate("look", flag)["variant"] != "none", "the change")  # type: ignore[misc]
            seen = page.evaluate("look", flag)
            arms[user] = seen["variant"]
            assert (seen["value"]["copy"] is None) == (arms[user] == "control")
            told = {"experience": seen["value"]["source"], "variant": arms[user], "slot": "feature_gated_modal"}
            does = ["experience viewed"] + ["experience clicked"] * (arms[user] != "control")
            for event in does:
                # It is done once the edge has answered.
                page.evaluate("([event, told]) => analytics.track(event, told).then(() => true)", [event, told])
            page.context.close()
            if set(arms.values()) == {"control", "early_access"}:
                break
        browser.close()
    assert len(set(arms.values())) == 2, json.dumps(arms)
    said = "select count(*) from raw.events where event like 'experience %' and user_id like 'stranger%'"

    def has_all() -> bool:
        ingest_landing(project)
        return bool(rows(project, said)[0][0] == 2 * len(arms) - list(arms.values()).count("control"))

    wait_for(has_all, "the reports")
    tick = build(project, utc_now(), is_explicit=False)
    analyse_results(project, tick.as_of)
    counted = "select user_id, arm from analytics.experiment_users where experiment = 'feature_modal'"
    assert dict(rows(project, counted)) == arms
