"""Every template renders; what must not be sent has a reason."""

import json
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from tests.conftest import DECLARED
from upnext.errors import UpnextError
from upnext.journeys.copy import render_process
from upnext.journeys.copy.emails import check_sender
from upnext.journeys.copy.message import CannotRenderError, Rendered, Request, Sender
from upnext.journeys.copy.render_process import MAX_DEATHS, RenderProcess
from upnext.journeys.copy.rendering import render
from upnext.journeys.copy.templates import Use, find_mistakes, names_used, template_files

FEATURES = {"ml_tasks_created_30d": 7, "logins_30d": 12, "last_login_at": None}
TEMPLATES = DECLARED.settings.campaigns / "templates"
DIRECT = Sender("Otto <hello@otto.example>", None, ["key"], str(TEMPLATES))
TRACKED = msgspec.structs.replace(DIRECT, base_url="https://mail.otto.example")


def request(step: dict[str, Any] | None = None, variant: str | None = None, **traits: Any) -> Request:
    return Request(
        message_id="m-1",
        journey="j",
        step={"name": "s", "do": "email", "subject": "Hello", "template": "upgrade_reasons", **(step or {})},
        variant=variant,
        user_id="u1",
        traits={"email": "ada@customer.example", "name": "Ada", **traits},
        features=FEATURES,
        event={},
        date=datetime(2026, 3, 1, tzinfo=UTC),
    )


def message(rendered: Rendered) -> EmailMessage:
    assert rendered.reason is None
    return message_from_bytes(rendered.content, _class=EmailMessage, policy=policy.default)


def part(rendered: Rendered, kind: str) -> str:
    body = message(rendered).get_body((kind,))
    assert body is not None
    return str(body.get_content())


def test_what_xml_cannot_hold_is_left_out() -> None:
    rendered = render(request(name="A\x0bd\x08a\x1f \ufffeL\U0001f600<b>"), DIRECT)
    assert "Hi Ada L" in part(rendered, "html")


@pytest.mark.parametrize("template", sorted(path.stem for path in TEMPLATES.glob("*.txt")))
def test_every_template_renders_as_text_and_html(template: str) -> None:
    for path in template_files(TEMPLATES, template):
        assert list(find_mistakes(path.read_text())) == []
    rendered = render(request({"template": template}), DIRECT)
    for kind in ("plain", "html"):
        assert "Hi Ada," in part(rendered, kind)
        assert "mailto:hello@otto.example?subject=unsubscribe%20m-1" in part(rendered, kind)
        assert "https://otto.example/" in part(rendered, kind)
    assert rendered.links == {}


def test_links_and_opens_are_counted_where_an_address_serves_them() -> None:
    rendered = render(request(), TRACKED)
    ((link_id, url),) = rendered.links.items()
    assert url == "https://otto.example/upgrade"
    html = part(rendered, "html")
    assert "https://otto.example/upgrade" not in html
    assert html.count("https://mail.otto.example/") == 3
    raw = rendered.content.decode("ascii")
    (header,) = [line for line in raw.splitlines() if line.startswith("List-Unsubscribe:")]
    assert header.startswith("List-Unsubscribe: <https://mail.otto.example/u/")
    assert header.endswith(">"), "on one line"
    assert message(rendered)["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert link_id not in html


def test_a_user_without_a_name_is_greeted_all_the_same() -> None:
    assert "Hi there," in part(render(request(name=None), DIRECT), "plain")


def test_the_message_id_comes_from_the_row() -> None:
    assert message(render(request(), DIRECT))["Message-ID"] == "<m-1@otto.example>"


def test_a_variant_has_copy_of_its_own() -> None:
    step = {"variants": {"short": {"weight": 100, "subject": "Hi {{ user.name }}", "template": None}}}
    assert message(render(request(step, "short"), DIRECT))["Subject"] == "Hi Ada"
    assert message(render(request(step), DIRECT))["Subject"] == "Hello"


def test_what_a_user_says_of_itself_is_no_html_and_no_header() -> None:
    rendered = render(request({"subject": "Hi {{ user.name }}"}, name="<b>A</b>\r\nBcc: x@y.example"), DIRECT)
    assert "&lt;b&gt;" in part(rendered, "html")
    assert message(rendered)["Subject"] == "Hi <b>A</b> Bcc: x@y.example"
    assert message(rendered)["Bcc"] is None


@pytest.mark.parametrize(
    "address",
    [
        "", None, "a@b.example\r\nBcc: x@y.example", "a@b.example, c@d.example", "no address", 5,
        "a" * 65 + "@b.example", "a@" + "b" * 250 + ".example", "ad\u00e4@b.example", "=?utf-8?q?x?=@b.example",
    ],
)  # fmt: skip
def test_a_bad_address_is_not_mailed(address: object) -> None:
    reason = render(request(email=address), DIRECT).reason
    assert reason in ("no address", "address is not valid", "address needs SMTPUTF8, which few servers have")


def test_an_international_domain_is_written_in_ascii() -> None:
    assert render(request(email="ada@b\u00fccher.example"), DIRECT).recipient == "ada@xn--bcher-kva.example"


@pytest.mark.parametrize("sender", ["Otto", "", "Otto <hello>", "Otto <a@b@c>"])
def test_a_sender_is_an_address(sender: str) -> None:
    with pytest.raises(CannotRenderError, match="is not an address"):
        check_sender(sender)
    check_sender("Otto <hello@otto.example>")


@pytest.mark.parametrize(
    ("subject", "reason"),
    [
        ("{{ nobody }}", "step s, subject: 'nobody' is undefined"),
        ("{{ features.logins }}", "step s, subject: 'logins' is missing"),
        ("{{ user.__class__ }}", "step s, subject: SecurityError access to attribute '__class__'"),
        ("{% bad", "step s, subject, line 1: Encountered unknown tag 'bad'"),
        ("{{ 1 + user.name }}", "step s, subject: TypeError"),
        ("{{ link('javascript:alert(1)') }}", "step s, subject: link(...) leads to web pages alone"),
        ("{{ user.naem }}", "step s, subject: 'naem' is missing"),
        ("{{ user.plan }}", "step s, subject: 'plan' is missing"),
        ("{{ features.last_login_at }}", "step s, subject: a value that it prints is null"),
        ("{{ link('//evil.example') }}", "step s, subject: link(...) leads to web pages alone"),
        ("{{ 'x' * 100000000 }}", "step s, subject: longer than 500,000 characters"),
    ],
)
def test_a_bad_template_is_not_mailed(subject: str, reason: str) -> None:
    rendered = render(request({"subject": subject}, plan=None), DIRECT)
    assert rendered.reason is not None
    assert rendered.reason.startswith(reason)


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        ("Hi {{ user.first_name | default('there') }}", "Hi there"),
        ("Hi {{ user.plan | default('there') }}", "Hi there"),
        ("Hi {{ user.first_name or 'there' }}", "Hi there"),
        ("{% if user.first_name %}Hi{% else %}Hello{% endif %}", "Hello"),
        ("{{ features.last_login_at | default('never', true) }}", "never"),
        ("{{ user.items }}, {{ user.account_number }}", "5, 12345678901234567890123"),
    ],
)
def test_what_a_user_lacks_can_have_a_default(subject: str, text: str) -> None:
    rendered = render(request({"subject": subject}, plan=None, items=5, account_number=12345678901234567890123), DIRECT)
    assert message(rendered)["Subject"] == text


