"""Otto's users: what they do each day, and how they respond to what they are shown. Pure. Same seed, same events.

When a user first sees the offers of a segment, the user decides once, within three days, whether to take them up. The
probability is `base * product of (1 + lift)` over the experiments whose treatment the user really got: a copy on the
page, or a message sent. Arms are assigned independently, so the true lift of each experiment is exactly its own.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from upnext.experiences.definition import bucket

WARM_UP_DAYS = 30
LOOP_DAYS = 22
DAYS = WARM_UP_DAYS + LOOP_DAYS
# The end date in the README and the tests; `make demo` ends now.
END = datetime(2026, 2, 25, 23, tzinfo=UTC)

TRUE_LIFTS = {
    "upgrade_banner": 0.5,
    "premium_reports_sidebar": 0.4,
    "pricing_footer": 0.6,
    "feature_modal": 0.0,
    "explore_banner": 0.5,
    "automations_tooltip": 0.25,
    "encourage_upgrade": 0.8,
    "reactivate_low_usage_paid": 0.8,
}


@dataclass(frozen=True)
class Decision:
    """A user's decision: its probability without treatment, the experiments that change it, and its effect."""

    base: float
    experiments: tuple[str, ...]
    events: tuple[str, ...]


DECISIONS = {
    "power_upgrade": Decision(0.25, ("upgrade_banner", "encourage_upgrade"), ("subscribed to premium plan",)),
    "power_look": Decision(0.20, ("premium_reports_sidebar",), ("viewed upgrade plan",)),
    "curious_upgrade": Decision(0.2, ("pricing_footer", "feature_modal"), ("subscribed to premium plan",)),
    "idle_return": Decision(
        0.25, ("explore_banner", "automations_tooltip", "reactivate_low_usage_paid"), ("login", "created object")
    ),
}

# Mean number of events on a working day, by persona.
RATES: dict[str, dict[str, float]] = {
    "power": {
        "login": 1.0,
        "created ml task": 0.5,
        "product viewed": 0.4,
        "created object": 0.6,
        "exported report": 0.15,
        "invited team member": 0.03,
    },
    "curious": {
        "login": 0.4,
        "viewed upgrade plan": 0.35,
        "product viewed": 0.3,
        "created object": 0.3,
        "book demo": 0.01,
    },
    "paid": {
        "login": 0.8,
        "created object": 0.7,
        "exported report": 0.2,
        "product viewed": 0.2,
        "invited team member": 0.05,
    },
    "casual": {"login": 0.15, "product viewed": 0.1, "created object": 0.08, "book demo": 0.005},
}
FIRST_EVENTS = {
    "power": ("subscribed to basic plan",),
    "curious": ("subscribed newsletter",),
    "paid": ("subscribed to premium plan",),
    "casual": (),
}
PERSONAS = tuple(RATES)
SHARES = (0.28, 0.28, 0.28, 0.16)
WEEKEND = 0.35
HOUR_WEIGHTS = np.array([1, 1, 1, 1, 1, 2, 4, 8, 14, 17, 16, 13, 11, 14, 16, 15, 13, 10, 7, 5, 4, 3, 2, 1], dtype=float)

VISIT_CHANCE = 0.7
CLICK_CHANCE = 0.12
OPEN_CHANCE = 0.5
MESSAGE_CLICK_CHANCE = 0.1
UNSUBSCRIBE_CHANCE = 0.01

DUPLICATE_SHARE = 0.02
LATE_SHARE = 0.015
BROKEN_SHARE = 0.002
SKEWED_SHARE = 0.05

FIRST_NAMES = ("Ada", "Bela", "Chidi", "Dana", "Emre", "Fumi", "Gita", "Hugo", "Ines", "Juno", "Kofi", "Lena")
TIME_ZONES = ("Europe/Berlin", "America/New_York", "Asia/Tokyo", "Europe/London", "America/Sao_Paulo")


@dataclass(frozen=True)
class Offer:
    """A row of `experiences.live_ctas`: the offer that a page found for a user; control has no copy."""

    user_id: str
    source: str
    source_kind: str
    variant: str
    is_shown: bool


@dataclass(frozen=True)
class Message:
    """A message that was really sent."""

    message_id: str
    user_id: str
    journey: str


@dataclass(frozen=True)
class Shown:
    """Every live offer at the end of a day, and the messages sent that day."""

    offers: tuple[Offer, ...] = ()
    messages: tuple[Message, ...] = ()


@dataclass
class _User:
    user_id: str
    persona: str
    account_id: str
    lapses_on: int
    skew: timedelta
    treatments: set[str] = field(default_factory=set)
    decided: set[str] = field(default_factory=set)
    returned_on: int | None = None

    def is_active(self, day: int) -> bool:
        return day < self.lapses_on or (self.returned_on is not None and day >= self.returned_on)


