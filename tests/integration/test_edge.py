"""The collector as a process: what clients send, however badly, and what is in the warehouse afterwards."""

import gzip
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from segment.analytics.client import Client
from sqlalchemy.engine import URL, make_url

from tests.conftest import AS_OF, UPNEXT, create_database, free_port, rows, settings_for, wait_for
from upnext.clock import utc_now
from upnext.edge import manage
from upnext.events import ingest
from upnext.loop import ingest_landing
from upnext.project import Project
from upnext.warehouse.embedded import EmbeddedServer

OTTO = "https://otto.example"


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: Any


class Edge:
    """A running edge, and a client of it."""

    def __init__(self, project: Project, port: int, process: subprocess.Popen[bytes]) -> None:
        self.project, self.port, self.process = project, port, process
        self.key = self.add_key()

    def add_key(self, kind: Any = "write", **values: Any) -> str:
        stated = {"source": "segment", "origins": [OTTO] if kind == "write" else [], "identity": "required",
                  "events_per_second": 1_000_000, "now": AS_OF, **values}  # fmt: skip
        return manage.add_key(self.project.engine, kind=kind, **stated)[1]

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Send one request; a body that is not bytes is sent as JSON."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request(method, path, data, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            content = answer.read()
            stated = {name.lower(): value for name, value in answer.getheaders()}
            is_json = content and stated.get("content-type", "").startswith("application/json")
            return Answer(answer.status, stated, json.loads(content) if is_json else content)

    def post(self, path: str, body: Any, **headers: str) -> Answer:
        return self.ask(
            "POST", path, body, **{"Authorization": basic(self.key), "User-Agent": "Mozilla/5.0", **headers}
        )

    def waiting(self) -> int:
        return int(rows(self.project, "select count(*) from edge.inbox")[0][0])


def basic(key: str) -> str:
    return f"Basic {b64encode(f'{key}:'.encode()).decode()}"


@contextmanager
def running(project: Project, *, workers: int = 1, port: int | None = None, **environment: str) -> Iterator[Edge]:
    port = port or free_port()
    url = project.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    command = [UPNEXT, "edge", "--port", str(port), "--workers", str(workers)]
    variables = {**os.environ, "UPNEXT_HOME": str(project.settings.home), "UPNEXT_DATABASE_URL": url, **environment}
    with subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            edge = Edge(project, port, process)
            is_ready = partial(is_up, port, environment.get("UPNEXT_EDGE_PREFIX", ""))
            wait_for(lambda: is_ready() or process.poll() is not None, "the edge")
            assert process.poll() is None, process.stderr and process.stderr.read().decode()
            yield edge
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()


def children(pid: int) -> list[int]:
    """The processes that serve."""
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_up(port: int, prefix: str = "") -> bool:
    try:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=2)) as connection:
            connection.request("GET", f"{prefix}/readyz")
            return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False


@pytest.fixture
def edge(project: Project) -> Iterator[Edge]:
    with running(project) as running_edge:
        yield running_edge


def track(number: int, **values: Any) -> dict[str, Any]:
    return {"type": "track", "event": "login", "userId": f"u{number}", "messageId": f"m{number}", **values}


def stored(project: Project) -> list[str]:
    return [one for (one,) in rows(project, "select message_id from raw.events order by message_id")]


def test_each_call_of_a_client_becomes_an_event(edge: Edge) -> None:
    calls = {
        "track": {"event": "login"}, "identify": {"traits": {"plan": "basic"}}, "page": {"name": "Home"},
        "screen": {"name": "Start", "category": "App"}, "group": {"groupId": "g"}, "alias": {"previousId": "old"},
    }  # fmt: skip
    for number, (kind, values) in enumerate(calls.items()):
        for nth, path in enumerate((f"/v1/{kind}", f"/{kind}", f"/v1/{kind[0]}", f"/{kind[0]}")):
            body = {"userId": "ann", "messageId": f"{number}-{nth}", **values}
            for _ in ("first", "again"):
                assert edge.post(path, body).body == {"success": True}
    done = ingest_landing(edge.project)
    assert (done.stored, done.duplicate, done.rejected) == (24, 24, 0)
    kinds = "select type, count(*) from raw.events group by 1 order by 1"
    assert rows(edge.project, kinds) == [(kind, 4) for kind in sorted(calls)]
    named = "select properties from raw.events where message_id in ('2-0', '3-0') order by message_id"
    assert rows(edge.project, named) == [({"name": "Home"},), ({"name": "Start", "category": "App"},)]
    loads = "select path, received, stored + duplicate + rejected from raw.loads where path like 'edge:%'"
    assert rows(edge.project, loads) == [("edge:1-48", 48, 48)]


