"""The Caddyfile of the guide, run by Caddy before the real UI and the real edge. A small server logs people in."""

import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.conftest import PROJECT, free_port, wait_for
from tests.integration.test_edge import running
from upnext.project import Project
from upnext.report.write import write

NAME, OPEN = "upnext.otto.example", "otto.example"
GUIDE = (PROJECT / "docs" / "run" / "login.md").read_text()


class Gate(BaseHTTPRequestHandler):
    """Answers as oauth2-proxy does: whoever has the cookie is Ada."""

    def do_GET(self) -> None:
        is_known = "_oauth2_proxy=ada" in self.headers.get("Cookie", "")
        is_asked = self.path.startswith("/oauth2/auth")
        self.send_response((202 if is_known else 401) if is_asked else 200)
        if is_known and is_asked:
            self.send_header("X-Auth-Request-Email", "ada@otto.example")
        self.send_header("Content-Length", "7")
        self.end_headers()
        self.wfile.write(b"sign in")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@dataclass
class Site:
    """What browsers reach: the site with the login, or another one of the same proxy."""

    port: int
    key: str
    name: str = NAME

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, str, bytes]:
        """Return the status of an answer, where it leads, and its body."""
        stated = {name.replace("_", "-"): value for name, value in headers.items()}
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            data = None if body is None else json.dumps(body).encode()
            connection.request(method, path, data, {"Host": f"{self.name}:{self.port}", **stated})
            answer = connection.getresponse()
            return answer.status, answer.getheader("Location", ""), answer.read()


@pytest.fixture
def gate() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Gate)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@pytest.fixture
def ui(tmp_path: Path) -> Iterator[int]:
    port, home = free_port(), tmp_path / "dagster"
    home.mkdir()
    (home / "workspace.yaml").write_text("load_from: []\n")
    command = [
        sys.executable,
        "-m",
        "orchestration.webserver",
        "-w",
        "workspace.yaml",
        "-h",
        "127.0.0.1",
        "-p",
        f"{port}",
    ]
    variables = {**os.environ, "DAGSTER_HOME": str(home), "PYTHONPATH": str(PROJECT), "UPNEXT_UI_HOSTS": NAME}
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=home, env=variables, stdout=log, stderr=log)
    wait_for(lambda: is_up(port, "/server_info"), "the UI")
    yield port
    process.terminate()
    process.wait()


def is_up(port: int, path: str) -> bool:
    try:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=2)) as connection:
            connection.request("GET", path)
            return connection.getresponse().status < 500
    except (OSError, http.client.HTTPException):
        return False


@pytest.fixture
def site(project: Project, gate: int, ui: int, tmp_path: Path) -> Iterator[Site]:
    if shutil.which("caddy") is None:
        pytest.skip("caddy is not on this machine")
    write(project)
    [recipe] = re.findall(r"```caddyfile\n(.*?)```", GUIDE, re.DOTALL)
    for variable in ("UPNEXT_EDGE_TRUSTED_PROXIES=127.0.0.1", "UPNEXT_EDGE_PREFIX=/up"):
        assert f" {variable}" in GUIDE
    trusting = {"UPNEXT_EDGE_TRUSTED_PROXIES": "127.0.0.1", "UPNEXT_TRUSTED_USER_HEADER": "X-Forwarded-User"}
    with running(project, UPNEXT_EDGE_PREFIX="/up", **trusting) as edge:
        port = free_port()
        for stated, real in (
            (f"{NAME} {{", f"http://{NAME}:{port} {{"), (f"\n{OPEN} {{", f"\nhttp://{OPEN}:{port} {{"),
            (":4180", f":{gate}"),
            (":8790", f":{edge.port}"), (":3000", f":{ui}"),
        ):  # fmt: skip
            assert stated in recipe
            recipe = recipe.replace(stated, real)
        (tmp_path / "Caddyfile").write_text("{\n\tadmin off\n}\n" + recipe)
        command = ["caddy", "run", "--config", str(tmp_path / "Caddyfile"), "--adapter", "caddyfile"]
        with (tmp_path / "caddy.log").open("wb") as log:
            caddy = subprocess.Popen(command, env={**os.environ, "HOME": str(tmp_path)}, stdout=log, stderr=log)
        try:
            wait_for(lambda: is_up(port, "/") or caddy.poll() is not None, "Caddy")
            assert caddy.poll() is None, (tmp_path / "caddy.log").read_text()
            yield Site(port, edge.key)
        finally:
            caddy.terminate()
            caddy.wait()


def test_caddy_lets_in_who_has_logged_in_and_nobody_else(site: Site) -> None:
    known = {"Cookie": "_oauth2_proxy=ada"}
    for path in ("/", "/up/report", "/runs"):
        assert site.ask("GET", path)[:2] == (302, f"/oauth2/sign_in?rd={path}")
        assert site.ask("GET", path, X_Forwarded_User="eve@evil.example")[0] == 302, "a header of one's own is no login"
        assert site.ask("GET", path, X_Auth_Request_Email="eve@evil.example")[0] == 302
    assert site.ask("GET", "/oauth2/sign_in")[::2] == (200, b"sign in")
    assert b"__NEXT_DATA__" in site.ask("GET", "/", **known)[2], "the UI's page"
    assert site.ask("GET", "/up/report", **known)[0] == 200

    question, ours = {"query": "{ version }"}, {"Content_Type": "application/json", **known}
    origin = f"https://{NAME}:{site.port}"
    assert site.ask("POST", "/graphql", question, **ours, Origin=origin, Sec_Fetch_Site="same-origin")[0] == 200
    assert site.ask("POST", "/graphql", question, Content_Type="application/json")[0] == 302
    for refused in (
        site.ask("POST", "/graphql", question, **ours, Origin="https://evil.example"),
        site.ask("POST", "/graphql", question, **ours, Sec_Fetch_Site="cross-site"),
        site.ask("GET", "/graphql?query=mutation%7B%20reloadWorkspace%20%7B%20__typename%20%7D%20%7D", **known),
    ):
        assert refused[0] == 403
        assert refused[2].startswith(b"refused: ")


def test_a_site_without_a_login_names_nobody_to_the_edge(site: Site) -> None:
    open_site = Site(site.port, site.key, OPEN)
    assert open_site.ask("GET", "/up/readyz")[0] == 200
    told = json.loads(open_site.ask("GET", f"/up/v1/projects/{site.key}/settings")[2])
    assert told["integrations"]["Segment.io"]["apiHost"] == f"{OPEN}:{site.port}/up/v1", "where Caddy leads to the edge"
    assert open_site.ask("GET", "/up/report")[0] == 401
    assert open_site.ask("GET", "/up/report", X_Forwarded_User="eve@evil.example")[0] == 401
