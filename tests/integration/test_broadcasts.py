"""Broadcasts: once, at a time, no faster than their rate, and paused by themselves; and the life of a journey."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.conftest import AS_OF, Cli, SmtpServer, rows
from tests.journeys import DAY, HOUR, Journeys, journey, mail
from upnext.errors import UpnextError
from upnext.journeys.channels import outbox
from upnext.journeys.definition import Broadcast
from upnext.journeys.dispatch import journeys_with_work, pause, resume, run_checks
from upnext.journeys.policy import Channel, Policy
from upnext.loop import analyse_results, build
from upnext.operations.controls import start as start_one
from upnext.operations.copies import render_journey, send_test
from upnext.project import Project

USERS = [f"user{number:02}" for number in range(12)]
NOON = AS_OF + 3 * HOUR


def broadcast(*steps: dict[str, Any], **values: Any) -> Broadcast:
    """Return a broadcast to upgrade_seekers at three hours after AS_OF, but for what is said."""
    declared = {
        "description": "News.", "owner": "growth@otto.example", "segment": "upgrade_seekers", "holdout": 0,
        "goal": {"any_of": ["subscribed to premium plan"], "within": "14 days"}, "at": f"{NOON:%Y-%m-%d %H:%M}Z",
        "steps": list(steps) or [mail("news")], **values,
    }  # fmt: skip
    return msgspec.convert(declared, Broadcast)


def join(journeys: Journeys, *users: str) -> None:
    journeys.person(*users)
    journeys.tick(AS_OF + timedelta(minutes=1), "entered", *users)


def statuses(journeys: Journeys) -> dict[str, int]:
    return dict(rows(journeys.project, "select status, count(*) from journeys.messages group by status"))


def test_a_broadcast_goes_once_to_those_who_are_members_at_its_time(journeys: Journeys) -> None:
    join(journeys, *USERS)
    journeys.declare(news=broadcast(holdout=0.5))
    journeys.dispatch(AS_OF + HOUR)
    assert journeys.entries() == []
    journeys.tick(AS_OF + 2 * HOUR, "exited", USERS[0])
    journeys.dispatch(NOON + timedelta(minutes=10))
    drawn = {user: status for user, status, _ in journeys.entries()}
    assert sorted(drawn) == USERS[1:]
    assert 0 < list(drawn.values()).count("held_out") < 10
    assert journeys.sent("news") == sorted(user for user, status in drawn.items() if status == "completed")
    assert set(journeys.entries("entered_at")) == {(NOON,)}, "late or not, it is for the time that was set"
    journeys.person("late")
    journeys.tick(NOON + HOUR, "entered", "late", USERS[0])
    journeys.dispatch(NOON + HOUR)
    journeys.dispatch(NOON + 20 * DAY)
    assert len(journeys.entries()) == len(USERS) - 1
    journeys.tick(NOON + 20 * DAY, "entered")
    analyse_results(journeys.project, NOON + 20 * DAY)
    measured = rows(journeys.project, "select distinct experiment, arm from analytics.experiment_results")
    assert measured == [("news", "treated")]


def test_by_the_clock_of_each_user(journeys: Journeys, smtp: SmtpServer) -> None:
    zones = {"kiri": "Pacific/Kiritimati", "berlin": "Europe/Berlin", "utc": None, "honolulu": "Pacific/Honolulu"}
    for user, zone in zones.items():
        journeys.person(user, timezone=zone)
    journeys.tick(AS_OF + timedelta(minutes=1), "entered", *zones)
    journeys.declare(news=broadcast(at="2026-04-02 09:00"))
    got: dict[str, datetime] = {}
    at = AS_OF + HOUR
    while at < datetime(2026, 4, 3, tzinfo=UTC):
        journeys.dispatch(at)
        for user in set(journeys.sent("news")) - set(got):
            got[user] = at
        at += HOUR
    nine = datetime(2026, 4, 2, 9, tzinfo=UTC)
    assert got == {"kiri": nine - 14 * HOUR, "berlin": nine - 2 * HOUR, "utc": nine, "honolulu": nine + 10 * HOUR}


def test_no_more_than_its_rate_in_any_hour(journeys: Journeys, smtp: SmtpServer) -> None:
    join(journeys, *USERS)
    journeys.declare(news=broadcast(rate="5 per hour"), other=journey(mail("hello"), existing_members="enroll"))
    sent = []
    for minutes in (0, 30, 59, 60, 90, 130):
        journeys.dispatch(NOON + timedelta(minutes=minutes))
        sent.append(len(journeys.sent("news")))
    assert sent == [5, 5, 5, 10, 10, 12]
    assert len(journeys.sent("hello")) == len(USERS), "another journey is as fast as before"
    assert len(set(smtp.ids)) == len(smtp.ids) == 2 * len(USERS)


def test_what_waits_for_its_rate_is_not_late(journeys: Journeys) -> None:
    join(journeys, *USERS)
    journeys.declare(news=broadcast(rate="1 per hour"))
    for hours in range(len(USERS)):
        journeys.dispatch(NOON + hours * HOUR)
    assert statuses(journeys) == {"sent": len(USERS)}


def days_of(warm_up: dict[str, Any], journeys: Journeys, smtp: SmtpServer) -> list[tuple[int, int]]:
    """Dispatch twice on each of four days; return how many mails each day brought, and to how many of Gmail."""
    policy = {"time_zone": "America/New_York", "email": {"connections": 3, "warm_up": warm_up}}
    journeys.project.policy = msgspec.convert(policy, Policy)
    counted = []
    for day in range(4):
        before = len(smtp.accepted)
        # The second is an hour before the day ends in New York.
        for at in (NOON + day * DAY, NOON.replace(hour=3) + (day + 1) * DAY):
            journeys.dispatch(at)
        new = smtp.accepted[before:]
        counted.append((len(new), sum(message["To"].endswith("@gmail.com") for message in new)))
    assert len(set(smtp.ids)) == len(smtp.ids)
    return counted


@pytest.mark.parametrize(("warm_up", "expected"), [
    ({"starts_on": "2026-03-31", "per_day": [2, 3, 4]}, [2, 3, 4, 3]),
    ({"starts_on": "2026-04-01", "per_day": [2, 3, 4]}, [2, 2, 3, 4]),
    ({"starts_on": "2026-03-31", "domains": {"gmail.com": [1, 2]}}, [7, 2, 3, 0]),
    ({"starts_on": "2026-03-31", "per_day": [5, 6], "domains": {"gmail.com": [1, 2]}}, [5, 4, 3, 0]),
])  # fmt: skip
def test_a_channel_sends_more_each_day_of_its_warm_up(
    journeys: Journeys, smtp: SmtpServer, warm_up: dict[str, Any], expected: list[int]
) -> None:
    for number, user in enumerate(USERS):
        domain = "GMail.com" if number % 2 else "customer.example"
        journeys.product.identify(user, AS_OF - DAY, email=f"{user}@{domain}")
    journeys.tick(AS_OF + timedelta(minutes=1), "entered", *USERS)
    journeys.declare(news=broadcast(mail("news", late="send")))
    assert [count for count, _ in days_of(warm_up, journeys, smtp)] == expected
    assert statuses(journeys).get("pending", 0) == len(USERS) - sum(expected)


def test_what_is_transactional_does_not_wait_for_the_warm_up_and_takes_its_place(
    journeys: Journeys, smtp: SmtpServer
) -> None:
    join(journeys, *USERS)
    receipts = journey(mail("receipt"), existing_members="enroll", transactional=True)
    journeys.declare(news=broadcast(), receipts=receipts)
    journeys.project.policy = msgspec.convert(
        {"email": {"warm_up": {"starts_on": f"{NOON:%Y-%m-%d}", "per_day": [5, 15]}}}, Policy
    )
    done = journeys.dispatch(NOON)
    assert (len(journeys.sent("receipt")), journeys.sent("news")) == (len(USERS), [])
    assert done.messages == {"sent": len(USERS), "postponed": len(USERS)}
    assert rows(journeys.project, "select domain, taken from journeys.warm_up") == [("", len(USERS))]
    assert run_checks(journeys.project.engine, now=NOON + 6 * HOUR)["steps_are_not_overdue"] == {}
    assert journeys_with_work(journeys.project.engine, {"news", "receipts"}, now=NOON + 6 * HOUR) == set()
    journeys.dispatch(NOON.replace(hour=1) + DAY)
    assert journeys.sent("news") == USERS


def test_a_broadcast_that_fails_pauses_itself_until_somebody_resumes_it(journeys: Journeys, smtp: SmtpServer) -> None:
    join(journeys, *USERS)
    limits = {"failed": "20 %", "of_at_least": 4}
    journeys.declare(news=broadcast(rate="5 per hour", pause_when=limits))
    journeys.project.policy = Policy(email=Channel(connections=1))
    smtp.answers = ["550 no such user"] * 2
    journeys.dispatch(NOON)
    assert statuses(journeys) == {"failed": 2, "sent": 5, "pending": 5}
    journeys.dispatch(NOON + 2 * HOUR)
    assert statuses(journeys) == {"failed": 2, "sent": 5, "pending": 5}
    assert rows(journeys.project, "select journey, reason from journeys.pauses") == [
        ("news", "failed 28.57 % of 7 messages")
    ]
    resume(journeys.project.engine, "news", at=NOON + 3 * HOUR)
    journeys.dispatch(NOON + 3 * HOUR)
    assert statuses(journeys) == {"failed": 2, "sent": 10}
    assert rows(journeys.project, "select journey from journeys.pauses") == []


def test_it_pauses_whenever_its_dispatch_comes_and_again_after_it_was_resumed(
    journeys: Journeys, smtp: SmtpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "PAGE", 3)
    join(journeys, *USERS)
    limits = {"failed": "20 %", "of_at_least": 3}
    journeys.declare(news=broadcast(at=f"{NOON:%Y-%m-%d %H:%M}", pause_when=limits))
    journeys.project.policy = Policy(email=Channel(connections=1))
    smtp.answers = ["554 no"] * len(USERS)
    late = timedelta(seconds=40)
    for hours, failed in ((0, 5), (2, 5), (4, 5)):
        journeys.dispatch(NOON + hours * HOUR + late)
        assert statuses(journeys)["failed"] == failed
    resume(journeys.project.engine, "news", at=NOON + 5 * HOUR)
    for hours, failed in ((6, 10), (8, 10)):
        journeys.dispatch(NOON + hours * HOUR + late)
        assert statuses(journeys)["failed"] == failed


def test_a_pause_moves_no_time_of_day(journeys: Journeys, smtp: SmtpServer) -> None:
    join(journeys, *USERS)
    journeys.declare(news=broadcast(at=f"{NOON:%Y-%m-%d %H:%M}"))
    journeys.dispatch(NOON - 13 * HOUR)
    pause(journeys.project.engine, "news", at=NOON - 12 * HOUR)
    journeys.dispatch(NOON - 6 * HOUR)
    assert resume(journeys.project.engine, "news", at=NOON - 2 * HOUR) == len(USERS)
    journeys.dispatch(NOON - HOUR)
    assert statuses(journeys) == {}
    journeys.dispatch(NOON + HOUR)
    assert statuses(journeys) == {"sent": len(USERS)}


@pytest.mark.parametrize(("event", "kind", "is_paused"), [
    ("message bounced", "hard", True), ("message bounced", "soft", False), ("message complained", None, True),
    ("message opened", None, False),
])  # fmt: skip
def test_bounces_and_complaints_pause_it(journeys: Journeys, event: str, kind: str, is_paused: bool) -> None:
    join(journeys, *USERS)
    limits = {"bounced": "10 %", "complained": "10 %", "of_at_least": 5}
    journeys.declare(news=broadcast(rate="5 per hour", pause_when=limits))
    journeys.dispatch(NOON)
    sent = [one for (one,) in rows(journeys.project, "select message_id from journeys.messages where status = 'sent'")]
    journeys.product.track("provider", event, NOON, properties={"message_id": sent[0], "kind": kind})
    journeys.dispatch(NOON + 2 * HOUR)
    paused = bool(rows(journeys.project, "select from journeys.pauses"))
    assert (paused, len(journeys.sent("news"))) == (is_paused, 5 if is_paused else 10)


def test_dates_of_a_journey(journeys: Journeys) -> None:
    journeys.person(*USERS[:4])
    journeys.declare(spring=journey(mail("hello"), starts_on="2026-04-02", ends_on="2026-04-04"))
    journeys.dispatch()
    for days, user in enumerate(USERS[:4]):
        at = datetime(2026, 4, 1, 12, tzinfo=UTC) + days * DAY
        journeys.tick(at, "entered", user)
        journeys.dispatch(at)
    assert journeys.entries("user_id") == [(USERS[1],), (USERS[2],)]


@pytest.mark.parametrize("state", ["draft", "archived"])
def test_a_draft_and_an_archived_journey_do_nothing(journeys: Journeys, state: str) -> None:
    join(journeys, "ada")
    live = journey(mail("hello"), mail("again", after="2 days"), existing_members="enroll")
    journeys.declare(spring=live)
    journeys.dispatch(AS_OF + HOUR)
    journeys.project.journeys = {"spring": msgspec.structs.replace(live, state=state)}
    journeys.dispatch(AS_OF + 3 * DAY)
    assert (journeys.sent("again"), journeys.entries("status")) == ([], [("left",)])
    with pytest.raises(UpnextError, match=f"journey 'spring' is {state}: set `state: live` in its file"):
        start_one(journeys.project, "journey", "spring", by="somebody")


def test_a_broadcast_is_not_started_after_its_time(content: Path, journeys: Journeys) -> None:
    journeys.tick(NOON + HOUR, "entered")
    journeys.project.journeys = {"news": broadcast()}
    with pytest.raises(UpnextError, match=r"broadcast 'news': its time, .* is over; set another one"):
        start_one(journeys.project, "journey", "news", by="somebody")
    journeys.project.journeys = {"news": broadcast(at=f"{NOON:%Y-%m-%d %H:%M}")}
    start_one(journeys.project, "journey", "news", by="somebody")


NEWS = """\
description: What is new.
owner: growth@otto.example
segment: upgrade_seekers
at: "2026-04-05 09:00"
goal: {any_of: [login], within: 14 days}
holdout: 0.1
steps:
  - {name: news, do: email, after: 0 days, subject: "News, {{ user.name }}", template: catch_up}
