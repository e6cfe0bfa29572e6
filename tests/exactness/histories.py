"""Histories that hypothesis draws: who does what when, in which load it arrives, and what happens between ticks."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from tests.exactness.reference import BASIC, DAY, HOUR, PREMIUM, Occurrence

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
WINDOWS = (5 * HOUR, 2 * DAY, 5 * DAY, 7 * DAY, 10 * DAY, 30 * DAY)
EVENTS = (
    "login", "login", "login", "viewed", "bought", "imported", "created ml task", "created object", "product viewed",
    "viewed upgrade plan", "subscribed newsletter", "invited team member", BASIC, PREMIUM,
)  # fmt: skip


@dataclass(frozen=True)
class Round:
    """What happens up to a tick: what is loaded, how far the clock goes, and what somebody does before."""

    loaded: list[Occurrence]
    step: timedelta
    before: str


def _moments(ticks: list[datetime]) -> st.SearchStrategy[datetime]:
    """Moments where a window of one of the ticks begins or ends, just beside it, or anywhere."""
    edges = [tick - window + beside for tick in ticks for window in (*WINDOWS, timedelta())
             for beside in (-MICROSECOND, timedelta(), MICROSECOND)]  # fmt: skip
    minutes = st.integers(-32 * 24 * 60, 6 * 24 * 60).map(lambda minute: ticks[-1] + timedelta(minutes=minute))
    together = st.integers(0, 200).map(lambda minute: ticks[0] - HOUR * 3 + timedelta(minutes=minute))
    return st.one_of(st.sampled_from(edges), minutes, together)


def _dates(ticks: list[datetime]) -> st.SearchStrategy[str]:
    """Dates that are a whole number of hours or days from a tick, or just beside it."""
    hours = (-50, -48, -24, -3, -2, 0, 1, 2, 24, 48, 72, 240)
    return st.sampled_from([(tick + hour * HOUR + beside).isoformat() for tick in ticks for hour in hours
                            for beside in (-MICROSECOND, timedelta(), MICROSECOND)])  # fmt: skip


def _ordered(properties: dict[str, object], order_id: str | None) -> dict[str, object]:
    return properties if order_id is None else {**properties, "order_id": order_id}


@st.composite
def occurrences(draw: st.DrawFn, ticks: list[datetime]) -> Occurrence:
    """An event of one of a few people, who are sometimes the same."""
    user = st.sampled_from(["ann", "bob", "cid"])
    visitor = st.sampled_from(["v1", "v2"])
    account = st.none() | st.sampled_from(["acme", "blue"])
    at = draw(_moments(ticks))
    kind = draw(st.sampled_from(["track"] * 7 + ["identify", "alias", "group", "page"]))
    if kind == "identify":
        plan = draw(st.none() | st.sampled_from(["basic", "premium"]))
        ends_at = draw(st.none() | st.just("soon") | _dates(ticks))
        traits = {"plan": plan, "ends_at": ends_at}
        return Occurrence("", kind, at, user_id=draw(user), anonymous_id=draw(st.none() | visitor),
                          properties={name: value for name, value in traits.items() if value})  # fmt: skip
    if kind == "alias":
        return Occurrence("", kind, at, user_id=draw(user), previous_id=draw(user | visitor))
    if kind == "group":
        return Occurrence("", kind, at, user_id=draw(user), account_id=draw(account))
    ids = draw(st.sampled_from(["user", "user", "visitor", "both"]))
    event = draw(st.sampled_from(EVENTS)) if kind == "track" else None
    properties = {
        "login": st.sampled_from([{}, {"plan": None}, {"plan": "premium"}, {"plan": "basic"}]),
        "bought": st.builds(
            _ordered,
            st.sampled_from([{"amount": 0.1}, {"amount": 0.2}, {"amount": 2}, {"amount": -3}]),
            st.sampled_from([None, "a", "b"]),
        ),
        "imported": st.builds(
            _ordered,
            st.sampled_from([{"rows": 10}, {"rows": 1000}]) | _dates(ticks).map(lambda date: {"due": date}),
            st.sampled_from([None, "a", "b"]),
        ),
    }.get(event or "", st.just({}))
    return Occurrence(
        "", kind, at, event=event,
        user_id=draw(user) if ids != "visitor" else None,
        anonymous_id=draw(visitor) if ids != "user" else None,
        account_id=draw(account),
        properties=draw(properties),
    )  # fmt: skip


@st.composite
def histories(draw: st.DrawFn, *, worlds: int, rounds: int = 4) -> list[Round]:
    """Draw `worlds` histories that share their ticks."""
    steps = draw(st.lists(
        st.sampled_from([timedelta(), MICROSECOND, HOUR, HOUR, DAY, 3 * DAY, 5 * DAY, 11 * DAY, 31 * DAY]),
        min_size=rounds, max_size=rounds,
    ))  # fmt: skip
    ticks = [START + sum(steps[: nth + 1], timedelta()) for nth in range(rounds)]
    loaded: list[list[Occurrence]] = [[] for _ in range(rounds)]
    count = 0
    for world in range(worlds):
        for happened in draw(st.lists(st.tuples(st.integers(0, rounds - 1), occurrences(ticks)), max_size=14)):
            count += 1
            loaded[happened[0]].append(_in_world(happened[1], world, count))
    between = st.sampled_from(["nothing"] * 3 + ["killed tick", "full refresh", "build by hand"])
    return [Round(loaded[nth], steps[nth], draw(between)) for nth in range(rounds)]


def _in_world(event: Occurrence, world: int, count: int) -> Occurrence:
    named = {
        name: f"{value}-{world}"
        for name in ("user_id", "anonymous_id", "previous_id", "account_id")
        if (value := getattr(event, name)) is not None
    }
    # Ids are given in another order than that of loading, so that ties are not broken by it.
    return replace(event, order=f"{(count * 7919) % 10007:06d}", **named)
