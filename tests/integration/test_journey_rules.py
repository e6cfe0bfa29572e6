"""The rules of journeys, each on its own: who enters, which way they go, when, and what stops them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.conftest import AS_OF, SmtpServer, free_port, rows
from tests.journeys import DAY, HOUR, Journeys, journey, mail
from upnext import dbt
from upnext.cli.journeys import preview_journey
from upnext.errors import UpnextError
from upnext.experiences.definition import bucket
from upnext.journeys.channels import outbox
from upnext.journeys.definition import Journey
from upnext.journeys.dispatch import CHECKS, journeys_with_work, pause, resume, run_checks
from upnext.journeys.policy import Cap, Channel, Policy
from upnext.loop import analyse_results, assign_experiences, build, dispatch_journeys, open_tick
from upnext.operations.checks import check_journeys, doubtful_copy
from upnext.operations.controls import pause_journey, resume_journey
from upnext.operations.previews import explain_journey
from upnext.project import Project


def test_an_event_lets_people_in_once_for_each_of_its_kind(journeys: Journeys, smtp: SmtpServer) -> None:
    journeys.person("ada", "bob")
    journeys.product.track("bob", "book demo", AS_OF - 2 * HOUR)
    journeys.declare(
        demo=journey(segment=None, existing_members=None, exit_on_leaving=False, event={"any_of": ["book demo"]},
                     reentry={"after": "2 days"}, late="send"),
    )  # fmt: skip
    journeys.dispatch()
    assert journeys.entries() == [], "the past is not made up for"
    for at in (AS_OF + HOUR, AS_OF + 2 * HOUR, AS_OF + 30 * HOUR, AS_OF + 50 * HOUR):
        journeys.product.track("ada", "book demo", at)
    for at in (AS_OF + 3 * HOUR, AS_OF + 31 * HOUR, AS_OF + 51 * HOUR, AS_OF + 52 * HOUR):
        journeys.dispatch(at)
    assert journeys.entries("entered_at, status, reason") == [
        (AS_OF + HOUR, "completed", None), (AS_OF + 2 * HOUR, "excluded", "is in the journey"),
        (AS_OF + 50 * HOUR, "completed", None),
    ]  # fmt: skip
    assert len(smtp.accepted) == 2


def test_an_event_lets_people_in_under_conditions_and_a_wait_hears_it_under_conditions(journeys: Journeys) -> None:
    journeys.person("ada", "bob", "cid")
    large = {"any": [{"seats": {"at_least": 5}}, {"plan": {"starts_with": "Enter", "ignore_case": True}}]}
    wait = {"do": "wait", "name": "paid", "any_of": ["subscribed to premium plan"], "within": "2 days",
            "where": {"seats": {"more_than": 1}}, "otherwise": "late"}  # fmt: skip
    journeys.declare(
        demo=journey(segment=None, existing_members=None, exit_on_leaving=False,
                     event={"any_of": ["book demo"], "where": large, "context": {"page.path": {"not": "/test"}}},
                     goal={"any_of": ["subscribed newsletter"], "within": "9 days"},
                     steps=[wait, mail("thanks", wait="0 days", next="end"), mail("late", wait="0 days")]),
    )  # fmt: skip
    journeys.dispatch()
    for user, properties in (("ada", {"seats": "5"}), ("bob", {"seats": 4}), ("cid", {"plan": "enterprise"})):
        journeys.product.track(user, "book demo", AS_OF + HOUR, properties=properties)
    journeys.dispatch(AS_OF + 2 * HOUR)
    assert journeys.entries("user_id") == [("ada",), ("cid",)]
    for user, seats in (("ada", 1), ("cid", 2)):
        journeys.product.track(user, "subscribed to premium plan", AS_OF + 3 * HOUR, properties={"seats": seats})
    journeys.dispatch(AS_OF + 4 * HOUR)
    assert (journeys.sent("thanks"), journeys.sent("late")) == (["cid"], [])
    journeys.dispatch(AS_OF + 3 * DAY)
    assert (journeys.sent("thanks"), journeys.sent("late")) == (["cid"], ["ada"])


def test_copy_reads_the_event_that_let_the_user_in(content: Path, journeys: Journeys, smtp: SmtpServer) -> None:
    lines = "{% for item in event.items %}{{ item.count }} x {{ item.name }}\n{% endfor %}{{ event.total }}"
    for suffix, text in (("txt", lines), ("mjml", f"<mjml><mj-body><mj-raw>{lines}</mj-raw></mj-body></mjml>")):
        (content / "campaigns" / "templates" / f"order.{suffix}").write_text(text)
    journeys.person("ada", "bob")
    subject = "Order {{ event.order_id }}"
    journeys.declare(
        order=journey(segment=None, existing_members=None, exit_on_leaving=False, event={"any_of": ["book demo"]},
                      reentry="always", steps=[mail("done", template="order", subject=subject)]),
    )  # fmt: skip
    journeys.dispatch()
    items = [{"name": "Mug", "count": 2}, {"name": "<b>Pen</b>", "count": 1}]
    order = {"order_id": "a/1", "items": items, "total": 31.5}
    journeys.product.store(
        "track", AS_OF + HOUR, user_id="ada", event="book demo", message_id="x/y 'z'", properties=order
    )
    journeys.product.track("bob", "book demo", AS_OF + HOUR, properties={"order_id": None, "items": []})
    journeys.dispatch(AS_OF + 2 * HOUR)
    [message] = smtp.accepted
    text, html = (str(part.get_payload(decode=True), "utf-8") for part in message.get_payload())
    assert message["Subject"] == "Order a/1"
    assert text.splitlines()[:3] == ["2 x Mug", "1 x <b>Pen</b>", "31.5"]
    assert "&lt;b&gt;Pen" in html
    assert journeys.messages("user_id, status, reason")[1:] == [
        ("bob", "skipped", "step done, subject: 'order_id' is missing")
    ]


def cart(**values: Any) -> Journey:
    """An abandoned cart: a mail if the order is not completed within an hour."""
    wait = {"do": "wait", "name": "ordered", "any_of": ["subscribed to basic plan"], "within": "1 hour", "then": "end",
            "otherwise": "nudge"}  # fmt: skip
    return journey(
        wait, mail("nudge", wait="0 days", subject="Cart {{ event.cart.id }}"), segment=None, existing_members=None,
        exit_on_leaving=False, event={"any_of": ["product viewed"]}, keyed_by="cart.id", reentry="never",
        **values,
    )  # fmt: skip


def in_cart(name: str) -> dict[str, Any]:
    return {"cart": {"id": name}}


def test_one_run_for_each_key(journeys: Journeys, smtp: SmtpServer) -> None:
    journeys.person("ada", "bob")
    journeys.declare(cart=cart())
    journeys.dispatch()
    for name in ("x", "y", "z", "x"):
        journeys.product.track("ada", "product viewed", AS_OF + HOUR, properties=in_cart(name))
    journeys.product.track("bob", "product viewed", AS_OF + HOUR, properties=in_cart("y"))
    journeys.product.track("bob", "product viewed", AS_OF + HOUR)
    journeys.dispatch(AS_OF + HOUR + timedelta(minutes=1))
    assert sorted(journeys.entries("user_id, coalesce(key, ''), status, coalesce(reason, '')")) == [
        ("ada", "x", "active", ""), ("ada", "x", "excluded", "is in the journey"), ("ada", "y", "active", ""),
        ("ada", "z", "active", ""), ("bob", "", "excluded", "the event has no cart.id"), ("bob", "y", "active", ""),
    ]  # fmt: skip
    half = AS_OF + HOUR + timedelta(minutes=30)
    journeys.product.track("ada", "subscribed to basic plan", half, properties=in_cart("y"))
    journeys.product.track("bob", "subscribed to basic plan", half, properties=in_cart("x"))
    journeys.product.track("bob", "subscribed to basic plan", half)
    # The goal of one run is not that of another.
    journeys.product.track("ada", "subscribed to premium plan", half, properties=in_cart("z"))
    journeys.product.track("ada", "product viewed", half, properties=in_cart("y"))
    journeys.dispatch(AS_OF + 3 * HOUR)
    ended = {
        (user, key): status for user, key, status in journeys.entries("user_id, key, status") if status != "excluded"
    }
    assert ended == {
        ("ada", "x"): "completed", ("ada", "y"): "completed", ("ada", "z"): "converted", ("bob", "y"): "completed",
    }  # fmt: skip
    assert sorted((mail["To"], mail["Subject"]) for mail in smtp.accepted) == [
        ("ada@customer.example", "Cart x"), ("bob@customer.example", "Cart y"),
    ]  # fmt: skip
    lines = [line.text for line in explain_journey(journeys.project, "cart", "ada")]
    assert any(line.endswith(", x)") for line in lines)


def test_runs_of_different_keys_survive_a_merge_and_those_of_one_key_become_one(journeys: Journeys) -> None:
    journeys.person("ada", "bob")
    journeys.declare(cart=cart())
    journeys.dispatch()
    for user, name in (("ada", "x"), ("bob", "x"), ("bob", "y")):
        journeys.product.track(user, "product viewed", AS_OF + HOUR, properties=in_cart(name))
    journeys.dispatch(AS_OF + HOUR)
    journeys.merge(AS_OF + timedelta(minutes=90), bob="ada")
    journeys.dispatch(AS_OF + timedelta(minutes=91))
    assert sorted(journeys.entries("user_id, key, status, coalesce(reason, '')")) == [
        ("ada", "x", "active", ""), ("ada", "x", "excluded", "merged"), ("ada", "y", "active", ""),
    ]  # fmt: skip


def test_what_was_loaded_while_a_tick_linked_its_id_lets_its_person_in_and_nobody_else(journeys: Journeys) -> None:
    journeys.person("new", "another")
    journeys.declare(
        demo=journey(segment=None, existing_members=None, exit_on_leaving=False, event={"any_of": ["book demo"]})
    )
    journeys.dispatch()
    journeys.merge(AS_OF + HOUR, old="new")
    # As a load stores it that looked the links up before the tick.
    journeys.product.track("old", "book demo", AS_OF + 2 * HOUR)
    journeys.dispatch(AS_OF + 3 * HOUR)
    assert journeys.entries() == []
    journeys.merge(AS_OF + 4 * HOUR, other="another")
    journeys.dispatch(AS_OF + 4 * HOUR)
    assert journeys.entries("user_id") == [("new",)]


def test_thousands_of_keys_of_one_user_are_runs_like_any_other_and_the_cap_holds(
    journeys: Journeys, smtp: SmtpServer
) -> None:
    journeys.person("ada")
    journeys.project.policy = Policy(cap=Cap(messages=2, per="7 days"))
    journeys.declare(cart=cart())
    journeys.dispatch()
    journeys.product.track("ada", "product viewed", AS_OF + HOUR, properties=in_cart("0"))
    journeys.write(
        "insert into raw.events (source, message_id, type, event, user_id, person_id, occurred_at, load_id, properties)"
        " select source, message_id || '/' || nth, type, event, user_id, person_id, occurred_at, load_id,"
        " jsonb_build_object('cart', jsonb_build_object('id', nth)) from raw.events, generate_series(1, 1999) as nth"
        " where event = 'product viewed'"
    )
    journeys.dispatch(AS_OF + HOUR)
    assert journeys.entries("status") == [("active",)] * 2000
    journeys.dispatch(AS_OF + 3 * HOUR)
    assert len(smtp.accepted) == 2
    stopped = "select status, reason, count(*) from journeys.messages group by 1, 2 order by 1 desc"
    assert rows(journeys.project, stopped) == [("skipped", "frequency cap", 1998), ("sent", None, 2)]


def test_two_events_of_one_instant_are_two_entries_with_messages_of_their_own(
    journeys: Journeys, smtp: SmtpServer
) -> None:
    journeys.person("ada", "bob")
    journeys.declare(
        demo=journey(segment=None, existing_members=None, exit_on_leaving=False, event={"any_of": ["book demo"]},
                     reentry="always"),
    )  # fmt: skip
    journeys.dispatch()
    for hour in (2, 3):
        journeys.product.track("ada", "book demo", AS_OF + HOUR)
        journeys.dispatch(AS_OF + hour * HOUR)
    journeys.product.track("bob", "book demo", AS_OF + 4 * HOUR)
    journeys.dispatch(AS_OF + 5 * HOUR)
    assert journeys.entries("user_id, entered_at") == [
        ("ada", AS_OF + HOUR), ("ada", AS_OF + HOUR), ("bob", AS_OF + 4 * HOUR),
    ]  # fmt: skip
    assert len(set(smtp.ids)) == len(smtp.accepted) == 3


def test_ids_that_look_like_another_entry_have_messages_of_their_own(journeys: Journeys, smtp: SmtpServer) -> None:
    first, second = AS_OF + HOUR, AS_OF + 2 * HOUR
    epoch = {at: f"{at.timestamp():.6f}" for at in (first, second)}
    crafted = f"ada/{epoch[first]}/event test/x"
    for user, address in (("ada", "ada@customer.example"), (crafted, "eve@customer.example")):
        journeys.product.identify(user, AS_OF - 20 * DAY, email=address)
    journeys.declare(
        demo=journey(segment=None, existing_members=None, exit_on_leaving=False, event={"any_of": ["book demo"]},
                     reentry="always"),
    )  # fmt: skip
    journeys.dispatch()
    for user, message, at in (("ada", f"x/{epoch[second]}/event test/y", first), (crafted, "y", second)):
        journeys.product.store("track", at, user_id=user, event="book demo", message_id=message)
    journeys.dispatch(AS_OF + 3 * HOUR)
    assert journeys.entries("user_id, status") == [("ada", "completed"), (crafted, "completed")]
    assert len(set(smtp.ids)) == len(smtp.accepted) == 2


def test_reentry(journeys: Journeys) -> None:
    journeys.person("ada")
    journeys.declare(never=journey(), always=journey(reentry="always"), sometimes=journey(reentry={"after": "3 days"}))
    journeys.dispatch()
    for day in range(5):
        journeys.tick(AS_OF + day * DAY, "entered", "ada")
        journeys.tick(AS_OF + day * DAY + HOUR, "exited", "ada")
        journeys.dispatch(AS_OF + day * DAY + 2 * HOUR)
    entered = rows(journeys.project, "select journey, count(*) from journeys.entries group by 1 order by 1")
    assert entered == [("always", 5), ("never", 1), ("sometimes", 2)]
    assert {status for _, status, _ in journeys.entries()} == {"left"}


def test_many_ticks_at_once_are_as_good_as_one_by_one(journeys: Journeys) -> None:
    journeys.person("ada")
    journeys.declare(often=journey(mail("first"), mail("second", after="2 days"), reentry="always"))
    journeys.dispatch()
    journeys.tick(AS_OF, "entered", "ada")
    journeys.tick(AS_OF + HOUR, "exited", "ada")
    journeys.tick(AS_OF + 2 * HOUR, "entered", "ada")
    journeys.dispatch(AS_OF + 3 * HOUR)
    assert journeys.entries("status, entered_at") == [("left", AS_OF), ("active", AS_OF + 2 * HOUR)]
    assert journeys.messages("step, status, due_at") == [("first", "sent", AS_OF + 2 * HOUR)]


def test_whom_an_edit_lets_in_is_a_member_already(journeys: Journeys) -> None:
    journeys.declare(ignoring=journey(), enrolling=journey(existing_members="enroll"))
    journeys.dispatch()
    journeys.person("ada", "bob")
    with open_tick(journeys.project, AS_OF, is_explicit=True) as tick:
        journeys.write(
            "insert into segments.evaluations select segment, :tick_id, 'edited', 1, 1, 0, 0, false, false"
            " from segments.evaluations where segment = 'upgrade_seekers'",
            tick_id=tick.tick_id,
        )
        journeys.change(tick, {"ada": "entered"})
    journeys.dispatch()
    assert journeys.entries("journey") == [("enrolling",)]


def test_the_stronger_of_a_group_wins_and_may_take_over(journeys: Journeys) -> None:
    journeys.person("ada", "bob", "cid")
    group = {"exclusive_group": "upgrade"}
    journeys.declare(
        weak=journey(mail("w"), mail("w2", after="5 days"), segment="upgrade_seekers", priority=1, **group),
        strong=journey(mail("s"), segment="busy_users", priority=2, **group),
        boss=journey(mail("b"), segment="lapsed_payers", priority=3, takes_over=True, **group),
    )
    journeys.dispatch()
    journeys.tick(AS_OF, "entered", "bob", "cid")
    journeys.tick(AS_OF, "entered", "ada", segment="upgrade_seekers")
    journeys.tick(AS_OF, "entered", "bob", segment="busy_users")
    journeys.dispatch()
    journeys.tick(AS_OF + HOUR, "entered", "cid", segment="lapsed_payers")
    journeys.dispatch(AS_OF + HOUR)
    assert sorted(journeys.entries("user_id, journey, status, reason")) == [
        ("ada", "weak", "active", None),
        ("bob", "strong", "excluded", "is in weak"),
        ("bob", "weak", "active", None),
        ("cid", "boss", "completed", None),
        ("cid", "weak", "excluded", "taken over by boss"),
    ]
    dispatch_journeys(journeys.project, AS_OF + HOUR, only={"strong"})


def test_in_one_tick_the_stronger_wins_and_the_held_out_keep_their_place(journeys: Journeys) -> None:
    held = next(f"u{n}" for n in range(100) if bucket("journey:strong", f"u{n}") < 0.5)
    drawn = next(f"u{n}" for n in range(100) if bucket("journey:strong", f"u{n}") >= 0.5)
    journeys.person(held, drawn)
    group = {"exclusive_group": "upgrade"}
    journeys.declare(
        alpha=journey(priority=1, **group),
        strong=journey(segment="busy_users", priority=2, holdout=0.5, **group),
    )
    journeys.dispatch()
    with open_tick(journeys.project, AS_OF, is_explicit=True) as tick:
        for segment in ("upgrade_seekers", "busy_users"):
            journeys.change(tick, {held: "entered", drawn: "entered"}, segment)
    journeys.dispatch()
    assert sorted(journeys.entries("journey, user_id, status, reason")) == sorted(
        [
            ("strong", held, "held_out", "holdout of the journey"), ("strong", drawn, "completed", None),
            ("alpha", held, "excluded", "is in strong"), ("alpha", drawn, "excluded", "is in strong"),
        ]
    )  # fmt: skip


def test_whoever_was_held_out_stays_so_in_a_smaller_holdout(journeys: Journeys, smtp: SmtpServer) -> None:
    user = next(f"u{n}" for n in range(200) if 0.1 < bucket("global holdout", f"u{n}") < 0.3)
    free = next(f"u{n}" for n in range(200) if bucket("global holdout", f"u{n}") > 0.3)
    journeys.person(user, free)
    journeys.project.policy = Policy(global_holdout=0.3)
    journeys.declare(one=journey(segment="upgrade_seekers"))
    journeys.dispatch()
    journeys.tick(AS_OF, "entered", user)
    journeys.dispatch()
    journeys.project.policy = Policy(global_holdout=0.1)
    journeys.declare(one=journey(segment="upgrade_seekers"), two=journey(segment="busy_users"))
    journeys.dispatch(AS_OF + HOUR)
    journeys.tick(AS_OF + HOUR, "entered", user, free, segment="busy_users")
    assign_experiences(journeys.project, AS_OF + HOUR)
    journeys.dispatch(AS_OF + HOUR)
    found = journeys.entries("journey, user_id, status")
    assert [one for one in found if one[1] == user] == [("one", user, "held_out"), ("two", user, "held_out")]
    assert rows(journeys.project, "select distinct user_id from experiences.assignments") == [(free,)]


def test_the_global_holdout_gets_nothing(journeys: Journeys, smtp: SmtpServer) -> None:
    held, drawn = (
        next(f"u{n}" for n in range(100) if (bucket("global holdout", f"u{n}") < 0.3) is is_held)
        for is_held in (True, False)
    )
    journeys.person(held, drawn)
    journeys.project.policy = Policy(global_holdout=0.3)
    journeys.declare(hello=journey())
    journeys.dispatch()
    journeys.tick(AS_OF, "entered", held, drawn)
    journeys.dispatch()
    assert set(journeys.entries()) == {(held, "held_out", "global holdout"), (drawn, "completed", None)}
    assert [message["To"] for message in smtp.accepted] == [f"{drawn}@customer.example"]


def test_waits_and_branches(journeys: Journeys, smtp: SmtpServer) -> None:
    journeys.person("quick", "slow", "never", "keen")
    steps = [
        mail("hello"),
        {"do": "wait", "name": "login", "any_of": ["login"], "within": "3 days", "then": "many",
         "otherwise": "reminder"},
        {"do": "branch", "name": "many", "feature": "products_viewed", "at_least": 2, "then": "offer",
         "otherwise": "end"},
        mail("reminder", wait="1 day", next="end"),
        mail("offer", wait="0 days"),
    ]  # fmt: skip
    journeys.product.track("keen", "product viewed", AS_OF - 2 * DAY, times=2)
    build(journeys.project, AS_OF - HOUR, is_explicit=True)
    journeys.declare(paths=journey(*steps))
    journeys.dispatch(AS_OF - HOUR)
    journeys.tick(AS_OF, "entered", "quick", "slow", "never", "keen")
    journeys.dispatch()
    journeys.product.track("quick", "login", AS_OF + DAY)
    journeys.product.track("keen", "login", AS_OF + DAY)
    journeys.product.track("slow", "login", AS_OF + 3 * DAY + timedelta(microseconds=1))
    journeys.dispatch(AS_OF + 2 * DAY)
    journeys.dispatch(AS_OF + 10 * DAY)
    sent = rows(
        journeys.project, "select user_id, step, due_at from journeys.messages where step <> 'hello' order by 1"
    )
    assert sent == [
        ("keen", "offer", AS_OF + DAY),
        ("never", "reminder", AS_OF + 4 * DAY),
        ("slow", "reminder", AS_OF + 4 * DAY),
    ]
    assert {status for _, status, _ in journeys.entries()} == {"completed"}
    assert len(smtp.accepted) == 7


def test_steps_may_come_round_again(journeys: Journeys, smtp: SmtpServer) -> None:
    journeys.person("ada")
    steps = [
        mail("nudge", wait="1 day"),
        {"do": "branch", "name": "enough", "any_of": ["login"], "then": "end", "otherwise": "nudge"},
    ]
    journeys.declare(nagging=journey(*steps))
    journeys.dispatch()
    journeys.tick(AS_OF, "entered", "ada")
    for day in range(1, 4):
        journeys.dispatch(AS_OF + day * DAY)
    journeys.product.track("ada", "login", AS_OF + 3 * DAY + HOUR)
    for day in range(4, 8):
        journeys.dispatch(AS_OF + day * DAY)
    assert journeys.messages("step, visit, status") == [("nudge", visit, "sent") for visit in (1, 2, 3, 4)]
    assert len(set(smtp.ids)) == 4


def test_copies_are_drawn_by_weight(journeys: Journeys, smtp: SmtpServer) -> None:
    users = [f"u{number}" for number in range(40)]
    journeys.person(*users)
    variants = {"plain": {"weight": 25}, "bold": {"weight": 75, "subject": "bold"}}
    journeys.declare(copies=journey(mail("hello", variants=variants)))
    journeys.dispatch()
    journeys.tick(AS_OF, "entered", *users)
    journeys.dispatch()
    drawn = dict(journeys.messages("user_id, variant"))
    assert drawn == {user: "bold" if bucket("copy:copies/hello", user) < 0.75 else "plain" for user in users}
    assert {message["Subject"] for message in smtp.accepted} == {"hello", "bold"}
    assert 4 <= list(drawn.values()).count("plain") <= 18


@pytest.mark.parametrize(
    ("late", "expected"),
    [
        ("send", [("first", "sent", 0), ("second", "sent", 1), ("third", "sent", 5)]),
        ("skip", [("first", "skipped", 0), ("second", "skipped", 1), ("third", "sent", 5)]),
        ("shift", [("first", "sent", 0), ("second", "sent", 4), ("third", "sent", 8)]),
    ],
)
def test_down_for_three_days(journeys: Journeys, late: str, expected: list[tuple[str, str, int]]) -> None:
    journeys.person("ada")
    journeys.declare(
        hello=journey(mail("first"), mail("second", after="1 day"), mail("third", after="5 days"), late=late)
    )
    journeys.dispatch()
    journeys.tick(AS_OF, "entered", "ada")
    for day in range(3, 9):
        journeys.dispatch(AS_OF + day * DAY)
        if day == 3:
            burst = len([step for step, status, _ in journeys.messages() if status == "sent"])
            assert burst == {"send": 2, "skip": 0, "shift": 1}[late]
    assert [(step, status, (due - AS_OF).days) for step, status, due in journeys.messages("step, status, due_at")] == (
        expected
    )


def test_a_message_that_could_not_be_sent_for_long_follows_the_rule_too(journeys: Journeys, smtp: SmtpServer) -> None:
    journeys.person("ada")
    journeys.declare(hello=journey(late="skip"))
    journeys.dispatch()
    journeys.tick(AS_OF, "entered", "ada")
    reachable = journeys.project.settings
    journeys.project.settings = replace(reachable, smtp_url=f"smtp://127.0.0.1:{free_port()}")
    with pytest.raises(UpnextError, match="what is due waits"):
        journeys.dispatch()
    assert journeys.messages() == [("hello", "pending", None)]
    journeys.project.settings = reachable
    journeys.dispatch(AS_OF + 7 * HOUR)
    assert journeys.messages() == [("hello", "skipped", "late")]
    assert smtp.accepted == []


@pytest.mark.parametrize(
    ("hours", "zone", "allowed"),
    [
        ({"quiet_hours": {"from": "21:00", "to": "08:00"}}, None, AS_OF),
        ({"quiet_hours": {"from": "10:00", "to": "15:30"}}, None, AS_OF + timedelta(hours=3.5)),
        ({"quiet_hours": {"from": "21:00", "to": "08:00"}}, "America/Los_Angeles", AS_OF + 3 * HOUR),
        ({"quiet_hours": {"from": "21:00", "to": "08:00"}}, "Nowhere/Land", AS_OF),
        ({"quiet_hours": {"from": "21:00", "to": "08:00"}}, "UTC+9", AS_OF),
        ({"quiet_hours": {"from": "21:00", "to": "08:00"}}, "Etc/GMT+5", AS_OF + HOUR),
        ({"quiet_hours": {"from": "21:00", "to": "08:00"}}, "Etc/UTC+9", AS_OF),
        ({"send_window": {"from": "09:00", "to": "11:00"}}, "UTC", AS_OF + 21 * HOUR),
        ({"send_window": {"from": "09:00", "to": "11:00", "days": ["mon"]}}, "UTC", AS_OF + 6 * DAY - 3 * HOUR),
        ({"send_window": {"from": "22:00", "to": "13:00", "days": ["mon"]}}, "UTC", AS_OF),
        ({"send_window": {"from": "09:00", "to": "17:00"}}, "Asia/Kolkata", AS_OF + timedelta(hours=15.5)),
    ],
)  # fmt: skip
def test_hours_are_by_the_users_own_clock(
    journeys: Journeys, smtp: SmtpServer, hours: dict[str, Any], zone: str | None, allowed: datetime
) -> None:
    journeys.person("ada", **({"timezone": zone} if zone else {}))
    journeys.declare(hello=journey(**hours))
    journeys.dispatch()
    journeys.tick(AS_OF, "entered", "ada")
    at = AS_OF
    while at <= AS_OF + 7 * DAY and not smtp.accepted:
        journeys.dispatch(at)
        at += timedelta(minutes=30)
    assert journeys.messages("sent_at") == [(allowed,)]


def test_users_without_a_time_zone_have_the_clock_of_the_policy(journeys: Journeys, smtp: SmtpServer) -> None:
    journeys.person("ada")
    journeys.person("bob", timezone="Europe/London")
    journeys.project.policy = Policy(time_zone="America/New_York")
    journeys.declare(one=journey(send_window={"from": "09:00", "to": "11:00"}))
    journeys.dispatch()
    journeys.tick(AS_OF, "entered", "ada", "bob")
    journeys.dispatch()
    journeys.dispatch(AS_OF + HOUR + timedelta(minutes=30))
    assert journeys.sent("hello") == ["ada"], "12:00 UTC is 08:00 in New York, and 13:00 in London"


def test_an_account_has_a_clock_too(journeys: Journeys, smtp: SmtpServer) -> None:
    journeys.person("ada", "bob")
    for user in ("ada", "bob"):
        traits = {"timezone": "America/Los_Angeles"} if user == "bob" else {}
        journeys.product.store("group", AS_OF - 2 * DAY, user_id=user, account_id="acme", properties=traits)
    build(journeys.project, AS_OF - HOUR, is_explicit=True)
    journeys.declare(hello=journey(quiet_hours={"from": "21:00", "to": "08:00"}))
    journeys.dispatch(AS_OF - HOUR)
    journeys.tick(AS_OF, "entered", "ada")
    journeys.dispatch()
    assert journeys.messages("status, not_before") == [("pending", AS_OF + 3 * HOUR)]


def test_a_window_within_the_hour_that_summer_time_leaves_out(journeys: Journeys, smtp: SmtpServer) -> None:
    journeys.person("ada", timezone="Australia/Sydney")
    window = {"from": "02:00", "to": "03:00", "days": ["sun"]}
    journeys.declare(hello=journey(send_window=window, late="send"))
    # The clocks of Sydney jump from 2 to 3 on 4 October 2026, a Sunday.
    before = datetime(2026, 9, 28, 12, tzinfo=UTC)
    journeys.dispatch(before)
    journeys.tick(before, "entered", "ada")
    journeys.dispatch(before)
    assert journeys.messages("status, not_before") == [("pending", datetime(2026, 10, 10, 15, tzinfo=UTC))]


def test_offers_of_one_dispatch_count_for_each_other(journeys: Journeys) -> None:
    journeys.person("ada")
    offers = [
        {"do": "cta", "name": name, "after": "0 days", "surface": "web", "slot": name, "copy": "c", "url": "/x",
         "lasts": "1 day"}
        for name in ("first", "second", "third")
    ]  # fmt: skip
    journeys.project.policy = Policy(cap=Cap(messages=2, per="2 days", offers=True))
    journeys.declare(one=journey(*offers))
    journeys.dispatch()
    journeys.tick(AS_OF, "entered", "ada")
    journeys.dispatch()
    assert sorted(journeys.messages()) == [
        ("first", "sent", None), ("second", "sent", None), ("third", "skipped", "frequency cap"),
    ]  # fmt: skip


@pytest.mark.parametrize("offers", [False, True])
def test_nobody_gets_more_than_the_cap(journeys: Journeys, smtp: SmtpServer, offers: bool) -> None:
    journeys.person("ada")
    offer = {"do": "cta", "name": "offer", "after": "0 days", "surface": "web", "slot": "s", "copy": "c", "url": "/x",
             "lasts": "1 day"}  # fmt: skip
    journeys.project.policy = Policy(cap=Cap(messages=2, per="2 days", offers=offers))
    journeys.declare(one=journey(mail("a"), mail("b")), other=journey(offer, mail("c"), mail("late", after="3 days")))
    journeys.dispatch()
    journeys.tick(AS_OF, "entered", "ada")
    journeys.dispatch()
    journeys.dispatch(AS_OF + 3 * DAY)
    found = journeys.messages("step, status, reason")
    sent = ["a", "b", "late", "offer"] if not offers else ["a", "late", "offer"]
    assert [step for step, status, _ in sorted(found) if status == "sent"] == sent
    assert {reason for _, status, reason in found if status == "skipped"} == {"frequency cap"}


def test_results_use_the_goal_of_the_version_that_is_brought_back(journeys: Journeys, smtp: SmtpServer) -> None:
    journeys.person("ada")
    goals = "select goal_events from analytics.experiments where experiment = 'hello'"
    events = ["login", "book demo", "created object", "product viewed", "invited team member", "login", "book demo"]
    for at, event in enumerate(events):
        journeys.declare(hello=journey(mail("a"), goal={"any_of": [event], "within": "1 day"}))
        journeys.dispatch(AS_OF + at // 2 * HOUR)
        assert rows(journeys.project, goals) == [([event],)]


def test_a_goal_may_be_reached_and_the_journey_go_on(journeys: Journeys, smtp: SmtpServer) -> None:
    goal = {"any_of": ["login"], "within": "14 days", "then": "continue"}
    journeys.person("ada")
    journeys.declare(hello=journey(mail("a"), mail("b", after="2 days"), goal=goal))
    journeys.dispatch()
    journeys.tick(AS_OF, "entered", "ada")
    journeys.dispatch()
    journeys.product.track("ada", "login", AS_OF + HOUR)
    journeys.dispatch(AS_OF + DAY)
    assert journeys.entries("status, goal_reached_at") == [("active", AS_OF + HOUR)]
    journeys.dispatch(AS_OF + 2 * DAY)
    assert len(smtp.accepted) == 2


def test_a_pause_puts_off_what_follows(journeys: Journeys, smtp: SmtpServer) -> None:
    journeys.person("ada", "bob")
    journeys.declare(hello=journey(mail("a"), mail("b", after="1 day"), mail("c", after="2 days")))
    journeys.dispatch()
    journeys.tick(AS_OF, "entered", "ada")
    journeys.dispatch()
    with pytest.raises(UpnextError, match="unknown journey 'helo'; did you mean 'hello'"):
        pause_journey(journeys.project, "helo")
    with pytest.raises(UpnextError, match="is not paused"):
        resume_journey(journeys.project, "hello")
    pause_journey(journeys.project, "hello")
    with pytest.raises(UpnextError, match="is paused already"):
        pause_journey(journeys.project, "hello")
    journeys.write("update journeys.pauses set paused_at = now() - interval '10 days'")
    journeys.tick(AS_OF + DAY, "entered", "bob")
    journeys.dispatch(AS_OF + 5 * DAY)
    assert len(smtp.accepted) == 1
    assert resume_journey(journeys.project, "hello") == 2
    sent = []
    for day in range(5, 15):
        journeys.dispatch(AS_OF + day * DAY + HOUR)
        sent.append(len(smtp.accepted) - 1)
    assert sent == [0, 0, 0, 0, 0, 0, 2, 4, 5, 5], "at the distances that they had"


def test_what_waited_in_a_pause_is_not_late(journeys: Journeys, smtp: SmtpServer) -> None:
    journeys.person("ada")
    journeys.declare(hello=journey(quiet_hours={"from": "10:00", "to": "14:00"}, late="skip"))
    journeys.dispatch()
    journeys.tick(AS_OF, "entered", "ada")
    journeys.dispatch()
    assert journeys.messages("status, not_before") == [("pending", AS_OF + 2 * HOUR)]
    pause(journeys.project.engine, "hello", at=AS_OF + HOUR)
    resume(journeys.project.engine, "hello", at=AS_OF + 9 * HOUR)
    journeys.dispatch(AS_OF + 9 * HOUR)
    assert journeys.messages() == [("hello", "sent", None)]


def test_a_date_stays_what_it_is_through_a_pause(journeys: Journeys, smtp: SmtpServer) -> None:
    soon = {"do": "delay", "name": "until_then", "until": {"event": "starts_at", "before": "1 hour"}}
    journeys.person("ada", "bob")
    journeys.declare(
        hello=journey(soon, mail("soon"), segment=None, existing_members=None, exit_on_leaving=False,
                      event={"any_of": ["book demo"]}, late="skip")
    )  # fmt: skip
    journeys.dispatch()
    for user, hours in (("ada", 5), ("bob", 12)):
        starts_at = (AS_OF + hours * HOUR).isoformat()
        journeys.product.track(user, "book demo", AS_OF + HOUR / 2, properties={"starts_at": starts_at})
    journeys.dispatch(AS_OF + HOUR)
    pause(journeys.project.engine, "hello", at=AS_OF + HOUR)
    resume(journeys.project.engine, "hello", at=AS_OF + 10.5 * HOUR)
    journeys.dispatch(AS_OF + 10.75 * HOUR)
    journeys.dispatch(AS_OF + 11 * HOUR)
    journeys.dispatch(AS_OF + 20 * HOUR)
    assert journeys.messages("user_id, status, reason, due_at") == [
        ("ada", "skipped", "late", AS_OF + 4 * HOUR), ("bob", "sent", None, AS_OF + 11 * HOUR),
    ]  # fmt: skip


def test_what_follows_a_date_is_put_off_by_what_is_left_of_a_pause(journeys: Journeys, smtp: SmtpServer) -> None:
    soon = {"do": "delay", "name": "until_then", "until": {"event": "starts_at"}}
    journeys.person("ada")
    journeys.declare(
        hello=journey(soon, mail("at_once"), mail("next", after="11 days"), mail("last", after="14 days"), segment=None,
                      existing_members=None, exit_on_leaving=False, event={"any_of": ["book demo"]}, late="skip")
    )  # fmt: skip
    journeys.dispatch()
    starts_at = (AS_OF + 10 * DAY).isoformat()
    journeys.product.track("ada", "book demo", AS_OF + HOUR, properties={"starts_at": starts_at})
    journeys.dispatch(AS_OF + 2 * HOUR)
    pause(journeys.project.engine, "hello", at=AS_OF + 9 * DAY)
    resume(journeys.project.engine, "hello", at=AS_OF + 20 * DAY)
    for day in range(20, 30):
        journeys.dispatch(AS_OF + day * DAY + 2 * HOUR)
    assert journeys.messages("step, status, due_at") == [
        ("at_once", "skipped", AS_OF + 10 * DAY), ("next", "sent", AS_OF + 21 * DAY + HOUR),
        ("last", "sent", AS_OF + 24 * DAY + HOUR),
    ]  # fmt: skip


def test_whoever_was_taken_over_has_been_in_the_journey(journeys: Journeys, smtp: SmtpServer) -> None:
    journeys.person("ada")
    event = {"segment": None, "existing_members": None, "exit_on_leaving": False, "event": {"any_of": ["book demo"]}}
    group = {"exclusive_group": "one"}
    journeys.declare(
        weak=journey(mail("w"), mail("w2", after="5 days"), priority=1, **event, **group),
        boss=journey(mail("b"), segment="lapsed_payers", priority=2, takes_over=True, **group),
    )
    journeys.dispatch()
    journeys.product.track("ada", "book demo", AS_OF + HOUR / 2)
    journeys.dispatch(AS_OF + HOUR)
    journeys.tick(AS_OF + 2 * HOUR, "entered", "ada", segment="lapsed_payers")
    journeys.dispatch(AS_OF + 2 * HOUR)
    journeys.product.track("ada", "book demo", AS_OF + 3 * HOUR)
    journeys.dispatch(AS_OF + 4 * HOUR)
    assert journeys.messages("step, status") == [("w", "sent"), ("b", "sent")]


def test_those_inside_go_on_with_their_version(journeys: Journeys, smtp: SmtpServer) -> None:
    journeys.person("ada", "bob")
    journeys.declare(hello=journey(mail("a"), mail("b", after="2 days")))
    journeys.dispatch()
    journeys.tick(AS_OF, "entered", "ada")
    journeys.dispatch()
    journeys.declare(hello=journey(mail("x"), mail("y", after="1 day")))
    journeys.tick(AS_OF + HOUR, "entered", "bob")
    for hours in (1, 25, 48):
        journeys.dispatch(AS_OF + hours * HOUR)
    assert sorted(journeys.messages("user_id, step, status")) == [
        ("ada", "a", "sent"), ("ada", "b", "sent"), ("bob", "x", "sent"), ("bob", "y", "sent"),
    ]  # fmt: skip


def test_those_inside_keep_the_goal_and_the_waits_of_their_version(journeys: Journeys, smtp: SmtpServer) -> None:
    journeys.person("ada", "bob")
    wait = {"do": "wait", "name": "until", "any_of": ["login"], "within": "9 days"}
    journeys.declare(hello=journey(wait, mail("after", wait="0 days")))
    journeys.dispatch()
    journeys.tick(AS_OF, "entered", "ada", "bob")
    journeys.dispatch()
    journeys.declare(hello=journey(goal={"any_of": ["book demo"], "within": "14 days"}))
    journeys.product.track("ada", "subscribed to premium plan", AS_OF + HOUR)
    journeys.product.track("bob", "login", AS_OF + HOUR)
    journeys.dispatch(AS_OF + 2 * HOUR)
    assert sorted(journeys.entries()) == [
        ("ada", "converted", "subscribed to premium plan"), ("bob", "completed", None),
    ]  # fmt: skip
    assert journeys.messages("user_id, step, status") == [("bob", "after", "sent")]


def test_those_inside_stay_in_the_segment_that_the_journey_has_now(journeys: Journeys, smtp: SmtpServer) -> None:
    steps = (mail("hello"), mail("later", after="9 days"))
    journeys.declare(demo=journey(*steps, reentry="always"))
    journeys.dispatch(AS_OF - HOUR)
    journeys.person("stays", "moves", "goes", "late")
    journeys.tick(AS_OF, "entered", "stays", "moves", "goes", "late")
    journeys.dispatch()
    journeys.declare(demo=journey(*steps, reentry="always", segment="busy_users"))
    # The tick after a rename: all exit from the one, and those whom the other has enter it.
    with open_tick(journeys.project, AS_OF + DAY, is_explicit=True) as tick:
        journeys.change(tick, dict.fromkeys(("stays", "moves", "goes", "late"), "exited"))
        journeys.change(tick, dict.fromkeys(("stays", "moves", "late"), "entered"), "busy_users")
    journeys.tick(AS_OF + 2 * DAY, "exited", "moves", "late", segment="busy_users")
    journeys.tick(AS_OF + 3 * DAY, "entered", "late", segment="busy_users")
    done = journeys.dispatch(AS_OF + 3 * DAY)
    assert (done.left, done.enrolled) == (3, 1)
    assert journeys.entries() == [
        ("goes", "left", "left the segment"), ("late", "left", "left the segment"),
        ("moves", "left", "left the segment"), ("stays", "active", None), ("late", "active", None),
    ]  # fmt: skip
    assert journeys.sent("hello") == ["goes", "late", "late", "moves", "stays"]
    assert journeys.entries("user_id, ended_at")[:3] == [
        ("goes", AS_OF + DAY), ("late", AS_OF + 2 * DAY), ("moves", AS_OF + 2 * DAY),
    ], "by what was so at each tick"  # fmt: skip


def test_who_is_held_out_is_not_counted_among_those_who_left(journeys: Journeys, smtp: SmtpServer) -> None:
    journeys.declare(demo=journey(mail("hello"), mail("later", after="9 days"), holdout=0.5))
    people = [f"user{number}" for number in range(20)]
    journeys.dispatch(AS_OF - HOUR)
    journeys.person(*people)
    journeys.tick(AS_OF, "entered", *people)
    entered = journeys.dispatch()
    assert min(entered.enrolled, entered.held_out) > 0
    journeys.tick(AS_OF + DAY, "exited", *people)
    assert journeys.dispatch(AS_OF + DAY).left == entered.enrolled
    assert rows(journeys.project, "select count(*) from journeys.entries where ended_at is null") == [(0,)]


def test_those_inside_leave_with_the_segment_of_their_version(journeys: Journeys, smtp: SmtpServer) -> None:
    journeys.person("ada", "bob")
    steps = (mail("a"), mail("b", after="2 days"))
    journeys.declare(hello=journey(*steps))
    journeys.dispatch()
    journeys.tick(AS_OF, "entered", "ada", "bob")
    journeys.dispatch()
    journeys.declare(hello=journey(*steps, segment="busy_users", exit_on_leaving=False))
    journeys.dispatch(AS_OF + HOUR / 2)
    journeys.tick(AS_OF + HOUR, "exited", "ada")
    journeys.dispatch(AS_OF + HOUR)
    assert journeys.entries() == [("ada", "left", "left the segment"), ("bob", "active", None)]


def test_an_event_lets_in_from_the_start_of_the_journey_on(journeys: Journeys, smtp: SmtpServer) -> None:
    journeys.person("ada", "bob")
    journeys.declare(cart=cart())
    journeys.product.track("ada", "product viewed", AS_OF - HOUR, properties=in_cart("before"))
    journeys.product.track("bob", "product viewed", AS_OF + HOUR, properties=in_cart("after"))
    journeys.tick(AS_OF + 2 * HOUR)
    journeys.dispatch(AS_OF + 3 * HOUR)
    assert journeys.entries("user_id, key") == [("bob", "after")], "no dispatch came between"


def test_a_merge_takes_everything_along_and_lets_nobody_in(journeys: Journeys, smtp: SmtpServer) -> None:
    journeys.person("old", "second")
    journeys.product.identify("new", AS_OF - DAY, email="new@customer.example")
    journeys.declare(hello=journey(mail("a"), mail("b", after="2 days"), reentry="always"))
    journeys.dispatch()
    journeys.tick(AS_OF, "entered", "old")
    journeys.tick(AS_OF + HOUR, "entered", "second")
    journeys.dispatch(AS_OF + HOUR)
    journeys.write(
        "insert into journeys.suppressions (user_id, channel, reason, since)"
        " values ('second', 'webhook', 'unsubscribed', now())"
    )
    changes = {"old": "exited", "second": "exited", "new": "entered"}
    journeys.merge(AS_OF + 3 * HOUR, changes, old="new", second="new")
    journeys.dispatch(AS_OF + 3 * HOUR)
    assert journeys.entries() == [("new", "active", None), ("new", "excluded", "merged")]
    suppressed = rows(journeys.project, "select user_id, channel from journeys.suppressions order by 1")
    assert suppressed == [("new", "webhook"), ("second", "webhook")]
    journeys.dispatch(AS_OF + 2 * DAY)
    assert [*sorted(message["To"] for message in smtp.accepted[:2]), smtp.accepted[2]["To"]] == [
        "old@customer.example", "second@customer.example", "new@customer.example",
    ]  # fmt: skip


def test_who_waited_alike_and_is_merged_has_messages_of_its_own(journeys: Journeys, smtp: SmtpServer) -> None:
    journeys.person("old", "new", "cid")
    wait = {"do": "wait", "name": "until", "any_of": ["login"], "within": "9 days"}
    journeys.declare(hello=journey(wait, mail("after", wait="0 days")))
    journeys.dispatch()
    journeys.tick(AS_OF, "entered", "old", "new")
    journeys.dispatch()
    journeys.product.track("old", "login", AS_OF + HOUR)
    journeys.dispatch(AS_OF + 2 * HOUR)
    journeys.merge(AS_OF + 3 * HOUR, old="new")
    journeys.product.track("new", "login", AS_OF + 4 * HOUR)
    journeys.tick(AS_OF + 5 * HOUR, "entered", "cid")
    journeys.product.track("cid", "login", AS_OF + 6 * HOUR)
    journeys.dispatch(AS_OF + 7 * HOUR)
    assert "cid@customer.example" in [message["To"] for message in smtp.accepted], "the others go on"
    assert len(set(smtp.ids)) == len(smtp.accepted) == 3


def test_a_complaint_stops_and_a_soft_bounce_does_not(journeys: Journeys, smtp: SmtpServer) -> None:
    journeys.person("ada", "bob")
    journeys.declare(hello=journey(mail("a"), mail("b", after="1 day")))
    journeys.dispatch()
    journeys.tick(AS_OF, "entered", "ada", "bob")
    journeys.dispatch()
    ids = dict(journeys.messages("user_id, message_id"))
    journeys.product.track("ada", "message complained", AS_OF + HOUR, properties={"message_id": ids["ada"]})
    soft = {"message_id": ids["bob"], "kind": "soft"}
    journeys.product.track("bob", "message bounced", AS_OF + HOUR, properties=soft)
    journeys.dispatch(AS_OF + DAY)
    assert journeys.messages("user_id, step, status, reason")[2:] == [
        ("ada", "b", "skipped", "complained"), ("bob", "b", "sent", None),
    ]  # fmt: skip


def test_the_clock_goes_back_an_hour(journeys: Journeys, smtp: SmtpServer) -> None:
    journeys.person("ada")
    journeys.declare(hello=journey(mail("a"), mail("b", after="1 day")))
    journeys.dispatch()
    journeys.tick(AS_OF, "entered", "ada")
    journeys.dispatch(AS_OF + HOUR)
    journeys.dispatch(AS_OF)
    journeys.product.track("ada", "subscribed to premium plan", AS_OF + 2 * HOUR)
    journeys.dispatch(AS_OF + DAY)
    assert journeys.entries() == [("ada", "converted", "subscribed to premium plan")]
    assert len(smtp.accepted) == 1


def test_why_did_this_user_not_get_it(journeys: Journeys) -> None:
    journeys.person("ada", "bob")
    journeys.product.identify("bob", AS_OF, email="")
    journeys.declare(hello=journey(mail("a"), mail("b", after="2 days")))
    journeys.dispatch()
    journeys.tick(AS_OF, "entered", "ada", "bob")
    journeys.dispatch()
    journeys.tick(AS_OF + DAY, "exited", "ada")
    journeys.dispatch(AS_OF + DAY)

    def words(user: str) -> list[str]:
        return [line.text for line in explain_journey(journeys.project, "hello", user)]

    version = journeys.entries("version")[0][0]
    assert words("ada") == [
        "entered the segment upgrade_seekers",
        f"entered the journey (version {version})",
        "a (email) was due: sent at 2026-03-31 12:00",
        "exited the segment upgrade_seekers",
        "left the segment",
    ]
    assert words("bob")[2:] == ["a (email) was due: skipped: no address", "b is next"]
    journeys.person("cid")
    assert words("cid") == [
        "has never been in the segment upgrade_seekers, which lets people in", "has not entered",
    ]  # fmt: skip
    with pytest.raises(UpnextError, match="no user has the id 'nobody' at the newest tick"):
        words("nobody")


def test_explain_says_why_what_waits_would_be_skipped(journeys: Journeys, smtp: SmtpServer) -> None:
    journeys.person("ada")
    journeys.declare(hello=journey(mail("a")))
    journeys.dispatch()
    journeys.tick(AS_OF, "entered", "ada")
    smtp.answers.append("451 later")
    journeys.dispatch()

    def message() -> str:
        (text,) = [line.text for line in explain_journey(journeys.project, "hello", "ada") if "was due" in line.text]
        return str(text)

    assert "waits to be sent" in message()
    assert "skipped" not in message()
    journeys.write(
        "insert into journeys.suppressions (user_id, channel, reason, since)"
        " values ('ada', 'email', 'unsubscribed', now())"
    )
    assert message().endswith("it would be skipped now: unsubscribed")


def test_summer_time(project: Project) -> None:
    quiet = '{"from": "01:00", "to": "02:30"}'
    at = datetime(2026, 3, 29, 0, 30, tzinfo=UTC)
    ((allowed,),) = rows(
        project,
        "select upnext.first_allowed(:at, 'Europe/Berlin', null, cast(:quiet as jsonb))",
        at=at,
        quiet=quiet,
    )
    assert allowed == datetime(2026, 3, 29, 1, 30, tzinfo=UTC), "there is no 02:30 that night; it is 03:30"


def test_copy_that_cannot_be_written_is_found_before_anybody_is_mailed(journeys: Journeys) -> None:
    wrong = journey(mail("a"), mail("b", after="1 day", subject="{{ features.logins }}"))
    journeys.declare(earn_upgrade=wrong)
    with pytest.raises(UpnextError, match=r"earn_upgrade.yml:\d+: step b, subject: 'logins' is missing"):
        check_journeys(journeys.project, traits={})


def test_what_users_do_with_messages_are_events_like_any_other(
    content: Path, journeys: Journeys, smtp: SmtpServer
) -> None:
    features = content / "models" / "features" / "_features.yml"
    opens = "      - name: mails_opened_30d\n        config: {meta: {count_of: message opened, within: 30 days}}\n"
    first = "      - name: logins_30d\n"
    features.write_text(features.read_text().replace(first, opens + first, 1))
    select = "select user_id from {{ ref('user_features') }} where mails_opened_30d >= 1"
    (content / "models" / "segments" / "readers.sql").write_text(select)
    journeys.project.dbt = dbt.Dbt(journeys.project.settings, journeys.project.engine.url)
    journeys.person("ada")
    journeys.declare(hello=journey())
    journeys.dispatch()
    journeys.tick(AS_OF, "entered", "ada")
    journeys.dispatch()
    journeys.product.track("ada", "message opened", AS_OF + HOUR, properties={"message_id": smtp.ids[0]})
    build(journeys.project, AS_OF + DAY, is_explicit=True)
    assert rows(journeys.project, "select user_id from segments.readers") == [("ada",)]


def test_troubles_are_counted_by_check(journeys: Journeys, smtp: SmtpServer) -> None:
    journeys.person("ada", "bob", "cid")
    journeys.declare(hello=journey(mail("a"), mail("b", after="1 day")))
    journeys.dispatch()
    journeys.tick(AS_OF, "entered", "ada", "bob", "cid")
    engine = journeys.project.engine
    assert run_checks(engine, now=AS_OF) == {check: {} for check in CHECKS}
    smtp.refused = {"bob@customer.example": "550 no"}
    journeys.dispatch()
    journeys.write("update journeys.messages set status = 'unknown' where user_id = 'cid'")
    assert run_checks(engine, now=AS_OF + HOUR) == {
        "steps_are_not_overdue": {}, "outcomes_are_known": {"hello": 1}, "channels_do_not_fail": {"email": 1},
    }  # fmt: skip
    assert run_checks(engine, now=AS_OF + DAY + 2 * HOUR)["steps_are_not_overdue"] == {"hello": 3}
    pause_journey(journeys.project, "hello")
    assert run_checks(engine, now=AS_OF + DAY + 2 * HOUR)["steps_are_not_overdue"] == {}


def test_whatever_becomes_of_an_entry_its_arm_counts(journeys: Journeys) -> None:
    """A journey that does nothing, half held out: a fifth of each arm buys, and they are who is taken over and leaves.

    A mail that itself moves people on is one more reason to leave that the held out lack.
    """

    def name_of(arm: str, nth: int) -> str:
        return people[arm][nth]

    drawn = {name: bucket("journey:nothing", name) < 0.5 for name in (f"p{number}" for number in range(200))}
    people = {
        "held_out": [name for name, is_held_out in drawn.items() if is_held_out][:60],
        "treated": [name for name, is_held_out in drawn.items() if not is_held_out][:60],
    }
    everybody = [name for names in people.values() for name in names]
    buyers = {arm: names[:12] for arm, names in people.items()}
    journeys.person(*everybody)
    journeys.declare(
        nothing=journey(
            {"do": "wait", "name": "never", "any_of": ["login"], "within": "30 days"}, mail("b", wait="0 days"),
            holdout=0.5, exclusive_group="one", reentry="always",
        ),
        strong=journey(
            segment="lapsed_payers", exclusive_group="one", priority=5, takes_over=True, exit_on_leaving=False,
        ),
    )  # fmt: skip
    journeys.dispatch()
    journeys.tick(AS_OF, "entered", *everybody)
    journeys.dispatch(AS_OF)
    taken_over = [name for names in buyers.values() for name in names]
    journeys.tick(AS_OF + HOUR, "entered", *taken_over, segment="lapsed_payers")
    journeys.dispatch(AS_OF + HOUR)
    left = [*people["held_out"][12:20], *people["treated"][12:50]]
    journeys.tick(AS_OF + 2 * HOUR, "exited", *left)
    journeys.dispatch(AS_OF + 2 * HOUR)
    for name in taken_over:
        journeys.product.track(name, "subscribed to premium plan", AS_OF + DAY)
    # Two of one arm turn out to be one, and one of each arm.
    merges = {name_of("treated", 50): name_of("treated", 51), name_of("held_out", 50): name_of("treated", 52)}
    journeys.merge(AS_OF + 2 * DAY, **merges)
    journeys.dispatch(AS_OF + 2 * DAY)
    journeys.tick(AS_OF + 15 * DAY, "entered")
    analyse_results(journeys.project, AS_OF + 15 * DAY)

    statuses = rows(
        journeys.project, "select arm, status, count(*) from journeys.entries where journey = 'nothing' group by 1, 2"
    )
    assert {(arm, status): count for arm, status, count in statuses} == {
        ("treated", "excluded"): 14, ("treated", "left"): 38, ("treated", "active"): 8,
        ("held_out", "excluded"): 12, ("held_out", "held_out"): 48,
    }  # fmt: skip
    ((n_control, n_arm, mean_control, mean_arm, both),) = rows(
        journeys.project,
        "select n_control, n_arm, mean_control, mean_arm, n_both_control + n_both_arm"
        " from analytics.experiment_results where experiment = 'nothing' and metric = 'goal'",
    )
    assert (n_control + n_arm, both) == (118, 1), "everybody who was drawn, each person once"
    assert abs(mean_arm - mean_control) < 0.01, "a journey that does nothing has no lift"


def test_who_was_drawn_once_stays_in_the_arm_when_the_holdout_changes(journeys: Journeys) -> None:
    names = [f"p{number}" for number in range(60)]
    journeys.person(*names)
    for holdout, at in ((0.2, AS_OF), (0.7, AS_OF + DAY)):
        journeys.declare(hello=journey(holdout=holdout, reentry="always"))
        journeys.dispatch(at - HOUR)
        journeys.tick(at, "entered", *names)
        journeys.dispatch(at)
        journeys.tick(at + HOUR, "exited", *names)
        journeys.dispatch(at + HOUR)
    arms = rows(
        journeys.project,
        "select user_id, array_agg(distinct arm), count(*) from journeys.entries group by 1 order by user_id",
    )
    expected = {name: ["held_out" if bucket("journey:hello", name) < 0.2 else "treated"] for name in names}
    assert {user: found for user, found, _ in arms} == expected
    assert {count for *_, count in arms} == {2}


def test_the_funnel_counts_goals_that_do_not_end_the_journey(journeys: Journeys) -> None:
    journeys.person("ada")
    goal = {"any_of": ["subscribed to premium plan"], "within": "14 days", "then": "continue"}
    journeys.declare(hello=journey(mail("a"), mail("b", after="2 days"), goal=goal))
    journeys.dispatch()
    journeys.tick(AS_OF, "entered", "ada")
    journeys.dispatch()
    journeys.product.track("ada", "subscribed to premium plan", AS_OF + DAY)
    journeys.tick(AS_OF + 2 * DAY, "entered")
    journeys.dispatch(AS_OF + 2 * DAY)
    analyse_results(journeys.project, AS_OF + 2 * DAY)
    assert rows(
        journeys.project, "select step, entered, sent, converted from analytics.journey_funnel order by step"
    ) == [("a", 1, 1, 1), ("b", 1, 1, 0)]  # fmt: skip


def event_about(journeys: Journeys, user: str, event: str, step: str, at: datetime) -> None:
    """Let a user say something of the message that a step sent."""
    sent = "select message_id from journeys.messages where user_id = :user and step = :step"
    ((message_id,),) = rows(journeys.project, sent, user=user, step=step)
    journeys.product.track(user, event, at, properties={"message_id": message_id})


def test_a_suppression_goes_by_address_and_the_latest_word_holds(journeys: Journeys, smtp: SmtpServer) -> None:
    journeys.person("ada", "bob", "cid")
    journeys.product.identify("twin", AS_OF - DAY, email="ADA@customer.example")
    everybody = ("ada", "bob", "cid", "twin")
    journeys.declare(hello=journey(*(mail(f"day{day}", after=f"{day} days") for day in range(7))))
    journeys.dispatch()
    journeys.tick(AS_OF, "entered", *everybody)
    journeys.dispatch()
    event_about(journeys, "ada", "message unsubscribed", "day0", AS_OF + HOUR)
    event_about(journeys, "bob", "message bounced", "day0", AS_OF + HOUR)
    journeys.dispatch(AS_OF + DAY)
    assert journeys.sent("day1") == ["cid"], "another id with the address gets nothing"
    reasons = [reason for step, status, reason in journeys.messages() if (step, status) == ("day1", "skipped")]
    assert sorted(reasons) == ["bounced", "unsubscribed", "unsubscribed"]

    journeys.product.identify("bob", AS_OF + DAY + HOUR, email="bob.new@customer.example")
    journeys.product.identify("ada", AS_OF + DAY + HOUR, email="ada.new@customer.example")
    journeys.dispatch(AS_OF + 2 * DAY)
    assert journeys.sent("day2") == ["bob", "cid"], "a new address after a bounce, not after a word"

    event_about(journeys, "ada", "message resubscribed", "day0", AS_OF + 2 * DAY + HOUR)
    journeys.dispatch(AS_OF + 3 * DAY)
    assert journeys.sent("day3") == ["ada", "bob", "cid", "twin"]
    # What is told late was said before: the later word of the two holds.
    event_about(journeys, "ada", "message complained", "day0", AS_OF + 2 * DAY)
    journeys.dispatch(AS_OF + 4 * DAY)
    assert journeys.sent("day4") == ["ada", "bob", "cid", "twin"]
    event_about(journeys, "ada", "message complained", "day3", AS_OF + 4 * DAY + HOUR)
    journeys.dispatch(AS_OF + 5 * DAY)
    assert journeys.sent("day5") == ["bob", "cid", "twin"], "the address that complained is ada's new one"
    journeys.write("delete from journeys.suppressions where user_id = 'ada'")
    journeys.dispatch(AS_OF + 6 * DAY)
    assert journeys.sent("day6") == ["ada", "bob", "cid", "twin"], "what somebody deletes stays deleted"


def test_a_bounce_takes_no_word_back(journeys: Journeys, smtp: SmtpServer) -> None:
    journeys.person("ada", "bob", "cid", "dan")
    journeys.product.identify("old", AS_OF - DAY, email="cid@customer.example")
    everybody = ("ada", "bob", "cid", "dan", "old")
    journeys.declare(hello=journey(mail("day0"), mail("day1", after="1 day"), mail("day2", after="2 days")))
    journeys.dispatch()
    journeys.tick(AS_OF, "entered", *everybody)
    journeys.dispatch()
    event_about(journeys, "ada", "message unsubscribed", "day0", AS_OF + HOUR)
    event_about(journeys, "ada", "message bounced", "day0", AS_OF + 2 * HOUR)
    event_about(journeys, "bob", "message bounced", "day0", AS_OF + 2 * HOUR)
    event_about(journeys, "old", "message unsubscribed", "day0", AS_OF + HOUR)
    event_about(journeys, "dan", "message bounced", "day0", AS_OF + HOUR)
    journeys.dispatch(AS_OF + 3 * HOUR)
    journeys.write("update journeys.suppressions set reason = 'bounced' where user_id = 'cid'")
    event_about(journeys, "bob", "message unsubscribed", "day0", AS_OF + HOUR)
    journeys.merge(AS_OF + 5 * HOUR, old="cid")
    for user in ("ada", "bob", "cid", "dan"):
        journeys.product.identify(user, AS_OF + 6 * HOUR, email=f"{user}.new@customer.example")
    journeys.dispatch(AS_OF + DAY)
    assert journeys.sent("day1") == ["dan"], "who only bounced has a new address"
    stopped = "select user_id, reason from journeys.suppressions where user_id <> 'old' order by 1"
    assert rows(journeys.project, stopped) == [
        ("ada", "unsubscribed"), ("bob", "unsubscribed"), ("cid", "unsubscribed"), ("dan", "bounced"),
    ]  # fmt: skip
    event_about(journeys, "ada", "message resubscribed", "day0", AS_OF + DAY + HOUR)
    journeys.dispatch(AS_OF + 2 * DAY)
    assert journeys.sent("day2") == ["ada", "dan"]


def test_a_mail_that_leaves_late_can_be_opened_for_as_long_as_any(journeys: Journeys, smtp: SmtpServer) -> None:
    unopened = {"do": "wait", "name": "unopened", "opened": "first", "within": "1 hour", "then": "end"}
    asked = {"do": "branch", "name": "asked", "opened": "first", "then": "end", "otherwise": "second"}
    journeys.person("ada", "bob")
    journeys.declare(
        hello=journey(mail("first"), unopened, mail("second", wait="0 days")),
        asking=journey(mail("other"), {**asked, "opened": "other"}, mail("second", wait="0 days")),
    )
    journeys.dispatch()
    journeys.tick(AS_OF, "entered", "ada", "bob")
    smtp.answers = ["451 try again later"] * 4
    journeys.dispatch()
    assert (journeys.sent("first"), journeys.sent("other")) == ([], [])
    journeys.dispatch(AS_OF + 2 * HOUR)
    assert journeys.sent("second") == [], "the first has not left"
    journeys.write("update journeys.messages set retry_at = null")
    journeys.dispatch(AS_OF + 3 * HOUR)
    assert journeys.sent("first") == journeys.sent("other") == ["ada", "bob"]
    journeys.dispatch(AS_OF + 3 * HOUR)
    sent = "select journey, count(*) from journeys.messages where step = 'second' and status = 'sent' group by 1"
    assert rows(journeys.project, sent) == [("asking", 2)], "a branch asks once, a wait waits"
    event_about(journeys, "ada", "message opened", "first", AS_OF + 3 * HOUR + HOUR / 2)
    journeys.dispatch(AS_OF + 4 * HOUR)
    assert sorted(rows(journeys.project, sent)) == [("asking", 2), ("hello", 1)]


def test_a_dispatch_that_lasts_into_the_quiet_hours_leaves_the_rest_for_the_morning(
    journeys: Journeys, smtp: SmtpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    journeys.person("ada", "bob")
    from_to = {"from": f"{AS_OF + HOUR:%H:%M}", "to": f"{AS_OF + 9 * HOUR:%H:%M}"}
    journeys.project.policy = Policy(email=Channel(connections=1))
    journeys.declare(hello=journey(mail("a"), quiet_hours=from_to))
    journeys.dispatch()
    journeys.tick(AS_OF, "entered", "ada", "bob")
    monkeypatch.setattr(outbox, "PAGE", 1)
    # The clock is asked for each page, of what is transactional first: the third page comes two hours later.
    instants = iter([AS_OF] * 2 + [AS_OF + 2 * HOUR] * 9)
    monkeypatch.setattr(outbox, "going_on", lambda _: lambda: next(instants))
    journeys.dispatch()
    assert journeys.sent("a") == ["ada"]
    assert journeys.messages("user_id, status, not_before")[1] == ("bob", "pending", AS_OF + 9 * HOUR)


def test_a_step_that_asks_about_a_mail_that_waits_is_no_work(journeys: Journeys, smtp: SmtpServer) -> None:
    journeys.person("ada")
    asked = {"do": "branch", "name": "asked", "opened": "first", "then": "end", "otherwise": "end"}
    journeys.declare(hello=journey(mail("first"), asked))
    journeys.dispatch()
    journeys.tick(AS_OF + HOUR, "entered", "ada")
    smtp.answers = ["451 later"]
    journeys.dispatch(AS_OF + HOUR)
    assert journeys.messages("status") == [("pending",)]
    at_work = {"engine": journeys.project.engine, "names": {"hello"}, "now": AS_OF + 2 * HOUR}
    assert journeys_with_work(**at_work) == set(), "or a dispatch would follow the other"
    journeys.write("update journeys.messages set retry_at = clock_timestamp() - interval '1 second'")
    assert journeys_with_work(**at_work) == {"hello"}


def test_a_mail_may_be_opened_before_it_is_waited_for(journeys: Journeys, smtp: SmtpServer) -> None:
    unopened = {"do": "wait", "name": "unopened", "opened": "first", "within": "1 day", "then": "end"}
    journeys.person("ada", "bob")
    journeys.declare(
        hello=journey(mail("first"), mail("news", after="2 days"), unopened, mail("second", wait="0 days"))
    )
    journeys.dispatch()
    journeys.tick(AS_OF, "entered", "ada", "bob")
    journeys.dispatch()
    event_about(journeys, "ada", "message opened", "first", AS_OF + HOUR)
    for days in (1, 2, 3):
        journeys.dispatch(AS_OF + days * DAY)
    assert journeys.sent("second") == ["bob"]
    assert journeys.entries("user_id, status, ended_at")[0] == ("ada", "completed", AS_OF + 2 * DAY)


def test_what_waits_for_a_message_counts_from_when_it_may_go(journeys: Journeys, smtp: SmtpServer) -> None:
    """A mail that is due on Friday evening goes on Monday; the hour after it, and the wait for it, begin there."""
    friday = AS_OF.replace(day=27, hour=20)
    monday = AS_OF.replace(day=30, hour=9)
    journeys.product.identify("ada", AS_OF - 20 * DAY, email="ada@customer.example", timezone="UTC")
    window = {"from": "09:00", "to": "18:00", "days": ["mon", "tue", "wed", "thu", "fri"]}
    unopened = {"do": "wait", "name": "unopened", "opened": "first", "within": "2 hours", "then": "end"}
    journeys.declare(hello=journey(mail("first"), mail("second", wait="1 hour"), unopened,
                                   mail("third", wait="0 days"), send_window=window))  # fmt: skip
    journeys.write("update segments.ticks set as_of = as_of - interval '10 days'")
    journeys.dispatch(friday - DAY)
    journeys.tick(friday, "entered", "ada")
    for at in (friday, friday + 2 * HOUR, friday + DAY, monday, monday + HOUR, monday + 3 * HOUR):
        journeys.dispatch(at)
    assert journeys.messages("step, sent_at, status") == [
        ("first", monday, "sent"), ("second", monday + HOUR, "sent"), ("third", monday + 3 * HOUR, "sent"),
    ]  # fmt: skip
    assert journeys.messages("step, due_at, not_before")[0] == ("first", friday, monday)


def test_a_wait_and_a_branch_ask_of_the_message_of_a_step(journeys: Journeys, smtp: SmtpServer) -> None:
    journeys.person("ada", "bob")
    wait = {"do": "wait", "name": "seen", "clicked": "a", "within": "2 days", "then": "thanks", "otherwise": "asked"}
    branch = {"do": "branch", "name": "asked", "opened": "b", "then": "nudge", "otherwise": "end"}
    journeys.declare(
        other=journey(mail("elsewhere")),
        hello=journey(mail("a"), mail("b", after="1 hour"), wait, branch, mail("nudge", wait="0 days", next="end"),
                      mail("thanks", wait="0 days")),
    )  # fmt: skip
    journeys.dispatch()
    journeys.tick(AS_OF, "entered", "ada", "bob")
    journeys.dispatch()
    journeys.dispatch(AS_OF + HOUR)
    event_about(journeys, "ada", "message clicked", "elsewhere", AS_OF + 2 * HOUR)
    event_about(journeys, "ada", "message clicked", "b", AS_OF + 2 * HOUR)
    event_about(journeys, "bob", "message clicked", "a", AS_OF + 2 * HOUR)
    event_about(journeys, "ada", "message opened", "b", AS_OF + 2 * HOUR)
    journeys.dispatch(AS_OF + 3 * HOUR)
    assert (journeys.sent("thanks"), journeys.sent("nudge")) == (["bob"], [])
    journeys.dispatch(AS_OF + 3 * DAY)
    assert (journeys.sent("thanks"), journeys.sent("nudge")) == (["bob"], ["ada"])


def test_messages_of_one_instant_go_in_the_order_of_their_steps(journeys: Journeys, smtp: SmtpServer) -> None:
    names = [f"u{number:02d}" for number in range(20)]
    journeys.person(*names)
    journeys.project.policy = Policy(email=Channel(connections=4))
    journeys.declare(hello=journey(*(mail(name) for name in ("z", "m", "a"))))
    journeys.dispatch()
    journeys.tick(AS_OF, "entered", *names)
    journeys.dispatch()
    order: dict[str, list[str]] = {}
    for message in smtp.accepted:
        order.setdefault(message["To"], []).append(message["Subject"])
    assert order == {f"{name}@customer.example": ["z", "m", "a"] for name in names}


def test_what_is_late_is_skipped_unless_a_journey_says_otherwise(journeys: Journeys, smtp: SmtpServer) -> None:
    journeys.person("ada")
    journeys.declare(hello=journey(mail("a"), mail("b", after="1 day"), late=None))
    journeys.dispatch()
    journeys.tick(AS_OF, "entered", "ada")
    journeys.dispatch()
    journeys.dispatch(AS_OF + 60 * DAY)
    assert journeys.messages() == [("a", "sent", None), ("b", "skipped", "late")]


def test_a_trait_that_no_identify_call_has_is_told_with_its_nearest(
    content: Path, journeys: Journeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = journeys.project.settings.campaigns / "journeys" / "earn_upgrade.yml"
    steps = [
        mail("a", subject="{{ user.naem }}"), mail("b", subject="{{ user.seats * 2 }} for {{ user.plan }}"),
        mail("c", variants={"x": {"weight": 100, "subject": "{{ user.name or user.compny }}"}}),
    ]  # fmt: skip
    journeys.declare(earn_upgrade=journey(*steps))
    assert list(doubtful_copy(journeys.project, journeys.project.journeys)) == [], "nothing is known of users yet"
    journeys.product.identify("ada", AS_OF - DAY, name="Ada", seats=4, company="C", plan=None)
    told = list(doubtful_copy(journeys.project, journeys.project.journeys))
    assert [text.split(": ", 1)[1] for text in told] == [
        "no identify call has the trait 'naem'; did you mean 'name'?",
        "no identify call has the trait 'plan'; known: company, name, seats",
        "no identify call has the trait 'compny'; did you mean 'company'?",
    ]
    assert all(text.startswith(f"{path}:") for text in told)
    template = journeys.project.settings.campaigns / "templates" / "catch_up.txt"
    template.write_text(template.read_text().replace("{{ unsubscribe_url }}", ""))
    doubts = list(doubtful_copy(journeys.project, journeys.project.journeys))
    assert f"{template}: does not print {{{{ unsubscribe_url }}}}, which marketing needs" in doubts
    assert check_journeys(journeys.project, traits={}) == {"earn_upgrade": ["a", "b", "c", "c.x"]}
    monkeypatch.setattr("upnext.cli.journeys.project_here", lambda: journeys.project)
    printed = CliRunner().invoke(preview_journey, ["earn_upgrade"])
    assert [text in printed.stderr for text in told] == [True] * 3, "before anybody starts it"
