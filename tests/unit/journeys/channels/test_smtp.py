"""Where to send: the URL of the mail server."""

import pytest

from upnext.errors import UpnextError
from upnext.journeys.channels.smtp import SmtpAddress, parse_smtp_url


def test_urls() -> None:
    assert parse_smtp_url("smtp://mail.example:2525") == SmtpAddress("mail.example", 2525, None, None, is_tls=False)
    assert parse_smtp_url("smtps://me:p%40ss@mail.example") == SmtpAddress(
        "mail.example", 465, "me", "p@ss", is_tls=True
    )


@pytest.mark.parametrize("url", ["mail.example", "http://mail.example", "smtp://", "smtp://host:port"])
def test_anything_else_is_refused(url: str) -> None:
    with pytest.raises(UpnextError, match="UPNEXT_SMTP_URL"):
        parse_smtp_url(url)