"""
MISTAKES = {
    ('"2026-04-05 09:00"', '"2026-04-35 09:00"'): r"news.yml:4: '2026-04-35 09:00' is no time, such as",
    ('"2026-04-05 09:00"', "tomorrow"): r"news.yml:4: 'at' is 'tomorrow'; it must be a time in quotes",
    ("at: ", "on: "): r"news.yml:4: YAML reads the key 'on' as bool",
    ('at: "2026-04-05 09:00"\n', ""): r"news.yml:1: 'at' is missing",
    ("holdout: 0.1", "holdout: 0.1\nevent: {any_of: [login]}"): r"news.yml:7: event goes with a journey",
    ("holdout: 0.1", "holdout: 0.1\nends_on: '2026-04-05'"): r"news.yml:7: ends_on goes with a journey",
    ("holdout: 0.1", "holdout: 0.1\nreentry: always"): r"news.yml:7: 'reentry' is 'always'; it must be never",
    ("holdout: 0.1", "holdout: 0.1\nrate: 5 a day"): r"news.yml:7: 'rate' is '5 a day'; it must be a rate such as",
    ("holdout: 0.1", "holdout: 0.1\npause_when: {}"): r"news.yml:7: pause_when names none of failed",
    ("holdout: 0.1", "holdout: 0.1\npause_when: {failed: 5}"): r"news.yml:7: 'failed' is 5; it must be a share such as",
    ("upgrade_seekers", "upgrade_seeker"): r"news.yml:3: unknown segment .* 'upgrade_seekers'",
    ("name: news", "name: own_clock"): r"news.yml:7: 'own_clock' is the name of what waits",
}


@pytest.mark.parametrize(("change", "message"), MISTAKES.items(), ids=[new for _, new in MISTAKES])
def test_a_mistake_in_a_broadcast_has_its_line(content: Path, change: tuple[str, str], message: str, cli: Cli) -> None:
    folder = content / "campaigns" / "broadcasts"
    folder.mkdir()
    (folder / "news.yml").write_text(NEWS.replace(*change))
    assert re.search(message, cli.fails("journeys", "check", UPNEXT_CONTENT=str(content)))


def test_a_broadcast_named_like_a_journey(content: Path, project: Project) -> None:
    folder = content / "campaigns" / "broadcasts"
    folder.mkdir()
    (folder / "earn_upgrade.yml").write_text(NEWS)
    with pytest.raises(UpnextError, match=r"broadcasts/earn_upgrade.yml:1: a journey is called 'earn_upgrade', too"):
        _ = project.journeys


def test_a_test_goes_to_one_address_and_a_preview_is_of_a_real_user(
    content: Path, journeys: Journeys, smtp: SmtpServer, tmp_path: Path
) -> None:
    journeys.person("ada", name="Ada <Lovelace>")
    journeys.person("bob")
    build(journeys.project, AS_OF + HOUR, is_explicit=True)
    folder = content / "campaigns" / "broadcasts"
    folder.mkdir()
    variant = "variants: {a: {weight: 100, subject: 'A {{ user.name }}'}}, "
    (folder / "news.yml").write_text(NEWS.replace("subject:", variant + "subject:"))
    assert send_test(journeys.project, "news", "me@growth.example", user_id="ada") == ["news", "news.a"]
    assert [(message["To"], message["Subject"]) for message in smtp.accepted] == [
        ("me@growth.example", "News, Ada <Lovelace>"), ("me@growth.example", "A Ada <Lovelace>"),
    ]  # fmt: skip
    assert (journeys.messages(), journeys.entries()) == ([], [])
    files = list(render_journey(journeys.project, "news", tmp_path / "out", user_id="ada"))
    assert sorted(path.name for path in files) == ["news.a.html", "news.a.txt", "news.html", "news.txt"]
    with pytest.raises(UpnextError, match=r"broadcasts/news.yml:8: step news, subject: 'name' is missing"):
        list(render_journey(journeys.project, "news", tmp_path / "out", user_id="bob"))
    with pytest.raises(UpnextError, match="no user has the id 'eve' at the newest tick"):
        send_test(journeys.project, "news", "me@growth.example", user_id="eve")
    with pytest.raises(UpnextError, match="--to: 'me@growth@example' is not an address such as"):
        send_test(journeys.project, "news", "me@growth@example")
    (folder / "news.yml").write_text(NEWS.replace("subject:", "cc: [crm@growth.example], subject:"))
    journeys.project.__dict__.pop("journeys", None)
    send_test(journeys.project, "news", "me@growth.example", user_id="ada")
    assert smtp.recipients[-1] == ["me@growth.example"], "nobody else gets a copy"
    smtp.answers = ["550 no such user"]
    with pytest.raises(UpnextError, match="news was not sent: smtp 550"):
        send_test(journeys.project, "news", "me@growth.example")