def test_the_key_is_told_in_four_ways_and_the_header_wins(edge: Edge) -> None:
    plain = {"Content-Type": "text/plain;charset=UTF-8"}
    agent = {"User-Agent": "Mozilla/5.0"}
    assert edge.ask("POST", "/v1/t", track(1), Authorization=basic(edge.key), **plain, **agent).status == 200
    assert edge.ask("POST", "/v1/t", {**track(2), "writeKey": edge.key}, **agent).status == 200
    assert edge.ask("POST", "/v1/t", track(3), X_Write_Key=edge.key, **agent).status == 200
    assert edge.ask("POST", f"/v1/t?writeKey={edge.key}", track(4), **agent).status == 200
    wrong = edge.ask("POST", "/v1/t", {**track(5), "writeKey": edge.key}, Authorization=basic("wk_no"))
    assert (wrong.status, wrong.body["code"]) == (401, "unauthorized")
    for header in ("Basic", f"Basic {'a' * 20_000}", basic(f"{edge.key}x"), "Bearer \xff"):
        assert edge.ask("POST", "/v1/t", track(6), Authorization=header).status == 401
    lines = rows(edge.project, "select convert_from(line, 'UTF8') from edge.inbox")
    assert len(lines) == 4
    assert not [line for (line,) in lines if edge.key in line or "writeKey" in line]
    counted = "select key_id, reason, count from edge.refusals"
    wait_for(lambda: rows(edge.project, counted) == [(0, "unauthorized", 5)], "the refusals")


def test_a_disabled_key_is_refused_within_ten_seconds(edge: Edge) -> None:
    assert edge.post("/v1/t", track(1)).status == 200
    manage.disable_key(edge.project.engine, 1, now=utc_now())
    begun = time.monotonic()
    wait_for(lambda: edge.post("/v1/t", track(2)).status == 401, "the key to be refused")
    assert time.monotonic() - begun < 12
    settings = edge.ask("GET", f"/v1/projects/{edge.key}/settings")
    assert settings.status == 401


def test_whatever_is_wrong_with_one_event_its_neighbours_are_stored(edge: Edge) -> None:
    bad: list[bytes] = [
        b"1", b'"x"', b"null", b"[]", b"{}", b'{"type": "dance", "userId": "u", "messageId": "a"}',
        b'{"type": "track", "event": "login", "messageId": "b"}',
        b'{"type": "track", "event": "login", "userId": "u", "messageId": "c", "properties": {"n": 1e999}}',
        b'{"type": "track", "event": "login", "userId": "u", "messageId": "d", "properties": {"n": "\xff"}}',
        b'{"type": "track", "event": "login", "userId": "u", "messageId": "e", "properties": {"n": "\\u0000"}}',
        b'{"type": "track", "event": "login", "userId": "u", "messageId": "f", "properties": {"n": "\\ud800"}}',
        b'{"type": "track", "event": "login", "userId": "u", "messageId": "g", "properties": {"n": "'
        + b"x" * 33_000 + b'"}}',
        b'{"type": "track", "event": "login", "userId": "u", "messageId": "h", "properties": '
        + b'{"n":' * 200 + b"1" + b"}" * 200 + b"}",
        b'{"type": "track", "event": "login", "userId": "visitor:x", "messageId": "i"}',
    ]  # fmt: skip
    for number, item in enumerate(bad):
        good = [json.dumps(track(number * 10 + nth)).encode() for nth in (0, 1)]
        answer = edge.post("/v1/batch", b'{"batch": [' + b",".join([good[0], item, good[1]]) + b"]}")
        assert (answer.status, answer.body) == (200, {"success": True}), item[:80]
    done = ingest_landing(edge.project)
    assert (done.received, done.stored, done.rejected) == (3 * len(bad), 2 * len(bad), len(bad))
    reasons = dict(rows(edge.project, "select reason, count(*) from raw.rejected_events group by 1"))
    assert reasons.keys() >= {"invalid_shape", "unknown_type", "no_user", "too_large", "too_deep", "nul_character"}