class Otto:
    """The product. Call `day` for each day in turn, with the `Shown` of the end of the day before.

    Days begin at midnight UTC; the last of `DAYS` is that of `end`, and nothing happens after `end`.
    """

    def __init__(self, *, seed: int, users: int, end: datetime = END) -> None:
        self._seed = seed
        self.end = end
        self._start = end.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=DAYS - 1)
        self._users = list(self._sign_up(users))
        self._by_id = {user.user_id: user for user in self._users}
        self._scheduled: dict[int, list[dict[str, Any]]] = {}
        self._late: list[dict[str, Any]] = []

    def date(self, day: int) -> datetime:
        """Return the midnight at which `day` begins, counted from 0."""
        return self._start + timedelta(days=day)

    def day(self, day: int, shown: Shown) -> list[bytes]:
        """Return the lines that arrive on `day`, JSON of the Segment spec, in the order of their arrival."""
        random = np.random.default_rng([self._seed, day])
        events = self._first_events() if day == 0 else []
        events += self._habits(day, random)
        events += self.responses(day, shown)
        arriving = self._deliver(events, random)
        return list(_with_mess([event for event in arriving if _seconds(event) <= self.end.timestamp()], random))

    def end_of(self, day: int) -> datetime:
        """Return the `as_of` of the tick after a day: midnight, or the end of the demo."""
        return min(self.date(day + 1), self.end)

    def responses(self, day: int, shown: Shown) -> list[dict[str, Any]]:
        """Return how users respond on `day` to what they see, without habits; call it for each day in turn."""
        return self._scheduled.pop(day, []) + self._respond(day, shown)

    def users_of(self, persona: str) -> list[str]:
        """Return the ids of the users of a persona."""
        return [user.user_id for user in self._users if user.persona == persona]

    def _sign_up(self, count: int) -> Iterator[_User]:
        random = np.random.default_rng([self._seed, 10_000])
        personas = random.choice(len(PERSONAS), size=count, p=SHARES)
        for index, persona in enumerate(personas):
            is_skewed = random.random() < SKEWED_SHARE
            yield _User(
                # Arms depend on the id, so another seed gives other arms.
                user_id=f"user-{self._seed}-{index:05d}",
                persona=PERSONAS[persona],
                account_id=f"account-{index // 5:04d}",
                lapses_on=int(random.integers(5, 34)) if PERSONAS[persona] == "paid" else 10**6,
                skew=timedelta(seconds=int(random.integers(-7200, 7200)) if is_skewed else 0),
            )

    def _first_events(self) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = []
        for index, user in enumerate(self._users):
            at = self._start + timedelta(seconds=index % 3600)
            name = FIRST_NAMES[index % len(FIRST_NAMES)]
            traits = {
                "name": name,
                "email": f"{name.lower()}.{index}@customer.example",
                "timezone": TIME_ZONES[index % len(TIME_ZONES)],
            }
            events.append(_event(user, at, type="identify", traits=traits))
            events.append(_event(user, at, type="group", groupId=user.account_id, traits={"name": user.account_id}))
            events += [_track(user, at + timedelta(minutes=5), event) for event in FIRST_EVENTS[user.persona]]
        return events

    def _habits(self, day: int, random: np.random.Generator) -> list[dict[str, Any]]:
        rhythm = WEEKEND if self.date(day).weekday() >= 5 else 1.0
        events: list[dict[str, Any]] = []
        for persona, rates in RATES.items():
            active = [user for user in self._users if user.persona == persona and user.is_active(day)]
            for name, rate in rates.items():
                counts = random.poisson(rate * rhythm, size=len(active))
                moments = _moments(self.date(day), int(counts.sum()), random)
                actors = (user for user, count in zip(active, counts, strict=True) for _ in range(count))
                events += [_track(user, at, name) for user, at in zip(actors, moments, strict=True)]
        return events

    def _respond(self, day: int, shown: Shown) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = []
        for message in shown.messages:
            events += self._open(day, message)
        by_user: dict[str, list[Offer]] = {}
        for offer in shown.offers:
            if offer.source_kind == "experience":
                by_user.setdefault(offer.user_id, []).append(offer)
        for user_id, offers in by_user.items():
            if self._draw(f"visit {day}", user_id) < VISIT_CHANCE:
                events += self._visit(day, self._by_id[user_id], offers)
        return events

    def _open(self, day: int, message: Message) -> Iterator[dict[str, Any]]:
        user = self._by_id[message.user_id]
        user.treatments.add(message.journey)
        properties = {"message_id": message.message_id}
        at = self.date(day) + timedelta(hours=7 + 3 * self._draw("open at", message.message_id))
        if self._draw("open", message.message_id) < OPEN_CHANCE:
            yield _track(user, at, "message opened", properties)
            if self._draw("click", message.message_id) < MESSAGE_CLICK_CHANCE:
                yield _track(user, at + timedelta(minutes=1), "message clicked", properties)
        if self._draw("unsubscribe", message.message_id) < UNSUBSCRIBE_CHANCE:
            yield _track(user, at + timedelta(minutes=2), "message unsubscribed", properties)

    def _visit(self, day: int, user: _User, offers: list[Offer]) -> Iterator[dict[str, Any]]:
        at = self.date(day) + timedelta(hours=10 + 8 * self._draw(f"visit at {day}", user.user_id))
        for offer in offers:
            properties = {"experience": offer.source, "variant": offer.variant}
            yield _track(user, at, "experience viewed", properties)
            if offer.is_shown:
                user.treatments.add(offer.source)
                if self._draw(f"click {offer.source} {day}", user.user_id) < CLICK_CHANCE:
                    yield _track(user, at + timedelta(seconds=40), "experience clicked", properties)
        seen = {offer.source for offer in offers}
        for name, decision in DECISIONS.items():
            if name not in user.decided and seen.intersection(decision.experiments):
                user.decided.add(name)
                self._decide(day, user, name, at)

    def _decide(self, day: int, user: _User, name: str, at: datetime) -> None:
        decision = DECISIONS[name]
        chance = decision.base
        for experiment in decision.experiments:
            if experiment in user.treatments:
                chance *= 1 + TRUE_LIFTS[experiment]
        if self._draw(f"decide {name}", user.user_id) >= chance:
            return
        happens = at + timedelta(hours=1 + 71 * self._draw(f"decide {name} at", user.user_id))
        on = day + (happens - self.date(day)).days
        for offset, event in enumerate(decision.events):
            moment = happens + timedelta(seconds=offset)
            self._scheduled.setdefault(max(on, day + 1), []).append(_track(user, moment, event))
        if name == "idle_return":
            user.returned_on = on + 1

    def _deliver(self, events: list[dict[str, Any]], random: np.random.Generator) -> list[dict[str, Any]]:
        """Number the events, delay some by a day, and shuffle the order a little."""
        numbered = [{**event, "messageId": _message_id(event, index)} for index, event in enumerate(events)]
        is_late = random.random(len(numbered)) < LATE_SHARE
        arriving = self._late + [event for event, late in zip(numbered, is_late, strict=True) if not late]
        self._late = [event for event, late in zip(numbered, is_late, strict=True) if late]
        delays = random.exponential(60, size=len(arriving))
        return [
            arriving[index]
            for index in np.argsort([_seconds(event) + delay for event, delay in zip(arriving, delays, strict=True)])
        ]

    def _draw(self, what: str, unit: str) -> float:
        return bucket(f"otto {self._seed} {what}", unit)


