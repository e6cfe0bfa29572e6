"""The endpoints of other services that ship as examples, against receivers that check what each service documents."""

import json
import re
import threading
from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import msgspec
import pytest
import yaml

from tests.conftest import AS_OF, SmtpServer, rows
from tests.journeys import HOUR, Journeys, journey, mail
from upnext.errors import UpnextError
from upnext.journeys.channels.webhook import kept, targets
from upnext.journeys.declared import load_policy
from upnext.journeys.policy import Endpoint, Policy
from upnext.settings import PROJECT

EXAMPLES = yaml.safe_load((PROJECT / "examples" / "endpoints" / "policy.yml").read_text())["endpoints"]
VARIABLES = {
    "UPNEXT_SLACK_PATH": "T000/B000/xyz", "UPNEXT_TWILIO_ACCOUNT": "AC1", "UPNEXT_TWILIO_TOKEN": "secret",
    "UPNEXT_FCM_PROJECT": "otto", "UPNEXT_FCM_TOKEN": "ya29.token", "UPNEXT_BRAZE_KEY": "key",
}  # fmt: skip
Call = tuple[str, dict[str, str], bytes]


def slack(call: Call) -> tuple[int, bytes]:
    path, headers, body = call
    assert path == "/services/T000/B000/xyz"
    assert headers["content-type"].startswith("application/json")
    message = json.loads(body)
    assert set(message) <= {"text", "blocks", "attachments"}
    assert message["text"] == "Ada looked at 5 seats"
    return 200, b"ok"


def twilio_sms(call: Call) -> tuple[int, bytes]:
    path, headers, body = call
    assert path == "/2010-04-01/Accounts/AC1/Messages.json"
    assert b64decode(headers["authorization"].removeprefix("Basic ")).decode() == "AC1:secret"
    assert headers["content-type"] == "application/x-www-form-urlencoded"
    form = {name: value for name, [value] in parse_qs(body.decode(), strict_parsing=True).items()}
    assert set(form) == {"To", "From", "Body"}
    assert all(re.fullmatch(r"\+[1-9]\d{1,14}", form[name]) for name in ("To", "From"))
    assert form["Body"] == "On its way & more: 5"
    return 201, json.dumps({"sid": "SM0123", "status": "queued", "body": form["Body"]}).encode()


def fcm_push(call: Call) -> tuple[int, bytes]:
    path, headers, body = call
    assert path == "/v1/projects/otto/messages:send"
    assert headers["authorization"] == "Bearer ya29.token"
    message = json.loads(body)["message"]
    assert message["token"] == "device-1"
    assert message["notification"] == {"title": "Welcome", "body": "Try it"}
    assert all(isinstance(value, str) for value in message["data"].values()), "data of FCM are texts"
    return 200, b'{"name": "projects/otto/messages/0:15"}'


def braze_in_app(call: Call) -> tuple[int, bytes]:
    path, headers, body = call
    assert path == "/campaigns/trigger/send"
    assert headers["authorization"] == "Bearer key"
    asked = json.loads(body)
    [recipient] = asked["recipients"]
    assert (asked["campaign_id"], recipient["external_user_id"]) == ("spring", "ada")
    assert recipient["trigger_properties"] == {"title": "Welcome", "text": "Try it", "seats": 5}, "numbers stay numbers"
    return 201, b'{"dispatch_id": "d-1", "message": "success"}'


DATA = {
    "slack": ({"text": "{{ user.name }} looked at {{ event.seats }} seats"}, None),
    "twilio_sms": ({"to": "{{ user.phone }}", "text": "On its way & more: {{ event.seats }}"},
                   {"sid": "SM0123", "status": "queued"}),
    "fcm_push": ({"title": "Welcome", "text": "Try it"}, {"name": "projects/otto/messages/0:15"}),
    "braze_in_app": ({"campaign": "spring", "title": "Welcome", "text": "Try it"}, {"dispatch": "d-1"}),
}  # fmt: skip
CHECKS: dict[str, Callable[[Call], tuple[int, bytes]]] = {
    "slack": slack, "twilio_sms": twilio_sms, "fcm_push": fcm_push, "braze_in_app": braze_in_app,
}  # fmt: skip


class Service:
    """An HTTP server that answers as a check says, and keeps what a check has complained of."""

    def __init__(self) -> None:
        self.check: Callable[[Call], tuple[int, bytes]] = lambda _: (204, b"")
        self.complaints: list[str] = []
        self.methods: list[str] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                service.methods.append(self.command)
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                try:
                    status, content = service.check((self.path, headers, body))
                except Exception as error:  # the test reports it
                    service.complaints.append(repr(error))
                    status, content = 400, b"{}"
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_POST = do_PUT = do_PATCH = answer  # noqa: N815 - names of the library

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.origin = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    yield service
    service.server.shutdown()
    service.server.server_close()


