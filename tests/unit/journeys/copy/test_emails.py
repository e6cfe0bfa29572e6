"""What a mail is made of beside its text: languages, parameters of links, addresses, attachments, a preheader."""

import shutil
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import DECLARED
from upnext.journeys.copy.links import follow
from upnext.journeys.copy.message import Rendered, Request, Sender
from upnext.journeys.copy.rendering import render
from upnext.journeys.copy.templates import languages

MJML = "<mjml><mj-head><mj-preview>{{ preheader }}</mj-preview></mj-head><mj-body><mj-raw>%s</mj-raw></mj-body></mjml>"


@pytest.fixture
def sender(tmp_path: Path) -> Sender:
    """A sender with templates of its own: `hello`, in English and in German."""
    folder = tmp_path / "templates"
    shutil.copytree(DECLARED.settings.campaigns / "templates", folder)
    for name, text in (("hello", "Hello {{ user.name }}"), ("hello.de", "Hallo {{ user.name }}")):
        (folder / f"{name}.txt").write_text(text)
        (folder / f"{name}.mjml").write_text(MJML % text)
    return Sender("Otto <hello@otto.example>", None, ["key"], str(folder))


def request(variant: str | None = None, traits: dict[str, Any] | None = None, **step: Any) -> Request:
    return Request(
        message_id="m-1", journey="spring", variant=variant, user_id="u1", features={}, event={},
        step={"name": "news", "do": "email", "subject": "Hello", "template": "hello", **step},
        traits={"email": "ada@customer.example", "name": "Ada", **(traits or {})},
        date=datetime(2026, 3, 1, tzinfo=UTC),
    )  # fmt: skip


def mail(rendered: Rendered) -> EmailMessage:
    assert rendered.reason is None
    return message_from_bytes(rendered.content, _class=EmailMessage, policy=policy.default)


def body(rendered: Rendered, kind: str = "plain") -> str:
    found = mail(rendered).get_body((kind,))
    assert found is not None
    return str(found.get_content()).strip()


@pytest.mark.parametrize(
    ("language", "subject", "text"),
    [
        ("de", "Neues, Ada", "Hallo Ada"), ("de-AT", "Servus, Ada", "Hallo Ada"), ("de_CH", "Neues, Ada", "Hallo Ada"),
        ("fr", "News, Ada", "Hello Ada"), ("", "News, Ada", "Hello Ada"), ("../../etc", "News, Ada", "Hello Ada"),
        (5, "News, Ada", "Hello Ada"), (None, "News, Ada", "Hello Ada"), ("default", "News, Ada", "Hello Ada"),
    ],
)  # fmt: skip
def test_the_language_of_the_user_or_the_one_for_all_others(
    sender: Sender, language: Any, subject: str, text: str
) -> None:
    subjects = {"default": "News, {{ user.name }}", "de": "Neues, {{ user.name }}", "de-at": "Servus, {{ user.name }}"}
    rendered = render(request(traits={"language": language}, subject=subjects), sender)
    assert (mail(rendered)["Subject"], body(rendered)) == (subject, text)


def test_languages() -> None:
    assert languages("pt_BR") == ["pt-br", "pt"]
    assert languages("english please") == []


def test_a_variant_has_a_preheader_of_its_own(sender: Sender) -> None:
    variants = {"short": {"preheader": "In short"}, "plain": {}}
    for variant, preheader in (("short", "In short"), ("plain", "At length, Ada"), (None, "At length, Ada")):
        rendered = render(request(variant, preheader="At length, {{ user.name }}", variants=variants), sender)
        assert preheader in body(rendered, "html")
    assert "preheader" not in body(render(request(), sender), "html")


def test_parameters_of_links(sender: Sender) -> None:
    link = "{{ link('https://otto.example/a?x=1&utm_source=mine#top') }} {{ link('https://otto.example/b') }}"
    (Path(sender.templates) / "hello.txt").write_text(link)
    utm = {"utm_source": "upnext", "utm_campaign": "{journey} & co", "utm_content": "{step}.{variant}", "utm_term": ""}
    direct = Sender(sender.mail_from, None, sender.keys, sender.templates, utm)
    assert body(render(request("a", variants={"a": {}}), direct)).split() == [
        "https://otto.example/a?x=1&utm_source=mine&utm_campaign=spring+%26+co&utm_content=news.a#top",
        "https://otto.example/b?utm_source=upnext&utm_campaign=spring+%26+co&utm_content=news.a",
    ]
    counted = Sender(sender.mail_from, "https://mail.otto.example", sender.keys, sender.templates, utm)
    rendered = render(request(), counted)
    assert any(url.endswith("utm_content=news.") for url in rendered.links.values())
    assert "utm_" not in body(rendered)


def test_from_reply_to_and_copies(sender: Sender) -> None:
    rendered = render(
        request(
            **{"from": "Ada of Otto <ada@otto.example>", "reply_to": "help@otto.example", "cc": ["crm@otto.example"]}
        ),
        sender,
    )
    message = mail(rendered)
    assert (message["From"], message["Reply-To"]) == ("Ada of Otto <ada@otto.example>", "help@otto.example")
    assert (message["To"], message["Cc"]) == ("ada@customer.example", "crm@otto.example")
    assert (rendered.sender, rendered.cc) == ("ada@otto.example", ["crm@otto.example"])
    assert str(message["Message-ID"]).endswith("@otto.example>")