def _event(user: _User, at: datetime, **fields: Any) -> dict[str, Any]:
    """Return one event as a client reports it: its own clock, and the server's time of receipt."""
    sent = at + timedelta(seconds=2)
    return {
        "userId": user.user_id,
        "originalTimestamp": _text(at + user.skew),
        "sentAt": _text(sent + user.skew),
        "receivedAt": _text(sent),
        "context": {"groupId": user.account_id},
        **fields,
    }


def _track(user: _User, at: datetime, event: str, properties: dict[str, str] | None = None) -> dict[str, Any]:
    return _event(user, at, type="track", event=event, properties=properties or {})


def _message_id(event: dict[str, Any], index: int) -> str:
    return f"{event['userId']}-{event['receivedAt']}-{index}"


def _text(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _seconds(event: dict[str, Any]) -> float:
    return datetime.fromisoformat(event["receivedAt"]).timestamp()


def _moments(midnight: datetime, count: int, random: np.random.Generator) -> list[datetime]:
    hours: npt.NDArray[np.int64] = random.choice(24, size=count, p=HOUR_WEIGHTS / HOUR_WEIGHTS.sum())
    seconds = hours * 3600 + random.uniform(0, 3598, size=count)
    return [midnight + timedelta(milliseconds=int(second * 1000)) for second in seconds]


def _with_mess(events: Iterable[dict[str, Any]], random: np.random.Generator) -> Iterator[bytes]:
    """Encode the events as real clients deliver them: some twice, and broken lines in between."""
    encode = msgspec.json.Encoder().encode
    for event in events:
        line = encode(event)
        yield line
        chance = random.random()
        if chance < DUPLICATE_SHARE:
            yield line
        elif chance < DUPLICATE_SHARE + BROKEN_SHARE:
            yield line[: len(line) // 2]
        elif chance < DUPLICATE_SHARE + 1.5 * BROKEN_SHARE:
            yield encode({"type": "track", "userId": event["userId"], "timestamp": event["receivedAt"]})
