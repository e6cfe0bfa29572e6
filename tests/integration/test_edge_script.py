"""The browser script, in a real browser, on a page with a strict policy."""

import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from playwright.sync_api import Browser, Page, sync_playwright
from sqlalchemy.engine import URL

from tests.conftest import create_database, rows, settings_for, wait_for
from tests.integration.test_edge import Edge, running
from upnext.clock import utc_now
from upnext.edge import script
from upnext.project import Project

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
WEB = Path(script.__file__).parent / "web"
AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0 Safari/537.36"
SEEN: dict[str, tuple[str, str, dict[str, Any] | None]] = {
    "banner": ("homepage_banner", "Upgrade <b onclick=x()>now</b>", {"when": "page_view", "page": "/"}),
    "footer": ("pricing_page_sticky_footer", "Compare plans", {"when": "page_view", "page": "/pricing"}),
    "button": ("nav_bar_button", "Try it", {"when": "click", "element": "plans", "times_in_session": 3}),
    "scroll": ("limited_time_offer", "Two days left", {"when": "scroll_depth", "percent": 60}),
    "hover": ("success_session", "Talk to us", {"when": "feature_hovered", "feature": "reports"}),
    "used": ("pricing_page_sticky_footer", "More reports", {"when": "feature_used", "feature": "export"}),
    "lacking": ("pricing_page_sticky_footer", "Reports", {"when": "feature_used", "feature": "export"}),
    "tour": ("product_tour", "Choose a plan", {"when": "page_view"}),
    "sequence": (
        "success_session",
        "Talk to us",
        {
            "when": "sequence",
            "steps": [
                {"when": "scroll_depth", "percent": 60},
                {"when": "feature_hovered", "feature": "reports"},
                {"when": "click", "element": "plans"},
            ],
        },
    ),
}
STEPS = [
    {"element": "plans", "copy": "Compare <b>plans</b>"},
    {"element": "gone", "copy": "Nowhere"},
    {"element": "export", "copy": "Take them along"},
]
"""By the user who sees it: the slot, the copy and the trigger."""
BODY = """<!doctype html><title>Otto</title><link rel="stylesheet" href="/site.css"><div id="app">
<nav><button data-upnext-element="plans">Plans</button><span data-upnext-slot="nav_bar_button"></span></nav>
<div data-upnext-slot="homepage_banner"></div><div data-upnext-slot="limited_time_offer"></div>
<div data-upnext-slot="success_session"></div><div data-upnext-slot="product_tour"></div>
<button data-upnext-feature="reports">Reports</button><a href="#" data-upnext-feature="export"
data-upnext-element="export">Export</a><em data-upnext-slot="dashboard_tooltip">?</em>
<div class="tall"></div><div data-upnext-slot="pricing_page_sticky_footer"></div></div>
<script async src="{edge}/js/u.js" data-key="{key}" data-user="{user}"
data-surface="{surface}"></script>
"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


class Site:
    """Otto's pages, which let nothing in but the edge; `/open` lets in anything."""

    def __init__(self, edge: Edge, key: str) -> None:
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path, _, user = self.path.partition("?")
                is_style = path == "/site.css"
                content = (
                    ".tall{height:4000px}div[data-upnext-slot]{min-height:4em}"
                    if is_style
                    else BODY.format(
                        edge=site.edge_url, key=key, user=user, surface="in_app" if path == "/app" else "web"
                    )
                )
                self.send_response(200)
                self.send_header("Content-Type", "text/css" if is_style else "text/html; charset=utf-8")
                if path != "/open":
                    self.send_header(
                        "Content-Security-Policy",
                        f"default-src 'none'; script-src {site.edge_url}; style-src 'self';"
                        f" connect-src {site.edge_url}; require-trusted-types-for 'script'",
                    )
                self.end_headers()
                self.wfile.write(content.encode())

            def log_message(self, *_: Any) -> None:
                pass

        self.edge_url = f"http://127.0.0.1:{edge.port}"
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()