def raw(port: int, sent: bytes, *, wait: float = 15) -> bytes:
    """Send bytes as they are, and return what comes until the other side closes, or for a while."""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=wait)) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
        return b"".join(parts)


BOMB = gzip.compress(b"0" * 300_000_000)
REFUSED: dict[str, tuple[bytes, dict[str, str], int]] = {
    "empty": (b"", {}, 400),
    "a list": (b"[]", {}, 400),
    "no batch": (b"{}", {}, 400),
    "a batch that is none": (b'{"batch": {}}', {}, 400),
    "too many events": (b'{"batch": [' + b"1," * 2500 + b"1]}", {}, 413),
    "a mark at the beginning": (b'\xef\xbb\xbf{"batch": []}', {}, 400),
    "bytes behind the end": (b'{"batch": []} x', {}, 400),
    "nested deeply": (b'{"batch": [' + b"[" * 10_000 + b"]" * 10_000 + b"]}", {}, 400),
    "too large": (b'{"batch": ["' + b"x" * 600_000 + b'"]}', {}, 413),
    "gzip that is none": (b'{"batch": []}', {"Content-Encoding": "gzip"}, 400),
    "gzip that is cut": (gzip.compress(b'{"batch": []}')[:-9], {"Content-Encoding": "gzip"}, 400),
    "gzip with something behind": (gzip.compress(b'{"batch": []}') + b"x", {"Content-Encoding": "gzip"}, 400),
    "gzip twice": (gzip.compress(gzip.compress(b'{"batch": []}')), {"Content-Encoding": "gzip"}, 400),
    "a bomb": (BOMB, {"Content-Encoding": "gzip"}, 413),
    "another encoding": (b'{"batch": []}', {"Content-Encoding": "br"}, 415),
}


@pytest.fixture(scope="module")
def shared_edge(embedded_url: URL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """One edge for tests that leave nothing behind."""
    project = Project(settings_for(tmp_path_factory.mktemp("edge"), create_database(embedded_url, "upnext_edge")))
    with running(project) as running_edge:
        yield running_edge
    project.engine.dispose()


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_request_is_refused_with_a_reason(shared_edge: Edge, name: str) -> None:
    body, headers, status = REFUSED[name]
    answer = shared_edge.post("/v1/batch", body, **headers)
    assert answer.status == status
    assert answer.body.keys() == {"code", "message"}
    assert shared_edge.waiting() == 0


def test_gzip_is_read_whatever_the_content_type_says(edge: Edge) -> None:
    for number, kind in enumerate(("application/json", "text/plain", "application/gzip", "nonsense")):
        body = gzip.compress(json.dumps({"batch": [track(number)]}).encode())
        assert edge.post("/v1/batch", body, Content_Encoding="gzip", Content_Type=kind).status == 200
    whole = json.dumps({"batch": [track(5)]}).encode()
    parts = gzip.compress(whole[:20]) + gzip.compress(whole[20:])
    assert edge.post("/v1/batch", parts, Content_Encoding="gzip").status == 200
    assert ingest_landing(edge.project).stored == 5


def test_paths_and_methods(shared_edge: Edge) -> None:
    for method, path, status in (
        ("GET", "/healthz", 200), ("GET", "/readyz", 200), ("GET", "/robots.txt", 200), ("GET", "/metrics", 200),
        ("GET", "/v1/t", 405), ("PUT", "/v1/t", 405), ("HEAD", "/v1/t", 405), ("GET", "/", 404),
        ("POST", "//v1/x", 404), ("POST", "/v1/%2e%2e/t", 404), ("POST", "/v1/dance", 404), ("GET", "/metrics/", 200),
    ):  # fmt: skip
        assert shared_edge.ask(method, path).status == status, path
    assert shared_edge.ask("GET", "/metrics", X_Forwarded_For="203.0.113.9").status == 404
    for sent, status in (
        (b"POST /t HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", (400,)),
        (b"POST /v1/t HTTP/1.1\r\nHost: x\r\nContent-Length: nonsense\r\n\r\n", (400,)),
        (b"POST /v1/t HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", (400,)),
        (b"POST http://x/v1/t HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", (401, 404)),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"X-A: " + b"a" * 2_000_000 + b"\r\n\r\n", (431,)),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"X-A: a\r\n" * 10_000 + b"\r\n", (431,)),
        (b"nonsense\r\n\r\n", (400,)),
        (b"GET /healthz HTTP/1.0\r\n\r\n", (200,)),
        (b"GET /healthz HTTP/1.0\r\nHost: x\r\n\r\n", (200,)),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nOrigin: http://[\r\nConnection: close\r\n\r\n", (200,)),
        (b"HEAD /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", (200,)),
        (b"HEAD /js/u.js HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", (200,)),
    ):  # fmt: skip
        try:
            answer = raw(shared_edge.port, sent)
        except OSError:
            continue
        assert answer == b"" or int(answer.split()[1]) in status, (sent[:60], answer[:200])
    assert shared_edge.ask("GET", "/healthz").status == 200
    assert shared_edge.waiting() == 0
    refused = "select count(*) > 0 from edge.refusals where reason in ('not_found', 'method_not_allowed')"
    wait_for(lambda: rows(shared_edge.project, refused) == [(True,)], "refusals are counted")


