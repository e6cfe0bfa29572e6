"""Senders that are killed, stopped, or meet; servers that refuse, stall or hang up. The server's own log is the judge:
at most one mail for each message, none after a suppression, and every message has a status."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from email import message_from_bytes
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from tests.conftest import AS_OF, UPNEXT, Hold, Product, SmtpServer, rows, start
from tests.integration.test_journeys import users
from upnext.errors import UpnextError
from upnext.journeys.policy import Channel, Policy
from upnext.loop import build, dispatch_journeys
from upnext.project import Project

HOUR = timedelta(hours=1)
DISPATCH = """
import sys
from datetime import datetime
from upnext.settings import Settings
from upnext.loop import dispatch_journeys
from upnext.project import Project

project = Project(Settings.from_environment())
dispatch_journeys(project, datetime.fromisoformat(sys.argv[1]), only={sys.argv[2]})
"""
CART = """
description: One run for each cart.
owner: growth@otto.example
event: {any_of: [book demo]}
keyed_by: cart_id
reentry: never
goal: {any_of: [subscribed to premium plan], within: 3 days}
holdout: 0
steps:
  - {name: hello, do: email, after: 0 days, subject: "Cart {{ event.cart_id }}", template: catch_up}
"""
NEWS = """
description: News, to all at once.
owner: growth@otto.example
segment: busy_users
at: "AS_OF"
goal: {any_of: [subscribed to premium plan], within: 3 days}
holdout: 0
rate: 100 per hour
pause_when: {failed: 50 %}
steps:
  - {name: hello, do: email, after: 0 days, subject: News, template: catch_up}
