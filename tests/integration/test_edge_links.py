"""The links of mails, followed over HTTP by people and by machines."""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

from tests.conftest import AS_OF, SmtpServer, free_port, rows
from tests.integration.test_edge import Answer, Edge, raw, running
from tests.journeys import DAY, HOUR, Journeys, journey, mail
from upnext.clock import utc_now
from upnext.journeys.copy.links import serializer
from upnext.journeys.copy.signing import signing_keys
from upnext.journeys.policy import Policy, Topic
from upnext.loop import analyse_results, build, ingest_landing

PERSON = {"User_Agent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/133.0"}


@pytest.fixture
def base(journeys: Journeys) -> Iterator[Edge]:
    """An edge, and mails whose links lead to it."""
    port = free_port()
    project = journeys.project
    project.settings = replace(project.settings, base_url=f"http://127.0.0.1:{port}")
    project.__dict__.pop("sender", None)
    with running(project, port=port, UPNEXT_BASE_URL=f"http://127.0.0.1:{port}") as edge:
        yield edge


def mails(journeys: Journeys, smtp: SmtpServer, *users: str, **values: Any) -> dict[str, Message]:
    """Send `hello` to users, and return the mails."""
    journeys.person(*users)
    journeys.declare(spring=journey(mail("hello", **values), mail("again", wait="1 day"), existing_members="enroll"))
    journeys.tick(AS_OF + HOUR, "entered", *users)
    journeys.dispatch(AS_OF + HOUR)
    return {str(one["To"]).split("@")[0]: one for one in smtp.accepted}


def link(message: Message, path: str) -> str:
    """The path of a link of a mail."""
    if path == "u":
        return urlsplit(str(message["List-Unsubscribe"])[1:-1]).path
    parts = [part.get_payload(decode=True) for part in message.walk() if part.get_content_type() == "text/html"]
    found = re.search(rf'http://127\.0\.0\.1:\d+(/{path}/[^"\s<]+)', b"".join(map(bytes, parts)).decode())
    assert found is not None, path
    return found[1]


def told(journeys: Journeys) -> list[Any]:
    """What the edge has told of messages, after the next ingest."""
    ingest_landing(journeys.project)
    shown = "event, user_id, properties ->> 'step', coalesce(properties ->> 'machine', 'false')"
    return rows(journeys.project, f"select {shown} from raw.events where source = 'upnext' order by event, user_id, 4")


def test_opens_and_clicks(journeys: Journeys, smtp: SmtpServer, base: Edge) -> None:
    sent = mails(journeys, smtp, "ann", "bob")
    pixel = link(sent["ann"], "o")
    for _ in range(2):
        opened = base.ask("GET", pixel, **PERSON)
        assert (opened.status, opened.headers["content-type"], len(opened.body)) == (200, "image/gif", 43)
    assert opened.headers["cache-control"] == "no-store, private"
    clicked = base.ask("GET", link(sent["ann"], "c"), **PERSON)
    assert clicked.status == 302
    assert clicked.headers["location"].startswith("https://")
    assert clicked.headers["referrer-policy"] == "no-referrer"
    for headers in ({"User_Agent": "GoogleImageProxy"}, {"Sec_Purpose": "prefetch", **PERSON}):
        assert base.ask("GET", link(sent["bob"], "o"), **headers).status == 200
    assert base.ask("HEAD", link(sent["bob"], "c"), **PERSON).status == 302
    assert set(told(journeys)) == {
        ("message clicked", "ann", "hello", "false"), ("message clicked", "bob", "hello", "true"),
        ("message opened", "ann", "hello", "false"), ("message opened", "bob", "hello", "true"),
    }  # fmt: skip
    tick = build(journeys.project, utc_now(), is_explicit=False)
    analyse_results(journeys.project, tick.as_of)
    steps = "select opened, clicked from analytics.journey_steps where journey = 'spring' and step = 'hello'"
    assert rows(journeys.project, steps) == [(1, 1)]