def test_a_body_that_does_not_come_ends_the_wait(shared_edge: Edge) -> None:
    head = f"POST /v1/t HTTP/1.1\r\nHost: x\r\nAuthorization: {basic(shared_edge.key)}\r\nContent-Length: 50\r\n\r\n{{"
    with closing(socket.create_connection(("127.0.0.1", shared_edge.port), timeout=30)) as connection:
        connection.sendall(head.encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 408")
    with closing(socket.create_connection(("127.0.0.1", shared_edge.port), timeout=30)) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHo")
        assert connection.recv(4096)[:12] in (b"", b"HTTP/1.1 408")


def test_pages_of_listed_origins_alone_may_talk(shared_edge: Edge) -> None:
    asks = {"Access-Control-Request-Method": "POST"}
    allowed = shared_edge.ask("OPTIONS", "/v1/t", Origin=OTTO, **asks)
    assert (allowed.status, allowed.headers["access-control-allow-origin"]) == (204, OTTO)
    assert "x-retry-count" in allowed.headers["access-control-allow-headers"]
    for origin in ("https://otto.example.evil", "null", "http://otto.example"):
        preflight = shared_edge.ask("OPTIONS", "/v1/t", Origin=origin, **asks)
        refused = shared_edge.post("/v1/t", track(1), Origin=origin)
        assert (preflight.status, refused.status) == (204, 403)
        assert "access-control-allow-origin" not in preflight.headers | refused.headers
        assert refused.headers["vary"] == "Origin"
    for answer in (shared_edge.post("/v1/t", b"[", Origin=OTTO), shared_edge.ask("GET", "/nothing", Origin=OTTO)):
        assert answer.headers["access-control-allow-origin"] == OTTO
        assert "Retry-After" in answer.headers["access-control-expose-headers"]
    server = shared_edge.add_key("server")
    wait_for(
        lambda: shared_edge.ask("POST", "/v1/m", b"", Authorization=f"Bearer {server}").status == 200, "the server key"
    )
    assert shared_edge.waiting() == 0


def test_a_server_key_is_not_for_browsers_and_a_key_may_send_too_fast(project: Project) -> None:
    with running(project) as edge:
        server = edge.add_key("server")
        slow = edge.add_key(events_per_second=1)
        wait_for(lambda: edge.ask("POST", "/v1/t", track(0), Authorization=f"Bearer {server}").status == 200, "the key")
        assert edge.ask("POST", "/v1/t", track(0), Authorization=f"Bearer {server}", Origin=OTTO).status == 403
        batch = {"batch": [track(number) for number in range(4)]}
        assert edge.post("/v1/b", batch, Authorization=basic(slow)).status == 200
        refused = edge.post("/v1/b", batch, Authorization=basic(slow), Origin=OTTO)
        assert (refused.status, refused.body["code"]) == (429, "too_many_requests")
        assert 1 <= int(refused.headers["retry-after"]) <= 4


def test_who_wants_privacy_is_not_stored(project: Project) -> None:
    with running(project, UPNEXT_EDGE_HONOUR_GPC="on") as edge:
        server = edge.add_key("server")
        wait_for(lambda: edge.ask("POST", "/v1/m", b"", Authorization=f"Bearer {server}").status == 200, "the key")
        for number, headers in enumerate(({"Sec_GPC": "1"}, {"DNT": "1"}, {"Sec_GPC": "0", "DNT": "null"})):
            assert edge.post("/v1/t", track(number), **headers).status == 200
        told = edge.ask("POST", "/v1/t", track(3), Authorization=f"Bearer {server}", Sec_GPC="1")
        assert told.status == 200, "a server speaks for itself"
        counted = "select sum(count) from edge.refusals where reason = 'no_consent'"
        wait_for(lambda: rows(project, counted) == [(2,)], "they are counted")
    ingest_landing(project)
    assert stored(project) == ["m2", "m3"]


def test_what_a_browser_client_asks_for_first(shared_edge: Edge) -> None:
    found = shared_edge.ask("GET", f"/v1/projects/{shared_edge.key}/settings", Origin=OTTO)
    segment = found.body["integrations"]["Segment.io"]
    assert segment == {
        "apiKey": shared_edge.key, "apiHost": f"127.0.0.1:{shared_edge.port}/v1", "protocol": "http"
    }  # fmt: skip
    assert found.headers["cache-control"] == "public, max-age=300"
    path = f"/v1/projects/{shared_edge.key}/settings"
    for header in ({"X_Forwarded_Host": "evil.example"}, {"Forwarded": "host=evil.example;proto=https"}):
        assert shared_edge.ask("GET", path, **header).body == found.body, "nobody else's edge, by a header of anybody"


def test_a_trusted_proxy_says_by_which_name_the_edge_is_asked(project: Project) -> None:
    with running(project, UPNEXT_EDGE_TRUSTED_PROXIES="127.0.0.0/8") as edge:
        path = f"/v1/projects/{edge.key}/settings"
        found = edge.ask("GET", path, X_Forwarded_Host="edge.otto.example", X_Forwarded_Proto="https").body
        segment = found["integrations"]["Segment.io"]
        assert (segment["apiHost"], segment["protocol"]) == ("edge.otto.example/v1", "https")
        # The proxy adds to what the client states, and does not know `Forwarded`.
        lies = {
            "X_Forwarded_Host": "evil.example, edge.otto.example",
            "Forwarded": "host=evil.example;proto=javascript",
        }
        assert edge.ask("GET", path, **lies).body["integrations"]["Segment.io"]["apiHost"] == "edge.otto.example/v1"
        for stated in ("evil.example/x", "a b", "http://evil.example"):
            found = edge.ask("GET", path, X_Forwarded_Host=stated, X_Forwarded_Proto="javascript").body
            segment = found["integrations"]["Segment.io"]
            assert (segment["apiHost"], segment["protocol"]) == (f"127.0.0.1:{edge.port}/v1", "http")
        # A page of the name that the proxy serves is of the same origin.
        own = {"Origin": "https://edge.otto.example", "X_Forwarded_Host": "edge.otto.example"}
        assert edge.post("/v1/t", track(1), **own).status == 200
        server = edge.add_key("server")
        wait_for(lambda: edge.ask("POST", "/v1/t", track(0), Authorization=f"Bearer {server}").status == 200, "the key")
        assert edge.ask("GET", f"/v1/projects/{server}/settings").status == 401


class Load:
    """Clients that send until they are told to stop, each with a ledger of what was acknowledged."""

    def __init__(self, edge: Edge, clients: int = 8) -> None:
        self.acknowledged: set[str] = set()
        self.sent: set[str] = set()
        self.statuses: set[int] = set()
        self._edge = edge
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=[client]) for client in range(clients)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _send(self, client: int) -> None:
        number = 0
        while not self._is_over.is_set():
            number += 1
            ids = [f"{client}-{number}-{nth}" for nth in range(3)]
            batch = {"batch": [track(client, messageId=one) for one in ids]}
            self.sent.update(ids)
            try:
                status = self._edge.post("/v1/batch", batch).status
            except (OSError, http.client.HTTPException):
                self._is_over.wait(0.05)
                continue
            self.statuses.add(status)
            if status == 200:
                self.acknowledged.update(ids)
            else:
                self._is_over.wait(0.05)


