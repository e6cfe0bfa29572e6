"""The definition of a journey: its YAML, checked, and the plan of steps that the dispatch follows. Pure."""

import hashlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec

from upnext.conditions import Conditions, Path, check_conditions
from upnext.declarations import Declaration, Keys, Link, Name, Problem, Share, markup, unknown
from upnext.durations import Duration, minutes
from upnext.errors import nearest
from upnext.wording import worded

RESERVED = frozenset({"definitions", "entries", "messages", "suppressions", "steps", "pauses", "links", "endpoints"})
END = "end"
MESSAGES = ("email", "webhook", "cta")
DAYS: tuple["Day", ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]

Clock = Annotated[str, worded(r"^([01]\d|2[0-3]):[0-5]\d$", 'a time of day in quotes, such as "08:30"')]
"""A time of day such as `08:30`, by the user's own clock."""

Events = Annotated[list[str], msgspec.Meta(min_length=1)]
Late = Literal["send", "skip", "shift"]


class Entry(Declaration, frozen=True):
    """A user enters on any of these events, under conditions. `example` are properties to check the copy with."""

    any_of: Events
    where: Conditions | None = None
    context: Conditions | None = None
    example: dict[str, Any] = {}

    def __post_init__(self) -> None:
        check_conditions(self.where, may_be_relative=False)
        check_conditions(self.context, "context", may_be_relative=False)


class Goal(Declaration, frozen=True, kw_only=True):
    """The goal of the journey: any of these events, within a time after entry; reaching it may end the journey."""

    any_of: Events
    within: Duration
    then: Literal["exit", "continue"] = "exit"


class Reentry(Declaration, frozen=True):
    """A user may enter again so long after the last entry."""

    after: Duration


class Hours(Declaration, frozen=True):
    """A part of each day by the user's own clock; it may go over midnight. `days` are those on which it begins."""

    start: Clock = msgspec.field(name="from")
    end: Clock = msgspec.field(name="to")


class SendWindow(Hours, frozen=True, kw_only=True):
    """When messages may be sent: a part of these days."""

    days: Annotated[list[Day], msgspec.Meta(min_length=1)] = msgspec.field(default_factory=lambda: list(DAYS))


class Variant(Declaration, frozen=True, kw_only=True):
    """Copy in place of the step's own, for `weight` per cent of the users."""

    weight: Annotated[int, msgspec.Meta(gt=0, le=100)]


class EmailVariant(Variant, frozen=True, kw_only=True):
    """Another subject, or another template."""

    subject: str | None = None
    template: Name | None = None


class CtaVariant(Variant, frozen=True, kw_only=True):
    """Another text, or another link."""

    copy: str | None = None
    url: Link | None = None


class Message(Declaration, frozen=True, kw_only=True):
    """A step that reaches out: so long after entry (`after`), or after the step was reached (`wait`)."""

    name: Name
    after: Duration | None = None
    wait: Duration | None = None
    late: Late | None = None
    next: Name | None = None


class Email(Message, frozen=True, kw_only=True, tag_field="do", tag="email"):
    """A step that sends an email; `template` names `templates/<template>.txt` and `.mjml`."""

    subject: str
    template: Name
    variants: dict[Name, EmailVariant] = {}


class Cta(Message, frozen=True, kw_only=True, tag_field="do", tag="cta"):
    """A step that puts an offer before the user, in a slot, for a time."""

    surface: Literal["web", "in_app"]
    slot: Name
    copy: Annotated[str, msgspec.Meta(min_length=1)]
    url: Link
    lasts: Duration
    variants: dict[Name, CtaVariant] = {}


class Webhook(Message, frozen=True, kw_only=True, tag_field="do", tag="webhook"):
    """A step that calls an endpoint of the policy; `data` are templates, rendered to texts."""

    endpoint: Name
    data: dict[str, str] = {}