def test_a_link_that_nobody_has_signed_leads_nowhere(journeys: Journeys, smtp: SmtpServer, base: Edge) -> None:
    sent = mails(journeys, smtp, "ann")
    keys = signing_keys(journeys.project.settings)
    unknown = serializer(keys, "click").dumps(["00000000-0000-0000-0000-000000000000", "0" * 16])
    no_such_link = serializer(keys, "click").dumps([str(sent["ann"]["Message-ID"])[1:].split("@")[0], "0" * 16])
    for token in ("x", f"{link(sent['ann'], 'c')[3:]}x", link(sent["ann"], "o")[3:], unknown, no_such_link):
        for path in ("c", "u", "p"):
            assert base.ask("GET", f"/{path}/{token}", **PERSON).status == 404
    assert base.ask("POST", "/u/x", b"List-Unsubscribe=One-Click", **PERSON).status == 404
    for token in ("x", unknown):
        bad = base.ask("GET", f"/o/{token}", **PERSON)
        assert (bad.status, len(bad.body)) == (200, 43)
    redirect = base.ask("GET", f"{link(sent['ann'], 'c')}?url=https://evil.example", **PERSON)
    assert "evil" not in redirect.headers["location"]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"List-Unsubscribe=One-Click", "application/x-www-form-urlencoded"),
        (b'--x\r\nContent-Disposition: form-data; name="List-Unsubscribe"\r\n\r\nOne-Click\r\n--x--\r\n',
         "multipart/form-data; boundary=x"),
        (b"", "application/x-www-form-urlencoded"),
    ],
)  # fmt: skip
def test_one_click_stops_the_next_mail_at_once(
    journeys: Journeys, smtp: SmtpServer, base: Edge, body: bytes, kind: str
) -> None:
    sent = mails(journeys, smtp, "ann", "bob")
    path = link(sent["ann"], "u")
    page: Answer = base.ask("GET", path, **PERSON)
    assert (page.status, b"<script" in page.body) == (200, False)
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert rows(journeys.project, "select * from journeys.suppressions") == [], "a GET changes nothing"
    for _ in range(2):
        assert base.ask("POST", path, body, Content_Type=kind).status == 200
    stopped = "select user_id, channel, address, reason, source from journeys.suppressions"
    assert rows(journeys.project, stopped) == [("ann", "email", "ann@customer.example", "unsubscribed", "link")]
    journeys.dispatch(AS_OF + 2 * DAY)
    assert journeys.sent("again") == ["bob"], "before any tick has read the line"
    assert told(journeys) == [("message unsubscribed", "ann", "hello", "false")]
    journeys.dispatch(AS_OF + 3 * DAY)
    assert rows(journeys.project, stopped) == [("ann", "email", "ann@customer.example", "unsubscribed", "link")]


def test_a_click_leads_on_though_it_cannot_be_stored(journeys: Journeys, smtp: SmtpServer, base: Edge) -> None:
    sent = mails(journeys, smtp, "ann")
    with journeys.project.engine.begin() as connection:
        connection.exec_driver_sql("lock table edge.inbox in access exclusive mode")
        assert base.ask("GET", link(sent["ann"], "c"), **PERSON).status == 302
        assert base.ask("GET", link(sent["ann"], "o"), **PERSON).status == 200
        assert base.ask("POST", link(sent["ann"], "u"), b"", **PERSON).status == 503, "this one has to be stored"
    assert rows(journeys.project, "select * from journeys.suppressions") == []


def test_a_mail_is_a_page_too(content: Path, journeys: Journeys, smtp: SmtpServer, base: Edge) -> None:
    (content / "campaigns" / "templates" / "hello.txt").write_text("Hello {{ user.name }}")
    (content / "campaigns" / "templates" / "hello.mjml").write_text(
        "<mjml><mj-body><mj-section><mj-column><mj-text>Hello {{ user.name }}, <a href='{{ view_url }}'>view</a>"
        " {{ 'x' * event.size }}</mj-text></mj-column></mj-section></mj-body></mjml>"
    )
    journeys.person("ann", name="Ann <b>")
    step = mail("hello", template="hello", subject="Hi")
    journeys.declare(spring=journey(step, segment=None, existing_members=None, exit_on_leaving=False,
                                    event={"any_of": ["book demo"]}))  # fmt: skip
    journeys.dispatch()
    journeys.product.track("ann", "book demo", AS_OF + HOUR, properties={"size": 3})
    journeys.dispatch(AS_OF + HOUR)
    journeys.product.identify("ann", AS_OF + 2 * DAY, name="Changed")
    path = link(smtp.accepted[0], "v")
    page = base.ask("GET", path, **PERSON)
    assert page.status == 200
    assert "Hello Ann &lt;b&gt;" in page.body.decode()
    assert "xxx" in page.body.decode()
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert base.ask("GET", f"{path}x", **PERSON).status == 404
    journeys.write("update journeys.messages set status = 'skipped', reason = 'x'")
    assert base.ask("GET", path, **PERSON).status == 404, "nobody has got it"
    journeys.write("update journeys.messages set status = 'sent'")
    (content / "campaigns" / "templates" / "hello.mjml").unlink()
    assert base.ask("GET", path, **PERSON).status == 410


