"""The Caddyfile of the guide, run by Caddy before the real UI and the real edge.

oauth2-proxy logs people in where it is on the machine, with an identity provider of the tests. A small server that
answers as oauth2-proxy does takes its place elsewhere.
"""

import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.conftest import PROJECT, free_port, wait_for
from tests.integration.test_edge import running
from upnext.project import Project
from upnext.report.write import write

NAME, OPEN = "upnext.otto.example", "otto.example"
GUIDE = (PROJECT / "docs" / "run" / "login.md").read_text()


class Quiet(BaseHTTPRequestHandler):
    """A handler that says nothing of its requests."""

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Gate(Quiet):
    """Answers as oauth2-proxy does: whoever has the cookie is Ada."""

    def do_GET(self) -> None:
        is_known = "_oauth2_proxy=ada" in self.headers.get("Cookie", "")
        is_asked = self.path.startswith("/oauth2/auth")
        if not is_asked:
            self.answer(200, b"Sign in")
        elif is_known:
            self.answer(202, X_Auth_Request_Email="ada@otto.example")
        else:
            self.answer(401)


class Provider(Quiet):
    """A provider of identities by OpenID Connect. Whoever asks is the person that `login_hint` names."""

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        stated = {name: values[0] for name, values in parse_qs(asked.query).items()}
        if asked.path == "/authorize":
            code = {"code": stated["login_hint"], "state": stated["state"]}
            self.answer(302, Location=f"{stated['redirect_uri']}?{urlencode(code)}")
        elif asked.path == "/keys":
            public = jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
            self.say({"keys": [{**public, "kid": "1", "use": "sig", "alg": "RS256"}]})
        else:
            self.say({
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/keys",
                "id_token_signing_alg_values_supported": ["RS256"],
            })  # fmt: skip

    def do_POST(self) -> None:
        stated = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        [email] = stated["code"]
        now = int(time.time())
        of_person = {"sub": email, "email": email, "email_verified": True}
        claims = {"iss": self.issuer, "aud": "upnext", "iat": now, "exp": now + 3600, **of_person}
        token = jwt.encode(claims, self.key, "RS256", {"kid": "1"})
        self.say({"access_token": "a", "token_type": "Bearer", "expires_in": 3600, "id_token": token})

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def say(self, what: dict[str, object]) -> None:
        self.answer(200, json.dumps(what).encode(), Content_Type="application/json")


@contextmanager
def serving(handler: type[Quiet]) -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


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


@dataclass
class Login:
    """Who logs people in: the port to ask, and how somebody gets the cookie that says who they are."""

    port: int
    log_in: Callable[[Site, str], str]


@pytest.fixture(params=["stand-in", "oauth2-proxy"])
def login(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Login]:
    if request.param == "stand-in":
        with serving(Gate) as port:
            yield Login(port, lambda _site, email: "_oauth2_proxy=ada" if email == "ada@otto.example" else "")
        return
    if shutil.which("oauth2-proxy") is None:
        pytest.skip("oauth2-proxy is not on this machine")
    [flags] = re.findall(r"`(--reverse-proxy [^`]+)`", GUIDE)
    [domain] = re.findall(r"`(--email-domain [^`]+)`", GUIDE)
    port = free_port()
    with serving(Provider) as provider, (tmp_path / "oauth2-proxy.log").open("wb") as log:
        settings = [
            "--provider=oidc",
            f"--oidc-issuer-url=http://127.0.0.1:{provider}",
            "--client-id=upnext",
            "--client-secret=known-to-the-provider",
            f"--cookie-secret={'c' * 32}",
            # The guide's sites have TLS, the test's have none.
            "--cookie-secure=false",
        ]
        command = ["oauth2-proxy", *flags.replace(":4180", f":{port}").split(), *domain.split(), *settings]
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            wait_for(lambda: is_up(port, "/ping") or process.poll() is not None, "oauth2-proxy")
            assert process.poll() is None, (tmp_path / "oauth2-proxy.log").read_text()
            yield Login(port, log_in)
        finally:
            process.terminate()
            process.wait()


def log_in(site: Site, email: str) -> str:
    """Go where a browser is led, at the provider as the person of this address, and return the cookies of the site."""
    cookies: SimpleCookie = SimpleCookie()
    place = urlsplit(f"http://{NAME}:{site.port}/oauth2/start?rd=/runs")
    while place.netloc:
        query = place.query if place.hostname == NAME else f"{place.query}&{urlencode({'login_hint': email})}"
        stated = {"Host": place.netloc, "Cookie": told(cookies) if place.hostname == NAME else ""}
        with closing(http.client.HTTPConnection("127.0.0.1", place.port, timeout=30)) as connection:
            connection.request("GET", f"{place.path}?{query}", headers=stated)
            answer = connection.getresponse()
            for cookie in answer.headers.get_all("Set-Cookie", []):
                cookies.load(cookie)
            place = urlsplit(answer.getheader("Location", ""))
    return told(cookies)


def told(cookies: SimpleCookie) -> str:
    return "; ".join(f"{name}={cookie.value}" for name, cookie in cookies.items() if cookie.value)


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
def site(project: Project, login: Login, ui: int, tmp_path: Path) -> Iterator[Site]:
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
            (":4180", f":{login.port}"),
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


def test_caddy_lets_in_who_has_logged_in_and_nobody_else(site: Site, login: Login) -> None:
    known = {"Cookie": login.log_in(site, "ada@otto.example")}
    stranger = {"Cookie": login.log_in(site, "eve@evil.example")}
    for path in ("/", "/up/report", "/runs"):
        assert site.ask("GET", path)[:2] == (302, f"/oauth2/sign_in?rd={path}")
        assert site.ask("GET", path, X_Forwarded_User="eve@evil.example")[0] == 302, "a header of one's own is no login"
        assert site.ask("GET", path, X_Auth_Request_Email="eve@evil.example")[0] == 302
        assert site.ask("GET", path, **stranger)[0] == 302, "somebody of another domain"
    status, _, page = site.ask("GET", "/oauth2/sign_in")
    assert status == 200
    assert b"Sign in" in page
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
