"""TLS and login against a real server with a certificate of the test's own authority."""

import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from tests.conftest import free_port
from upnext.errors import UpnextError
from upnext.journeys.channels.channel import Outcome
from upnext.journeys.channels.smtp import SmtpConnection, parse_smtp_url
from upnext.journeys.copy.message import Rendered

MESSAGE = Rendered("m-1", b"Subject: Hi\r\n\r\n.dot\r\n", "hello@otto.example", "ada@customer.example")


class Server:
    """Keeps who logged in, and what it got."""

    def __init__(self) -> None:
        self.logins: list[bytes] = []
        self.got: list[tuple[bool, bytes]] = []

    def authenticate(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        self.logins.append(data.password)
        return AuthResult(success=data.password == b"s3cret")

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        self.got.append((session.ssl is not None, envelope.content))
        return "250 OK"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl on this machine")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder


@pytest.fixture
def server(certificate: Path) -> Iterator[tuple[Server, int]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    server, port = Server(), free_port()
    controller = Controller(
        server, hostname="127.0.0.1", port=port, tls_context=context, authenticator=server.authenticate,
        auth_required=True,
    )  # fmt: skip
    controller.start()
    yield server, port
    controller.stop()


def connection(port: int, password: str) -> SmtpConnection:
    return SmtpConnection(parse_smtp_url(f"smtp://otto:{password}@localhost:{port}"), 10)


def test_a_password_goes_over_tls_and_the_text_arrives_as_it_is(
    server: tuple[Server, int], certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))
    log, port = server
    client = connection(port, "s3cret")
    assert client.send(MESSAGE).outcome is Outcome.SENT
    client.close()
    assert log.logins == [b"s3cret"]
    assert log.got == [(True, MESSAGE.content)]


def test_a_wrong_password_is_an_error_without_the_password(
    server: tuple[Server, int], certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))
    with pytest.raises(UpnextError, match=r"cannot be used \(SMTP\w+\)") as raised:
        connection(server[1], "wr0ng").open()
    assert "wr0ng" not in str(raised.value)


def test_a_certificate_that_nobody_vouches_for_gets_nothing(server: tuple[Server, int]) -> None:
    log, port = server
    with pytest.raises(UpnextError, match="SSLCertVerificationError"):
        connection(port, "s3cret").open()
    assert (log.logins, log.got) == ([], [])