class Asked(Declaration, frozen=True, kw_only=True):
    """The condition of a step: any of these events, or that the message of a named step was opened, or clicked."""

    any_of: Events | None = None
    opened: Name | None = None
    clicked: Name | None = None
    where: Conditions | None = None
    context: Conditions | None = None

    def __post_init__(self) -> None:
        check_conditions(self.where, may_be_relative=False)
        check_conditions(self.context, "context", may_be_relative=False)
        if self.any_of is None and (self.where is not None or self.context is not None):
            raise ValueError("where and context go with any_of")

    @property
    def events(self) -> list[str]:
        """The events that can answer."""
        reactions = [f"message {name}" for name in ("opened", "clicked") if getattr(self, name) is not None]
        return [*(self.any_of or []), *reactions]

    @property
    def of_step(self) -> str | None:
        """The step whose message has to be opened or clicked."""
        return self.opened or self.clicked


class Wait(Asked, frozen=True, kw_only=True, tag_field="do", tag="wait"):
    """A step that waits for its condition, at most `within`."""

    name: Name
    within: Duration
    then: Name | None = None
    otherwise: Name | None = None


class Branch(Asked, frozen=True, kw_only=True, tag_field="do", tag="branch"):
    """A step that chooses the next step: by a feature, or by whether its condition was met since entry."""

    name: Name
    then: Name | None = None
    otherwise: Name | None = None
    feature: Name | None = None
    equals: bool | int | float | str | None = None
    at_least: float | None = None
    at_most: float | None = None


Step = Email | Cta | Webhook | Wait | Branch


class Journey(Declaration, frozen=True, kw_only=True):
    """One file of `campaigns/journeys/*.yml`; the file's name is the journey's."""

    description: str
    owner: str
    segment: Name | None = None
    event: Entry | None = None
    keyed_by: Path | None = None
    """The property of the event that tells runs apart: a user has one run for each value, several at once."""
    existing_members: Literal["enroll", "ignore"] | None = None
    reentry: Literal["never", "always"] | Reentry
    exit_on_leaving: bool = False
    goal: Goal
    holdout: Share
    exclusive_group: Name | None = None
    priority: int = 0
    takes_over: bool = False
    send_window: SendWindow | None = None
    quiet_hours: Hours | None = None
    late: Late = "skip"
    steps: Annotated[list[Step], msgspec.Meta(min_length=1)]


@dataclass(frozen=True)
class Names:
    """What a journey may name: for the nearest match of what it names wrongly."""

    segments: Collection[str]
    events: Collection[str]
    features: Collection[str]
    templates: Collection[str]
    endpoints: Collection[str]
    slots: Collection[str]


def as_json(journey: Journey) -> dict[str, Any]:
    """Return the definition as plain JSON values, as SQL reads it."""
    value: dict[str, Any] = msgspec.to_builtins(journey)
    return value


def version(journey: Journey) -> str:
    """Return the version of a definition: the same content has the same version."""
    return hashlib.sha256(msgspec.json.encode(as_json(journey), order="sorted")).hexdigest()[:12]


def ways(journey: Journey) -> dict[str, dict[str, str | None]]:
    """Return where each step leads: `next`, and `otherwise` for waits and branches; None is the end."""
    following = dict(
        zip([step.name for step in journey.steps], [step.name for step in journey.steps[1:]], strict=False)
    )

    def target(step: Step, named: str | None) -> str | None:
        return following.get(step.name) if named is None else None if named == END else named

    return {
        step.name: {"next": target(step, step.then), "otherwise": target(step, step.otherwise)}
        if isinstance(step, Wait | Branch)
        else {"next": target(step, step.next)}
        for step in journey.steps
    }


def plan(journey: Journey) -> list[dict[str, Any]]:
    """Return a row of `journeys.steps` for each step; fields that a kind of step lacks are null."""
    leads = ways(journey)
    rows = []
    for position, step in enumerate(journey.steps):
        definition = msgspec.to_builtins(step)
        if isinstance(step, Asked):
            definition["keyed_by"] = journey.keyed_by
        rows.append(
            {
                "position": position,
                "step": step.name,
                "kind": definition["do"],
                "next": leads[step.name]["next"],
                "otherwise": leads[step.name].get("otherwise"),
                "after": definition.get("after"),
                "wait": definition.get("wait"),
                "within": definition.get("within"),
                "any_of": step.events if isinstance(step, Asked) else None,
                "of_step": step.of_step if isinstance(step, Asked) else None,
                "late": (definition["late"] or journey.late) if isinstance(step, Message) else None,
                "variants": variant_ranges(step),
                "definition": definition,
            }
        )
    return rows