def reason_of(process: RenderProcess, **step: Any) -> str | None:
    rendered = process.render(request(step))
    assert rendered is not None
    return rendered.reason


def test_a_template_cannot_stop_what_sends(tmp_path: Path) -> None:
    endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    with RenderProcess(DIRECT) as process:
        assert reason_of(process) is None
        for _ in range(MAX_DEATHS + 2):
            reason = reason_of(process, name="endless", subject=endless)
            assert reason == "step endless: takes more than 2 s of processor time or 1024 MB of memory"
        assert reason_of(process, name="big", subject="{{ 'x' * 10 ** 10 }}") is not None
        assert reason_of(process) is None, "others go on"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('<a href="{{ user.page }}">x</a>', "write {{ link("),
        ('<a href="javascript:alert(1)">x</a>', "write {{ link("),
        ("<a href=//evil.example>x</a>", "write {{ link("),
        ("{% for %}", ""),
        (
            "<p>{% if featurs %}</p>{% endif %}",
            "'featurs' is not given to templates; did you mean 'features'?",
        ),
    ],
)
def test_links_that_nobody_checks_are_found(line: str, message: str) -> None:
    (mistake,) = find_mistakes(line)
    assert mistake.place == 1
    assert message in mistake.text


def test_a_webhook_is_json() -> None:
    step = {"do": "webhook", "endpoint": "crm", "data": {"plan": "{{ user.plan or 'basic' }}"}}
    rendered = render(request(step), DIRECT)
    assert rendered.recipient == "crm"
    assert b'"type":"journey.j.s"' in rendered.content
    assert b'"plan":"basic"' in rendered.content


def test_values_of_a_webhook_keep_their_type() -> None:
    data = {
        "logins": "{{ features.logins_30d }}", "share": "{{- features.logins_30d / 8 -}}", "big": "{{ user.number }}",
        "seen": "{{ features.last_login_at }}", "text": "{{ features.logins_30d }} logins", "zip": "{{ user.zip }}",
        "constant": "premium", "noted": "{{ user.zip }}{# by hand #}",
    }  # fmt: skip
    rendered = render(request({"do": "webhook", "endpoint": "crm", "data": data}, number=2**80, zip="01234"), DIRECT)
    sent = {key: value for key, value in json.loads(rendered.content)["data"].items() if key in data}
    assert sent == {
        "logins": 12, "share": 1.5, "big": 2**80, "seen": None, "text": "12 logins", "zip": "01234",
        "constant": "premium", "noted": "01234",
    }  # fmt: skip
    missing = render(request({"do": "webhook", "endpoint": "crm", "data": {"plan": "{{ user.naem }}"}}), DIRECT)
    assert missing.reason == "step s, data.plan: 'naem' is missing"


def test_a_process_that_was_ended_is_not_the_fault_of_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    with RenderProcess(DIRECT) as process:
        assert process.render(request()) is not None
        assert process._process is not None
        process._process.kill()
        process._process.wait()
        assert process.render(request()) is None, "it can be tried again"
        written = process.render(request())
        assert written is not None
        assert written.reason is None
        monkeypatch.setattr(render_process, "sys", SimpleNamespace(executable="/bin/false"))
        process._process.kill()
        with pytest.raises(UpnextError, match="what is due waits"):
            for _ in range(MAX_DEATHS + 1):
                process.render(request())


def test_the_names_that_copy_uses_are_found_with_their_lines() -> None:
    source = "{{ user.name }}\n{% if user['plan'] == features.plan %}{{ link(user.name) }}{% endif %}\n{{ other.x }}"
    assert names_used(source) == [
        Use("user", "name", 1), Use("features", "plan", 2), Use("user", "name", 2), Use("user", "plan", 2),
        Use("", "other", 3),
    ]  # fmt: skip
    assert names_used("{% for x in user.items %}{{ x.name }}{% endfor %}") == [Use("user", "items", 1)]
    assert names_used("{% bad") == []
