"""The example of a shop: carts, orders and appointments, followed by journeys with one run for each."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.conftest import Product, SmtpServer, rows, start
from upnext.journeys.plan import kind_of
from upnext.loop import build, dispatch_journeys
from upnext.operations.checks import check_journeys
from upnext.project import Project
from upnext.settings import PROJECT

NINE = datetime(2026, 4, 1, 9, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
MUG, PEN = {"name": "Mug", "count": 2, "price": 9.5}, {"name": "Pen", "count": 1, "price": 31}


@pytest.fixture(scope="module", autouse=True)
def _content() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UPNEXT_CONTENT", str(PROJECT / "examples" / "shop"))
        yield


@pytest.fixture
def shop(project: Project, product: Product) -> Project:
    """The shop with two customers, and its journeys started."""
    for user in ("ada", "bob"):
        product.identify(user, NINE - DAY, email=f"{user}@customer.example", name=user.title())
    build(project, NINE - HOUR, is_explicit=True)
    start(project, *project.journeys)
    dispatch_journeys(project, NINE - HOUR)
    return project


def say(product: Product, user: str, event: str, at: datetime, **properties: Any) -> None:
    product.track(user, event, at, properties=properties)


def sent(smtp: SmtpServer) -> list[tuple[str, str]]:
    return [(str(message["To"]).split("@")[0], str(message["Subject"])) for message in smtp.accepted]


def test_a_cart_is_reminded_of_until_it_is_ordered(shop: Project, product: Product, smtp: SmtpServer) -> None:
    for cart in ("c-1", "c-2"):
        say(product, "ada", "added to cart", NINE, cart_id=cart, items=[MUG])
    say(product, "bob", "added to cart", NINE, cart_id="c-3", items=[PEN])
    say(product, "ada", "ordered", NINE + HOUR / 2, order_id="o-1", cart_id="c-1", total=19, items=[MUG])
    for hours in (0.6, 1.1, 25, 26, 27):
        dispatch_journeys(shop, NINE + hours * HOUR)
    held_out = {user for (user,) in rows(
        shop, "select user_id from journeys.entries where journey = 'abandoned_cart' and arm = 'held_out'"
    )}  # fmt: skip
    reminders = [mail for mail in sent(smtp) if "waiting" in mail[1] or "one more day" in mail[1]]
    expected = [
        ("ada", "Mug is waiting for you"), ("bob", "Pen is waiting for you"),
        ("ada", "We keep your cart for one more day"), ("bob", "We keep your cart for one more day"),
    ]  # fmt: skip
    assert sorted(reminders) == sorted(mail for mail in expected if mail[0] not in held_out)
    assert len(held_out) < 2
    text = str(smtp.accepted[-1].get_payload()[0].get_payload(decode=True), "utf-8")
    assert "https://shop.example/carts/c-" in text
    assert "utm_campaign=abandoned_cart" in text
    assert "Shop, 1 Long Lane, Berlin" in text


def test_an_appointment_is_confirmed_and_reminded_of_unless_it_is_canceled(
    shop: Project, product: Product, smtp: SmtpServer
) -> None:
    at = NINE + 3 * DAY
    for user, name, starts_at in (("ada", "a-1", at), ("ada", "a-2", at), ("bob", "a-3", NINE + 5 * HOUR)):
        stated = {"appointment_id": name, "starts_at": starts_at.isoformat(), "place": "1 Long Lane"}
        say(product, user, "booked appointment", NINE, **stated)
    for hours in (0, 4):
        dispatch_journeys(shop, NINE + hours * HOUR)
    say(product, "ada", "canceled appointment", NINE + DAY, appointment_id="a-2")
    for days, hours in ((2, 0), (2, 23), (3, 0), (3, 1)):
        dispatch_journeys(shop, NINE + days * DAY + hours * HOUR)
    assert sorted(sent(smtp)[:3]) == [(user, "Your appointment is booked") for user in ("ada", "ada", "bob")]
    assert sent(smtp)[3:] == [
        ("bob", "See you in an hour"), ("ada", "See you tomorrow"), ("ada", "See you in an hour"),
    ]  # fmt: skip
    ended = rows(shop, "select key, status, reason from journeys.entries where journey = 'appointment' order by 1")
    assert ended == [("a-1", "completed", None), ("a-2", "left", "canceled"), ("a-3", "completed", None)]


def test_an_order_has_a_receipt_and_a_large_one_is_asked_about(
    shop: Project, product: Product, smtp: SmtpServer
) -> None:
    for order, total, items in (("A-1", 50, [MUG, PEN]), ("A-2", 19, [MUG]), ("A-3", 81, [PEN])):
        say(product, "ada", "ordered", NINE, order_id=order, total=total, items=items)
    dispatch_journeys(shop, NINE)
    say(product, "ada", "order canceled", NINE + DAY, order_id="A-3")
    for days in (6, 7, 8):
        dispatch_journeys(shop, NINE + days * DAY)
    assert sorted(sent(smtp)) == sorted(
        [("ada", "Receipt A-1"), ("ada", "Receipt A-2"), ("ada", "Receipt A-3"), ("ada", "How do you like Mug?")]
    )
    [receipt] = [message for message in smtp.accepted if message["Subject"] == "Receipt A-1"]
    text, html = (str(part.get_payload(decode=True), "utf-8") for part in receipt.get_payload())
    assert "2 x Mug: 9.50\r\n1 x Pen: 31.00\r\n" in text
    assert re.search(r"2 x Mug: 9.50.*1 x Pen: 31.00.*Total: 50.00", html, re.DOTALL)
    assert receipt["List-Unsubscribe"] is None


def test_the_shop_says_nothing_wrong(shop: Project) -> None:
    assert {name: len(steps) for name, steps in check_journeys(shop, traits={}).items()} == {
        "abandoned_cart": 2, "appointment": 3, "order": 2,
    }  # fmt: skip
    kinds = {kind_of(step) for journey in shop.journeys.values() for step in journey.steps}
    assert kinds == {"wait", "email", "delay", "branch"}