def check(project: Project, load: Load) -> None:
    """That what was acknowledged is stored, once, and nothing that was not sent."""
    ingest_landing(project)
    found = stored(project)
    assert len(found) == len(set(found))
    assert load.acknowledged <= set(found) <= load.sent
    assert rows(project, "select count(*) from edge.inbox") == [(0,)]


def test_what_was_acknowledged_is_stored_when_the_edge_is_killed(project: Project) -> None:
    with running(project) as edge:
        with Load(edge) as load:
            wait_for(lambda: len(load.acknowledged) > 300, "some events")
            for child in children(edge.process.pid):
                os.kill(child, signal.SIGKILL)
            edge.process.send_signal(signal.SIGKILL)
            edge.process.wait()
            before = len(load.acknowledged)
        assert before > 300
    assert edge.process.returncode == -signal.SIGKILL
    check(project, load)


def test_what_was_accepted_is_answered_when_the_edge_is_told_to_stop(project: Project) -> None:
    with running(project) as edge:
        with Load(edge) as load:
            wait_for(lambda: len(load.acknowledged) > 300, "some events")
            edge.process.terminate()
            assert edge.process.wait(timeout=40) == 0
        assert load.statuses <= {200, 503}
    check(project, load)


def test_a_worker_is_killed_and_another_takes_its_place(project: Project) -> None:
    with running(project, workers=2) as edge:
        with Load(edge) as load:
            wait_for(lambda: len(load.acknowledged) > 300, "some events")
            killed = children(edge.process.pid)
            os.kill(killed[-1], signal.SIGKILL)
            wait_for(lambda: len(set(children(edge.process.pid)) - set(killed)) == 1, "another worker")
            before = len(load.acknowledged)
            wait_for(lambda: len(load.acknowledged) > before + 300, "more events")
        assert edge.process.poll() is None
    check(project, load)


