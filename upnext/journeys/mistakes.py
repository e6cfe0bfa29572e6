"""What makes a journey impossible, or different from its author's intent. Pure."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from upnext.conditions import Conditions, find_misfits, paths_of
from upnext.declarations import PROGRAMME, Keys, Problem, markup, segment_of_users, unknown
from upnext.durations import minutes
from upnext.errors import nearest
from upnext.journeys.copy.emails import check_address, check_sender
from upnext.journeys.copy.message import CannotRenderError
from upnext.journeys.copy.templates import languages
from upnext.journeys.definition import (
    END,
    AnyStep,
    Asked,
    Audience,
    Branch,
    Broadcast,
    Cta,
    Delay,
    Email,
    EmailVariant,
    Goal,
    Hours,
    Journey,
    Message,
    Question,
    SendWindow,
    Sent,
    Split,
    StartJourney,
    Track,
    Wait,
    Webhook,
)
from upnext.journeys.plan import OWN_CLOCK, is_transactional, longest, starts, ways
from upnext.warehouse.relations import taken_names


@dataclass(frozen=True)
class Names:
    """What a journey may name: for the nearest match of what it names wrongly.

    `segments` has the unit of each, `features` the type, `slots` the surfaces. `broadcasts` are among `journeys`;
    `started` are those that others start.
    """

    segments: Mapping[str, str]
    events: Collection[str]
    features: Mapping[str, str | None]
    templates: Collection[str]
    endpoints: Collection[str]
    slots: Mapping[str, Collection[str]]
    journeys: Collection[str]
    broadcasts: Collection[str]
    started: Collection[str]
    topics: Collection[str]


def find_mistakes(name: str, journey: Journey, known: Names) -> Iterator[Problem]:
    """Yield the mistakes of a journey, by the keys of their place in its file."""
    if name in taken_names("journeys"):
        yield Problem([], f"'{name}' is the name of a table; choose another")
    if name == PROGRAMME:
        yield Problem([], f"'{name}' is the experiment over all journeys and experiences; choose another name")
    yield from _mistakes_of_entry(name, journey, known)
    yield from _mistakes_of_ends(journey, known)
    if journey.starts_on is not None and journey.ends_on is not None and journey.starts_on >= journey.ends_on:
        yield Problem(["ends_on"], f"ends on {journey.ends_on}, before it starts on {journey.starts_on}")
    yield from _mistakes_of_addresses(journey)
    yield from unknown(["topic"], "topic", filter(None, [journey.topic]), known.topics)
    if journey.transactional and journey.topic is not None:
        yield Problem(["topic"], "transactional messages go to all, whatever topics they chose; leave one of them out")
    if journey.transactional and journey.holdout > 0:
        yield Problem(["holdout"], "a holdout would keep transactional messages from users who expect them; make it 0")
    if journey.takes_over and journey.exclusive_group is None:
        yield Problem(["takes_over"], "there is nothing to take over without an exclusive_group")
    if not _is_ever_open(journey.send_window, journey.quiet_hours):
        yield Problem(["quiet_hours"], "they leave no time to send anything")
    yield from _mistakes_of_names_of_steps(journey)
    for position, step in enumerate(journey.steps):
        yield from _within(["steps", position], _mistakes_of_step(journey, step, known))
    yield from _mistakes_of_ways(journey)


def _mistakes_of_names_of_steps(journey: Journey) -> Iterator[Problem]:
    names = [step.name for step in journey.steps]
    for position, name in enumerate(names):
        if name == END:
            yield Problem(["steps", position, "name"], f"'{END}' is where a journey ends, and no name of a step")
        if names.index(name) < position:
            yield Problem(["steps", position, "name"], f"two steps are called '{name}'")
    for position, step in enumerate(journey.steps):
        for keys, target in _named_targets(step):
            if target not in (*names, END):
                mistake = f"no step is called '{target}'{nearest(target, [*names, END])}"
                yield Problem(["steps", position, *keys], mistake)


def find_mistakes_of_broadcast(broadcast: Broadcast, journeys: Collection[str], name: str) -> Iterator[Problem]:
    """Yield the mistakes that only a broadcast can have; the others are those of a journey."""
    if name in journeys:
        yield Problem([], f"a journey is called '{name}', too; choose another name")
    if any(step.name == OWN_CLOCK for step in broadcast.steps):
        yield Problem(["steps"], f"'{OWN_CLOCK}' is the name of what waits for a user's clock; choose another")
    for key in ("event", "keyed_by", "exit_on_leaving", "starts_on", "ends_on"):
        if getattr(broadcast, key):
            yield Problem([key], f"{key} goes with a journey; a broadcast goes to the members of its segment, once")


def find_circle(journeys: Mapping[str, Journey]) -> tuple[str, str] | None:
    """Return a journey that starts itself by way of others, and the one that it starts first; None without such.

    A `track` step starts each journey that its event lets people into, if no condition stands before it and no time
    passes: then each tick would bring the next one.
    """
    at_once = {name: journey for name, journey in journeys.items() if not longest(journey)}
    return _circle({name: starts(journey) for name, journey in journeys.items()}) or _circle(
        {name: (starts(journey) & at_once.keys()) | _let_in(journey, at_once) for name, journey in at_once.items()}
    )


def _circle(started: Mapping[str, set[str]]) -> tuple[str, str] | None:
    for name in started:
        for first in sorted(started[name]):
            seen, found = {first}, [first]
            while found:
                further = started[found.pop()] - seen
                seen |= further
                found.extend(further)
            if name in seen:
                return name, first
    return None


def _let_in(journey: Journey, others: Mapping[str, Journey]) -> set[str]:
    """Return the journeys that events of this one let people into, whoever they are."""
    tracked = {step.event for step in journey.steps if isinstance(step, Track)}
    return {
        name
        for name, other in others.items()
        if other.event is not None
        and other.reentry == "always"
        and other.audience is None
        and not other.event.where
        and not other.event.context
        and tracked.intersection(other.event.any_of)
    }


def _within(place: Keys, problems: Iterable[Problem]) -> Iterator[Problem]:
    """Yield the problems of a part as those of its journey."""
    return (Problem([*place, *keys], text) for keys, text in problems if not isinstance(keys, int))


def _named_targets(step: AnyStep) -> Iterator[tuple[Keys, str]]:
    for key in ("next", "then", "otherwise"):
        if (target := getattr(step, key, None)) is not None:
            yield [key], target
    if isinstance(step, Branch):
        for nth, arm in enumerate(step.arms or []):
            yield ["arms", nth, "then"], arm.then
    if isinstance(step, Split):
        for name, part in step.arms.items():
            yield ["arms", name, "then"], part.then


def _mistakes_of_entry(name: str, journey: Journey, known: Names) -> Iterator[Problem]:
    if journey.segment is not None and journey.event is not None:
        yield Problem([], "exactly one of segment and event lets people in")
    if journey.segment is None and journey.event is None and name not in known.started:
        yield Problem([], "exactly one of segment and event lets people in; no other journey starts this one")
    if journey.segment is not None:
        yield from segment_of_users(["segment"], journey.segment, known.segments)
        if journey.existing_members is None:
            yield Problem(["segment"], "existing_members is missing: `enroll` or `ignore` the present members")
    elif journey.existing_members is not None:
        yield Problem(["existing_members"], "an event has no members; leave it out")
    elif journey.exit_on_leaving:
        yield Problem(["exit_on_leaving"], "an event cannot be left; leave it out")
    if journey.keyed_by is not None and journey.event is None and name not in known.started:
        yield Problem(["keyed_by"], "keyed_by goes with an event that lets people in, or a journey that others start")
    if journey.event is not None:
        yield from unknown(["event", "any_of"], "event", journey.event.any_of, known.events)
    if journey.audience is not None:
        yield from _within(["audience"], _mistakes_of_names(journey.audience, known))


def _mistakes_of_ends(journey: Journey, known: Names) -> Iterator[Problem]:
    yield from _within(["goal"], _mistakes_of_names(journey.goal, known))
    if minutes(journey.goal.within) == 0:
        yield Problem(["goal", "within"], "nothing can be reached within no time")
    for nth, rule in enumerate(journey.exits):
        place: Keys = ["exits", nth]
        if not rule.asked:
            yield Problem(place, "an exit names what ends the journey: any_of, segment, features or user")
        yield from _within(place, _mistakes_of_question(journey, rule, known))


def _mistakes_of_names(asked: Question | Goal | Audience, known: Names) -> Iterator[Problem]:
    yield from unknown(["any_of"], "event", getattr(asked, "any_of", None) or [], known.events)
    if asked.segment is not None:
        yield from segment_of_users(["segment"], asked.segment, known.segments)
    yield from _mistakes_of_features(["features"], asked.features or {}, known)


def _mistakes_of_features(keys: Keys, conditions: Conditions, known: Names) -> Iterator[Problem]:
    for path in paths_of(conditions):
        yield from unknown(keys, "feature", [path.partition(".")[0]], known.features)
    for misfit in find_misfits(conditions, known.features):
        yield Problem(keys, misfit)


def _mistakes_of_question(journey: Journey, question: Question, known: Names) -> Iterator[Problem]:
    yield from _mistakes_of_names(question, known)
    if question.of_step is not None:
        mails = [step.name for step in journey.steps if isinstance(step, Email)]
        key = "opened" if question.opened is not None else "clicked"
        yield from unknown([key], "email step", [question.of_step], mails)
    if question.event is not None and journey.event is None:
        yield Problem(["event"], "no event lets people in here; leave it out")


def _mistakes_of_step(journey: Journey, step: AnyStep, known: Names) -> Iterator[Problem]:
    if isinstance(step, Message) and (step.after is None) == (step.wait is None):
        yield Problem([], "exactly one of after (from entry) and wait (from the step before) says when")
    if isinstance(step, Sent):
        yield from _mistakes_of_sending(journey, step, known)
    match step:
        case Email():
            yield from _mistakes_of_email(step, known)
        case Cta():
            yield from _mistakes_of_cta(step, known)
        case Webhook():
            yield from unknown(["endpoint"], "endpoint", [step.endpoint], known.endpoints)
        case Track():
            yield from unknown(["event"], "event", [step.event], known.events)
        case StartJourney():
            yield from unknown(["journey"], "journey", [step.journey], known.journeys)
            if step.journey in known.broadcasts:
                yield Problem(["journey"], f"'{step.journey}' is a broadcast, which goes out at its own time alone")
        case Split():
            yield from _mistakes_of_weights("arms", step.arms)
        case Delay():
            yield from _mistakes_of_delay(journey, step, known)
        case Asked():
            yield from _mistakes_of_asking(journey, step, known)


def _mistakes_of_cta(step: Cta, known: Names) -> Iterator[Problem]:
    yield from unknown(["slot"], "slot", [step.slot], known.slots)
    surfaces = known.slots.get(step.slot, [step.surface])
    if step.surface not in surfaces:
        yield Problem(["surface"], f"slot '{step.slot}' is on {' and '.join(surfaces)}, not on {step.surface}")
    yield from markup(["copy"], step.copy)
    for name, offered in step.variants.items():
        yield from markup(["variants", name, "copy"], offered.copy or "")
    yield from _mistakes_of_weights("variants", step.variants)


def _mistakes_of_email(step: Email, known: Names) -> Iterator[Problem]:
    yield from _mistakes_of_addresses(step)
    yield from _mistakes_of_texts([], step)
    yield from unknown(["template"], "template", [step.template], known.templates)
    for name, variant in step.variants.items():
        yield from _mistakes_of_texts(["variants", name], variant)
        keys: Keys = ["variants", name, "template"]
        yield from unknown(keys, "template", filter(None, [variant.template]), known.templates)
    yield from _mistakes_of_weights("variants", step.variants)


def _mistakes_of_texts(keys: Keys, copy: Email | EmailVariant) -> Iterator[Problem]:
    for key in ("subject", "preheader"):
        texts = getattr(copy, key)
        if isinstance(texts, dict) and "default" not in texts:
            yield Problem([*keys, key], "no text is the `default`, which users of all other languages get")
        for language in texts if isinstance(texts, dict) else ():
            if language != "default" and languages(language)[:1] != [language]:
                yield Problem([*keys, key, language], f"'{language}' is no language such as de or pt-br")


def _mistakes_of_addresses(stated: Journey | Email) -> Iterator[Problem]:
    try:
        if stated.sender is not None:
            key = "from"
            check_sender(stated.sender)
        if stated.reply_to is not None:
            key = "reply_to"
            check_address(stated.reply_to)
        for address in stated.cc if isinstance(stated, Email) else ():
            key = "cc"
            check_address(address)
    except CannotRenderError as error:
        yield Problem([key], str(error))


def _mistakes_of_weights(key: str, weighted: Mapping[str, Any]) -> Iterator[Problem]:
    if key == "arms" and len(weighted) < 2:
        yield Problem([key], "a split of one way is none; name two ways or more")
    total = sum(one.weight for one in weighted.values())
    if weighted and total != 100:
        yield Problem([key], f"the weights add up to {total}; they are per cents and must add up to 100")


def _mistakes_of_sending(journey: Journey, step: Sent, known: Names) -> Iterator[Problem]:
    yield from unknown(["topic"], "topic", filter(None, [step.topic]), known.topics)
    if step.topic is not None and is_transactional(journey, step):
        yield Problem(["topic"], "transactional messages go to all, whatever topics they chose; leave one of them out")
    if step.at_any_hour and (step.send_window is not None or step.quiet_hours is not None):
        yield Problem(["at_any_hour"], "it goes at any hour, or has a send_window or quiet_hours; leave one out")
    window, quiet = step.send_window or journey.send_window, step.quiet_hours or journey.quiet_hours
    if not step.at_any_hour and not _is_ever_open(window, quiet):
        key = "send_window" if step.quiet_hours is None else "quiet_hours"
        yield Problem([key] if getattr(step, key) is not None else [], "they leave no time to send anything")


def _mistakes_of_delay(journey: Journey, step: Delay, known: Names) -> Iterator[Problem]:
    if (step.length is None) == (step.until is None):
        yield Problem([], "exactly one of for (a length of time) and until says how long")
    is_date = step.until is not None and step.until.is_date
    if step.until is not None and is_date:
        if step.until.event is not None and journey.event is None:
            yield Problem(["until", "event"], "no event lets people in here; use user or feature")
        feature = step.until.feature
        yield from unknown(["until", "feature"], "feature", filter(None, [feature]), known.features)
        if feature is not None and known.features.get(feature) in ("number", "boolean"):
            yield Problem(["until", "feature"], f"'{feature}' is a {known.features[feature]}, and no date")
        if step.otherwise is None:
            yield Problem(["until"], "a user may lack this date, or it has passed: `otherwise` says where that leads")
    if not is_date and step.otherwise is not None:
        yield Problem(["otherwise"], "this delay always ends; otherwise goes with a date of user, event or feature")


def _mistakes_of_asking(journey: Journey, step: Asked, known: Names) -> Iterator[Problem]:
    yield from _mistakes_of_question(journey, step, known)
    if isinstance(step, Wait):
        if len(step.asked) != 1 or step.event is not None:
            yield Problem([], "a wait asks for one of any_of, opened, clicked, segment, user, features")
        if minutes(step.within) == 0:
            yield Problem(["within"], "a wait of no time is none")
    if isinstance(step, Branch):
        tests = [value for value in (step.equals, step.at_least, step.at_most) if value is not None]
        if len(tests) != (step.feature is not None):
            yield Problem([], "feature goes with one of equals, at_least, at_most; for more, use features")
        if step.feature is not None:
            yield from _mistakes_of_features(["feature"], {step.feature: _test_of(step)}, known)
        own = bool(step.asked) or step.feature is not None
        if own == (step.arms is not None):
            yield Problem(
                [],
                "a branch asks for one of any_of, opened, clicked, or for segment, user, features or event; or it has"
                " arms that do",
            )
        if step.feature is not None and step.features is not None:
            yield Problem(["feature"], "feature is short for features; leave one of them out")
        if step.arms is not None and step.then is not None:
            yield Problem(["then"], "each arm has its own `then`; leave this one out")
        for nth, arm in enumerate(step.arms or []):
            if not arm.asked:
                yield Problem(["arms", nth], "an arm that asks for nothing; `otherwise` is for all others")
            yield from _within(["arms", nth], _mistakes_of_question(journey, arm, known))


def _test_of(branch: Branch) -> dict[str, Any]:
    tests = {"equals": branch.equals, "at_least": branch.at_least, "at_most": branch.at_most}
    return {name: value for name, value in tests.items() if value is not None}


def _mistakes_of_ways(journey: Journey) -> Iterator[Problem]:
    """Yield unreachable steps, decreasing offsets, and cycles without a wait."""
    leads = ways(journey)
    steps = {step.name: step for step in journey.steps}
    reached, found = {journey.steps[0].name}, [journey.steps[0].name]
    while found:
        targets = [target for target in leads[found.pop()].values() if target in steps and target not in reached]
        reached.update(targets)
        found.extend(targets)
    for position, (name, step) in enumerate(steps.items()):
        if name not in reached:
            yield Problem(["steps", position], f"no way leads to step '{name}'")
        following = steps.get(leads[name].get("next") or "")
        if (
            isinstance(step, Message)
            and isinstance(following, Message)
            and list(steps).index(following.name) > position
            and minutes(following.after or "9999 days") < minutes(step.after or "0 days")
        ):
            yield Problem(
                ["steps", position + 1],
                f"comes before '{name}', which leads to it: steps stand in order of their time",
            )
    circle = _circle_without_time(steps, leads)
    if circle is not None:
        position = list(steps).index(circle)
        yield Problem(
            ["steps", position], f"step '{circle}' leads back to itself and takes no time: add a wait on the way"
        )


def _circle_without_time(steps: dict[str, AnyStep], leads: dict[str, dict[str, str | None]]) -> str | None:
    """Return a step of a cycle in which no step waits; None without such a cycle."""

    def takes_time(step: AnyStep) -> bool:
        match step:
            case Delay():
                # A date may have passed.
                return minutes(step.length or "0 days") > 0 or (step.until is not None and not step.until.is_date)
            case Message():
                return minutes(step.wait or "0 days") > 0
        # What a wait for a segment or a feature asks may be so already.
        return isinstance(step, Wait) and bool(step.events)

    instant = {
        name: [other for other in targets.values() if other in steps and not takes_time(steps[other])]
        for name, targets in leads.items()
    }
    for start in instant:
        seen: set[str] = set()
        found = [start]
        while found:
            for other in instant[found.pop()]:
                if other == start:
                    return start
                if other not in seen:
                    seen.add(other)
                    found.append(other)
    return None


def _is_ever_open(send_window: SendWindow | None, quiet_hours: Hours | None) -> bool:
    """Whether there is a minute of the day in the send window and out of the quiet hours."""
    if quiet_hours is None:
        return True
    window = send_window or SendWindow(start="00:00", end="00:00")
    starts = [_minute(window.start), _minute(quiet_hours.end)]
    return any(_is_within(minute, window) and not _is_within(minute, quiet_hours) for minute in starts)


def _minute(clock: str) -> int:
    return int(clock[:2]) * 60 + int(clock[3:])


def _is_within(minute: int, hours: Hours) -> bool:
    start, end = _minute(hours.start), _minute(hours.end)
    return start <= minute < end if start < end else minute >= start or minute < end