"""


class Outbox:
    """People whose first mail is due, and dispatchers in processes of their own."""

    def __init__(self, project: Project, product: Product, home: Path) -> None:
        self.project = project
        self.product = product
        self.home = home
        self.journey = "earn_upgrade"

    def due(self, count: int) -> list[str]:
        names = users(held_out=False, count=count)
        for name in names:
            self.product.power_user(name, AS_OF)
        build(self.project, AS_OF, is_explicit=True)
        return names

    def due_in_a_keyed_run(self) -> None:
        """A cart that lets its user in since the last dispatch."""
        self.declare("journeys", "cart", CART)
        (name,) = users(held_out=False, count=1)
        self.product.identify(name, AS_OF - HOUR, email=f"{name}@customer.example")
        build(self.project, AS_OF - HOUR, is_explicit=True)
        dispatch_journeys(self.project, AS_OF - HOUR, only={"cart"})
        self.product.track(name, "book demo", AS_OF - HOUR / 2, properties={"cart_id": "c-1"})

    def due_in_a_broadcast(self) -> None:
        self.declare("broadcasts", "news", NEWS.replace("AS_OF", f"{AS_OF:%Y-%m-%d %H:%M}Z"))
        self.due(1)

    def declare(self, folder: str, name: str, text: str) -> None:
        path = self.project.settings.campaigns / folder / f"{name}.yml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        start(self.project, name)
        self.journey = name

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", DISPATCH, AS_OF.isoformat(), self.journey]
        return subprocess.Popen(command, env=self.environment)

    def tick(self) -> subprocess.Popen[bytes]:
        command = [UPNEXT, "tick", "--as-of", (AS_OF + HOUR).isoformat()]
        return subprocess.Popen(command, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "UPNEXT_HOME": str(self.home),
            "UPNEXT_DATABASE_URL": self.project.settings.database_url or "",
            "UPNEXT_SMTP_URL": self.project.settings.smtp_url or "",
            "UPNEXT_MAIL_FROM": "Otto <hello@otto.example>",
        }

    def dispatch(self, hours: float = 0) -> None:
        dispatch_journeys(self.project, AS_OF + hours * HOUR, only={self.journey})

    def statuses(self) -> list[tuple[str, str | None]]:
        return rows(self.project, "select status, reason from journeys.messages order by user_id, due_at")

    def let_leases_expire(self) -> None:
        with self.project.engine.begin() as connection:
            past = "update journeys.messages set lease_until = clock_timestamp() - interval '1 second'"
            connection.execute(sa.text(f"{past} where status = 'sending'"))

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Any]]:
        with psycopg.connect(self.project.settings.database_url or "") as connection:
            yield connection
            connection.rollback()

    def wait_until_it_waits(self, process: subprocess.Popen[bytes], kind: str) -> None:
        waiting = (
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
            " and wait_event = :kind"
        )
        while rows(self.project, waiting, kind=kind) == [(0,)]:
            assert process.poll() is None, "it ended before it came to the point"
            time.sleep(0.02)


@pytest.fixture
def outbox(content: Path, project: Project, product: Product, tmp_path: Path) -> Outbox:
    project.policy = Policy(cap=project.policy.cap, email=Channel(connections=2, timeout_seconds=1))
    return Outbox(project, product, tmp_path)


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    assert process.wait() == -signal.SIGKILL


def killed_while_waiting_for(outbox: Outbox, lock: str, kind: str) -> None:
    with outbox.connection() as connection:
        connection.execute(lock)
        process = outbox.start()
        outbox.wait_until_it_waits(process, kind)
        kill(process)


def killed_in_enrolment(outbox: Outbox, smtp: SmtpServer) -> None:
    killed_while_waiting_for(outbox, "lock table journeys.entries in share mode", "relation")


def killed_writing_messages(outbox: Outbox, smtp: SmtpServer) -> None:
    killed_while_waiting_for(outbox, "lock table journeys.messages in share mode", "relation")


def killed_before_the_claim(outbox: Outbox, smtp: SmtpServer) -> None:
    (user,) = users(held_out=False, count=1)
    claim = f"select pg_advisory_xact_lock(hashtextextended('upnext:messages of {user}', 0))"
    killed_while_waiting_for(outbox, claim, "advisory")


def killed_at(point: str) -> Callable[[Outbox, SmtpServer], None]:
    def killed(outbox: Outbox, smtp: SmtpServer) -> None:
        smtp.holds[point] = hold = Hold()
        process = outbox.start()
        assert hold.reached.wait(60)
        kill(process)
        smtp.holds.clear()
        hold.go.set()

    return killed


def killed_before_it_is_marked_sent(outbox: Outbox, smtp: SmtpServer) -> None:
    smtp.holds["DATA"] = hold = Hold()
    process = outbox.start()
    assert hold.reached.wait(60)
    with outbox.connection() as connection:
        connection.execute("select from journeys.messages for update")
        hold.go.set()
        outbox.wait_until_it_waits(process, "transactionid")
        kill(process)
    smtp.holds.clear()


POINTS: dict[str, tuple[Callable[[Outbox, SmtpServer], None], int, str]] = {
    "while it enrols": (killed_in_enrolment, 1, "sent"),
    "while it writes the outbox": (killed_writing_messages, 1, "sent"),
    "before the claim": (killed_before_the_claim, 1, "sent"),
    "after the claim": (killed_at("MAIL"), 0, "unknown"),
    "after the text, before the answer": (killed_at("DATA"), 1, "unknown"),
    "after the answer, before it is marked sent": (killed_before_it_is_marked_sent, 1, "unknown"),
}


@pytest.mark.parametrize(("killed", "mails", "status"), POINTS.values(), ids=POINTS)
def test_a_killed_sender_sends_nothing_twice(
    outbox: Outbox, smtp: SmtpServer, killed: Callable[[Outbox, SmtpServer], None], mails: int, status: str
) -> None:
    outbox.due(1)
    killed(outbox, smtp)
    outbox.let_leases_expire()
    for _ in range(2):
        outbox.dispatch()
    assert len(smtp.accepted) == mails
    assert [found for found, _ in outbox.statuses()] == [status]


def test_mails_wait_while_the_local_catcher_cannot_write(outbox: Outbox, smtp: SmtpServer) -> None:
    outbox.project.settings = replace(outbox.project.settings, smtp_url=None)
    names, folder = outbox.due(3), outbox.project.settings.maildir
    folder.write_text("in the way")
    with pytest.raises(UpnextError, match=f"no mail can be written to {folder} "):
        outbox.dispatch()
    assert [status for status, _ in outbox.statuses()] == ["pending"] * 3
    folder.unlink()
    for hours in (0, 1):
        outbox.dispatch(hours)
    assert [status for status, _ in outbox.statuses()] == ["sent"] * 3
    mails = [message_from_bytes(path.read_bytes()) for path in (folder / "new").iterdir()]
    assert sorted(mail["To"] for mail in mails) == sorted(f"{name}@customer.example" for name in names)
    assert smtp.accepted == []


@pytest.mark.parametrize("point", ["MAIL", "DATA"])
def test_ctrl_c_ends_a_dispatch_and_nothing_goes_twice(outbox: Outbox, smtp: SmtpServer, point: str) -> None:
    outbox.due(5)
    smtp.holds[point] = hold = Hold()
    process = outbox.tick()
    assert hold.reached.wait(60)
    process.send_signal(signal.SIGINT)
    # Who is asked to stop lets the mail that is in its hands go.
    smtp.holds.clear()
    hold.go.set()
    _, told = process.communicate(timeout=60)
    assert (process.returncode, told.strip()) == (130, b"upnext: stopped")
    assert len(smtp.accepted) < 5, "it stopped in the middle"
    outbox.let_leases_expire()
    for _ in range(2):
        outbox.dispatch(hours=1)
    assert max(Counter(smtp.ids).values()) == 1
    found = Counter(status for status, _ in outbox.statuses())
    assert found.keys() <= {"sent", "unknown"}
    assert found.total() == 5
    assert found["sent"] <= len(smtp.accepted) <= 5


@pytest.mark.parametrize("due", [Outbox.due_in_a_keyed_run, Outbox.due_in_a_broadcast])
@pytest.mark.parametrize(("killed", "mails", "status"), POINTS.values(), ids=POINTS)
def test_killed_in_a_keyed_run_or_a_broadcast(
    outbox: Outbox,
    smtp: SmtpServer,
    due: Callable[[Outbox], None],
    killed: Callable[[Outbox, SmtpServer], None],
    mails: int,
    status: str,
) -> None:
    due(outbox)
    killed(outbox, smtp)
    outbox.let_leases_expire()
    for _ in range(2):
        outbox.dispatch()
    assert len(smtp.accepted) == mails
    entered = rows(outbox.project, "select count(*) from journeys.entries where journey = :name", name=outbox.journey)
    found = rows(outbox.project, "select status from journeys.messages where journey = :name", name=outbox.journey)
    assert (entered, found) == ([(1,)], [(status,)])


def test_a_sender_that_was_stopped_past_its_lease_cannot_write(outbox: Outbox, smtp: SmtpServer) -> None:
    outbox.due(1)
    smtp.holds["DATA"] = hold = Hold()
    process = outbox.start()
    assert hold.reached.wait(60)
    process.send_signal(signal.SIGSTOP)
    outbox.let_leases_expire()
    outbox.dispatch()
    unknown = [("unknown", "the sender went away while sending")]
    assert outbox.statuses() == unknown
    smtp.holds.clear()
    hold.go.set()
    process.send_signal(signal.SIGCONT)
    assert process.wait() == 0
    assert outbox.statuses() == unknown, "its late word is refused"
    assert len(smtp.accepted) == 1


def test_two_dispatchers_share_the_work(outbox: Outbox, smtp: SmtpServer) -> None:
    outbox.due(30)
    both = [outbox.start() for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert len(smtp.ids) == len(set(smtp.ids)) == 30
    assert Counter(status for status, _ in outbox.statuses()) == {"sent": 30}


def test_who_unsubscribes_while_a_message_is_written_does_not_get_it(outbox: Outbox, smtp: SmtpServer) -> None:
    (user,) = outbox.due(1)
    with outbox.connection() as connection:
        connection.execute(f"select pg_advisory_xact_lock(hashtextextended('upnext:messages of {user}', 0))")
        process = outbox.start()
        outbox.wait_until_it_waits(process, "advisory")
        ((message_id,),) = rows(outbox.project, "select message_id from journeys.messages")
        outbox.product.track(user, "message unsubscribed", AS_OF, properties={"message_id": message_id})
    assert process.wait() == 0
    assert outbox.statuses() == [("skipped", "unsubscribed")]
    assert smtp.accepted == []


def test_a_recipient_that_is_refused_stops_no_other(outbox: Outbox, smtp: SmtpServer) -> None:
    first, second, third = outbox.due(3)
    smtp.refused = {f"{second}@customer.example": "550 5.1.1 no such user"}
    outbox.dispatch()
    assert outbox.statuses() == [("sent", None), ("failed", "smtp 550 5.1.1"), ("sent", None)]
    assert sorted(message["To"] for message in smtp.accepted) == [
        f"{first}@customer.example",
        f"{third}@customer.example",
    ]
    suppressed = rows(outbox.project, "select user_id, channel, reason from journeys.suppressions")
    assert suppressed == [(second, "email", "bounced")]


def test_a_sender_that_is_refused_stops_no_recipient(outbox: Outbox, smtp: SmtpServer) -> None:
    (user,) = outbox.due(1)
    smtp.refused = {f"{user}@customer.example": "550 5.1.8 bad outbound sender"}
    outbox.dispatch()
    assert outbox.statuses() == [("failed", "smtp 550 5.1.8")]
    assert rows(outbox.project, "select count(*) from journeys.suppressions") == [(0,)]


@pytest.mark.parametrize(("refusal", "is_dead"), [
    ("550 no such user", True), ("550 Requested action not taken: mailbox unavailable", True),
    ("553 sorry, that user is unknown", True), ("550 <ann.black.list@x.example>: Recipient unknown", True),
    ("550 ann@policy.example does not exist", True), ("551 user not listed in directory", True),
    ("550 relay not permitted", False), ("550 Access denied", False), ("551 please authenticate first", False),
    ("553 sorry, your host is blacklisted", False), ("550 refused by our spam filter", False),
])  # fmt: skip
def test_a_refusal_without_a_code_is_of_the_address_unless_it_says_else(
    outbox: Outbox, smtp: SmtpServer, refusal: str, is_dead: bool
) -> None:
    (user,) = outbox.due(1)
    smtp.refused = {f"{user}@customer.example": refusal}
    outbox.dispatch()
    assert outbox.statuses() == [("failed", f"smtp {refusal[:3]}")]
    assert rows(outbox.project, "select count(*) from journeys.suppressions") == [(int(is_dead),)]


def test_a_number_of_thousands_of_digits_stops_no_mail(outbox: Outbox, smtp: SmtpServer) -> None:
    users = outbox.due(2)
    for nth, number in enumerate(("9" * 5000, int("9" * 4000))):
        outbox.product.track(users[0], "product viewed", AS_OF, properties={"seats": number, "nth": nth})
    with outbox.project.engine.connect() as connection:
        values = "select upnext.number(properties -> 'seats') from raw.events where properties ? 'nth'"
        assert list(connection.scalars(sa.text(values))) == [None, None]
    outbox.dispatch()
    assert outbox.statuses() == [("sent", None), ("sent", None)]


@pytest.mark.parametrize(
    ("answer", "status", "reason"),
    [
        ("421 4.3.2 closing", "pending", "smtp 421 4.3.2"),
        ("451 later", "pending", "smtp 451"),
        ("550 5.7.1 looks like spam", "failed", "smtp 550 5.7.1"),
        ("554 no", "failed", "smtp 554"),
    ],
)
def test_an_answer_says_whether_to_try_again(
    outbox: Outbox, smtp: SmtpServer, answer: str, status: str, reason: str
) -> None:
    outbox.due(2)
    smtp.answers = [answer]
    outbox.project.policy = Policy(email=Channel(connections=1))
    outbox.dispatch()
    assert sorted(outbox.statuses()) == sorted([(status, reason), ("sent", None)])
    assert rows(outbox.project, "select count(*) from journeys.suppressions") == [(0,)]
    waits = rows(outbox.project, "select retry_at - clock_timestamp() from journeys.messages where status = 'pending'")
    assert all(timedelta(minutes=4) < wait <= timedelta(minutes=5) for (wait,) in waits)


@pytest.mark.parametrize("answer", ["Queued as 12345", "", "354 go on", "999 what", "2"])
def test_an_unclear_answer_after_the_text_is_unknown_and_nothing_is_sent_twice(
    outbox: Outbox, smtp: SmtpServer, answer: str
) -> None:
    outbox.due(1)
    smtp.unclear = [f"{answer} "] * 5
    for _ in range(3):
        outbox.dispatch()
        with outbox.project.engine.begin() as connection:
            connection.execute(sa.text("update journeys.messages set retry_at = clock_timestamp()"))
    assert len(smtp.accepted) == 1
    assert outbox.statuses() == [("unknown", "smtp: an unclear answer after DATA")]


@pytest.mark.parametrize("answer", ["200 OK", "251 ok", "250-ok\r\n250 queued as 7"])
def test_any_positive_answer_after_the_text_is_a_yes(outbox: Outbox, smtp: SmtpServer, answer: str) -> None:
    outbox.due(1)
    smtp.unclear = [answer]
    for _ in range(2):
        outbox.dispatch()
    assert (len(smtp.accepted), outbox.statuses()) == (1, [("sent", None)])


def test_a_number_of_any_size_and_an_address_that_no_header_holds_stop_no_other(
    outbox: Outbox, product: Product, smtp: SmtpServer
) -> None:
    names = users(held_out=False, count=12)
    for name in names:
        product.power_user(name, AS_OF)
    product.identify(names[0], AS_OF, account_number=12345678901234567890123)
    odd = names[1:5]
    for name in odd:
        product.identify(name, AS_OF, email=f"=?utf-8?q?{name}?=@customer.example")
    build(outbox.project, AS_OF, is_explicit=True)
    outbox.dispatch()
    assert Counter(outbox.statuses()) == {("sent", None): 8, ("skipped", "address is not valid"): 4}
    assert {message["To"] for message in smtp.accepted} == {
        f"{name}@customer.example" for name in names if name not in odd
    }


def test_an_empty_key_file_is_an_error_before_anything_is_claimed(
    outbox: Outbox, smtp: SmtpServer, tmp_path: Path
) -> None:
    outbox.due(2)
    (tmp_path / "signing_keys").write_text("")
    with pytest.raises(UpnextError, match="signing_keys is empty"):
        outbox.dispatch()
    assert outbox.statuses() == [("pending", None)] * 2
    (tmp_path / "signing_keys").unlink()
    outbox.dispatch()
    assert len(smtp.accepted) == 2


def test_retries_come_to_an_end(outbox: Outbox, smtp: SmtpServer) -> None:
    outbox.due(1)
    smtp.answers = ["451 later"] * 10
    for _ in range(8):
        outbox.dispatch()
        with outbox.project.engine.begin() as connection:
            connection.execute(sa.text("update journeys.messages set retry_at = clock_timestamp()"))
    assert outbox.statuses() == [("failed", "smtp 451")]
    assert len(smtp.answers) == 4, "six tries"


@pytest.mark.parametrize(("point", "status", "mails"), [("MAIL", "pending", 0), ("DATA", "unknown", 1)])
def test_a_server_that_stalls(outbox: Outbox, smtp: SmtpServer, point: str, status: str, mails: int) -> None:
    outbox.due(1)
    smtp.holds[point] = hold = Hold()
    outbox.dispatch()
    hold.go.set()
    assert [found for found, _ in outbox.statuses()] == [status]
    assert len(smtp.accepted) == mails


def test_the_database_goes_away_while_sending(outbox: Outbox, smtp: SmtpServer) -> None:
    outbox.due(1)
    smtp.holds["DATA"] = hold = Hold()
    failed: list[BaseException] = []

    def dispatch() -> None:
        try:
            outbox.dispatch()
        except sa.exc.DBAPIError as error:
            failed.append(error)

    thread = threading.Thread(target=dispatch)
    thread.start()
    assert hold.reached.wait(60)
    ended = (
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid()"
    )
    with outbox.connection() as connection:
        connection.execute(ended)
    smtp.holds.clear()
    hold.go.set()
    thread.join()
    assert len(failed) == 1
    outbox.project.engine.dispose()
    outbox.let_leases_expire()
    outbox.dispatch()
    assert [status for status, _ in outbox.statuses()] == ["unknown"]
    assert len(smtp.accepted) == 1