def variant_ranges(step: Step) -> list[dict[str, Any]] | None:
    """Return each copy variant's half-open range of buckets; None where the step has one copy alone."""
    if not isinstance(step, Email | Cta) or not step.variants:
        return None
    ranges: list[dict[str, Any]] = []
    low = 0
    # Sorted by name, because the database does not keep the order in the file.
    for name, variant in sorted(step.variants.items()):
        ranges.append({"variant": name, "low": low / 100, "high": (low + variant.weight) / 100})
        low += variant.weight
    return ranges


def longest(journey: Journey) -> int:
    """Return the longest duration of an entry in minutes: the last offset plus all waits."""
    offsets = [minutes(step.after) for step in journey.steps if isinstance(step, Message) and step.after]
    waits = [minutes(step.wait) for step in journey.steps if isinstance(step, Message) and step.wait]
    limits = [minutes(step.within) for step in journey.steps if isinstance(step, Wait)]
    return max(offsets, default=0) + sum(waits) + sum(limits)


def listens_to(journey: Journey) -> set[str]:
    """Return the events that start a dispatch by themselves: those that users enter by or that a step waits for."""
    waited_for = {name for step in journey.steps if isinstance(step, Wait) for name in step.events}
    return waited_for | set(journey.event.any_of if journey.event is not None else [])


def find_mistakes(name: str, journey: Journey, known: Names) -> Iterator[Problem]:
    """Yield the mistakes that make a journey impossible, or different from its author's intent."""
    if name in RESERVED:
        yield Problem([], f"'{name}' is the name of a table; choose another")
    yield from _mistakes_of_entry(journey, known)
    yield from unknown(["goal", "any_of"], "event", journey.goal.any_of, known.events)
    if minutes(journey.goal.within) == 0:
        yield Problem(["goal", "within"], "nothing can be reached within no time")
    if journey.takes_over and journey.exclusive_group is None:
        yield Problem(["takes_over"], "there is nothing to take over without an exclusive_group")
    if not _is_ever_open(journey):
        yield Problem(["quiet_hours"], "they leave no time to send anything")
    names = [step.name for step in journey.steps]
    for position, step in enumerate(journey.steps):
        place: Keys = ["steps", position]
        if step.name == END:
            yield Problem([*place, "name"], f"'{END}' is where a journey ends, and no name of a step")
        if names.index(step.name) < position:
            yield Problem([*place, "name"], f"two steps are called '{step.name}'")
        for key in ("next", "then", "otherwise"):
            target = getattr(step, key, None)
            if target is not None and target not in (*names, END):
                yield Problem([*place, key], f"no step is called '{target}'{nearest(target, [*names, END])}")
        if isinstance(step, Asked) and step.of_step is not None:
            mails = [other.name for other in journey.steps if isinstance(other, Email)]
            key = "opened" if step.opened is not None else "clicked"
            yield from unknown([*place, key], "email step", [step.of_step], mails)
        yield from _within(place, _mistakes_of_step(step, known))
    yield from _mistakes_of_ways(journey)


def _within(place: Keys, problems: Iterable[Problem]) -> Iterator[Problem]:
    """Yield the problems of a step as those of its journey."""
    return (Problem([*place, *keys], text) for keys, text in problems if not isinstance(keys, int))


