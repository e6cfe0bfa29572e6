"""Otto's users: the same seed gives the same files, and the files are as messy as real clients make them."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from demo.otto import DECISIONS, TRUE_LIFTS, Message, Offer, Otto, Shown
from upnext.events.event import Event, Reject, decode_segment

LOADED_AT = datetime(2027, 1, 1, tzinfo=UTC)
DAYS = 12
PRODUCT_EVENTS = {
    "login", "created ml task", "invited team member", "exported report", "subscribed to basic plan",
    "subscribed to premium plan", "viewed upgrade plan", "subscribed newsletter", "book demo", "product viewed",
    "created object",
}  # fmt: skip


def simulate(seed: int) -> list[list[bytes]]:
    otto = Otto(seed=seed, users=400)
    return [otto.day(day, Shown()) for day in range(DAYS)]


@pytest.fixture(scope="module")
def days() -> list[list[bytes]]:
    return simulate(seed=3)


def decoded(lines: list[bytes]) -> tuple[list[Event], Counter[str]]:
    events, rejects = [], Counter[str]()
    for line in lines:
        try:
            events.append(decode_segment(line, loaded_at=LOADED_AT))
        except Reject as reject:
            rejects[reject.reason] += 1
    return events, rejects


def test_the_same_seed_gives_the_same_lines(days: list[list[bytes]]) -> None:
    assert simulate(seed=3) == days
    assert simulate(seed=4) != days


def test_the_eleven_events_of_the_product(days: list[list[bytes]]) -> None:
    events, _ = decoded([line for lines in days for line in lines])
    assert {event.event for event in events if event.type == "track"} == PRODUCT_EVENTS
    assert Counter(event.type for event in events)["identify"] >= 400


def test_the_mess_of_real_clients(days: list[list[bytes]]) -> None:
    events, rejects = decoded([line for lines in days for line in lines])
    assert set(rejects) == {"invalid_json", "no_event"}
    repeated = sum(count - 1 for count in Counter(event.message_id for event in events).values())
    assert 0.01 < repeated / len(events) < 0.03
    today, _ = decoded(days[5])
    midnight = Otto(seed=3, users=1).date(5)
    assert any(event.occurred_at < midnight for event in today), "some arrive a day late"
    times = [event.occurred_at for event in today]
    assert times != sorted(times)
    skewed = [
        event for event in today if event.original_timestamp and abs(event.original_timestamp - event.occurred_at)
    ]
    assert skewed
    assert all(midnight - timedelta(days=1) <= at < midnight + timedelta(days=1) for at in times)


def test_weekends_are_quiet(days: list[list[bytes]]) -> None:
    working_day, saturday = len(days[3]), len(days[5])
    assert saturday < 0.6 * working_day


def test_users_respond_to_what_they_are_shown_and_to_nothing_else() -> None:
    otto = Otto(seed=3, users=400)
    users = [f"user-3-{number:05d}" for number in range(400)]
    offers = tuple(
        Offer(user, "upgrade_banner", "experience", "unlock" if number % 2 else "control", number % 2 == 1)
        for number, user in enumerate(users)
    )
    messages = tuple(Message(f"id-{user}", user, "encourage_upgrade") for user in users[:100])
    lines = otto.day(0, Shown(offers, messages))
    for day in range(1, 6):
        lines += otto.day(day, Shown())
    events, _ = decoded(lines)
    by_name = {name: {event.user_id for event in events if event.event == name} for name in {e.event for e in events}}
    assert 0.6 < len(by_name["experience viewed"]) / 400 < 0.8
    assert by_name["experience clicked"] <= set(users[1::2])
    assert by_name["message opened"] <= set(users[:100])
    assert by_name["message clicked"] <= by_name["message opened"]


def test_every_experiment_moves_one_decision() -> None:
    moved = [experiment for decision in DECISIONS.values() for experiment in decision.experiments]
    assert sorted(moved) == sorted(TRUE_LIFTS)
