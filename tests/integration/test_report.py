"""The report in a real browser, and from the edge behind its login."""

import gzip
import os
import shutil
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from playwright.sync_api import Browser, Page, sync_playwright

from tests.conftest import AS_OF, UPNEXT, Product, rows, start, wait_for
from tests.integration.test_edge import running
from tests.reports import HOSTILE, SCRIPTS, made_up
from upnext.edge.config import report_passwords
from upnext.loop import tick
from upnext.project import Project
from upnext.report.facts import Facts
from upnext.report.page import render
from upnext.report.write import slots_css, vega, write

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
SIZES = {"desk": (1280, 900), "tablet": (768, 1024), "phone": (390, 844)}


def login(password: str, user: str = "upnext") -> str:
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


def test_the_report_of_a_warehouse_is_what_its_tables_say(project: Project) -> None:
    product = Product(project)
    start(project)
    empty = write(project).read_text()
    assert "Nothing has been computed yet." in empty
    for name in ("ada", "bob"):
        product.power_user(name, AS_OF)
    tick(project, AS_OF)
    page = write(project)
    text = page.read_text()
    members = rows(project, "select count(*) from segments.members where segment = 'busy_users'")
    assert members == [(2,)]
    assert 'data-segment="busy_users"><th scope="row">busy_<wbr>users' in text
    assert '"busy_users":[[' in text
    assert f"As of {AS_OF:%-d %B %Y, %H:%M} UTC" in text
    for private in ("ada", "customer.example"):
        assert f">{private}<" not in text
    assert page.parent.stat().st_mode & 0o077 == 0
    ((stored,),) = rows(project, "select page from analytics.report")
    assert gzip.decompress(stored) == page.read_bytes()
    before = rows(project, "select xmin from analytics.report")
    write(project)
    assert rows(project, "select xmin from analytics.report") == before, "the same page is not written again"


def test_a_mistake_in_what_is_declared_is_told_and_the_rest_is_shown(content: Path, project: Project) -> None:
    tick(project, AS_OF)
    path = content / "campaigns" / "experiences" / "broken.yml"
    path.write_text("description: half of one\n")
    text = write(Project(project.settings)).read_text()
    assert "Something declared has a mistake" in text
    assert "broken.yml" in text
    assert "busy_users" in text


def test_a_database_that_is_away_is_one_line(tmp_path: Path) -> None:
    away = {"UPNEXT_HOME": str(tmp_path), "UPNEXT_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}
    done = subprocess.run(
        [UPNEXT, "report"], env={**os.environ, **away}, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode in (1, 2)
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert not (tmp_path / "report").exists()


def test_the_edge_shows_it_to_whoever_has_the_password(project: Project) -> None:
    with running(project, UPNEXT_EDGE_TRUSTED_PROXIES="10.0.0.0/8", UPNEXT_TRUSTED_USER_HEADER="X-User") as edge:
        kept = project.settings.home / "report_password"
        password = kept.read_text().strip()
        assert kept.stat().st_mode & 0o077 == 0
        asked = edge.ask("GET", "/report")
        assert (asked.status, asked.headers["www-authenticate"].split()[0]) == (401, "Basic")
        assert edge.ask("GET", "/report", X_User="ada").status == 401, "nobody trusts this machine's header"
        assert edge.ask("GET", "/report", Authorization=login(password, user="root")).status == 401
        assert edge.ask("GET", "/report", Authorization="Basic !!!").status == 401
        none = edge.ask("GET", "/report", Authorization=login(password))
        assert (none.status, b"No report yet" in none.body) == (404, True)
        page = write(project).read_bytes()
        shown = edge.ask("GET", "/report", Authorization=login(password), Accept_Encoding="br, gzip;q=0.5")
        assert (shown.status, gzip.decompress(shown.body)) == (200, page)
        for refusing in ("identity", "gzip;q=0", "br"):
            plain = edge.ask("GET", "/report", Authorization=login(password), Accept_Encoding=refusing)
            assert (plain.body, plain.headers.get("content-encoding")) == (page, None)
        assert shown.headers["cache-control"] == "private, no-cache"
        assert "frame-ancestors 'none'" in shown.headers["content-security-policy"]
        assert "access-control-allow-origin" not in shown.headers
        again = edge.ask("GET", "/report", Authorization=login(password), If_None_Match=shown.headers["etag"])
        assert (again.status, again.body) == (304, b"")
        answers = [edge.ask("GET", "/report", Authorization=login(f"guess {nth}")) for nth in range(12)]
        assert {answer.status for answer in answers} == {401, 429}
        hurried = edge.ask("GET", "/report", Authorization=login(password))
        assert hurried.status == 429, "whoever guesses is not told when the guess is right"
        wait_for(lambda: edge.ask("GET", "/report", Authorization=login(password)).status == 200, "the time to pass")


def test_a_trusted_proxy_names_who_has_logged_in(project: Project) -> None:
    trusting = {"UPNEXT_EDGE_TRUSTED_PROXIES": "127.0.0.1/32", "UPNEXT_TRUSTED_USER_HEADER": "X-User"}
    with running(project, UPNEXT_REPORT_PASSWORD="one of our own", UPNEXT_EDGE_ORIGINS="*", **trusting) as edge:
        write(project)
        for path in ("/report", "//report"):
            shown = edge.ask("GET", path, X_User="ada", Origin="https://otto.example", Forwarded='for="192.0.2.1:_x"')
            assert shown.status == 200
            assert "access-control-allow-origin" not in shown.headers, "pages of other origins never read it"
        for nobody in ("", "-", "(null)", "ada, bob"):
            assert edge.ask("GET", "/report", X_User=nobody).status == 401, nobody
        assert edge.ask("GET", "/report", Authorization=login("one of our own")).status == 200
        assert not (project.settings.home / "report_password").exists()


def test_reports_at_once_do_not_disturb_each_other_and_an_older_one_replaces_none(project: Project) -> None:
    tick(project, AS_OF)
    with ThreadPoolExecutor(3) as pool:
        pages = [future.result() for future in [pool.submit(write, project) for _ in range(9)]]
    assert [path.name for path in pages[0].parent.iterdir()] == ["index.html"]
    with project.engine.begin() as connection:
        connection.execute(sa.text("update analytics.report set as_of = as_of + interval '1 day', hash = 'newer'"))
    write(project)
    assert rows(project, "select hash from analytics.report") == [("newer",)]


def test_a_home_that_cannot_be_written_takes_events_all_the_same(project: Project) -> None:
    settings = replace(project.settings, home=Path("/proc/upnext"))
    assert report_passwords(settings) == []
    assert report_passwords(replace(settings, report_password="one")) == ["one"]


@pytest.mark.parametrize("broken", [b"models: [", b"\xff\xfe"])
def test_a_broken_description_of_segments_is_told(content: Path, project: Project, broken: bytes) -> None:
    tick(project, AS_OF)
    (content / "models" / "segments" / "_segments.yml").write_bytes(broken)
    text = write(Project(project.settings)).read_text()
    assert "Something declared has a mistake" in text


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@contextmanager
def opened(browser: Browser, folder: Path, facts: Facts, *, size: str = "desk", **options: Any) -> Iterator[Page]:
    """The page as a file, drawn; it may ask for nothing and complain of nothing."""
    path = folder / "report.html"
    path.write_bytes(render(facts, bundle=vega(), slots_css=slots_css()).encode(errors="replace"))
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, **options)
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("request", lambda asked: complaints.append(asked.url) if asked.url.startswith("http") else None)
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-drawn=all]", state="attached")
    yield page
    # A mail that would run something is in a frame that may not; the browser says so.
    assert [one for one in complaints if "document's frame is sandboxed" not in one] == []
    context.close()