def call(journeys: Journeys, service: Service, endpoint: Endpoint, *steps: dict[str, Any]) -> None:
    """Let ada through a journey that calls the endpoint, at the address of the service."""
    here = re.sub(r"^https://[^/]+", service.origin, endpoint.url)
    journeys.project.settings = replace(journeys.project.settings, webhook_networks="127.0.0.1/32")
    journeys.project.policy = Policy(endpoints={"it": msgspec.structs.replace(endpoint, url=here)})
    journeys.project.__dict__.pop("sender", None)
    journeys.person("ada", name="Ada", phone="+491701234567", push_token="device-1")
    journeys.declare(spring=journey(
        *steps, segment=None, existing_members=None, exit_on_leaving=False, event={"any_of": ["book demo"]},
    ))  # fmt: skip
    journeys.dispatch()
    journeys.product.track("ada", "book demo", AS_OF + HOUR, properties={"seats": 5})
    journeys.dispatch(AS_OF + 2 * HOUR)


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_example_says_what_its_service_documents(
    journeys: Journeys, service: Service, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for variable, value in VARIABLES.items():
        monkeypatch.setenv(variable, value)
    data, answer = DATA[name]
    service.check = CHECKS[name]
    endpoint = msgspec.convert(EXAMPLES[name], Endpoint)
    call(
        journeys,
        service,
        endpoint,
        {"do": "webhook", "name": "tell", "after": "0 days", "endpoint": "it", "data": data},
    )
    assert service.complaints == []
    assert rows(journeys.project, "select status, reason, answer from journeys.messages") == [("sent", None, answer)]


def test_later_steps_read_what_an_endpoint_answered(journeys: Journeys, service: Service, smtp: SmtpServer) -> None:
    service.check = lambda _: (200, b'{"ticket": {"id": 17, "owner": null}}')
    endpoint = Endpoint(url="https://x/", method="PUT", body={"a": ["{{ user_id }}", {"b": 1}]},
                        keep={"id": "ticket.id", "owner": "ticket.owner"})  # fmt: skip
    hook = {"do": "webhook", "name": "tell", "after": "0 days", "endpoint": "it"}
    call(journeys, service, endpoint, hook, mail("hello", after="2 hours", subject="Ticket {{ answers.tell.id }}"),
         mail("none", after="2 hours", subject="Of {{ answers.tell.owner }}"))  # fmt: skip
    journeys.dispatch(AS_OF + 4 * HOUR)
    assert service.methods == ["PUT"]
    assert [message["Subject"] for message in smtp.accepted] == ["Ticket 17"]
    assert ("none", "skipped", "step none, subject: 'owner' is missing") in journeys.messages()


@pytest.mark.parametrize("content", [b"", b"ok", b"[1]", b'{"a": 1', b"\xff", b'{"ticket": 5}', b'{"ticket": [1]}',
                                     b'{"ticket": {"id": "Gr\xfc\xdfe"}}', b'{"ticket": {"id": "a\\u0000b"}}',
                                     b'{"ticket": {"id": "\\ud800"}}', b"[" * 60_000])  # fmt: skip
def test_an_answer_that_says_nothing_keeps_nothing(content: bytes) -> None:
    assert kept(content, {"id": "ticket.id"}) is None


def test_secrets_come_from_variables_that_are_set() -> None:
    endpoint = Endpoint(url="https://x/${UPNEXT_A}", headers={"X-Key": "Bearer ${UPNEXT_B}"})
    found = targets({"it": endpoint}, {"UPNEXT_A": "a", "UPNEXT_B": "b"})["it"]
    assert (found.url.path, found.headers) == ("/a", {"x-key": "Bearer b"})
    with pytest.raises(UpnextError, match="endpoint 'it': the environment variable UPNEXT_B is not set"):
        targets({"it": endpoint}, {"UPNEXT_A": "a"})
    with pytest.raises(UpnextError, match="a header would hold what no header can, such as a line break"):
        targets({"it": endpoint}, {"UPNEXT_A": "a", "UPNEXT_B": "b\r\nX: y"})


MISTAKES = {
    "method: DELETE": "'method' is 'DELETE'; it must be one of PATCH, POST, PUT",
    "headers: {'X Key': a}": "'X Key' is no name of a header such as Authorization",
    "login: {user: ADA, password: UPNEXT_P}": "'user' is 'ADA'; it must be the name of an environment variable",
    "format: xml": "'format' is 'xml'; it must be one of form, json",
    "keep: {id: a..b}": "it must be a path such as",
}


@pytest.mark.parametrize(("line", "message"), MISTAKES.items(), ids=MISTAKES)
def test_a_mistake_in_an_endpoint_has_its_line(tmp_path: Any, line: str, message: str) -> None:
    path = tmp_path / "policy.yml"
    path.write_text(f"endpoints:\n  it:\n    url: https://x.example/\n    {line}\n")
    with pytest.raises(UpnextError, match=rf"policy.yml:4: .*{message}"):
        load_policy([], path)
