"""Every template renders; what must not be sent has a reason."""

from datetime import UTC, datetime
from email.message import EmailMessage
from typing import Any

import pytest

from assets.journeys.definition import Email
from assets.journeys.rendering import CannotRenderError, Recipient, check_sender, render_email, template_names

DATE = datetime(2026, 3, 1, tzinfo=UTC)
FEATURES = {"ml_tasks_created_30d": 7, "logins_30d": 12}


def render(step: Email | None = None, **traits: Any) -> EmailMessage:
    recipient = Recipient("u1", {"email": "ada@customer.example", "name": "Ada", **traits}, FEATURES)
    step = step or Email(name="s", after="0 days", subject="Hello", template="upgrade_benefits")
    return render_email(step, recipient=recipient, message_id="m-1", mail_from="Otto <hello@otto.example>", date=DATE)


@pytest.mark.parametrize("template", sorted(template_names()))
def test_every_template_renders_as_text_and_html(template: str) -> None:
    message = render(Email(name="s", after="0 days", subject="Hello", template=template))
    text, html = message.get_body(("plain",)), message.get_body(("html",))
    assert text is not None
    assert html is not None
    for part in (text, html):
        assert "Hi Ada," in part.get_content()
        assert "mailto:hello@otto.example?subject=unsubscribe%20m-1" in part.get_content()


def test_a_user_without_a_name_is_greeted_all_the_same() -> None:
    body = render(name=None).get_body(("plain",))
    assert body is not None
    assert "Hi there," in body.get_content()


def test_the_message_id_comes_from_the_row() -> None:
    assert render()["Message-ID"] == "<m-1@otto.example>"


def test_html_in_a_trait_is_escaped() -> None:
    body = render(name="<script>").get_body(("html",))
    assert body is not None
    assert "&lt;script&gt;" in body.get_content()


@pytest.mark.parametrize(
    "address", ["", None, "a@b.example\r\nBcc: x@y.example", "a@b.example, c@d.example", "no address", 5]
)
def test_a_bad_address_is_not_mailed(address: object) -> None:
    with pytest.raises(CannotRenderError, match="address"):
        render(email=address)


def test_an_international_address_has_a_reason() -> None:
    with pytest.raises(CannotRenderError, match="not ASCII"):
        render(email="ada@b\u00fccher.example")


@pytest.mark.parametrize("sender", ["Otto", "", "Otto <hello>", "Otto <a@b@c>"])
def test_a_sender_is_an_address(sender: str) -> None:
    with pytest.raises(CannotRenderError, match="is not an address"):
        check_sender(sender)
    check_sender("Otto <hello@otto.example>")


@pytest.mark.parametrize("subject", ["{{ nobody }}", "{{ user.__class__ }}", "{% bad", "{{ 1 + 'a' }}"])
def test_a_bad_template_is_not_mailed(subject: str) -> None:
    with pytest.raises(CannotRenderError, match="subject"):
        render(Email(name="s", after="0 days", subject=subject, template="check_in"))