def test_three_drains_at_once_store_each_event_once(project: Project) -> None:
    with running(project) as edge, Load(edge) as load, ThreadPoolExecutor(3) as pool:
        for _ in range(3):
            before = len(load.acknowledged)
            wait_for(lambda before=before: len(load.acknowledged) > before + 300, "more events")  # type: ignore[misc]
            done = [one.result() for one in [pool.submit(ingest_landing, project) for _ in range(3)]]
            assert sum(one.duplicate + one.rejected for one in done) == 0
    check(project, load)


def test_a_page_that_cannot_be_stored_is_back_in_the_inbox_and_so_is_the_next(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = (
        '{"type": "track", "event": "login", "userId": "ann", "messageId": "%s", "timestamp": "2026-03-31T12:00:00Z"}'
    )
    with project.engine.begin() as connection:
        for number in range(30):
            values = {"line": (line % number).encode()}
            connection.execute(sa.text("insert into edge.inbox (source, line) values ('segment', :line)"), values)
    stored, load_lines = iter([True, False]), ingest._load_lines

    def fails_at_the_second_page(*given: Any) -> Any:
        if not next(stored):
            raise RuntimeError
        return load_lines(*given)

    monkeypatch.setattr(ingest, "PAGE", 10)
    with monkeypatch.context() as failing:
        failing.setattr(ingest, "_load_lines", fails_at_the_second_page)
        with pytest.raises(RuntimeError):
            ingest_landing(project)
    counts = "select (select count(*) from raw.events), (select count(*) from edge.inbox)"
    assert rows(project, counts) == [(10, 20)]
    assert ingest_landing(project).stored == 20
    assert rows(project, counts) == [(30, 0)]


def test_while_the_warehouse_is_read_only_clients_wait_and_decisions_are_given(project: Project) -> None:
    database = project.engine.url.database
    autocommit = project.engine.execution_options(isolation_level="AUTOCOMMIT")
    with running(project) as edge, autocommit.connect() as connection:
        server = {"Authorization": f"Bearer {edge.add_key('server')}"}
        asked = ("POST", "/ofrep/v1/evaluate/flags", {"context": {"targetingKey": "ann"}})
        wait_for(lambda: edge.ask(*asked, **server).status == 200, "the key")
        ends = (
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = %(name)s and pid <> pg_backend_pid()"
        )
        with Load(edge) as load:
            wait_for(lambda: len(load.acknowledged) > 50, "some events")
            connection.exec_driver_sql(f'alter database "{database}" set default_transaction_read_only = on')
            connection.exec_driver_sql(ends, {"name": database})
            wait_for(lambda: 503 in load.statuses, "a 503")
            wait_for(lambda: edge.ask("GET", "/readyz").status == 503, "it is not ready")
            assert edge.ask(*asked, **server).status == 200
            connection.exec_driver_sql(f'alter database "{database}" reset default_transaction_read_only')
            connection.exec_driver_sql(ends, {"name": database})
            before = len(load.acknowledged)
            wait_for(lambda: len(load.acknowledged) > before + 50, "it goes on")
    project.engine.dispose()
    check(project, load)


def test_a_clock_that_is_set_back_an_hour_and_forth_again_loses_nothing(project: Project, tmp_path: Path) -> None:
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        pytest.skip("libfaketime is not here, by which a process sees another clock")
    clock = tmp_path / "clock"
    clock.write_text("+0")
    faked = {
        "LD_PRELOAD": f"{library}", "FAKETIME_TIMESTAMP_FILE": f"{clock}", "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }  # fmt: skip
    with running(project, **faked) as edge, Load(edge) as load:
        wait_for(lambda: len(load.acknowledged) > 100, "some events")
        clock.write_text("-3600")
        back = "select count(*) from edge.inbox where received_at < now() - interval '50 minutes'"
        wait_for(lambda: rows(project, back) != [(0,)], "an event of an hour ago")
        server = {"Authorization": f"Bearer {edge.add_key('server')}"}
        asked = ("POST", "/ofrep/v1/evaluate/flags", {"context": {"targetingKey": "ann"}})
        wait_for(lambda: edge.ask(*asked, **server).status == 200, "the new key: keys grow old all the same")
        clock.write_text("+0")
        before = len(load.acknowledged)
        wait_for(lambda: len(load.acknowledged) > before + 100, "it goes on")
        assert edge.ask(*asked, **server).status == 200
    assert load.statuses == {200}
    check(project, load)


def test_slow_commits_fill_no_memory(project: Project) -> None:
    """A commit takes two seconds: what does not fit into the queue is told to come again."""
    with project.engine.begin() as connection:
        connection.exec_driver_sql(
            "create function edge.slow() returns trigger language plpgsql as"
            " 'begin perform pg_sleep(2); return null; end';"
            " create trigger slow after insert on edge.inbox for each statement execute function edge.slow()"
        )
    large = "x" * 400
    with running(project) as edge, ThreadPoolExecutor(40) as pool:
        batches = [
            {"batch": [track(0, messageId=f"{one}-{nth}", properties={"note": large}) for nth in range(800)]}
            for one in range(40)
        ]
        answers = list(pool.map(lambda batch: edge.post("/v1/b", batch).status, batches))
        assert set(answers) == {200, 503}
        (serving,) = children(edge.process.pid)
        pages = int(Path(f"/proc/{serving}/statm").read_text().split()[1])
        assert pages * os.sysconf("SC_PAGE_SIZE") < 250_000_000
    ingest_landing(project)
    accepted = {line["messageId"] for batch, answer in zip(batches, answers, strict=True) if answer == 200
                for line in batch["batch"]}  # fmt: skip
    assert set(stored(project)) == accepted


def test_the_disk_of_the_warehouse_is_full(small_disk: Path, tmp_path: Path) -> None:
    server = EmbeddedServer(small_disk / "server")
    project = Project(settings_for(tmp_path / "home", create_database(make_url(server.start()))))
    with running(project) as edge, Load(edge) as load:
        wait_for(lambda: len(load.acknowledged) > 50, "some events")
        filler = small_disk / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as stream:
            while stream.write(b"x" * 100_000):
                pass
        batch = {"batch": [track(0, messageId=f"large-{nth}", properties={"note": "x" * 4000}) for nth in range(100)]}
        load.sent.update(line["messageId"] for line in batch["batch"])
        wait_for(lambda: edge.post("/v1/b", batch).status == 503, "a full disk")
        filler.unlink()
        server.start()
        before = len(load.acknowledged)
        wait_for(lambda: len(load.acknowledged) > before + 50, "it goes on")
    project.engine.dispose()
    check(project, load)
    project.engine.dispose()
    server.stop()


def test_several_processes_drain_and_fill_at_once(project: Project) -> None:
    with running(project, workers=2) as edge, Load(edge) as load:
        for _ in range(3):
            before = len(load.acknowledged)
            wait_for(lambda before=before: len(load.acknowledged) > before + 200, "more events")  # type: ignore[misc]
            ingest_landing(project)
    assert load.statuses == {200}
    check(project, load)


@contextmanager
def refusing(project: Project) -> Iterator[None]:
    """A server that ends the connections of the warehouse, and takes none."""
    database = project.engine.url.database
    other = sa.create_engine(project.engine.url.set(database="postgres"), isolation_level="AUTOCOMMIT")
    with other.connect() as connection:
        connection.exec_driver_sql(f'alter database "{database}" allow_connections false')
        ends = "select pg_terminate_backend(pid) from pg_stat_activity where datname = %(name)s"
        connection.exec_driver_sql(ends, {"name": database})
        try:
            yield
        finally:
            connection.exec_driver_sql(f'alter database "{database}" allow_connections true')
    other.dispose()


def test_before_any_key_could_be_read_everybody_is_told_to_wait(project: Project) -> None:
    with running(project) as edge:
        with refusing(project), ThreadPoolExecutor(6) as pool:
            asked = [pool.submit(edge.post, "/v1/t", track(number), Origin=OTTO) for number in range(6)]
            asked.append(pool.submit(edge.ask, "GET", f"/v1/projects/{edge.key}/settings"))
            assert [one.result().status for one in asked] == [503] * 7
            assert edge.ask("GET", "/healthz", Origin=OTTO).status == 200
        wait_for(lambda: edge.post("/v1/t", track(9)).status == 200, "the warehouse")
        assert edge.waiting() == 1


def test_while_the_warehouse_refuses_clients_are_told_to_wait_and_go_on_by_themselves(project: Project) -> None:
    with running(project) as edge:
        assert edge.post("/v1/t", track(1)).status == 200
        with Load(edge) as load:
            wait_for(lambda: len(load.acknowledged) > 50, "some events")
            with refusing(project):
                wait_for(lambda: 503 in load.statuses, "a 503")
                refused = edge.post("/v1/t", track(2))
                assert (refused.status, refused.headers["retry-after"]) == (503, "2")
                assert edge.ask("GET", "/readyz").status == 503
                assert edge.ask("GET", "/healthz").status == 200
            wait_for(lambda: edge.post("/v1/t", track(3)).status == 200, "the warehouse")
    load.sent.update(("m1", "m2", "m3"))
    check(project, load)
    assert {"m1", "m3"} <= set(stored(project))


def test_it_comes_up_without_what_it_does_not_need() -> None:
    loads = "import sys, upnext.edge.app; print(*{'dagster', 'dbt', 'pandas', 'upnext.project'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", loads], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("is_gzipped", [False, True])
def test_segments_python_client_as_it_is(edge: Edge, *, is_gzipped: bool) -> None:
    failures: list[Any] = []
    client = Client(
        edge.add_key(), host=f"http://127.0.0.1:{edge.port}", gzip=is_gzipped, on_error=lambda *of: failures.append(of)
    )
    client.identify("ann", {"plan": "basic"})
    for number in range(150):
        client.track("ann", "login", {"number": number})
    client.page("ann", "Docs", "Pricing", {"url": "https://otto.example/pricing?email=ann@otto.example"})
    client.group("ann", "acme", {"seats": 5})
    client.alias("old", "ann")
    client.flush()
    client.join()
    assert failures == []
    done = ingest_landing(edge.project)
    assert (done.stored, done.rejected) == (154, 0)
    counts = "select type, count(*) from raw.events group by 1 order by 1"
    assert rows(edge.project, counts) == [("alias", 1), ("group", 1), ("identify", 1), ("page", 1), ("track", 150)]
    page = {"name": "Pricing", "category": "Docs", "url": "https://otto.example/pricing"}
    assert rows(edge.project, "select properties from raw.events where type = 'page'") == [(page,)]


def test_segments_python_client_tells_what_was_refused(shared_edge: Edge) -> None:
    failures: list[Any] = []
    client = Client(
        "wk_unknown", host=f"http://127.0.0.1:{shared_edge.port}", on_error=lambda error, _: failures.append(error)
    )
    client.track("ann", "login")
    client.flush()
    client.join()
    assert [(error.status, error.code) for error in failures] == [(401, "unauthorized")]


def test_segments_node_client_as_it_is(edge: Edge, clients: Path) -> None:
    command = [shutil.which("node") or "", "send.mjs", f"http://127.0.0.1:{edge.port}", edge.key]
    done = subprocess.run(command, cwd=clients, capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("", "")
    ingested = ingest_landing(edge.project)
    assert (ingested.stored, ingested.rejected) == (54, 0)
    counts = "select type, count(*) from raw.events group by 1 order by 1"
    assert rows(edge.project, counts) == [("alias", 1), ("group", 1), ("identify", 1), ("page", 1), ("track", 50)]
    assert rows(edge.project, "select properties ->> 'name' from raw.events where type = 'page'") == [("Pricing",)]
