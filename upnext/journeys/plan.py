"""The plan of a journey that the dispatch follows: a row for each step, where it leads, what it asks. Pure."""

from collections.abc import Iterator
from typing import Any

import msgspec

from upnext.durations import minutes
from upnext.journeys.definition import (
    END,
    AnyStep,
    Asked,
    Branch,
    Broadcast,
    Cta,
    Delay,
    Email,
    Journey,
    Message,
    OneWay,
    Question,
    Quit,
    Sent,
    Split,
    StartJourney,
    Until,
    Wait,
    as_json,
)

WEEK = 7 * 24 * 60
OWN_CLOCK = "own_clock"
"""The delay of a broadcast that goes out by each user's own clock."""


def ways(journey: Journey) -> dict[str, dict[str, str | None]]:
    """Return where each step leads, by what it is called in the file: `next`, `then`, `otherwise`, or an arm.

    None is the end.
    """
    names = [step.name for step in journey.steps]
    following: dict[str, str | None] = dict(zip(names, [*names[1:], None], strict=True))

    def target(step: AnyStep, named: str | None) -> str | None:
        return following[step.name] if named is None else None if named == END else named

    return {step.name: {way: target(step, named) for way, named in _named_ways(step)} for step in journey.steps}


def _named_ways(step: AnyStep) -> Iterator[tuple[str, str | None]]:
    match step:
        case OneWay():
            yield "next", step.next
        case Branch(arms=list(arms)):
            yield from ((f"arm {nth}", arm.then) for nth, arm in enumerate(arms, start=1))
            yield "otherwise", step.otherwise
        case Asked() | Delay():
            yield from (("then", step.then), ("otherwise", step.otherwise))
        case Split():
            yield from ((f"arm {name}", part.then) for name, part in sorted(step.arms.items()))
        case Quit():
            return


def plan(journey: Journey) -> list[dict[str, Any]]:
    """Return a row of `journeys.steps` for each step; fields that a kind of step lacks are null."""
    leads = ways(journey)
    return [
        {
            "position": position,
            "step": step.name,
            "kind": kind_of(step),
            "next": leads[step.name].get("next", leads[step.name].get("then")),
            "otherwise": leads[step.name].get("otherwise"),
            "after": step.after if isinstance(step, Message) else None,
            "wait": step.wait if isinstance(step, Message) else step.length if isinstance(step, Delay) else None,
            "within": step.within if isinstance(step, Wait) else None,
            "any_of": step.events if isinstance(step, Wait) else None,
            "of_steps": sorted({asked.of_step for asked in questions_of(step) if asked.of_step is not None}),
            "late": (step.late or journey.late) if isinstance(step, Message) else None,
            "variants": variant_ranges(step),
            "arms": _arms(journey, step, leads[step.name]),
            "asks": asks(journey, step) if isinstance(step, Wait) else None,
            "definition": _definition(journey, step),
        }
        for position, step in enumerate(journey.steps)
    ]


def stored(journey: Journey) -> dict[str, Any]:
    """Return the definition as SQL reads it: goal and exits are questions, as those of steps are."""
    goal = {**msgspec.to_builtins(journey.goal), "keyed_by": journey.keyed_by}
    exits = [{**asks(journey, rule), "reason": rule.reason} for rule in journey.exits]
    return {
        **as_json(journey),
        "goal": {key: value for key, value in goal.items() if value is not None},
        "exits": exits,
    }


def by_own_clock(journey: Journey) -> Journey:
    """Return a broadcast that goes out by each user's own clock with the delay that sees to it."""
    if not isinstance(journey, Broadcast) or not journey.is_local:
        return journey
    first = journey.steps[0].name
    delay = Delay(name=OWN_CLOCK, until=Until(date=journey.at), then=first, otherwise=first)
    return msgspec.structs.replace(journey, steps=[delay, *journey.steps])


def limits(journey: Journey) -> dict[str, Any] | None:
    """Return a row of `journeys.limits`; None for a journey without limits."""
    if journey.rate is None and journey.pause_when is None:
        return None
    most, _, unit = (journey.rate or "  ").split(" ")
    shares = {name: getattr(journey.pause_when, name, None) for name in ("failed", "bounced", "complained")}
    pauses = {name: float(share.rstrip(" %")) / 100 for name, share in shares.items() if share is not None}
    if journey.pause_when is not None:
        pauses["of_at_least"] = journey.pause_when.of_at_least
    return {"most": int(most) if most else None, "per": f"1 {unit}" if unit else None, "pauses": pauses or None}


def kind_of(step: AnyStep) -> str:
    """Return what a step does, as its `do` says."""
    return str(step.__struct_config__.tag)


def questions_of(step: AnyStep) -> list[Question]:
    """Return the questions that a step asks."""
    if isinstance(step, Branch) and step.arms is not None:
        return list(step.arms)
    return [step] if isinstance(step, Asked) else []


