"""Journeys against a real SMTP server: its own log is the judge of what was sent."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from tests.conftest import AS_OF, Product, SmtpServer, free_port, rows
from upnext.errors import UpnextError
from upnext.experiences.definition import bucket
from upnext.journeys.channels.outbox import record_consent, stop_parameters
from upnext.journeys.sql import SQL
from upnext.loop import Ticked, build, dispatch_journeys, replay, tick
from upnext.operations.controls import pause_journey, resume_journey
from upnext.project import Project

DAY = timedelta(days=1)
JOURNEY = "earn_upgrade"


def users(*, held_out: bool, count: int) -> list[str]:
    """Return user ids that the draw of the journey treats alike."""
    names = (f"user{number}" for number in range(1000))
    return [name for name in names if (bucket(f"journey:{JOURNEY}", name) < 0.1) is held_out][:count]


def keep_active(product: Product, user_id: str, at: datetime) -> None:
    product.track(user_id, "login", at, times=10)
    product.track(user_id, "created ml task", at, times=5)


def messages(project: Project) -> list[tuple[str, str, str | None]]:
    return rows(project, "select step, status, reason from journeys.messages order by due_at, user_id")


def claim_of(project: Project, user_id: str, as_of: datetime = AS_OF) -> sa.Row[Any]:
    """Claim the message of a user, as a sender does."""
    written = "select message_id from journeys.messages where user_id = :user_id"
    ((message_id,),) = rows(project, written, user_id=user_id)
    with project.engine.begin() as connection:
        address = f"{user_id}@customer.example"
        values = {**stop_parameters(project.policy, as_of), "message_id": message_id, "address": address, "hashes": []}
        record_consent(connection)
        return connection.execute(SQL["claim"], values).one()


def entries(project: Project) -> list[tuple[str, str, str | None]]:
    return rows(
        project,
        "select user_id, status, reason from journeys.entries where journey = :journey order by user_id",
        journey=JOURNEY,
    )


@pytest.mark.other_servers
def test_each_step_is_sent_once_on_its_day(project: Project, product: Product, smtp: SmtpServer) -> None:
    ada, *_ = users(held_out=False, count=1)
    product.power_user(ada, AS_OF)
    sent = []
    for day in (0, 1, 2, 5):
        tick(project, AS_OF + day * DAY)
        dispatch_journeys(project, AS_OF + day * DAY)
        sent.append(len(smtp.accepted))
    assert sent == [1, 1, 2, 2]
    assert [message["To"] for message in smtp.accepted] == [f"{ada}@customer.example"] * 2
    assert len(set(smtp.ids)) == 2
    assert set(smtp.ids) == {row[0] for row in rows(
        project, "select message_id from journeys.messages where channel = 'email'"
    )}  # fmt: skip
    assert rows(project, "select step, channel, due_at, status, sent_at from journeys.messages order by due_at") == [
        ("upgrade_reasons", "email", AS_OF, "sent", AS_OF),
        ("plan_reminder", "email", AS_OF + 2 * DAY, "sent", AS_OF + 2 * DAY),
        ("limited_time_discount", "cta", AS_OF + 5 * DAY, "sent", AS_OF + 5 * DAY),
    ]
    assert entries(project) == [(ada, "completed", None)]
    assert rows(
        project, "select source, source_kind, slot, ends_at from experiences.live_ctas where source_kind = 'journey'"
    ) == [(JOURNEY, "journey", "limited_time_offer", AS_OF + 12 * DAY)]
    tick(project, AS_OF + 12 * DAY)
    assert rows(project, "select count(*) from experiences.live_ctas where source_kind = 'journey'") == [(0,)]


def test_the_held_out_get_nothing(project: Project, product: Product, smtp: SmtpServer) -> None:
    held_out = users(held_out=True, count=2)
    for user_id in held_out:
        product.power_user(user_id, AS_OF)
    tick(project, AS_OF)
    assert smtp.accepted == []
    assert entries(project) == [(user_id, "held_out", "holdout of the journey") for user_id in sorted(held_out)]


def test_goal_before_leaving(project: Project, product: Product, smtp: SmtpServer) -> None:
    buyer, idler = users(held_out=False, count=2)
    for user_id in (buyer, idler):
        product.power_user(user_id, AS_OF)
    tick(project, AS_OF)
    product.track(buyer, "subscribed to premium plan", AS_OF + DAY)
    product.track(idler, "subscribed to basic plan", AS_OF + DAY)
    tick(project, AS_OF + 40 * DAY)
    assert {user_id: status for user_id, status, _ in entries(project)} == {buyer: "converted", idler: "left"}
    assert messages(project)[:2] == [("upgrade_reasons", "sent", None)] * 2
    assert {step for step, _, _ in messages(project)[2:]} <= {"catch_up"}


def test_a_goal_after_its_window_is_no_goal(project: Project, product: Product) -> None:
    ada, *_ = users(held_out=False, count=1)
    product.power_user(ada, AS_OF)
    tick(project, AS_OF)
    product.track(ada, "subscribed to premium plan", AS_OF + 14 * DAY + timedelta(microseconds=1))
    tick(project, AS_OF + 15 * DAY)
    assert [status for _, status, _ in entries(project)] == ["left"]


def test_a_replay_mails_nobody(project: Project, product: Product, smtp: SmtpServer) -> None:
    ada, *_ = users(held_out=False, count=1)
    product.power_user(ada, AS_OF)
    tick(project, AS_OF, is_replay=True)
    assert smtp.accepted == []
    assert messages(project) == [("upgrade_reasons", "skipped", "replay")]
    tick(project, AS_OF + DAY)
    assert smtp.accepted == []


def test_a_replay_of_a_year_mails_nobody(project: Project, product: Product, smtp: SmtpServer) -> None:
    ada, bob = users(held_out=False, count=2)
    product.power_user(ada, AS_OF - 365 * DAY)
    product.power_user(bob, AS_OF - 146 * DAY)
    done: list[Ticked] = []
    replay(
        project, start=AS_OF - 365 * DAY, end=AS_OF, every=73 * DAY, is_sending=False, on_tick=done.append
    )  # fmt: skip
    assert len(done) == 6
    tick(project, AS_OF + DAY)
    assert smtp.accepted == []
    assert {(user_id, status) for user_id, status, _ in entries(project)} == {(ada, "left"), (bob, "left")}
    assert {(status, reason) for _, status, reason in messages(project)} == {("skipped", "replay")}


def test_a_refusal_is_recorded(project: Project, product: Product, smtp: SmtpServer) -> None:
    first, second = users(held_out=False, count=2)
    for user_id in (first, second):
        product.power_user(user_id, AS_OF)
    smtp.answers = ["550 no such user", "451 try later"]
    tick(project, AS_OF)
    assert sorted(messages(project)) == [
        ("upgrade_reasons", "failed", "smtp 550"),
        ("upgrade_reasons", "pending", "smtp 451"),
    ]
    dispatch_journeys(project, AS_OF)
    assert smtp.accepted == [], "a retry waits"
    with project.engine.begin() as connection:
        connection.execute(sa.text("update journeys.messages set retry_at = now() - interval '1 second'"))
    dispatch_journeys(project, AS_OF)
    assert len(smtp.accepted) == 1
    assert sorted(status for _, status, _ in messages(project)) == ["failed", "sent"]


def test_a_server_that_hangs_up_after_data_leaves_unknown(project: Project, product: Product, smtp: SmtpServer) -> None:
    ada, *_ = users(held_out=False, count=1)
    product.power_user(ada, AS_OF)
    smtp.is_dropping = True
    tick(project, AS_OF)
    smtp.is_dropping = False
    tick(project, AS_OF + DAY)
    assert len(smtp.accepted) == 1
    assert [status for _, status, _ in messages(project)] == ["unknown"]


def test_a_sender_that_died_leaves_unknown_and_its_late_word_is_refused(
    project: Project, product: Product, smtp: SmtpServer
) -> None:
    ada, *_ = users(held_out=False, count=1)
    product.power_user(ada, AS_OF)
    tick(project, AS_OF, is_replay=True)
    with project.engine.begin() as connection:
        connection.execute(sa.text("update journeys.messages set status = 'pending', reason = null"))
    claim = claim_of(project, ada)
    with project.engine.begin() as connection:
        connection.execute(sa.text("update journeys.messages set lease_until = now() - interval '1 second'"))
    assert claim.status == "sending"
    dispatch_journeys(project, AS_OF)
    unknown = [("upgrade_reasons", "unknown", "the sender went away while sending")]
    assert messages(project) == unknown
    assert smtp.accepted == []

    late = {
        "message_id": claim.message_id, "status": "sent", "reason": None, "retry_after": None, "as_of": AS_OF,
        "is_attempt": True, "answer": None, "is_told": False,
    }  # fmt: skip
    with project.engine.begin() as connection:
        assert connection.scalar(SQL["record_outcome"], {**late, "fence": claim.fence}) is False
        connection.execute(sa.text("update journeys.messages set status = 'sending', fence = fence + 1"))
        assert connection.scalar(SQL["record_outcome"], {**late, "fence": claim.fence}) is False
        assert connection.scalar(SQL["record_outcome"], {**late, "fence": claim.fence + 2}) is True


def test_a_server_that_is_down_loses_no_message(project: Project, product: Product, smtp: SmtpServer) -> None:
    ada, *_ = users(held_out=False, count=1)
    product.power_user(ada, AS_OF)
    port = free_port()
    reachable = project.settings
    project.settings = replace(reachable, smtp_url=f"smtp://127.0.0.1:{port}")
    with pytest.raises(UpnextError, match=f"mail server at 127.0.0.1:{port} cannot be used"):
        tick(project, AS_OF)
    project.settings = reachable
    assert messages(project) == [("upgrade_reasons", "pending", None)]
    dispatch_journeys(project, AS_OF)
    assert len(smtp.accepted) == 1


def test_what_was_loaded_since_stops_a_message_in_its_claim(project: Project, product: Product) -> None:
    buyer, leaver = users(held_out=False, count=2)
    for user_id in (buyer, leaver):
        product.power_user(user_id, AS_OF)
    tick(project, AS_OF, is_replay=True)
    with project.engine.begin() as connection:
        connection.execute(sa.text("update journeys.messages set status = 'pending', reason = null"))
    written = "select message_id from journeys.messages where user_id = :user_id"
    ((message_id,),) = rows(project, written, user_id=leaver)
    product.track(buyer, "subscribed to premium plan", AS_OF + timedelta(minutes=1))
    product.track("mail provider", "message unsubscribed", AS_OF, properties={"message_id": message_id})
    for user_id in (buyer, leaver):
        assert claim_of(project, user_id, AS_OF + timedelta(hours=1)).status == "skipped"
    assert dict(rows(project, "select user_id, reason from journeys.messages where status = 'skipped'")) == {
        buyer: "converted",
        leaver: "unsubscribed",
    }


def test_a_pause_stops_what_is_about_to_be_sent(project: Project, product: Product, smtp: SmtpServer) -> None:
    ada, *_ = users(held_out=False, count=1)
    product.power_user(ada, AS_OF)
    tick(project, AS_OF, is_replay=True)
    with project.engine.begin() as connection:
        connection.execute(sa.text("update journeys.messages set status = 'pending', reason = null"))
    pause_journey(project, JOURNEY)
    with pytest.raises(sa.exc.NoResultFound):
        claim_of(project, ada)
    dispatch_journeys(project, AS_OF)
    assert (messages(project), smtp.accepted) == ([("upgrade_reasons", "pending", None)], [])
    resume_journey(project, JOURNEY)
    dispatch_journeys(project, AS_OF + timedelta(minutes=5))
    assert len(smtp.accepted) == 1


def test_a_new_journey_does_not_make_up_for_the_past(project: Project, product: Product, smtp: SmtpServer) -> None:
    member, gone = users(held_out=False, count=2)
    for user_id in (member, gone):
        product.power_user(user_id, AS_OF)
    build(project, AS_OF, is_explicit=True)
    product.track(gone, "subscribed to premium plan", AS_OF + DAY)
    later = AS_OF + 10 * DAY
    build(project, later, is_explicit=True)
    dispatch_journeys(project, later, only={JOURNEY})
    assert rows(project, "select user_id, entered_at from journeys.entries") == [(member, later)]
    assert len(smtp.accepted) == 1


def test_a_journey_may_ignore_those_who_are_members_already(project: Project, product: Product) -> None:
    before, after = users(held_out=False, count=2)
    ignoring = msgspec.structs.replace(project.journeys[JOURNEY], existing_members="ignore")
    project.journeys = {JOURNEY: ignoring}
    dispatch_journeys(project, AS_OF)
    product.power_user(before, AS_OF)
    tick(project, AS_OF)
    product.power_user(after, AS_OF + DAY)
    tick(project, AS_OF + DAY)
    assert rows(project, "select user_id from journeys.entries") == [(after,)]


def test_nobody_is_mailed_after_unsubscribing(project: Project, product: Product, smtp: SmtpServer) -> None:
    ada, *_ = users(held_out=False, count=1)
    product.power_user(ada, AS_OF)
    tick(project, AS_OF)
    product.track(ada, "message unsubscribed", AS_OF + 30 * DAY, properties={"message_id": smtp.ids[0]})
    keep_active(product, ada, AS_OF)
    tick(project, AS_OF + 2 * DAY)
    assert len(smtp.accepted) == 1
    assert messages(project)[-1] == ("plan_reminder", "skipped", "unsubscribed")
    assert rows(project, "select user_id, channel, reason from journeys.suppressions") == [
        (ada, "email", "unsubscribed")
    ]


def test_without_an_address_there_is_a_reason(project: Project, product: Product) -> None:
    ada, *_ = users(held_out=False, count=1)
    product.power_user(ada, AS_OF)
    product.identify(ada, AS_OF, email="")
    tick(project, AS_OF)
    assert messages(project) == [("upgrade_reasons", "skipped", "no address")]


def test_dispatch_alone_sends_what_falls_due_between_ticks(
    project: Project, product: Product, smtp: SmtpServer
) -> None:
    ada, *_ = users(held_out=False, count=1)
    product.power_user(ada, AS_OF)
    build(project, AS_OF, is_explicit=True)
    for hours, expected in ((0, 1), (47, 1), (48, 2)):
        dispatch_journeys(project, AS_OF + timedelta(hours=hours), only={JOURNEY})
        assert len(smtp.accepted) == expected


@pytest.mark.parametrize("journey", ["earn_upgrade", "regain_payers"])
def test_every_journey_has_a_view_of_its_entries(project: Project, journey: str) -> None:
    tick(project, AS_OF)
    assert rows(project, f"select count(*) from journeys.{journey}") == [(0,)]