@in_a_browser
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious_for_those_who_read_by_other_means(
    browser: Browser, tmp_path: Path, clients: Path, size: str, scheme: Any
) -> None:
    facts = made_up(segments=4, experiences=8)
    with opened(browser, tmp_path, facts, size=size, color_scheme=scheme, bypass_csp=True) as page:
        page.add_script_tag(path=clients / "node_modules" / "axe-core" / "axe.min.js")
        for opener in page.locator("details > summary").all():
            opener.click()
        found = page.evaluate("axe.run(document, {iframes: false})")
        serious = [one for one in found["violations"] if one["impact"] in ("serious", "critical")]
        assert [(one["id"], one["nodes"][0]["html"][:200]) for one in serious] == []
        assert len(found["passes"]) > 20


@in_a_browser
@pytest.mark.parametrize("size", SIZES)
def test_names_run_nothing_and_stay_within_the_page(browser: Browser, tmp_path: Path, size: str) -> None:
    with opened(browser, tmp_path, made_up(segments=8, experiences=8, names=HOSTILE + SCRIPTS), size=size) as page:
        assert page.evaluate("window.hacked") is None
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]
        assert page.locator(".chart svg").count() == page.locator(".chart").count()


@in_a_browser
def test_names_that_every_object_has_disturb_no_chart(browser: Browser, tmp_path: Path) -> None:
    facts = made_up(segments=5, experiences=2, names=("constructor", "toString", "hasOwnProperty"))
    days = [row for row in facts.rows("segment_days") if row["segment"] not in ("constructor", "toString")]
    with opened(browser, tmp_path, replace(facts, tables={**facts.tables, "segment_days": days})) as page:
        assert page.locator("[data-sum=entered][data-key=constructor]").inner_text() == "0"
        assert page.locator("[data-chart=members] svg").count() == 1


@in_a_browser
def test_nothing_at_all_is_a_page_too(browser: Browser, tmp_path: Path) -> None:
    with opened(browser, tmp_path, Facts()) as page:
        assert page.locator(".nothing").count() >= 4


@in_a_browser
def test_filters_by_time_and_segment_and_terms_by_keyboard(browser: Browser, tmp_path: Path) -> None:
    facts = made_up(segments=4, experiences=4, days=90)
    first = facts.segments[0]["name"]
    with opened(browser, tmp_path, facts) as page:
        entered = page.locator(f'[data-sum=entered][data-key="{first}"]')
        assert entered.inner_text() == "300", "ten a day, over 30 days"
        page.locator("#days").select_option("7")
        assert entered.inner_text() == "70"
        assert page.locator("#experiences article:visible").count() == 4
        page.locator("#segment").select_option(first)
        assert page.locator("#experiences article:visible").count() == 1
        forest, second = page.locator("[data-chart=forest]"), facts.experiences[1]["name"]
        wait_for(lambda: second not in forest.inner_text() and forest.locator("svg").count() == 1, "the chart")
        page.locator("#segment").select_option("")
        page.keyboard.press("Tab")
        for _ in range(40):
            if page.evaluate("document.activeElement.className") == "term":
                break
            page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        assert page.locator("[popover]:popover-open").count() == 1
        page.keyboard.press("Escape")
        assert page.locator("[popover]:popover-open").count() == 0


@in_a_browser
def test_on_paper_it_is_light_and_whole(browser: Browser, tmp_path: Path) -> None:
    with opened(browser, tmp_path, made_up(segments=3, experiences=3), color_scheme="dark") as page:
        page.emulate_media(media="print")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert not page.locator(".bar").is_visible()
        assert page.locator(".chart svg").count() == page.locator(".chart").count()
        assert page.pdf(format="A4").startswith(b"%PDF")
