"""What users want to hear of: topics, transactional messages, and where and when a consent was given."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from tests.conftest import AS_OF, SmtpServer, rows
from tests.journeys import DAY, HOUR, Journeys, journey, mail
from upnext.journeys.policy import Cap, Channel, Policy, Topic
from upnext.operations.previews import explain_journey

NEWS = {"news": Topic(description="What is new.", default="opt_out")}
BETA = {"beta": Topic(description="What is not ready.", default="opt_in")}


def by_event(*steps: dict[str, Any], **values: Any) -> Any:
    entry = {"segment": None, "existing_members": None, "exit_on_leaving": False, "event": {"any_of": ["book demo"]}}
    return journey(*steps, **{**entry, "reentry": "always", **values})


def book(journeys: Journeys, *users: str, at: Any = AS_OF + HOUR) -> None:
    for user in users:
        journeys.product.track(user, "book demo", at)
    journeys.dispatch(at + timedelta(minutes=1))


def say(journeys: Journeys, user: str, event: str, at: Any, **properties: Any) -> None:
    journeys.product.track(user, event, at, properties=properties)


def consents(journeys: Journeys) -> list[Any]:
    return rows(journeys.project, "select user_id, topic, is_granted, source, since from journeys.consents order by 1")


@pytest.fixture(autouse=True)
def _topics(journeys: Journeys) -> None:
    journeys.project.policy = Policy(topics={**NEWS, **BETA})


def test_a_topic_stops_its_own_messages_alone(journeys: Journeys, smtp: SmtpServer) -> None:
    journeys.person("ada", "bob", "cid")
    journeys.declare(
        news=by_event(mail("about_news"), topic="news"),
        beta=by_event(mail("about_beta", topic="beta")),
        other=by_event(mail("about_else")),
    )
    journeys.dispatch()
    say(journeys, "ada", "topic unsubscribed", AS_OF, topic="news", source="settings page")
    say(journeys, "bob", "topic subscribed", AS_OF, topic="beta")
    book(journeys, "ada", "bob", "cid")
    assert journeys.sent("about_news") == ["bob", "cid"]
    assert journeys.sent("about_beta") == ["bob"]
    assert journeys.sent("about_else") == ["ada", "bob", "cid"]
    skipped = rows(
        journeys.project, "select user_id, reason from journeys.messages where status = 'skipped' order by 1, 2"
    )
    assert skipped == [
        ("ada", "has not subscribed to beta"), ("ada", "unsubscribed from news"), ("cid", "has not subscribed to beta"),
    ]  # fmt: skip
    assert consents(journeys) == [
        ("ada", "news", False, "settings page", AS_OF), ("bob", "beta", True, "topic subscribed", AS_OF),
    ]  # fmt: skip
    told = [line.text for line in explain_journey(journeys.project, "news", "ada")]
    assert "unsubscribed from the topic news (settings page)" in told


def test_a_topic_that_nobody_declares_any_more_is_for_those_who_chose_it(journeys: Journeys) -> None:
    journeys.person("ada", "bob")
    journeys.declare(beta=by_event(mail("now", topic="beta"), mail("later", after="1 day", topic="beta")))
    journeys.dispatch()
    say(journeys, "bob", "topic subscribed", AS_OF, topic="beta")
    book(journeys, "ada", "bob")
    topics = {"labs": journeys.project.policy.topics["beta"]}
    journeys.project.policy = msgspec.structs.replace(journeys.project.policy, topics=topics)
    journeys.dispatch(AS_OF + 2 * DAY)
    assert (journeys.sent("now"), journeys.sent("later")) == (["bob"], ["bob"])


def test_the_link_of_a_mail_unsubscribes_from_its_topic_and_without_one_from_all(journeys: Journeys) -> None:
    journeys.person("ada", "bob")
    journeys.declare(news=by_event(mail("about_news"), topic="news"), other=by_event(mail("about_else")))
    journeys.dispatch()
    book(journeys, "ada", "bob")
    ids = {(user, step): one for user, step, one in journeys.messages("user_id, step, message_id")}
    say(journeys, "provider", "message unsubscribed", AS_OF + DAY, message_id=ids["ada", "about_news"])
    say(
        journeys,
        "provider",
        "message unsubscribed",
        AS_OF + DAY,
        message_id=ids["bob", "about_else"],
        source="link",
    )
    book(journeys, "ada", "bob", at=AS_OF + 2 * DAY)
    last = "select user_id, step, status from journeys.messages where due_at > :at order by 1, 2"
    assert rows(journeys.project, last, at=AS_OF + DAY) == [
        ("ada", "about_else", "sent"), ("ada", "about_news", "skipped"),
        ("bob", "about_else", "skipped"), ("bob", "about_news", "skipped"),
    ]  # fmt: skip
    assert consents(journeys) == [("ada", "news", False, "message unsubscribed", AS_OF + DAY)]
    assert rows(journeys.project, "select user_id, reason, source, since from journeys.suppressions") == [
        ("bob", "unsubscribed", "link", AS_OF + DAY)
    ]
    say(journeys, "provider", "message resubscribed", AS_OF + 3 * DAY, message_id=ids["ada", "about_news"])
    say(journeys, "provider", "message resubscribed", AS_OF + 3 * DAY, message_id=ids["bob", "about_else"])
    book(journeys, "ada", "bob", at=AS_OF + 4 * DAY)
    assert len(journeys.sent("about_news")) == 4
    assert consents(journeys) == [("ada", "news", True, "message resubscribed", AS_OF + 3 * DAY)]


def test_what_was_said_last_counts_whatever_comes_first(journeys: Journeys) -> None:
    journeys.person("ada", "bob")
    journeys.declare(news=by_event(mail("about_news"), topic="news"))
    journeys.dispatch()
    for at, event in ((AS_OF, "topic subscribed"), (AS_OF - HOUR, "topic unsubscribed")):
        say(journeys, "ada", event, at, topic="news")
        journeys.dispatch()
    say(journeys, "bob", "topic subscribed", AS_OF, topic="news")
    say(journeys, "bob", "topic unsubscribed", AS_OF, topic="news")
    say(journeys, "bob", "topic unsubscribed", AS_OF, no_topic="x")
    book(journeys, "ada", "bob")
    assert journeys.sent("about_news") == ["ada"], "of two at one instant, no counts"


def test_what_no_index_can_hold_is_no_topic_and_no_key_and_stops_nobody(journeys: Journeys) -> None:
    journeys.person("ada", "eve")
    keyed = by_event(mail("of_cart"), keyed_by="cart", event={"any_of": ["product viewed"]})
    journeys.declare(news=by_event(mail("about_news"), topic="news"), cart=keyed)
    journeys.dispatch()
    # Random enough to stay long when it is compressed.
    long = "".join(f"{nth * 7919 % 100_003:x}" for nth in range(5000))
    say(journeys, "eve", "topic unsubscribed", AS_OF, topic=long)
    say(journeys, "eve", "product viewed", AS_OF + HOUR, cart=long)
    say(journeys, "ada", "product viewed", AS_OF + HOUR, cart="c1")
    book(journeys, "ada", "eve")
    assert (journeys.sent("about_news"), journeys.sent("of_cart")) == (["ada", "eve"], ["ada"])
    assert consents(journeys) == []


def test_an_older_resubscription_of_a_clock_that_is_ahead_lifts_nothing(journeys: Journeys) -> None:
    journeys.person("ada")
    journeys.declare(news=by_event(mail("hello")))
    journeys.dispatch()
    book(journeys, "ada")
    [(message_id,)] = journeys.messages("message_id")
    say(journeys, "p", "message resubscribed", AS_OF + 3 * HOUR, message_id=message_id)
    journeys.dispatch(AS_OF + 2 * HOUR)
    # What the edge writes for a click on the link, and the line that follows it.
    insert = (
        "insert into journeys.suppressions (user_id, channel, address, reason, source, since)"
        " values ('ada', 'email', 'ada@customer.example', 'unsubscribed', 'link', :at)"
    )
    journeys.write(insert, at=AS_OF + 2 * HOUR)
    say(journeys, "p", "message unsubscribed", AS_OF + 2 * HOUR, message_id=message_id)
    book(journeys, "ada", at=AS_OF + 4 * HOUR)
    assert len(journeys.sent("hello")) == 1


def test_a_merge_keeps_the_last_word(journeys: Journeys) -> None:
    journeys.person("ada", "ada-2", "bob", "bob-2")
    journeys.declare(news=by_event(mail("about_news"), topic="news"))
    journeys.dispatch()
    for user, at, event in (
        ("ada", AS_OF, "topic subscribed"), ("ada-2", AS_OF + HOUR, "topic unsubscribed"),
        ("bob", AS_OF + HOUR, "topic subscribed"), ("bob-2", AS_OF, "topic unsubscribed"),
    ):  # fmt: skip
        say(journeys, user, event, at, topic="news")
    journeys.dispatch(AS_OF + 2 * HOUR)
    journeys.merge(AS_OF + 3 * HOUR, **{"ada-2": "ada", "bob-2": "bob"})
    journeys.dispatch(AS_OF + 3 * HOUR)
    stated = {user: is_granted for user, _, is_granted, _, _ in consents(journeys)}
    assert (stated["ada"], stated["bob"]) == (False, True)
    say(journeys, "bob-2", "topic unsubscribed", AS_OF + 4 * HOUR, topic="news")
    journeys.dispatch(AS_OF + 5 * HOUR)
    assert {user: is_granted for user, _, is_granted, _, _ in consents(journeys)}["bob"] is False


def test_a_transactional_message_passes_what_holds_marketing_back(journeys: Journeys, smtp: SmtpServer) -> None:
    journeys.person("ada", "bob", "cid")
    journeys.project.policy = msgspec.structs.replace(
        journeys.project.policy, cap=Cap(messages=1, per="30 days"), global_holdout=0.99
    )
    night = {"from": "00:00", "to": "23:59"}
    journeys.declare(
        receipt=by_event(mail("receipt"), mail("ad", transactional=False), transactional=True, quiet_hours=night),
        other=by_event(mail("about_else")),
    )
    journeys.dispatch()
    journeys.write(
        "insert into journeys.suppressions (user_id, channel, reason, since) values"
        " ('ada', 'email', 'unsubscribed', now()), ('bob', 'email', 'complained', now())"
    )
    book(journeys, "ada", "bob", "cid")
    assert journeys.sent("receipt") == ["ada", "cid"], "not to those who complained"
    assert (journeys.sent("ad"), journeys.sent("about_else")) == ([], [])
    arms = rows(journeys.project, "select distinct journey, arm from journeys.entries order by 1")
    assert arms == [("other", "held_out"), ("receipt", "treated")]


def test_transactional_messages_go_first_and_do_not_count(journeys: Journeys, smtp: SmtpServer) -> None:
    users = [f"user{number}" for number in range(5)]
    journeys.person(*users)
    # Over one connection the order in which they are handed over is the order in which they arrive.
    journeys.project.policy = msgspec.structs.replace(
        journeys.project.policy, cap=Cap(messages=1, per="30 days"), email=Channel(connections=1)
    )
    journeys.declare(
        aaa=by_event(mail("ad")), receipt=by_event(mail("receipt", wait="1 minute"), transactional=True),
    )  # fmt: skip
    journeys.dispatch()
    for user in users:
        journeys.product.track(user, "book demo", AS_OF + HOUR)
    journeys.dispatch(AS_OF + 2 * HOUR)
    subjects = [message["Subject"] for message in smtp.accepted]
    assert subjects == ["receipt"] * 5 + ["ad"] * 5