def _mistakes_of_entry(journey: Journey, known: Names) -> Iterator[Problem]:
    if (journey.segment is None) == (journey.event is None):
        yield Problem([], "exactly one of segment and event lets people in")
    if journey.segment is not None:
        yield from unknown(["segment"], "segment", [journey.segment], known.segments)
        if journey.existing_members is None:
            yield Problem(["segment"], "existing_members is missing: `enroll` or `ignore` the present members")
    if journey.keyed_by is not None and journey.event is None:
        yield Problem(["keyed_by"], "keyed_by goes with an event that lets people in")
    if journey.event is not None:
        yield from unknown(["event", "any_of"], "event", journey.event.any_of, known.events)
        if journey.existing_members is not None:
            yield Problem(["existing_members"], "an event has no members; leave it out")
        if journey.exit_on_leaving:
            yield Problem(["exit_on_leaving"], "an event cannot be left; leave it out")


def _mistakes_of_step(step: Step, known: Names) -> Iterator[Problem]:
    if isinstance(step, Message) and (step.after is None) == (step.wait is None):
        yield Problem([], "exactly one of after (from entry) and wait (from the step before) says when")
    if isinstance(step, Email):
        yield from unknown(["template"], "template", [step.template], known.templates)
        for name, variant in step.variants.items():
            keys: Keys = ["variants", name, "template"]
            yield from unknown(keys, "template", filter(None, [variant.template]), known.templates)
    if isinstance(step, Email | Cta) and step.variants:
        total = sum(variant.weight for variant in step.variants.values())
        if total != 100:
            yield Problem(["variants"], f"the weights add up to {total}; they are per cents and must add up to 100")
    if isinstance(step, Cta):
        yield from _mistakes_of_offer(step, known)
    if isinstance(step, Webhook):
        yield from unknown(["endpoint"], "endpoint", [step.endpoint], known.endpoints)
    if isinstance(step, Asked):
        yield from _mistakes_of_question(step, known)


def _mistakes_of_question(step: Asked, known: Names) -> Iterator[Problem]:
    asked = [value for value in (step.any_of, step.opened, step.clicked) if value is not None]
    yield from unknown(["any_of"], "event", step.any_of or [], known.events)
    if isinstance(step, Wait):
        if len(asked) != 1:
            yield Problem([], "a wait asks for one of any_of, opened, clicked")
        if minutes(step.within) == 0:
            yield Problem(["within"], "a wait of no time is none")
    if isinstance(step, Branch):
        tests = [value for value in (step.equals, step.at_least, step.at_most) if value is not None]
        if len(asked) + (step.feature is not None) != 1 or len(tests) != (step.feature is not None):
            yield Problem(
                [],
                "a branch asks for one of any_of, opened, clicked, or for one feature with one of equals, at_least,"
                " at_most",
            )
        if step.feature is not None:
            yield from unknown(["feature"], "feature", [step.feature], known.features)


def _mistakes_of_offer(offer: Cta, known: Names) -> Iterator[Problem]:
    yield from unknown(["slot"], "slot", [offer.slot], known.slots)
    yield from markup(["copy"], offer.copy)
    for name, variant in offer.variants.items():
        yield from markup(["variants", name, "copy"], variant.copy or "")


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
        following = steps.get(leads[name]["next"] or "")
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


def _circle_without_time(steps: dict[str, Step], leads: dict[str, dict[str, str | None]]) -> str | None:
    """Return a step of a cycle in which no step waits; None without such a cycle."""

    def takes_time(step: Step) -> bool:
        return isinstance(step, Wait) or (isinstance(step, Message) and minutes(step.wait or "0 days") > 0)

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


def _is_ever_open(journey: Journey) -> bool:
    """Whether there is a minute of the day in the send window and out of the quiet hours."""
    if journey.quiet_hours is None:
        return True
    window = journey.send_window or SendWindow(start="00:00", end="00:00")
    starts = [_minute(window.start), _minute(journey.quiet_hours.end)]
    return any(_is_within(minute, window) and not _is_within(minute, journey.quiet_hours) for minute in starts)


def _minute(clock: str) -> int:
    return int(clock[:2]) * 60 + int(clock[3:])


def _is_within(minute: int, hours: Hours) -> bool:
    start, end = _minute(hours.start), _minute(hours.end)
    return start <= minute < end if start < end else minute >= start or minute < end