def test_resubscribing_takes_back_what_the_user_said_alone(journeys: Journeys, smtp: SmtpServer, base: Edge) -> None:
    mails(journeys, smtp, "ann")
    (message,) = rows(journeys.project, "select message_id from journeys.messages where step = 'hello'")[0]
    path = f"/p/{serializer(signing_keys(journeys.project.settings), 'preferences').dumps(message)}"
    said = [("ann", "bounced", "old@customer.example"), ("ann", "unsubscribed", "ann@customer.example"),
            ("twin", "complained", "ann@customer.example")]  # fmt: skip
    for user, reason, address in said:
        journeys.write(
            "insert into journeys.suppressions (user_id, channel, address, reason, source, since)"
            " values (:user, 'email', :address, :reason, 'x', now())", user=user, reason=reason, address=address,
        )  # fmt: skip
    assert base.ask("POST", path, b"resubscribe=1", Content_Type="application/x-www-form-urlencoded").status == 200
    stopped = "select user_id, reason from journeys.suppressions order by 1"
    assert rows(journeys.project, stopped) == [("ann", "bounced"), ("twin", "complained")]
    ingest_landing(journeys.project)
    journeys.dispatch(AS_OF + 2 * HOUR)
    assert rows(journeys.project, stopped) == [("ann", "bounced"), ("twin", "complained")]


def test_preferences(journeys: Journeys, smtp: SmtpServer) -> None:
    port = free_port()
    project = journeys.project
    topics = {
        "news": Topic(description="What is new <b>in Otto</b>.", default="opt_out"),
        "tips": Topic(description="How others work.", default="opt_in"),
    }
    content = project.settings.home / "edited"
    (content / "campaigns").mkdir(parents=True)
    (content / "sources").mkdir()
    (content / "models").mkdir()
    (content / "campaigns" / "topics.yml").write_text(
        "topics:\n  news: {description: What is new <b>in Otto</b>., default: opt_out}\n"
        "  tips: {description: How others work., default: opt_in}\n"
    )
    project.policy = Policy(topics=topics)
    project.settings = replace(project.settings, base_url=f"http://127.0.0.1:{port}")
    project.__dict__.pop("sender", None)
    with running(project, port=port, UPNEXT_CONTENT=str(content)) as edge:
        mails(journeys, smtp, "ann", topic="news")
        (message,) = rows(project, "select message_id from journeys.messages where step = 'hello'")[0]
        path = f"/p/{serializer(signing_keys(project.settings), 'preferences').dumps(message)}"
        page = edge.ask("GET", path, **PERSON).body.decode()
        assert re.findall(r'name="topic" value="(\w+)"( checked)?', page) == [("news", " checked"), ("tips", "")]
        assert "&lt;b&gt;in Otto" in page
        form = {"Content_Type": "application/x-www-form-urlencoded"}
        saved = edge.ask("POST", path, urlencode({"topic": "tips"}).encode(), **form)
        assert re.findall(r'name="topic" value="(\w+)"( checked)?', saved.body.decode()) == [
            ("news", ""),
            ("tips", " checked"),
        ]
        said = "select topic, is_granted, source from journeys.consents order by 1"
        assert rows(project, said) == [("news", False, "preferences"), ("tips", True, "preferences")]
        assert edge.ask("POST", link(smtp.accepted[0], "u"), b"List-Unsubscribe=One-Click", **form).status == 200
        assert rows(project, "select * from journeys.suppressions") == [], "it concerns the topic of the mail alone"
        events = [event for event, *_ in told(journeys)]
        assert events == ["message unsubscribed", "topic subscribed", "topic unsubscribed"]
        # A form that is cut off says nothing about the topics that it does not name.
        cut = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 32\r\n\r\ntopic=news"
        assert raw(edge.port, cut.encode()).split()[1] in (b"400", b"408")
        assert rows(project, said)[1] == ("tips", True, "preferences")
        # A clock that is ahead, or lies, does not outlast the user's next word.
        journeys.product.track(
            "ann", "topic subscribed", datetime(2099, 1, 1, tzinfo=UTC), properties={"topic": "news"}
        )
        journeys.dispatch(AS_OF + 2 * HOUR)
        assert rows(project, said)[0] == ("news", True, "topic subscribed")
        assert edge.ask("POST", link(smtp.accepted[0], "u"), b"List-Unsubscribe=One-Click", **form).status == 200
        assert rows(project, said)[0] == ("news", False, "link")
        journeys.dispatch(AS_OF + 2 * DAY)
        assert rows(project, said)[1] == ("tips", True, "preferences")
        # No mails at all, and mails again: of each topic the user keeps what was said.
        stopped = "select user_id, reason, source from journeys.suppressions"
        before = rows(project, said)
        for pressed, suppressed in (("unsubscribe", [("ann", "unsubscribed", "preferences")]), ("resubscribe", [])):
            page = edge.ask("POST", path, urlencode({pressed: "1"}).encode(), **form).body.decode()
            assert ("so you get no mails" in page) is (pressed == "unsubscribe")
            assert rows(project, stopped) == suppressed
            ingest_landing(project)
            journeys.dispatch(AS_OF + 2 * DAY)
            assert (rows(project, stopped), rows(project, said)) == (suppressed, before)