def test_attachments(sender: Sender) -> None:
    folder = Path(sender.templates).parent / "attachments"
    folder.mkdir()
    (folder / "terms.pdf").write_bytes(b"%PDF-1.7")
    (folder / "data.unknown").write_bytes(b"\x00\xff")
    message = mail(render(request(attachments=["terms.pdf", "data.unknown"]), sender))
    found = [(part.get_filename(), part.get_content_type(), part.get_content()) for part in message.iter_attachments()]
    assert found == [
        ("terms.pdf", "application/pdf", b"%PDF-1.7"), ("data.unknown", "application/octet-stream", b"\x00\xff"),
    ]  # fmt: skip
    for name in ("answer.eml", "terms.txt.gz"):
        (folder / name).write_bytes(b"From: a@b.example\n\nHello\n")
        [part] = mail(render(request(attachments=[name]), sender)).iter_attachments()
        assert part.get_content_type() == "application/octet-stream"
        assert part.get_content() == b"From: a@b.example\n\nHello\n"
    assert render(request(attachments=["gone.pdf"]), sender).reason == "the attachment gone.pdf cannot be read"


def test_a_transactional_mail_offers_no_unsubscription(sender: Sender) -> None:
    assert mail(render(request(), sender))["List-Unsubscribe"] is not None
    assert mail(render(request(transactional=True), sender))["List-Unsubscribe"] is None


def test_pages_that_an_address_serves(sender: Sender) -> None:
    (Path(sender.templates) / "hello.txt").write_text("{{ view_url }} {{ preferences_url }}")
    served = Sender(sender.mail_from, "https://mail.otto.example", sender.keys, sender.templates)
    links = body(render(request(), served)).split()
    named = [follow(*link.rsplit("/", 2)[1:], sender.keys) for link in links]
    assert [(one.kind, one.message_id) for one in named if one is not None] == [("view", "m-1"), ("preferences", "m-1")]
    assert render(request(), sender).reason is not None, "without an address there is no page to link"


def test_a_postal_address(sender: Sender) -> None:
    (Path(sender.templates) / "hello.txt").write_text("{{ postal_address }}")
    there = Sender(sender.mail_from, None, sender.keys, sender.templates, {}, "Otto, 1 Long Lane, London")
    assert body(render(request(), there)) == "Otto, 1 Long Lane, London"


@pytest.mark.parametrize(
    "text",
    [
        "one line", "ends with a newline\n", "Grüße, 雪, 👋\n", "x" * 3000, "é" * 3000, "a b " * 1000,
        "trailing   \n \t\n",
        ".\n..\n.dot\n", "From ada\n\nFrom bob\n", "--=_am-1\n--=_am-1--\n", "=3D is no equals sign =\n", "\ttab\n",
        "x" * 600 + "\f" + "x" * 600, "\n\n\n", "a\r\nb\r\n", "soft­hyphen\u2028separator\n",
    ],
)  # fmt: skip
def test_each_text_arrives_as_it_was_written(sender: Sender, text: str) -> None:
    (Path(sender.templates) / "hello.txt").write_text("Hi" + text)
    rendered = render(request(), sender)
    written = ("Hi" + text).replace("\r\n", "\n")
    part = mail(rendered).get_body(("plain",))
    assert part is not None
    assert str(part.get_content()).replace("\r\n", "\n").rstrip("\n") == written.rstrip("\n")
    assert rendered.content is not None
    assert max(map(len, rendered.content.split(b"\r\n"))) <= 998
    assert b"\n" not in rendered.content.replace(b"\r\n", b"")
    assert [one.get_content_type() for one in mail(rendered).iter_parts()] == ["text/plain", "text/html"]


@pytest.mark.parametrize(
    "subject",
    ["Hello", "Grüße", "雪" * 200, "é word " * 60, "=?utf-8?q?x?=", 'a "b", c: <d>', "x" * 1500, "a,b;" * 300],
)
def test_each_subject_arrives_as_it_was_written(sender: Sender, subject: str) -> None:
    rendered = render(request(subject=subject), sender)
    assert mail(rendered)["Subject"] == subject.strip()
    assert rendered.content is not None
    head = rendered.content.partition(b"\r\n\r\n")[0].decode("ascii")
    assert all(len(line) <= (76 if "=?utf-8?" in line else 998) for line in head.split("\r\n"))


def test_a_name_of_a_sender_arrives_as_it_was_written(sender: Sender) -> None:
    message = mail(render(request(**{"from": '"Zoë, of Otto" <zoe@otto.example>'}), sender))
    (address,) = message["From"].addresses
    assert (address.display_name, address.addr_spec) == ("Zoë, of Otto", "zoe@otto.example")


def test_addresses_with_an_international_domain_are_written_in_ascii(sender: Sender) -> None:
    addresses = {"from": "Otto <hello@bücher.example>", "cc": ["ops@bücher.example", "b@x.example"]}
    rendered = render(request(**addresses, reply_to="help@bücher.example"), sender)
    message = mail(rendered)
    assert message["Cc"] == "ops@xn--bcher-kva.example, b@x.example"
    assert (message["Reply-To"], message["From"]) == (
        "help@xn--bcher-kva.example",
        "Otto <hello@xn--bcher-kva.example>",
    )
    assert (rendered.sender, rendered.cc) == (
        "hello@xn--bcher-kva.example",
        ["ops@xn--bcher-kva.example", "b@x.example"],
    )