@pytest.fixture(scope="module")
def edge(embedded_url: URL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    project = Project(settings_for(tmp_path_factory.mktemp("script"), create_database(embedded_url, "upnext_script")))
    statement = (
        "insert into experiences.live_ctas (user_id, surface, slot, source, source_kind, variant, copy, url, trigger,"
        " starts_at) values (:user, :surface, :slot, 'spring', 'experience', :variant, :copy, :url,"
        " cast(:trigger as jsonb), :at)"
    )
    at = utc_now() - timedelta(hours=1)
    with project.engine.begin() as connection:
        definition = {"public": True, "variants": {"a": {"steps": STEPS}}}
        connection.execute(
            sa.text("insert into experiences.definitions values ('spring', cast(:definition as jsonb))"),
            {"definition": json.dumps(definition)},
        )
        for user, (slot, copy, trigger) in SEEN.items():
            values = {"slot": slot, "trigger": json.dumps(trigger), "at": at, "surface": "web"}
            url = "javascript:alert(1)" if user == "banner" else "/up"
            shown = {**values, "user": user, "variant": "a", "copy": copy, "url": url}
            control = {**values, "user": f"control-{user}", "variant": "control", "copy": None, "url": None}
            connection.execute(sa.text(statement), [shown, control])
        hint = {"user": "tooltip", "surface": "in_app", "slot": "dashboard_tooltip", "trigger": '{"when": "page_view"}'}
        connection.execute(
            sa.text(statement), [{**hint, "at": at, "variant": "b", "copy": "Automate this", "url": "/automations"}]
        )
    with running(project, UPNEXT_EDGE_ORIGINS="*") as running_edge:
        yield running_edge
    project.engine.dispose()


@pytest.fixture(scope="module")
def site(edge: Edge) -> Iterator[Site]:
    site = Site(edge, edge.add_key(identity="optional"))
    yield site
    site.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def visit(browser: Browser, site: Site, edge: Edge) -> Iterator[Callable[[str, str], Page]]:
    """Opens a page as a user; whatever the console says is a failure."""
    wait_for(lambda: edge.ask("GET", "/readyz").status == 200, "the edge")
    context = browser.new_context(user_agent=AGENT)
    said: list[str] = []

    def opened(user: str, path: str = "/") -> Page:
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(f"{site.origin}{path}?{user}")
        page.wait_for_function("window.upnext")
        return page

    yield opened
    context.close()
    assert said == []


def told(edge: Edge, user: str, event: str = "experience viewed") -> list[dict[str, Any]]:
    """What the edge has heard of a user."""
    lines = rows(edge.project, "select convert_from(line, 'UTF8') from edge.inbox order by inbox_id")
    heard = [json.loads(line) for (line,) in lines]
    return [line for line in heard if line.get("userId") == user and line["event"] == event]


def views_on(edge: Edge, page: Page) -> list[dict[str, Any]]:
    """What the edge has heard of views by the visitor of a page: other tests may show the same user the same."""
    visitor = page.evaluate("JSON.parse(localStorage.ajs_anonymous_id)")
    return [line for line in told(edge, "banner") if line["anonymousId"] == visitor]


def test_a_banner_is_text_leads_nowhere_bad_and_is_reported(edge: Edge, visit: Any) -> None:
    page = visit("banner")
    link = page.get_by_role("link", name="Upgrade <b onclick=x()>now</b>")
    link.wait_for()
    assert link.get_attribute("href") == "#"
    link.click()
    wait_for(lambda: len(told(edge, "banner", "experience clicked")) == 1, "the click")
    wait_for(lambda: views_on(edge, page) != [], "the view")
    (seen,) = views_on(edge, page)
    assert seen["properties"] == {"experience": "spring", "variant": "a", "slot": "homepage_banner"}
    page.get_by_role("button", name="Close").click()
    assert page.locator("upnext-cta").count() == 0


def test_a_tooltip_stands_beside_its_element_and_goes_by_escape(edge: Edge, visit: Any) -> None:
    page = visit("tooltip", "/app")
    link = page.get_by_role("dialog", name="Automate this").get_by_role("link")
    link.wait_for()
    wait_for(lambda: page.evaluate("document.querySelector('upnext-cta').style.top !== ''"), "it is placed")
    tip, anchor = page.locator("upnext-cta").bounding_box(), page.locator("em").bounding_box()
    assert tip is not None
    assert anchor is not None
    assert 0 <= tip["x"] <= anchor["x"] + anchor["width"]
    assert abs(tip["y"] - (anchor["y"] + anchor["height"])) < 20 or abs(tip["y"] + tip["height"] - anchor["y"]) < 20
    assert page.evaluate("document.activeElement === document.body"), "it takes nobody's place"
    page.keyboard.press("Escape")
    wait_for(lambda: page.evaluate("!document.querySelector('upnext-cta')"), "it is gone")
    wait_for(lambda: len(told(edge, "tooltip")) == 1, "the view")


def test_a_tour_leads_from_element_to_element_by_keyboard_alone(edge: Edge, visit: Any) -> None:
    page = visit("tour")
    first = page.get_by_role("dialog", name="Compare <b>plans</b>")
    first.wait_for()
    assert first.get_by_role("button", name="Next").inner_text() == "1 / 2 \u2192", (
        "an element that is gone is left out"
    )
    page.keyboard.press("Enter")
    last = page.get_by_role("dialog", name="Take them along")
    last.wait_for()
    assert page.locator("upnext-cta").count() == 1
    assert told(edge, "tour", "experience clicked") == []
    assert last.get_by_role("link").inner_text() == "Choose a plan"
    page.keyboard.press("Enter")
    wait_for(lambda: len(told(edge, "tour", "experience clicked")) == 1, "the click")
    assert len(told(edge, "tour")) == 1
    page = visit("control-tour")
    wait_for(lambda: len(told(edge, "control-tour")) == 1, "the view of control")
    assert page.locator("upnext-cta").count() == 0


def test_a_sequence_goes_in_its_order(edge: Edge, visit: Any) -> None:
    page = visit("sequence")
    page.wait_for_load_state("networkidle")
    page.get_by_text("Reports").focus()
    page.get_by_text("Plans").click()
    page.evaluate("scrollTo(0, 3500)")
    page.evaluate("new Promise(requestAnimationFrame)")
    page.get_by_text("Plans").click()
    page.wait_for_timeout(50)
    assert (page.locator("upnext-cta").count(), told(edge, "sequence")) == (0, []), "hovering came before scrolling"
    page.get_by_text("Export").focus()
    page.get_by_text("Reports").focus()
    # As long as a pointer has to rest.
    page.wait_for_timeout(400)
    page.get_by_text("Plans").click()
    page.get_by_role("link", name="Talk to us").wait_for()


def test_a_page_that_takes_a_call_to_action_out_again_and_again_wins(visit: Any) -> None:
    page = visit("nobody")
    page.evaluate("""() => {
        window.taken = 0;
        const slot = document.querySelector('[data-upnext-slot=homepage_banner]');
        new MutationObserver(() => slot.childElementCount && (taken += 1, slot.replaceChildren()))
            .observe(slot, { childList: true });
        upnext.identify('banner');
    }""")
    wait_for(lambda: page.evaluate("taken >= 20"), "the page takes it out")
    page.evaluate("new Promise((done) => setTimeout(done, 50))")
    assert page.evaluate("taken") <= 21


@pytest.mark.parametrize("broken", [
    "HTMLDialogElement.prototype.showModal = undefined", "window.CSSStyleSheet = undefined",
    "navigator.sendBeacon = () => { throw new Error('no') }",
])  # fmt: skip
def test_what_a_browser_lacks_does_not_disturb_the_page(browser: Browser, site: Site, broken: str) -> None:
    context = browser.new_context(user_agent=AGENT)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.add_init_script(broken)
    page.goto(f"{site.origin}/open?banner")
    page.wait_for_function("window.upnext")
    page.wait_for_load_state("networkidle")
    page.evaluate("upnext.identify('lacking')")
    page.wait_for_load_state("networkidle")
    page.get_by_text("Export").click()
    assert errors == []
    context.close()


def test_nothing_moves_where_a_slot_keeps_its_height(visit: Any) -> None:
    page = visit("banner")
    page.get_by_role("link", name="Upgrade").wait_for()
    shifts = page.evaluate("""() => new Promise((done) => {
        const shifts = [];
        new PerformanceObserver((list) => shifts.push(...list.getEntries().map((one) => one.value)))
            .observe({ type: "layout-shift", buffered: true });
        setTimeout(() => done(shifts), 100);
    })""")
    assert shifts == []


def test_control_sees_nothing_and_is_reported_alike(edge: Edge, visit: Any) -> None:
    page = visit("control-banner")
    wait_for(lambda: len(told(edge, "control-banner")) == 1, "the view")
    assert page.locator("upnext-cta").count() == 0
    assert told(edge, "control-banner")[0]["properties"]["variant"] == "control"


def test_each_trigger_fires_and_not_too_early(edge: Edge, visit: Any) -> None:
    acts: dict[str, tuple[Callable[[Page], None], Callable[[Page], None]]] = {
        "button": (
            lambda page: [page.get_by_text("Plans").click() for _ in range(2)] and None,
            lambda page: page.get_by_text("Plans").click(),
        ),
        "scroll": (
            lambda page: page.evaluate("scrollTo(0, 500)"),
            lambda page: page.evaluate("scrollTo(0, 3500)"),
        ),
        "hover": (lambda page: page.get_by_text("Export").hover(), lambda page: page.get_by_text("Reports").focus()),
        "used": (lambda page: page.get_by_text("Reports").click(), lambda page: page.get_by_text("Export").click()),
    }
    for user, (early, enough) in acts.items():
        page = visit(user)
        page.wait_for_load_state("networkidle")
        early(page)
        page.wait_for_timeout(50)
        assert (page.locator("upnext-cta").count(), told(edge, user)) == (0, []), user
        enough(page)
        page.get_by_role("link", name=SEEN[user][1]).wait_for()
        wait_for(lambda user=user: len(told(edge, user)) == 1, user)  # type: ignore[misc]


def test_a_move_within_the_page_is_another_page(edge: Edge, visit: Any) -> None:
    page = visit("footer")
    page.wait_for_load_state("networkidle")
    assert page.locator("upnext-cta").count() == 0
    page.evaluate("history.pushState({}, '', '/pricing')")
    page.get_by_role("link", name="Compare plans").wait_for()
    page.evaluate("history.pushState({}, '', '/docs')")
    page.wait_for_function("document.querySelectorAll('upnext-cta').length === 0")
    wait_for(lambda: told(edge, "footer") != [], "the report")
    assert len(told(edge, "footer")) == 1


def test_to_ask_again_changes_only_what_has_changed(edge: Edge, visit: Any) -> None:
    page = visit("banner")
    link = page.get_by_role("link", name="Upgrade")
    link.wait_for()
    wait_for(lambda: views_on(edge, page) != [], "the view")
    page.evaluate("upnext.refresh()")
    page.wait_for_load_state("networkidle")
    assert link.is_visible()
    page.get_by_role("button", name="Close").click()
    page.evaluate("upnext.refresh()")
    for path in ("/docs", "/"):
        page.evaluate(f"history.pushState({{}}, '', '{path}')")
        page.wait_for_load_state("networkidle")
    assert page.locator("upnext-cta").count() == 0, "who closes it has closed it"
    assert len(views_on(edge, page)) == 1
    page.evaluate("upnext.identify(42)")
    page.evaluate("upnext.identify('banner')")
    link.wait_for()


def test_its_events_say_what_the_user_said_of_storing(edge: Edge, visit: Any) -> None:
    with edge.project.engine.begin() as connection:
        connection.execute(
            sa.text("insert into experiences.live_ctas (user_id, surface, slot, source, source_kind, variant, copy,"
                    " url, starts_at) values ('agreed', 'web', 'homepage_banner', 'spring', 'experience', 'a', 'Hi',"
                    " '/', :at)"), {"at": utc_now() - timedelta(hours=1)},
        )  # fmt: skip
    page = visit("agreed")
    wait_for(lambda: len(told(edge, "agreed")) == 1, "the view before")
    page.evaluate("upnext.consent({analytics: false})")
    page.evaluate("upnext.identify('agreed')")
    wait_for(lambda: len(told(edge, "agreed")) == 2, "both views")
    first, last = told(edge, "agreed")
    assert "consent" not in first.get("context", {})
    assert last["context"]["consent"] == {"categoryPreferences": {"analytics": False}}


def test_it_goes_when_its_time_is_over(edge: Edge, visit: Any) -> None:
    ends_at = utc_now() + timedelta(seconds=4)
    with edge.project.engine.begin() as connection:
        connection.execute(
            sa.text("insert into experiences.live_ctas (user_id, surface, slot, source, source_kind, variant, copy,"
                    " url, starts_at, ends_at) values ('brief', 'web', 'homepage_banner', 'spring', 'experience', 'a',"
                    " 'Today', '/', :at, :ends_at)"), {"at": utc_now() - timedelta(hours=1), "ends_at": ends_at},
        )  # fmt: skip
    page = visit("brief")
    page.get_by_role("link", name="Today").wait_for()
    wait_for(lambda: page.locator("upnext-cta").count() == 0, "its end")
    assert utc_now() >= ends_at - timedelta(seconds=1)


def test_a_slot_that_comes_later_is_filled_and_another_user_is_another_look(edge: Edge, visit: Any) -> None:
    page = visit("nobody")
    page.evaluate("document.querySelector('[data-upnext-slot=homepage_banner]').remove()")
    page.evaluate("upnext.identify('banner')")
    page.wait_for_load_state("networkidle")
    assert page.locator("upnext-cta").count() == 0
    page.evaluate("""() => {
        const slot = document.createElement('div');
        slot.dataset.upnextSlot = 'homepage_banner';
        document.getElementById('app').append(slot);
    }""")
    page.get_by_role("link", name="Upgrade").wait_for()
    page.evaluate("upnext.identify(undefined)")
    page.wait_for_function("document.querySelectorAll('upnext-cta').length === 0")


def test_without_the_edge_the_page_is_as_it_was(browser: Browser, site: Site) -> None:
    context = browser.new_context(user_agent=AGENT)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.route("**/ofrep/**", lambda route: route.abort())
    page.goto(f"{site.origin}/?banner")
    page.wait_for_function("window.upnext")
    page.wait_for_load_state("networkidle")
    page.evaluate("upnext.refresh()")
    assert (errors, page.locator("upnext-cta").count(), page.get_by_text("Plans").is_visible()) == ([], 0, True)
    context.close()


def test_the_script_is_served_with_what_browsers_need(edge: Edge) -> None:
    served = edge.ask("GET", "/js/u.js", Accept_Encoding="gzip")
    assert (served.status, served.headers["content-encoding"]) == (200, "gzip")
    assert served.headers["access-control-allow-origin"] == "*"
    assert len(served.body) <= 4096
    assert edge.ask("GET", "/js/u.js", If_None_Match=served.headers["etag"]).status == 304
    assert "content-encoding" not in edge.ask("GET", "/js/u.js", Accept_Encoding="br, gzip;q=0").headers
    (hints,) = (path for path in (WEB / "built").iterdir() if path.name.startswith("hints-"))
    chunk = edge.ask("GET", f"/js/{hints.name}", Accept_Encoding="gzip")
    assert (chunk.status, chunk.headers["cache-control"]) == (200, "public, max-age=31536000, immutable")
    assert len(chunk.body) <= 9 * 1024
    for name in ("no.js", "..%2fapp.py", "%2e%2e"):
        assert edge.ask("GET", f"/js/{name}").status == 404


def test_segments_browser_client_as_it_is(browser: Browser, edge: Edge, site: Site, clients: Path) -> None:
    """A page that knows the edge as its `cdnURL` alone, from another origin."""
    bundle = (clients / "node_modules" / "@segment" / "analytics-next" / "dist" / "umd" / "index.js").read_text()
    context = browser.new_context(user_agent=AGENT)
    page = context.new_page()
    page.goto(f"{site.origin}/open")
    page.add_script_tag(content=bundle)
    page.evaluate(
        """([cdnURL, writeKey]) => {
            const analytics = window.AnalyticsNext.AnalyticsBrowser.load({ writeKey, cdnURL });
            analytics.identify("segments-own", { plan: "basic" });
            analytics.track("viewed upgrade plan", { from: "the menu" });
            analytics.page("Pricing");
            analytics.group("acme");
        }""",
        [site.edge_url, edge.key],
    )
    heard = "select convert_from(line, 'UTF8') from edge.inbox where convert_from(line, 'UTF8') like '%segments-own%'"
    wait_for(lambda: len(rows(edge.project, heard)) == 4, "four calls")
    calls = {(line := json.loads(text))["type"]: line for (text,) in rows(edge.project, heard)}
    assert calls.keys() == {"identify", "track", "page", "group"}
    assert calls["track"]["event"] == "viewed upgrade plan"
    assert not [line for line in calls.values() if "writeKey" in line or edge.key in json.dumps(line)]
    context.close()


@pytest.mark.skipif(shutil.which("npm") is None, reason="no npm on this machine")
def test_the_built_script_is_that_of_the_source(tmp_path: Path) -> None:
    copied = shutil.copytree(WEB, tmp_path / "web", ignore=shutil.ignore_patterns("node_modules"))
    npm = shutil.which("npm") or ""
    for command in (["ci", "--ignore-scripts", "--no-audit", "--no-fund"], ["run", "build"]):
        subprocess.run([npm, *command], cwd=copied, check=True, capture_output=True)
    built = [{path.name: path.read_bytes() for path in (folder / "built").iterdir()} for folder in (copied, WEB)]
    assert built[0] == built[1], "make web"
