"""Webhooks against a real HTTP server: what it got is the judge."""

import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import sqlalchemy as sa
from standardwebhooks import Webhook

from tests.conftest import AS_OF, rows
from tests.journeys import Journeys, journey
from upnext.errors import UpnextError
from upnext.journeys.channels.webhook import retry_after
from upnext.journeys.dispatch import expire_leases
from upnext.journeys.policy import Channel, Endpoint, Policy

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
DAY = timedelta(days=1)
HOOK = {"do": "webhook", "name": "tell", "after": "0 days", "endpoint": "crm", "data": {"name": "{{ user.name }}"}}


class Receiver:
    """An HTTP server that keeps what it gets; `answers` are given in turn, and then 204."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[Any] = []
        self.connections = 0
        self.go = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                receiver.connections += 1
                super().setup()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
                answer = receiver.answers.pop(0) if receiver.answers else 204
                status, headers = answer if isinstance(answer, tuple) else (answer, {})
                if status == "stall":
                    receiver.go.wait(30)
                    return
                if status == "reset":
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    self.connection.close()
                    return
                self.send_response(200 if status == "endless" else status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(1 << 30) if status == "endless" else "0")
                self.end_headers()
                try:
                    while status == "endless":
                        self.wfile.write(b"x" * 65536)
                except OSError:
                    receiver.go.set()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?from=upnext"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.go.set()
    receiver.server.shutdown()
    receiver.server.server_close()


@pytest.fixture
def hooks(journeys: Journeys, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Journeys:
    """A journey that calls the receiver, and somebody in it."""
    monkeypatch.setenv("UPNEXT_CRM_SECRET", SECRET)
    journeys.project.settings = replace(journeys.project.settings, webhook_networks="127.0.0.1/32")
    journeys.project.policy = Policy(
        webhook=Channel(connections=1, timeout_seconds=1),
        endpoints={"crm": Endpoint(url=receiver.url, secret="UPNEXT_CRM_SECRET")},
    )
    journeys.person("ada", name="Ada")
    journeys.declare(hook=journey(HOOK))
    journeys.dispatch()
    journeys.tick(AS_OF, "entered", "ada")
    return journeys


def try_again(journeys: Journeys) -> None:
    with journeys.project.engine.begin() as connection:
        connection.execute(sa.text("update journeys.messages set retry_at = clock_timestamp()"))
    journeys.dispatch()


def wait_of(journeys: Journeys) -> timedelta:
    ((wait,),) = rows(journeys.project, "select retry_at - clock_timestamp() from journeys.messages")
    assert isinstance(wait, timedelta)
    return wait


def test_a_call_is_signed_by_the_specification(hooks: Journeys, receiver: Receiver) -> None:
    hooks.dispatch()
    ((headers, body),) = receiver.got
    verified = Webhook(SECRET).verify(body, headers)
    ((message_id,),) = hooks.messages("message_id")
    assert headers["webhook-id"] == message_id
    assert verified == {
        "type": "journey.hook.tell",
        "timestamp": AS_OF.isoformat(),
        "data": {"user_id": "ada", "message_id": message_id, "name": "Ada"},
    }
    assert hooks.messages() == [("tell", "sent", None)]


def test_one_connection_serves_many_calls(hooks: Journeys, receiver: Receiver) -> None:
    users = [f"u{number}" for number in range(10)]
    hooks.person(*users, name="Ada")
    hooks.tick(AS_OF, "entered", *users)
    hooks.dispatch()
    assert len(receiver.got) == 11
    assert receiver.connections == 1


def test_after_a_stall_and_errors_the_same_id_comes_again(hooks: Journeys, receiver: Receiver) -> None:
    receiver.answers = ["stall", 500, 500, (503, {"retry-after": "7"}), 200]
    waits = []
    for _ in range(4):
        try_again(hooks)
        waits.append(round(wait_of(hooks).total_seconds() / 5) * 5)
    assert waits == [5, 300, 1800, 5]
    try_again(hooks)
    assert hooks.messages() == [("tell", "sent", None)]
    assert len(receiver.got) == 5
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1


def test_it_is_given_up_after_its_schedule(hooks: Journeys, receiver: Receiver) -> None:
    receiver.answers = [500] * 20
    for _ in range(12):
        try_again(hooks)
    assert hooks.messages() == [("tell", "failed", "http 500")]
    assert len(receiver.got) == 10


def test_gone_disables_the_endpoint(hooks: Journeys, receiver: Receiver) -> None:
    receiver.answers = [410]
    hooks.dispatch()
    assert hooks.messages() == [("tell", "failed", "http 410")]
    hooks.person("bob")
    hooks.tick(AS_OF, "entered", "bob")
    hooks.dispatch()
    assert sorted(hooks.messages("user_id, status, reason")) == [
        ("ada", "failed", "http 410"), ("bob", "skipped", "endpoint is gone"),
    ]  # fmt: skip
    assert len(receiver.got) == 1
    moved = Endpoint(url=f"{receiver.url}?again", secret="UPNEXT_CRM_SECRET")
    hooks.project.policy = Policy(webhook=Channel(connections=1, timeout_seconds=1), endpoints={"crm": moved})
    hooks.person("cid", name="Cid")
    hooks.tick(AS_OF, "entered", "cid")
    hooks.dispatch()
    assert ("cid", "sent", None) in hooks.messages("user_id, status, reason"), "another address is another endpoint"


def test_gone_is_of_one_record_where_the_body_is_the_endpoint_s_own(hooks: Journeys, receiver: Receiver) -> None:
    crm = Endpoint(url=receiver.url, body={"id": "{{ user_id }}"})
    hooks.project.policy = Policy(webhook=Channel(connections=1, timeout_seconds=1), endpoints={"crm": crm})
    receiver.answers = [410]
    hooks.dispatch()
    hooks.person("bob", name="Bob")
    hooks.tick(AS_OF, "entered", "bob")
    hooks.dispatch()
    assert sorted(hooks.messages("user_id, status, reason")) == [("ada", "failed", "http 410"), ("bob", "sent", None)]


def test_a_call_that_ends_its_sender_again_and_again_is_given_up(hooks: Journeys) -> None:
    hooks.dispatch()
    for _ in range(11):
        hooks.write(
            "update journeys.messages set status = 'sending', fence = fence + 1, retry_at = null,"
            " lease_until = clock_timestamp() - interval '1 second' where status in ('pending', 'sent')"
        )
        expire_leases(hooks.project.engine, ["hook"])
    assert hooks.messages("status, attempts") == [("failed", 10)]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((302, {"location": "http://127.0.0.1:1/elsewhere"}), "http 302"),
        ("reset", "webhook: "),
        (404, "http 404"),
    ],
)
def test_a_redirect_is_not_followed_and_a_reset_is_tried_again(
    hooks: Journeys, receiver: Receiver, answer: Any, reason: str
) -> None:
    receiver.answers = [answer]
    hooks.dispatch()
    ((step, status, found),) = hooks.messages()
    assert (step, status, found.startswith(reason)) == ("tell", "pending", True)
    assert len(receiver.got) == 1
    try_again(hooks)
    assert hooks.messages() == [("tell", "sent", None)]


def test_a_body_of_a_gigabyte_is_not_read(hooks: Journeys, receiver: Receiver) -> None:
    receiver.answers = ["endless"]
    hooks.dispatch()
    assert hooks.messages() == [("tell", "sent", None)]
    assert receiver.go.wait(30), "the server saw that nobody reads on"


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:{port}/", "http://localhost:{port}/", "http://[::ffff:127.0.0.1]:{port}/"]
)
def test_one_s_own_network_is_refused_after_looking_it_up(hooks: Journeys, receiver: Receiver, url: str) -> None:
    hooks.project.settings = replace(hooks.project.settings, webhook_networks="192.0.2.0/24")
    there = Endpoint(url=url.format(port=receiver.server.server_port), secret="UPNEXT_CRM_SECRET")
    hooks.project.policy = Policy(endpoints={"crm": there})
    hooks.dispatch()
    assert hooks.messages() == [("tell", "failed", "webhook: the endpoint's name leads into one's own network")]
    assert receiver.got == []


def test_an_address_that_no_request_can_have_fails_alone(hooks: Journeys, receiver: Receiver) -> None:
    there = Endpoint(url=f"http://127.0.0.1:{receiver.server.server_port}/é", secret="UPNEXT_CRM_SECRET")
    hooks.project.policy = Policy(endpoints={"crm": there})
    hooks.dispatch()
    assert hooks.messages() == [("tell", "failed", "the address has a part that no request can have")]


def test_a_sender_that_died_calls_again_under_the_same_id(hooks: Journeys, receiver: Receiver) -> None:
    receiver.answers = [500]
    hooks.dispatch()
    with hooks.project.engine.begin() as connection:
        connection.execute(
            sa.text(
                "update journeys.messages set status = 'sending', retry_at = null,"
                " lease_until = clock_timestamp() - interval '1 second'"
            )
        )
    hooks.dispatch()
    assert [status for _, status, _ in hooks.messages()] == ["sent"]
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_***"])
def test_a_secret_that_is_none_is_told(hooks: Journeys, monkeypatch: pytest.MonkeyPatch, secret: str) -> None:
    monkeypatch.setenv("UPNEXT_CRM_SECRET", secret)
    with pytest.raises(UpnextError, match="endpoint 'crm': UPNEXT_CRM_SECRET is not a secret such as whsec_"):
        hooks.dispatch()
    assert hooks.messages() == [("tell", "pending", None)]


NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("120", timedelta(seconds=120)),
        ("0", timedelta(0)),
        ("-1", None),
        ("315360000", DAY),
        ("9" * 400, DAY),
        (format_datetime(NOW + timedelta(minutes=3), usegmt=True), timedelta(minutes=3)),
        (format_datetime(NOW - DAY, usegmt=True), timedelta(0)),
        ("soon", None),
        ("", None),
        (None, None),
    ],
)
def test_how_long_a_server_asks_to_wait(header: str | None, expected: timedelta | None) -> None:
    assert retry_after(header, now=NOW) == expected