def asks(journey: Journey, question: Question) -> dict[str, Any]:
    """Return a question as SQL reads it (`journeys.answers`): messages that were opened are events, too."""
    features = question.features
    if isinstance(question, Branch) and question.feature is not None:
        tests = {name: getattr(question, name) for name in ("equals", "at_least", "at_most")}
        features = {question.feature: {name: value for name, value in tests.items() if value is not None}}
    return {
        "any_of": question.events or None,
        "of_step": question.of_step,
        "where": question.where,
        "context": question.context,
        "keyed_by": journey.keyed_by,
        "segment": question.segment,
        "user": question.user,
        "features": features,
        "event": question.event,
    }


def _arms(journey: Journey, step: AnyStep, leads: dict[str, str | None]) -> list[dict[str, Any]] | None:
    """Return the ways of a branch, each with its question, or of a split, each with its half-open range of buckets."""
    match step:
        case Branch(arms=list(arms)):
            return [{"to": leads[f"arm {nth}"], "asks": asks(journey, arm)} for nth, arm in enumerate(arms, start=1)]
        case Branch():
            return [{"to": leads["then"], "asks": asks(journey, step)}]
        case Split():
            return [{"to": leads[f"arm {part['variant']}"], **part} for part in ranges(step.arms)]
    return None


def _definition(journey: Journey, step: AnyStep) -> dict[str, Any]:
    """Return a step as it is declared, with the hours at which its message may go."""
    definition: dict[str, Any] = msgspec.to_builtins(step)
    if isinstance(step, Sent):
        definition["transactional"] = is_transactional(journey, step)
        definition["topic"] = topic_of(journey, step)
        if isinstance(step, Email):
            definition["from"] = step.sender or journey.sender
            definition["reply_to"] = step.reply_to or journey.reply_to
        for name in ("send_window", "quiet_hours"):
            is_free = step.at_any_hour or definition["transactional"]
            hours = None if is_free else getattr(step, name) or getattr(journey, name)
            definition[name] = msgspec.to_builtins(hours)
        definition["out_of_hours"] = step.out_of_hours or journey.out_of_hours or "shift"
    return definition


def is_transactional(journey: Journey, step: Sent) -> bool:
    """Whether a message is one that users expect whatever they unsubscribed from, such as a receipt."""
    return journey.transactional if step.transactional is None else step.transactional


def topic_of(journey: Journey, step: Sent) -> str | None:
    """Return the topic of a step's message; a transactional one has none."""
    return None if is_transactional(journey, step) else step.topic or journey.topic


def variant_ranges(step: AnyStep) -> list[dict[str, Any]] | None:
    """Return each copy variant's half-open range of buckets; None where the step has one copy alone."""
    return ranges(step.variants) if isinstance(step, Email | Cta) and step.variants else None


def ranges(weights: Any) -> list[dict[str, Any]]:
    """Return the half-open range of buckets of each of these, by name; their weights are per cents."""
    found: list[dict[str, Any]] = []
    low = 0
    # Sorted by name, because the database does not keep the order in the file.
    for name, weighted in sorted(weights.items()):
        found.append({"variant": name, "low": low / 100, "high": (low + weighted.weight) / 100})
        low += weighted.weight
    return found


def longest(journey: Journey) -> int:
    """Return the longest duration of an entry in minutes: the last offset plus all waits and delays.

    A delay until a date can take any time: then at least as long as the goal can be reached.
    """
    offsets = [minutes(step.after) for step in journey.steps if isinstance(step, Message) and step.after]
    waits = [minutes(step.wait) for step in journey.steps if isinstance(step, Message) and step.wait]
    limits = [minutes(step.within) for step in journey.steps if isinstance(step, Wait)]
    delays = [step for step in journey.steps if isinstance(step, Delay)]
    lengths = [minutes(step.length) if step.length else WEEK for step in delays]
    total = max(offsets, default=0) + sum(waits) + sum(limits) + sum(lengths)
    is_open_ended = any(step.until is not None and step.until.is_date for step in delays)
    return max(total, minutes(journey.goal.within)) if is_open_ended else total


def listens_to(journey: Journey) -> set[str]:
    """Return the events that start a dispatch by themselves: those that users enter by or that a step waits for."""
    waited_for = {name for step in journey.steps if isinstance(step, Wait) for name in step.events}
    return waited_for | set(journey.event.any_of if journey.event is not None else [])


def follows_segments(journey: Journey) -> set[str]:
    """Return the segments whose changes move users: those that let people in, and that a wait or an end asks about."""
    waits = [step.segment for step in journey.steps if isinstance(step, Wait)]
    named = [journey.segment, journey.goal.segment, *(rule.segment for rule in journey.exits), *waits]
    return {segment for segment in named if segment is not None}


def starts(journey: Journey) -> set[str]:
    """Return the journeys that this one starts."""
    return {step.journey for step in journey.steps if isinstance(step, StartJourney)}
