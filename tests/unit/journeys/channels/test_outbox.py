"""How fast a channel sends."""

from datetime import UTC, datetime, timedelta

from upnext.journeys.channels.outbox import Ready, going_on, in_order, paced
from upnext.journeys.copy.message import Rendered

DUE = datetime(2026, 3, 31, 12, tzinfo=UTC)


class Clock:
    """A clock that moves when somebody sleeps, or is at work."""

    def __init__(self) -> None:
        self.now = 100.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def instants(work: list[float], per_second: int | None) -> list[float]:
    """Return when each message goes out, after so many seconds of work on each."""
    clock = Clock()
    messages = [Ready("email", "ada", DUE, 0, False, False, Rendered(str(number))) for number, _ in enumerate(work)]
    found = []
    for seconds, _ in zip(work, paced(messages, per_second, clock=lambda: clock.now, sleep=clock.sleep), strict=True):
        found.append(round(clock.now - 100, 3))
        clock.now += seconds
    return found


def test_a_channel_is_no_faster_than_its_rate() -> None:
    assert instants([0, 0, 0, 0], 4) == [0, 0.25, 0.5, 0.75]
    assert instants([0.1, 1, 0, 0], 4) == [0, 0.25, 1.25, 1.5], "what was missed is not made up for"
    assert instants([0, 0], None) == [0, 0]


def test_what_is_due_to_one_user_at_one_instant_goes_to_one_sender() -> None:
    messages = [
        Ready("email", user, DUE, 0, False, False, Rendered(name))
        for user, name in (("ada", "1"), ("ada", "2"), ("bob", "3"))
    ]
    together = [[message.rendered.message_id for message in one] for one in in_order(messages)]
    assert together == [["1", "2"], ["3"]]


def test_a_dispatch_is_of_one_instant_for_a_minute_and_then_time_goes_on() -> None:
    seconds = iter([100.0, 159.9, 160.0, 100.0 + 3 * 3600])
    now = going_on(DUE, clock=lambda: next(seconds))
    assert [now() - DUE for _ in range(3)] == [timedelta(0), timedelta(minutes=1), timedelta(hours=3)]
